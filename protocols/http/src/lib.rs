//! HTTP/1.1 for Ropewalk: a server, a client, and the codecs under both.
//!
//! - A **server** is an [`HttpFactory`] on a listening port; it asks a [`Handler`] for a [`Reply`] to each
//!   [`Request`], now or later.
//! - A **client** is an [`Agent`], which asks whatever host a URL names, by name, over TLS, following redirects, and
//!   never where an [`AddressGuard`] forbids it; or an [`HttpClient`], which keeps connections to one host; or just [`request`].
//! - **Bodies** that arrive are [`IncomingBody`]: collected within a limit, or passed on to a
//!   [`Consumer`](ropewalk::Consumer) at its pace. Those that are sent are whole, or streams written to a [`BodyWriter`] at the
//!   reader's pace.
//! - [`StatusPages`] shows what a reactor is doing, to people and to Prometheus.
//! - The **codecs** [`ServerCodec`] and [`ClientCodec`] turn bytes into heads and pieces of bodies, whatever the pieces in
//!   which the bytes come, and refuse what two readers could understand differently ([`MessageError`]). They own no socket, read no
//!   clock and can be used without the rest.
//! - [`Limits`] bounds sizes, counts and times.
//!
//! ```
//! use std::rc::Rc;
//!
//! use http::{Method, StatusCode};
//! use ropewalk::{ListenOptions, Reactor};
//! use ropewalk_http::{ClientRequest, HttpFactory, Limits, Reply, Request, Response, request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let reactor = Reactor::new()?;
//! let handler = |request: Request| match request.head.path() {
//!     "/hello" => Reply::Now(Response::text(StatusCode::OK, "hello\n")),
//!     _ => Reply::Now(Response::new(StatusCode::NOT_FOUND)),
//! };
//! let factory = HttpFactory::new(&reactor, Rc::new(handler), Limits::default());
//! let any_port = "127.0.0.1:0".parse()?;
//! let listening = reactor.listen_tcp(any_port, Rc::new(factory), ListenOptions::default())?;
//!
//! let hello = ClientRequest::new(Method::GET, "localhost", "/hello")?;
//! let text = request(&reactor, listening.local_address(), hello)
//!     .add_callback(|response| response.body.collect(1024));
//! assert_eq!(reactor.run_until(text).unwrap(), "hello\n");
//! # Ok(())
//! # }
//! ```

mod agent;
mod body;
mod chunked;
mod client;
mod encode;
mod error;
mod framing;
mod head;
mod intake;
mod limits;
mod lines;
mod outgoing;
mod pace;
mod request;
mod response;
mod server;

pub use agent::{
    AddressGuard, Agent, AgentError, AgentOptions, AgentRequest, AgentResponse, FetchedResponse,
    IpNet, SystemRootsError, system_roots,
};
pub use body::{BodyError, IncomingBody};
pub use client::{ClientError, ClientOptions, ClientRequest, ClientResponse, HttpClient, request};
pub use encode::HeaderBlock;
pub use error::MessageError;
pub use framing::BodyLength;
pub use head::{RequestHead, ResponseHead};
pub use limits::{
    CHUNK_LINE_BYTES_MAX, HEAD_BYTES_CEILING, HEADER_COUNT_CEILING, Limits, METHOD_BYTES_MAX,
    TRAILER_BYTES_MAX,
};
pub use outgoing::BodyWriter;
pub use request::{RequestEvent, ServerCodec};
pub use response::{ClientCodec, ResponseEvent};
pub use server::{Handler, HttpFactory, Reply, Request, Response, StatusPages};

/// The body of a request; another name for [`IncomingBody`].
pub type RequestBody = IncomingBody;

/// The code in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
