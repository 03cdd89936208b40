//! Transports as the streams and sinks that the `futures` crates know, so that codecs written for those
//! work here.
//!
//! | you have | you get |
//! | --- | --- |
//! | a connection and code that wants `AsyncRead` and `AsyncWrite` | [`AsyncTransport`] |
//! | a connection and code that wants a `Stream` and a `Sink` of [`Bytes`](bytes::Bytes) | [`ByteStream`] |
//! | a server whose connections are each an `async` function | [`factory`] |
//! | a future of whatever kind, whose result is wanted as a deferred | [`Reactor::spawn`] |
//! | a deferred, and code that wants a future | the [`Deferred`](crate::Deferred) itself |
//!
//! There is back-pressure both ways. While nobody reads, at most 128 KiB are taken from the peer, and
//! then it is slowed down; while the peer takes nothing, writing waits once more than 64 KiB are unsent.
//!
//! ```
//! use futures_util::{AsyncReadExt, AsyncWriteExt};
//! use ropewalk::adapters::{self, AsyncTransport};
//! use ropewalk::testing::{Clock, success_result_of};
//! use ropewalk::{Failure, ListenOptions, Reactor};
//!
//! async fn shout(mut stream: AsyncTransport) -> Result<(), Failure> {
//!     let mut text = String::new();
//!     stream.read_to_string(&mut text).await?;
//!     stream.write_all(text.to_uppercase().as_bytes()).await?;
//!     Ok(())
//! }
//!
//! async fn ask(reactor: Reactor, address: std::net::SocketAddr) -> Result<String, Failure> {
//!     let (mut stream, protocol) = AsyncTransport::new();
//!     reactor.connect_tcp(address, Box::new(protocol)).await?;
//!     stream.write_all(b"is anybody there?").await?;
//!     stream.close().await?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await?;
//!     Ok(answer)
//! }
//!
//! let clock = Clock::new();
//! let address = "127.0.0.1:7".parse().unwrap();
//! let server = adapters::factory(clock.reactor(), shout);
//! clock.reactor().listen_tcp(address, server, ListenOptions::default()).unwrap();
//! let answer = clock.reactor().spawn(ask(clock.reactor().clone(), address));
//! clock.pump();
//! assert_eq!(success_result_of(answer), "IS ANYBODY THERE?");
//! ```

mod byte_stream;
mod io;
mod wire;

use std::rc::Rc;

pub use self::byte_stream::ByteStream;
pub use self::io::AsyncTransport;
use crate::address::Address;
use crate::failure::Failure;
use crate::protocol::{Factory, Protocol};
use crate::reactor::Reactor;

/// Makes a factory that serves each connection with an `async` function.
///
/// The function runs as a task in the connection's log context. It gets the stream before the first byte
/// has arrived (over TLS, before the handshake is done: reading and writing wait for that). When it drops
/// the stream, what was written is sent and the connection closed.
///
/// A failure that is an [`io::Error`](std::io::Error) is nearly always the peer's doing, and is logged at
/// debug level; any other one is logged as an error.
pub fn factory<F>(
    reactor: &Reactor,
    serve: impl Fn(AsyncTransport) -> F + 'static,
) -> Rc<dyn Factory>
where
    F: Future<Output = Result<(), Failure>> + 'static,
{
    let reactor = reactor.clone();
    Rc::new(move |peer: &Address| -> Option<Box<dyn Protocol>> {
        let (stream, protocol) = AsyncTransport::new();
        let peer = peer.clone();
        reactor
            .spawn(serve(stream))
            .add_errback(move |failure| {
                let failure = failure.trap::<std::io::Error>()?;
                log::debug!("the connection from {peer} ended early: {failure:#}");
                Ok(())
            })
            .detach();
        Some(Box::new(protocol))
    })
}
