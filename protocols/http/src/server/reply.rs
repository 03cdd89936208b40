//! What an application answers with.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use ropewalk::Deferred;

use crate::encode::{HeaderBlock, HeaderLines};
use crate::outgoing::{BodyWriter, OutgoingBody};

/// The answer to a request: there already, or still to come.
#[derive(Debug)]
pub enum Reply {
    /// When it comes. It is cancelled when the client goes away; if it fails, the client gets a 500 and the
    /// log the reason.
    Later(Deferred<Response>),
    /// Now.
    Now(Response),
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Reply::Now(response)
    }
}

impl From<Deferred<Response>> for Reply {
    fn from(response: Deferred<Response>) -> Self {
        Reply::Later(response)
    }
}

/// A response to be sent: status, header fields and body.
///
/// `Date`, `Content-Length`, `Transfer-Encoding` and `Connection` are the server's to say. Where a request or a
/// status excludes a body (`HEAD`, 204, 304), the one that is here is not sent, but `HEAD` tells its length.
///
/// ```
/// use http::{HeaderValue, StatusCode, header};
/// use ropewalk_http::Response;
///
/// let response = Response::new(StatusCode::OK)
///     .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
///     .with_body("{}");
/// assert_eq!(response.header_value("content-type"), Some(&b"application/json"[..]));
/// ```
pub struct Response {
    pub(crate) status: StatusCode,
    pub(crate) lines: HeaderLines,
    pub(crate) body: OutgoingBody,
}

impl Response {
    /// Makes a response without fields of its own and without a body.
    #[inline]
    pub fn new(status: StatusCode) -> Self {
        let body = OutgoingBody::Whole(Bytes::new());
        Response { status, lines: HeaderLines::default(), body }
    }

    /// Makes a plain text response.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Response::new(status)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
            .with_body(text)
    }

    /// Adds a header field, beside others of that name.
    ///
    /// # Panics
    ///
    /// In debug builds, if the field is one that the server sets; otherwise it is left out.
    #[must_use]
    #[inline]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.lines.push(&name, &value);
        self
    }

    /// Sends this block of header lines, in front of the fields that are added one by one.
    #[must_use]
    #[inline]
    pub fn with_headers(mut self, block: &HeaderBlock) -> Self {
        self.lines.share(block);
        self
    }

    /// Sets the body.
    #[must_use]
    #[inline]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = OutgoingBody::Whole(body.into());
        self
    }

    /// Makes the body a stream: `start` is called once the head has been written, with the
    /// [`BodyWriter`] that takes the bytes, and in the request's context.
    ///
    /// With a `length` in bytes that is what has to be written; without, the body is sent in chunks. If no body
    /// may be sent or the client is gone, `start` is dropped without being called.
    #[must_use]
    pub fn with_stream(
        mut self,
        length: Option<u64>,
        start: impl FnOnce(BodyWriter) + 'static,
    ) -> Self {
        self.body = OutgoingBody::Stream { length, start: Box::new(start) };
        self
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the value of the first field of that name, in whatever case.
    pub fn header_value(&self, name: &str) -> Option<&[u8]> {
        self.lines.first(name)
    }

    /// Returns the body, unless it is a stream.
    pub fn body(&self) -> Option<&Bytes> {
        match &self.body {
            OutgoingBody::Whole(bytes) => Some(bytes),
            OutgoingBody::Stream { .. } => None,
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Response")
            .field("status", &self.status)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
