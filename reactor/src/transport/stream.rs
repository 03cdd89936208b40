//! The streams and listeners that backends give: non-blocking, edge-triggered, of a closed set of
//! kinds, so that reading and writing need no virtual call.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
#[cfg(target_os = "linux")]
use rustix::net::SendFlags;
use socket2::SockRef;

use super::backlog::MemoryListener;
use super::descriptor::DescriptorStream;
use super::memory::MemoryStream;
use super::unix::{PeerCredentials, SendDescriptorError, UnixListener, UnixStream};
use crate::address::{Address, UnixAddress};

pub(crate) enum Stream {
    Memory(MemoryStream),
    Tcp(TcpStream),
    Unix(Box<UnixStream>),
    /// Pipes, terminals, files.
    Descriptor(Box<DescriptorStream>),
}

impl Stream {
    // These two go to the system without the C library where that can be: half the instructions
    // around the call.

    #[inline(always)]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => Ok(rustix::io::read(stream, buffer)?),
            other => other.read_otherwise(buffer),
        }
    }

    #[inline(always)]
    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            #[cfg(target_os = "linux")]
            Stream::Tcp(stream) => Ok(rustix::net::send(stream, data, SendFlags::NOSIGNAL)?),
            other => other.write_otherwise(data),
        }
    }

    #[inline(never)]
    fn read_otherwise(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Memory(stream) => stream.read(buffer),
            Stream::Tcp(stream) => (&*stream).read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Descriptor(stream) => stream.read(buffer),
        }
    }

    #[inline(never)]
    fn write_otherwise(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Memory(stream) => stream.write(data),
            Stream::Tcp(stream) => (&*stream).write(data),
            Stream::Unix(stream) => stream.write(data),
            Stream::Descriptor(stream) => stream.write(data),
        }
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Memory(stream) => stream.write_vectored(slices),
            Stream::Tcp(stream) => (&*stream).write_vectored(slices),
            Stream::Unix(stream) => stream.write_vectored(slices),
            Stream::Descriptor(stream) => stream.write_vectored(slices),
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Stream::Memory(stream) => {
                stream.shutdown_write();
                Ok(())
            }
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.socket().shutdown(Shutdown::Write),
            Stream::Descriptor(stream) => {
                stream.shutdown_write();
                Ok(())
            }
        }
    }

    /// Tells a simulated network that a TLS handshake begins. Nobody else wants to know.
    pub(crate) fn begin_handshake(&self) {
        if let Stream::Memory(stream) = self {
            stream.begin_handshake();
        }
    }

    /// Tells a simulated network that a TLS handshake has ended, but for one more write perhaps.
    pub(crate) fn end_handshake(&self, is_last_to_come: bool) {
        if let Stream::Memory(stream) = self {
            stream.end_handshake(is_last_to_come);
        }
    }

    /// Makes closing drop what has not been sent, and tell the peer so.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Stream::Memory(stream) => stream.reset_on_close(),
            // A socket that cannot be told so any more is gone already.
            Stream::Tcp(stream) => drop(SockRef::from(stream).set_linger(Some(Duration::ZERO))),
            // They know no reset; the peer reads what it was sent, and then the end.
            Stream::Unix(_) | Stream::Descriptor(_) => {}
        }
    }

    /// Returns the error that the stream holds, if any, and forgets it.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Stream::Memory(stream) => Ok(stream.take_error()),
            Stream::Tcp(stream) => stream.take_error(),
            Stream::Unix(stream) => stream.socket().take_error(),
            Stream::Descriptor(_) => Ok(None),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Address> {
        match self {
            Stream::Memory(stream) => Ok(stream.local_address().clone()),
            Stream::Tcp(stream) => stream.local_addr().map(Address::Tcp),
            Stream::Unix(stream) => {
                let address = stream.socket().local_addr()?;
                Ok(Address::Unix(UnixAddress::from_system(&address)))
            }
            Stream::Descriptor(_) => Ok(Address::Pipe),
        }
    }

    /// Fails while the stream isn't connected.
    pub(crate) fn check_connected(&self) -> io::Result<()> {
        match self {
            Stream::Memory(stream) => stream.check_connected(),
            Stream::Tcp(stream) => stream.peer_addr().map(drop),
            Stream::Unix(stream) => stream.socket().peer_addr().map(drop),
            Stream::Descriptor(_) => Ok(()),
        }
    }

    /// Whether descriptors can be passed over it.
    pub(crate) fn carries_descriptors(&self) -> bool {
        match self {
            Stream::Memory(stream) => stream.carries_descriptors(),
            Stream::Descriptor(_) | Stream::Tcp(_) => false,
            Stream::Unix(_) => true,
        }
    }

    /// Whether a read that leaves room in the buffer has taken everything, while the peer has not
    /// finished.
    pub(crate) fn is_drained_by_short_read(&self) -> bool {
        match self {
            Stream::Memory(_) | Stream::Tcp(_) | Stream::Unix(_) => true,
            Stream::Descriptor(stream) => stream.is_drained_by_short_read(),
        }
    }

    /// Has a descriptor sent with the next bytes.
    pub(crate) fn push_descriptor(&self, descriptor: OwnedFd) -> Result<(), SendDescriptorError> {
        match self {
            Stream::Memory(stream) => stream.push_descriptor(descriptor),
            Stream::Descriptor(_) | Stream::Tcp(_) => Err(SendDescriptorError::NotUnix),
            Stream::Unix(stream) => stream.push_descriptor(descriptor),
        }
    }

    /// Takes a descriptor that came with the bytes that were last read.
    pub(crate) fn take_descriptor(&self) -> Option<OwnedFd> {
        match self {
            Stream::Memory(stream) => stream.take_descriptor(),
            Stream::Descriptor(_) | Stream::Tcp(_) => None,
            Stream::Unix(stream) => stream.take_descriptor(),
        }
    }

    pub(crate) fn peer_credentials(&self) -> Option<PeerCredentials> {
        match self {
            Stream::Memory(stream) => stream.peer_credentials(),
            Stream::Descriptor(_) | Stream::Tcp(_) => None,
            Stream::Unix(stream) => stream.peer_credentials().ok(),
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
    Unix(Box<UnixListener>),
}

impl Listener {
    pub(crate) fn accept(&self) -> io::Result<(Stream, Address)> {
        match self {
            Listener::Memory(listener) => {
                listener.accept().map(|(stream, peer)| (Stream::Memory(stream), peer))
            }
            Listener::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| (Stream::Tcp(stream), Address::Tcp(peer)))
            }
            Listener::Unix(listener) => listener
                .accept()
                .map(|(stream, peer)| (Stream::Unix(Box::new(stream)), Address::Unix(peer))),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Address> {
        match self {
            Listener::Memory(listener) => Ok(listener.local_address().clone()),
            Listener::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Listener::Unix(listener) => listener.local_address().map(Address::Unix),
        }
    }
}
