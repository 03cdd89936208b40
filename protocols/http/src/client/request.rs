//! What a client sends and gets.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use crate::body::IncomingBody;
use crate::encode::{HeaderBlock, HeaderLines, push_request_head};
use crate::error::MessageError;
use crate::framing::{BodyLength, is_host};
use crate::head::ResponseHead;
use crate::outgoing::{BodyWriter, OutgoingBody};
use crate::request::is_target;

/// A request to be sent.
///
/// `Host`, `Content-Length`, `Transfer-Encoding` and `Connection` are the client's to say.
///
/// ```
/// use http::{HeaderValue, Method, header};
/// use ropewalk_http::ClientRequest;
///
/// let request = ClientRequest::new(Method::PUT, "hs.example:8448", "/_matrix/key/v2/server")?
///     .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
///     .with_body("{}");
/// # Ok::<(), ropewalk_http::MessageError>(())
/// ```
pub struct ClientRequest {
    pub(super) method: Method,
    host: Box<str>,
    target: Box<str>,
    lines: HeaderLines,
    pub(crate) body: OutgoingBody,
}

impl ClientRequest {
    /// Makes a request without a body.
    ///
    /// `host` is what the `Host` field says: a name or address, and a port unless it is the usual one.
    /// `target` is path and query, percent-encoded.
    ///
    /// # Errors
    ///
    /// [`MessageError::HostInvalid`] and [`MessageError::TargetInvalid`].
    pub fn new(method: Method, host: &str, target: &str) -> Result<Self, MessageError> {
        if !is_host(host.as_bytes()) {
            return Err(MessageError::HostInvalid);
        }
        if !target.starts_with('/') || !is_target(target) {
            return Err(MessageError::TargetInvalid);
        }
        Ok(ClientRequest {
            method,
            host: host.into(),
            target: target.into(),
            lines: HeaderLines::default(),
            body: OutgoingBody::Whole(Bytes::new()),
        })
    }

    /// Adds a header field, beside others of that name.
    ///
    /// # Panics
    ///
    /// In debug builds, if the field is one that the client sets; otherwise it is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.lines.push(&name, &value);
        self
    }

    /// Sends this block of header lines, in front of the fields that are added one by one.
    #[must_use]
    pub fn with_headers(mut self, block: &HeaderBlock) -> Self {
        self.lines.share(block);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = OutgoingBody::Whole(body.into());
        self
    }

    /// Makes the body a stream: `start` is called once the head has been written, with the
    /// [`BodyWriter`] that takes the bytes.
    ///
    /// With a `length` in bytes that is what has to be written; without, the body is sent in chunks. Such a
    /// request is never sent a second time.
    #[must_use]
    pub fn with_stream(
        mut self,
        length: Option<u64>,
        start: impl FnOnce(BodyWriter) + 'static,
    ) -> Self {
        self.body = OutgoingBody::Stream { length, start: Box::new(start) };
        self
    }

    pub(super) fn body_length(&self) -> BodyLength {
        match &self.body {
            OutgoingBody::Whole(bytes) => BodyLength::Exact(bytes.len() as u64),
            OutgoingBody::Stream { length: Some(length), .. } => BodyLength::Exact(*length),
            OutgoingBody::Stream { length: None, .. } => BodyLength::Chunked,
        }
    }

    pub(super) fn push_head(&self, out: &mut Vec<u8>) {
        let length = self.body_length();
        push_request_head(out, &self.method, &self.target, &self.host, length, &self.lines);
    }

    /// Whether it may be sent again when nothing has come back: what it does is done once, however often it
    /// is asked, and its body is still there.
    pub(super) fn is_repeatable(&self) -> bool {
        self.method.is_idempotent() && matches!(self.body, OutgoingBody::Whole(_))
    }
}

impl fmt::Debug for ClientRequest {
    /// Without the query and the values of fields, which may be secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        formatter
            .debug_struct("ClientRequest")
            .field("method", &self.method)
            .field("host", &self.host)
            .field("path", &path)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// A response: its head is complete, its body may still be coming.
///
/// Ask for the body with [`IncomingBody::collect`] or [`IncomingBody::send_to`]; the connection is used again
/// once that is complete. Dropping it throws the rest away, and with it the connection unless little is left.
#[derive(Debug)]
#[non_exhaustive]
pub struct ClientResponse {
    /// Status and header fields.
    pub head: ResponseHead,
    /// What comes after them, or nothing.
    pub body: IncomingBody,
}
