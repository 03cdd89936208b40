//! HTTP/1.1 for Ropewalk.

#[allow(dead_code, reason = "the shells, which send chunks, come next")]
mod chunked;
#[allow(dead_code, reason = "the shells, which send heads, come next")]
mod encode;
mod error;
mod framing;
mod head;
mod intake;
mod limits;
mod request;
mod response;

pub use error::MessageError;
pub use framing::BodyLength;
pub use head::{RequestHead, ResponseHead};
pub use limits::{
    CHUNK_LINE_BYTES_MAX, HEAD_BYTES_CEILING, HEADER_COUNT_CEILING, Limits, METHOD_BYTES_MAX,
    TRAILER_BYTES_MAX,
};
pub use request::{RequestEvent, ServerCodec};
pub use response::{ClientCodec, ResponseEvent};
