//! [`ByteStream`]: a connection as pieces of bytes that come and go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;

use super::io::AsyncTransport;

/// A connection as a [`Stream`] and a [`Sink`] of [`Bytes`].
///
/// A piece is whatever has arrived since the last one; where one ends and the next begins means nothing.
/// Nothing is copied on the way out if it is large. An error comes once, as the last item. In all else it
/// is as [`AsyncTransport`], which makes it.
#[derive(Debug)]
pub struct ByteStream {
    inner: AsyncTransport,
    has_failed: bool,
}

impl ByteStream {
    pub(super) fn new(inner: AsyncTransport) -> ByteStream {
        ByteStream { inner, has_failed: false }
    }

    /// Makes it what it was made of. What has not been read yet comes first.
    #[must_use]
    pub fn into_inner(self) -> AsyncTransport {
        self.inner
    }
}

impl Stream for ByteStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_failed {
            return Poll::Ready(None);
        }
        let next = self.inner.wire().poll_incoming(cx, BytesMut::split);
        if let Poll::Ready(Some(Err(_))) = &next {
            self.has_failed = true;
        }
        next.map(|item| item.map(|piece| piece.map(BytesMut::freeze)))
    }
}

impl Sink<Bytes> for ByteStream {
    type Error = io::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.wire().poll_outgoing(cx, |_| ())
    }

    fn start_send(self: Pin<&mut Self>, piece: Bytes) -> io::Result<()> {
        let wire = self.inner.wire();
        wire.check_writable()?;
        match wire.transport() {
            Some(transport) => {
                transport.write_bytes(piece);
                Ok(())
            }
            None => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "wait until the sink is ready before sending",
            )),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inner.wire().check_flushed())
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.wire().poll_close(cx)
    }
}
