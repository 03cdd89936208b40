//! Why bytes were not a message that we accept. One enum for both directions: framing is the same.

use http::StatusCode;

/// Why the bytes of a peer are not an HTTP/1.1 message that this crate accepts.
///
/// The stream cannot be resynchronised afterwards: answer with [`status`](Self::status) if the peer is a
/// client, then close the connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A line of a head, or of chunked framing, ends in a line feed without a carriage return.
    #[error("a line ends in a bare line feed; lines end in CR LF")]
    BareLineFeed,
    /// The body is, or announces to be, over the limit.
    #[error("body is over the limit of {limit} bytes; send less")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The line that announces a chunk is not a plain hexadecimal size and extensions.
    #[error("malformed chunk: {0}")]
    ChunkMalformed(&'static str),
    /// `Content-Length` is not a plain decimal number that fits 64 bits.
    #[error("content-length is not a plain decimal number below 2^64")]
    ContentLengthInvalid,
    /// There are several `Content-Length` fields. Equal ones are refused as well.
    #[error("content-length is given more than once")]
    ContentLengthRepeated,
    /// `Expect` asks for something else than `100-continue`.
    #[error("the only expectation that can be met is 100-continue")]
    ExpectationUnknown,
    /// The head is over the limit.
    #[error("message head is over the limit of {limit} bytes; send fewer or shorter header fields")]
    HeadTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A header field has no colon, an invalid name, space before the colon, a control character in its
    /// value, or is folded over several lines.
    #[error(
        "malformed header field; names are tokens directly followed by a colon, values stay on one line"
    )]
    HeaderMalformed,
    /// The value of `Host` cannot be a host and port.
    #[error("the value of host is not a host name or address with an optional port")]
    HostInvalid,
    /// A request of version 1.1 has no `Host` field.
    #[error("host is missing; HTTP/1.1 asks for it")]
    HostMissing,
    /// There are several `Host` fields.
    #[error("host is given more than once")]
    HostRepeated,
    /// Both `Content-Length` and `Transfer-Encoding` are there.
    #[error("content-length and transfer-encoding exclude each other")]
    LengthAndTransferEncoding,
    /// A method of the proxy kind (`CONNECT`), which this is not.
    #[error("method is not implemented by this server, which is not a proxy")]
    MethodNotImplemented,
    /// The request line is not method, target and version with one space between.
    #[error("malformed request line; send method, target and version with one space between")]
    RequestLineMalformed,
    /// The status line is not version, status code and reason.
    #[error("malformed status line; expected HTTP/1.1, a three-digit code and a reason")]
    StatusLineMalformed,
    /// The request target has a character that has to be percent-encoded, or none of the known forms.
    #[error("invalid request target; percent-encode what RFC 3986 does not allow")]
    TargetInvalid,
    /// The request target is over the limit.
    #[error("request target is over the limit of {limit} bytes")]
    TargetTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The head has too many fields.
    #[error("message has more than {limit} header fields")]
    TooManyHeaders {
        /// The limit in fields.
        limit: usize,
    },
    /// The trailer section after a chunked body is over the limit.
    #[error("trailers are over the limit of {limit} bytes")]
    TrailersTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// `Transfer-Encoding` is something else than exactly `chunked`, or came with version 1.0.
    #[error("transfer-encoding has to be exactly \"chunked\", and only in HTTP/1.1")]
    TransferEncodingInvalid,
    /// Other transfer codings below a final `chunked`.
    #[error("transfer codings other than chunked are not implemented")]
    TransferEncodingNotImplemented,
    /// The connection ended in the middle of a message.
    #[error("connection ended in the middle of a message")]
    Truncated,
    /// Clients only: bytes that answer no request, or a change of protocol that nobody asked for.
    #[error("server sent something that answers no request")]
    Unexpected,
    /// The version is not 1.0 or 1.1.
    #[error("HTTP version is not supported; use HTTP/1.1")]
    VersionNotSupported,
}

impl MessageError {
    /// Returns the status that a server answers with before it closes the connection.
    pub fn status(&self) -> StatusCode {
        match self {
            MessageError::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            MessageError::ExpectationUnknown => StatusCode::EXPECTATION_FAILED,
            MessageError::HeadTooLong { .. }
            | MessageError::TooManyHeaders { .. }
            | MessageError::TrailersTooLong { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            MessageError::MethodNotImplemented | MessageError::TransferEncodingNotImplemented => {
                StatusCode::NOT_IMPLEMENTED
            }
            MessageError::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            MessageError::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}
