//! The server: a codec on each transport, and between them the requests that are under way.

mod connection;
mod date;
mod deadlines;
mod exchange;
mod factory;
mod reply;
mod status_pages;

use http::StatusCode;
use ropewalk::Address;

pub(crate) use self::date::{LENGTH_NAME, ResponseStart};
pub use self::factory::HttpFactory;
pub use self::reply::{Reply, Response};
pub use self::status_pages::StatusPages;
use crate::body::IncomingBody;
use crate::head::RequestHead;

/// A request as a [`Handler`] gets it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Request {
    /// Method, target and header fields.
    pub head: RequestHead,
    /// What comes after them, or nothing. See [`IncomingBody`].
    pub body: IncomingBody,
    /// The other end of the connection: the client, or the proxy in front of us.
    pub peer: Address,
}

/// Answers requests. Any `Fn(Request) -> Reply` is one.
///
/// Each call runs in a log context of its own (`GET-17`), as does everything that it starts.
///
/// ```
/// use http::StatusCode;
/// use ropewalk_http::{Handler, Reply, Request, Response};
///
/// fn hello(request: Request) -> Reply {
///     match request.head.path() {
///         "/hello" => Response::text(StatusCode::OK, "hello\n").into(),
///         _ => Response::new(StatusCode::NOT_FOUND).into(),
///     }
/// }
/// let handler: &dyn Handler = &hello;
/// ```
pub trait Handler {
    /// Answers one request. Must not block: what takes time comes as [`Reply::Later`].
    fn handle(&self, request: Request) -> Reply;

    /// Puts into words that the server itself answers with `status`, because of bytes that are no
    /// acceptable request, a client that is too slow, or a handler that failed.
    ///
    /// `reason` is fit for the client's eyes. By default it is sent as plain text.
    fn refusal(&self, status: StatusCode, reason: &str) -> Response {
        Response::text(status, format!("{reason}\n"))
    }
}

impl<F: Fn(Request) -> Reply> Handler for F {
    fn handle(&self, request: Request) -> Reply {
        self(request)
    }
}
