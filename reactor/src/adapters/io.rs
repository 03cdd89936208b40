//! [`AsyncTransport`]: a connection that is read and written by a task.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Buf;
use futures_io::{AsyncRead, AsyncWrite};

use super::byte_stream::ByteStream;
use super::wire::{Wire, WireProtocol};
use crate::address::Address;
use crate::protocol::Protocol;

/// A connection as [`AsyncRead`] and [`AsyncWrite`].
///
/// Reading gives what arrived before the connection's end, and then that end: nothing more, or the error
/// that ended it. After the peer has finished sending, writing goes on. What was written counts as flushed
/// at once: it lies in the transport, which sends it at the end of the turn. Closing finishes sending, and
/// reading goes on.
///
/// Dropping it sends what was written, and closes the connection; a task that is cancelled does the same.
/// [`abort`](Self::abort) closes it at once.
///
/// One task may read and another one write (`AsyncReadExt::split` of `futures_util`); of two that wait to
/// read, the first one hears nothing.
pub struct AsyncTransport {
    wire: Rc<Wire>,
}

impl AsyncTransport {
    /// Makes one, and the protocol that is to be put on its connection, for instance by
    /// [`Reactor::connect_tcp`](crate::Reactor::connect_tcp) or
    /// [`ClientEndpoint::connect`](crate::endpoint::ClientEndpoint::connect).
    ///
    /// Until the connection is made, reading and writing wait. If it is not made, they fail.
    #[must_use]
    pub fn new() -> (AsyncTransport, impl Protocol + 'static) {
        let wire = Rc::new(Wire::default());
        let protocol = WireProtocol(Rc::clone(&wire));
        (AsyncTransport { wire }, protocol)
    }

    /// Returns the peer's address, while the connection stands.
    #[must_use]
    pub fn peer(&self) -> Option<Address> {
        self.wire.transport().map(|transport| transport.peer().clone())
    }

    /// Returns this end's address, while the connection stands.
    #[must_use]
    pub fn local(&self) -> Option<Address> {
        self.wire.transport().map(|transport| transport.local().clone())
    }

    /// Closes the connection now, and drops what has not been sent.
    pub fn abort(self) {
        if let Some(transport) = self.wire.transport() {
            transport.abort_connection();
        }
    }

    /// Makes it a stream and a sink of pieces of bytes. What has not been read yet comes first.
    #[must_use]
    pub fn into_byte_stream(self) -> ByteStream {
        ByteStream::new(self)
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }
}

impl AsyncRead for AsyncTransport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let read = self.wire.poll_incoming(cx, |incoming| {
            let count = incoming.len().min(buffer.len());
            incoming.copy_to_slice(&mut buffer[..count]);
            count
        });
        read.map(|count| count.unwrap_or(Ok(0)))
    }
}

impl AsyncWrite for AsyncTransport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let data = &data[..data.len().min(WRITE_BYTES_MAX)];
        self.wire.poll_outgoing(cx, |transport| {
            transport.write(data);
            data.len()
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.wire.check_flushed())
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_close(cx)
    }
}

impl Drop for AsyncTransport {
    fn drop(&mut self) {
        self.wire.abandon();
    }
}

impl fmt::Debug for AsyncTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncTransport").field(&self.wire).finish()
    }
}

/// What one write takes. Together with the high-water mark it bounds what is unsent.
const WRITE_BYTES_MAX: usize = 64 * 1024;
