//! The streams and listeners that backends give: non-blocking, edge-triggered, of a closed set of
//! kinds, so that reading and writing need no virtual call.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use rustix::net::RecvFlags;
#[cfg(target_os = "linux")]
use rustix::net::SendFlags;
use socket2::SockRef;

use super::memory::{MemoryListener, MemoryStream};

pub(crate) enum Stream {
    Memory(MemoryStream),
    Tcp(TcpStream),
}

impl Stream {
    // These two go to the system without the C library where that can be: half the instructions
    // around the call.

    #[inline]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Memory(stream) => stream.read(buffer),
            Stream::Tcp(stream) => Ok(rustix::net::recv(stream, buffer, RecvFlags::empty())?.0),
        }
    }

    #[inline]
    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Memory(stream) => stream.write(data),
            #[cfg(target_os = "linux")]
            Stream::Tcp(stream) => Ok(rustix::net::send(stream, data, SendFlags::NOSIGNAL)?),
            #[cfg(not(target_os = "linux"))]
            Stream::Tcp(stream) => (&*stream).write(data),
        }
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Memory(stream) => stream.write_vectored(slices),
            Stream::Tcp(stream) => (&*stream).write_vectored(slices),
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Stream::Memory(stream) => {
                stream.shutdown_write();
                Ok(())
            }
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Makes closing drop what has not been sent, and tell the peer so.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Stream::Memory(stream) => stream.reset_on_close(),
            // A socket that cannot be told so any more is gone already.
            Stream::Tcp(stream) => drop(SockRef::from(stream).set_linger(Some(Duration::ZERO))),
        }
    }

    /// Returns the error that the stream holds, if any, and forgets it.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Stream::Memory(stream) => Ok(stream.take_error()),
            Stream::Tcp(stream) => stream.take_error(),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Stream::Memory(stream) => Ok(stream.local_address()),
            Stream::Tcp(stream) => stream.local_addr(),
        }
    }

    /// Returns the peer's address; an error while the stream isn't connected.
    pub(crate) fn peer_address(&self) -> io::Result<SocketAddr> {
        match self {
            Stream::Memory(stream) => stream.peer_address(),
            Stream::Tcp(stream) => stream.peer_addr(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Stream::read(self, buffer)
    }
}

impl Write for &Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Stream::write(self, data)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Stream::write_vectored(self, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) enum Listener {
    Memory(MemoryListener),
    Tcp(TcpListener),
}

impl Listener {
    pub(crate) fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Listener::Memory(listener) => {
                listener.accept().map(|(stream, peer)| (Stream::Memory(stream), peer))
            }
            Listener::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| (Stream::Tcp(stream), peer))
            }
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Memory(listener) => Ok(listener.local_address()),
            Listener::Tcp(listener) => listener.local_addr(),
        }
    }
}
