//! HTTP/1.1 for Ropewalk.

mod body;
mod chunked;
mod client;
mod encode;
mod error;
mod framing;
mod head;
mod intake;
mod limits;
mod outgoing;
mod pace;
mod request;
mod response;
mod server;

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
pub use server::{Handler, HttpFactory, Reply, Request, Response};

/// The body of a request; another name for [`IncomingBody`].
pub type RequestBody = IncomingBody;
