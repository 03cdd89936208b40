//! The client: requests to one host, over connections that are kept and used again.

mod budget;
mod connection;
mod deadlines;
mod pool;
mod request;

use std::net::SocketAddr;
use std::time::Duration;

use ropewalk::{Deferred, Reactor};

pub(crate) use self::budget::Budget;
pub use self::pool::HttpClient;
pub use self::request::{ClientRequest, ClientResponse};
use crate::error::MessageError;
use crate::limits::Limits;

/// What a client allows, itself and the server.
///
/// ```
/// use std::time::Duration;
///
/// use ropewalk_http::ClientOptions;
///
/// let options =
///     ClientOptions { response_timeout: Duration::from_secs(5), ..ClientOptions::default() };
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientOptions {
    /// Sizes of responses, and how long their bodies may stall. `connections_max` is per client,
    /// `head_timeout` is not used.
    pub limits: Limits,
    /// Time to connect in: look-up of the name, connection and TLS handshake.
    pub connect_timeout: Duration,
    /// Time from when a request is sent until the head of its response is complete.
    pub response_timeout: Duration,
    /// Requests that may wait for a connection; further ones fail at once.
    pub waiting_max: usize,
    /// Time that a request may wait for a connection, before one is made or comes free.
    pub waiting_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            limits: Limits {
                // Enough to keep one server busy, few enough not to be taken for an attack.
                connections_max: 8,
                // Servers commonly give up after 60 s and more; who closes first cannot be surprised.
                idle_timeout: Duration::from_secs(50),
                ..Limits::default()
            },
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(60),
            waiting_max: 10_000,
            waiting_timeout: Duration::from_secs(60),
        }
    }
}

/// Why a request has no response.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection ended before the response began. The server may have acted on the request or not.
    #[error("connection ended before a response came")]
    ConnectionLost,
    /// What came is no response that this client accepts.
    #[error("response is malformed")]
    Malformed(#[source] MessageError),
    /// Too many requests wait already.
    #[error("{limit} requests to this host are waiting already; send them more slowly")]
    QueueFull {
        /// The limit in requests.
        limit: usize,
    },
    /// No response came in time.
    #[error("no response within {} s", .limit.as_secs_f64())]
    ResponseTimeout {
        /// The limit.
        limit: Duration,
    },
    /// No connection came free in time. The request has not been sent.
    #[error("no connection was free within {} s; send fewer requests at a time", .limit.as_secs_f64())]
    WaitingTimeout {
        /// The limit.
        limit: Duration,
    },
}

/// Sends one request over a connection of its own, with default options.
///
/// For more than one request to a host, keep an [`HttpClient`].
///
/// # Errors
///
/// As [`HttpClient::request`].
#[track_caller]
pub fn request(
    reactor: &Reactor,
    address: SocketAddr,
    request: ClientRequest,
) -> Deferred<ClientResponse> {
    HttpClient::new(reactor, address, ClientOptions::default()).request(request)
}
