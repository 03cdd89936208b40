//! Streams over plain file descriptors: pipes, terminals, files, the standard streams.
//!
//! One end of a pipe reads or writes; the standard streams do both, over two descriptors.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, IoSlice, IsTerminal};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};

use super::Transport;
use super::file_feed::FileFeed;
use super::link::{Link, Setup, flag};
use super::stream::Stream;
use crate::address::Address;
use crate::context::LogContext;
use crate::core::Core;
use crate::protocol::Protocol;
use crate::slots::Key;

/// One or two descriptors, as one stream.
pub(crate) struct DescriptorStream {
    reader: Option<End>,
    /// Closed when nothing more is to be written.
    writer: RefCell<Option<End>>,
    /// Where both are registered.
    registry: OnceCell<Rc<Registry>>,
}

/// A descriptor, and how to read or write it without waiting.
pub(crate) struct End {
    descriptor: OwnedFd,
    manner: Manner,
    /// Whether the system's poll mechanism has refused it: a device that is always ready.
    is_unpollable: Cell<bool>,
}

pub(crate) enum Manner {
    /// A file or a device that always takes bytes.
    AlwaysReady,
    /// A file that is read by threads.
    Fed(Rc<FileFeed>),
    /// Set not to block; nobody else knows of that.
    NonBlocking,
    /// Shared with other processes, which would not understand why it suddenly does not block: asked
    /// each time whether it would.
    Polled,
    /// A socket: each call says that it must not block.
    Socket,
}

impl DescriptorStream {
    pub(crate) fn new(reader: Option<End>, writer: Option<End>) -> DescriptorStream {
        DescriptorStream { reader, writer: RefCell::new(writer), registry: OnceCell::new() }
    }

    /// Makes a stream of this process's end of a pipe that the reactor alone holds.
    pub(crate) fn reader(descriptor: OwnedFd) -> io::Result<DescriptorStream> {
        Ok(DescriptorStream::new(Some(End::non_blocking(descriptor)?), None))
    }

    /// As [`reader`](DescriptorStream::reader), for the end that is written to.
    pub(crate) fn writer(descriptor: OwnedFd) -> io::Result<DescriptorStream> {
        Ok(DescriptorStream::new(None, Some(End::non_blocking(descriptor)?)))
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(End { descriptor, manner, .. }) = &self.reader else { return self.check_writer() };
        match manner {
            Manner::Fed(feed) => feed.read(buffer),
            Manner::Socket => Ok(rustix::net::recv(descriptor, buffer, RecvFlags::DONTWAIT)?.0),
            Manner::Polled if !is_ready(descriptor, PollFlags::IN)? => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Manner::AlwaysReady | Manner::NonBlocking | Manner::Polled => {
                Ok(rustix::io::read(descriptor, buffer)?)
            }
        }
    }

    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        let writer = self.writer.borrow();
        let Some(End { descriptor, manner, .. }) = &*writer else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        match manner {
            Manner::Socket => Ok(send(descriptor, data)?),
            Manner::Polled if !is_ready(descriptor, PollFlags::OUT)? => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Manner::Polled => {
                let data = &data[..data.len().min(POLLED_WRITE_BYTES_MAX)];
                Ok(rustix::io::write(descriptor, data)?)
            }
            Manner::AlwaysReady | Manner::Fed(_) | Manner::NonBlocking => {
                Ok(rustix::io::write(descriptor, data)?)
            }
        }
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(End { descriptor, manner: Manner::NonBlocking, .. }) = &*self.writer.borrow() {
            return Ok(rustix::io::writev(descriptor, slices)?);
        }
        match slices.iter().find(|slice| !slice.is_empty()) {
            Some(slice) => self.write(slice),
            None => Ok(0),
        }
    }

    pub(crate) fn shutdown_write(&self) {
        let Some(writer) = self.writer.take() else { return };
        self.deregister(&writer);
        if let Manner::Socket = writer.manner {
            // A shared one stays open otherwise.
            let _ = rustix::net::shutdown(&writer.descriptor, rustix::net::Shutdown::Write);
        }
    }

    /// Whether a read that leaves room in the buffer has taken everything. A terminal gives a line at a
    /// time, and a file has no edges.
    pub(crate) fn is_drained_by_short_read(&self) -> bool {
        match &self.reader {
            None => true,
            Some(End { descriptor, manner, .. }) => match manner {
                Manner::AlwaysReady | Manner::Fed(_) | Manner::Polled => false,
                Manner::NonBlocking | Manner::Socket => !descriptor.is_terminal(),
            },
        }
    }

    /// Whether it has to be read without having been reported as readable.
    fn reads_unasked(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.has_edges())
    }

    /// Reports the readiness of both under this token, which stands for this key.
    pub(crate) fn register(
        &self,
        registry: &Rc<Registry>,
        token: Token,
        key: Key,
    ) -> io::Result<()> {
        if let Some(End { manner: Manner::Fed(feed), .. }) = &self.reader {
            feed.set_key(key);
        }
        let _ = self.registry.set(Rc::clone(registry));
        if let Some(reader) = &self.reader {
            reader.register(registry, token, Interest::READABLE)?;
        }
        if let Some(writer) = &*self.writer.borrow() {
            writer.register(registry, token, Interest::WRITABLE)?;
        }
        Ok(())
    }

    fn deregister(&self, end: &End) {
        // Closing is not enough where another process holds what is behind the descriptor.
        if let Some(registry) = self.registry.get()
            && end.has_edges()
        {
            let descriptor: RawFd = end.descriptor.as_raw_fd();
            let _ = registry.deregister(&mut SourceFd(&descriptor));
        }
    }

    /// What reading finds on a stream that only writes: nothing, unless nobody reads any more.
    fn check_writer(&self) -> io::Result<usize> {
        match &*self.writer.borrow() {
            Some(End { descriptor, .. }) if is_ready(descriptor, PollFlags::empty())? => {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            Some(_) => Err(io::ErrorKind::WouldBlock.into()),
            None => Ok(0),
        }
    }
}

impl Drop for DescriptorStream {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            self.deregister(reader);
        }
        if let Some(writer) = self.writer.take() {
            self.deregister(&writer);
        }
    }
}

impl End {
    fn non_blocking(descriptor: OwnedFd) -> io::Result<End> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(End::new(descriptor, Manner::NonBlocking))
    }

    pub(crate) fn new(descriptor: OwnedFd, manner: Manner) -> End {
        End { descriptor, manner, is_unpollable: Cell::new(false) }
    }

    fn register(&self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        if !self.has_edges() {
            return Ok(());
        }
        let descriptor = self.descriptor.as_raw_fd();
        match registry.register(&mut SourceFd(&descriptor), token, interest) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.is_unpollable.set(true);
                Ok(())
            }
            result => result,
        }
    }

    /// Whether the system reports when it becomes ready.
    fn has_edges(&self) -> bool {
        !matches!(self.manner, Manner::AlwaysReady | Manner::Fed(_)) && !self.is_unpollable.get()
    }
}

/// Puts a protocol on a stream, in a context of its own.
pub(crate) fn establish(
    core: &Rc<Core>,
    stream: DescriptorStream,
    protocol: Box<dyn Protocol>,
) -> io::Result<Transport> {
    let setup = Setup {
        stream: Stream::Descriptor(Box::new(stream)),
        peer: Address::Pipe,
        protocol,
        context: LogContext::new("stdio"),
        session: None,
    };
    let link = Link::establish_soon(core, setup, true)?;
    let reads_unasked = match &*link.stream.borrow() {
        Some(Stream::Descriptor(stream)) => stream.reads_unasked(),
        _ => false,
    };
    if reads_unasked {
        link.state.set(flag::MAYBE_READABLE);
    }
    Ok(Transport::new(link))
}

/// Whether one of these holds of a descriptor now, or it has failed.
fn is_ready(descriptor: &OwnedFd, flags: PollFlags) -> io::Result<bool> {
    let mut polled = [PollFd::new(descriptor, flags)];
    Ok(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
}

fn send(descriptor: &OwnedFd, data: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(descriptor, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// What a pipe or terminal that is writable takes without blocking (`PIPE_BUF`).
const POLLED_WRITE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::deferred::{Deferred, Resolver};
    use crate::protocol::ConnectionLost;
    use crate::reactor::Reactor;

    struct Echo(Option<Resolver<ConnectionLost>>);

    impl Protocol for Echo {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            transport.write(data);
        }

        fn connection_lost(&mut self, reason: ConnectionLost) {
            self.0.take().unwrap().callback(reason);
        }
    }

    #[test]
    fn descriptors_that_may_block_are_asked_first() {
        let reactor = Reactor::new().unwrap();
        let (input, mut far_input) = io::pipe().unwrap();
        let (mut far_output, output) = io::pipe().unwrap();
        let stream = DescriptorStream::new(
            Some(End::new(input.into(), Manner::Polled)),
            Some(End::new(output.into(), Manner::Polled)),
        );
        let (ended, resolver) = Deferred::new();
        establish(reactor.core(), stream, Box::new(Echo(Some(resolver)))).unwrap();
        let data: Vec<u8> = (0..1_000_000).map(|n| (n % 251) as u8).collect();
        let written = data.clone();
        let writer = std::thread::spawn(move || far_input.write_all(&written).unwrap());
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            far_output.read_to_end(&mut read).unwrap();
            read
        });
        assert!(reactor.run_until(ended).unwrap().is_clean());
        writer.join().unwrap();
        assert!(reader.join().unwrap() == data);
    }
}
