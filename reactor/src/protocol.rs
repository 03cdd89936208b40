//! What an application says to the reactor about its connections: [`Protocol`] and [`Factory`], and
//! what the reactor tells it about their end, [`ConnectionLost`].

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::transport::Transport;

/// One end of one connection: what to do with the bytes that arrive.
///
/// The reactor calls [`connection_made`](Protocol::connection_made) once, then
/// [`data_received`](Protocol::data_received) any number of times, then perhaps
/// [`read_connection_lost`](Protocol::read_connection_lost), and at last
/// [`connection_lost`](Protocol::connection_lost), once. The calls never nest: whatever a protocol
/// asks of its [`Transport`] inside one of them takes effect, but is *told* only after the call has
/// returned.
///
/// A protocol that panics is never called again except for `connection_lost`, and its connection is
/// aborted.
///
/// ```
/// use ropewalk::{Protocol, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
///         transport.write(data);
///     }
/// }
/// ```
pub trait Protocol {
    /// The connection stands; the transport may be written to and kept (it is a cheap clone).
    fn connection_made(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// Some bytes arrived. Where one piece ends and the next begins means nothing.
    ///
    /// The slice lies in a buffer that all connections share: copy what is to be kept.
    fn data_received(&mut self, transport: &Transport, data: &[u8]);

    /// The peer has passed a file descriptor, over a Unix socket.
    ///
    /// It comes before the bytes that it was sent with. Unless this is overridden, it is closed. A
    /// pause that is asked for here takes effect after those bytes.
    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) {
        let _ = (transport, descriptor);
    }

    /// The peer has finished sending but can still receive.
    ///
    /// Unless this is overridden, what was written goes out and the connection is closed.
    fn read_connection_lost(&mut self, transport: &Transport) {
        transport.lose_connection();
    }

    /// The connection is gone. Nothing is called on this protocol any more; it is dropped next.
    fn connection_lost(&mut self, reason: ConnectionLost) {
        let _ = reason;
    }
}

/// Shares a protocol with whoever keeps the other `Rc`, a test for instance.
///
/// Do not hold a borrow of it while the reactor turns.
impl<P: Protocol> Protocol for Rc<RefCell<P>> {
    fn connection_made(&mut self, transport: &Transport) {
        self.borrow_mut().connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.borrow_mut().data_received(transport, data);
    }

    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) {
        self.borrow_mut().file_descriptor_received(transport, descriptor);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.borrow_mut().read_connection_lost(transport);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.borrow_mut().connection_lost(reason);
    }
}

/// Makes a [`Protocol`] for each connection that a listening port accepts.
///
/// Any `Fn(&Address) -> Option<Box<dyn Protocol>>` is one.
pub trait Factory {
    /// Returns the protocol that will serve the connection from `peer`; `None` refuses it, and the
    /// connection is closed without a byte.
    fn build_protocol(&self, peer: &Address) -> Option<Box<dyn Protocol>>;
}

impl<F> Factory for F
where
    F: Fn(&Address) -> Option<Box<dyn Protocol>>,
{
    fn build_protocol(&self, peer: &Address) -> Option<Box<dyn Protocol>> {
        self(peer)
    }
}

/// Makes a factory of a function that makes a protocol for each peer.
///
/// To refuse some of them, implement [`Factory`], or give a function that returns an `Option` of a boxed protocol.
///
/// ```
/// use ropewalk::{Protocol, Transport, factory};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
///         transport.write(data);
///     }
/// }
///
/// let echo = factory(|_peer| Echo);
/// # let _ = echo;
/// ```
pub fn factory<P: Protocol + 'static>(build: impl Fn(&Address) -> P + 'static) -> Rc<dyn Factory> {
    Rc::new(move |peer: &Address| Some(Box::new(build(peer)) as Box<dyn Protocol>))
}

/// Why a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionLost {
    /// This side called [`Transport::abort_connection`].
    #[error("the connection was aborted by this side")]
    Aborted,
    /// Both directions were closed in order, whoever began.
    #[error("the connection was closed cleanly")]
    Done,
    /// The network or the operating system ended it.
    #[error("the connection failed")]
    Failed(#[source] Arc<io::Error>),
    /// Nothing had come or gone for too long; see [`IdleFactory`](crate::policy::IdleFactory).
    #[error("nothing had come or gone for {} s", .limit.as_secs_f64())]
    Idle {
        /// How long that may be.
        limit: Duration,
    },
    /// The protocol panicked in one of its methods.
    #[error("the protocol panicked, so its connection was aborted")]
    ProtocolPanicked,
    /// The reactor stopped while the connection was open.
    #[error("the reactor stopped")]
    ReactorStopped,
    /// TLS could not be agreed on or was broken by the peer.
    #[error("TLS failed")]
    Tls(#[source] Arc<rustls::Error>),
    /// The peer closed the connection without saying, within TLS, that it had sent everything: what has
    /// arrived may be only the beginning.
    #[error("the peer ended the connection, but not its TLS; something may be missing at the end")]
    Truncated,
}

/// Why a connection was not made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot connect to {address}")]
pub struct ConnectError {
    /// Where it should have led.
    pub address: Address,
    /// What came in between.
    pub source: ConnectionLost,
}

impl ConnectionLost {
    /// Returns the error of the network or the operating system, if that was the reason.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            ConnectionLost::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the connection was closed in order, so that nothing in flight was lost.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self, ConnectionLost::Done)
    }
}
