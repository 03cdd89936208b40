//! This process's own standard streams, and other descriptors that were handed to it, as connections.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags, fstat};

use crate::core::Core;
use crate::protocol::Protocol;
use crate::reactor::Reactor;
use crate::transport::Transport;
use crate::transport::descriptor::{self, DescriptorStream, End, Manner};
use crate::transport::file_feed::FileFeed;

impl Reactor {
    /// Puts a protocol on this process's standard input and output, and tells it so after the current
    /// callback has returned.
    ///
    /// Both may be terminals, pipes, sockets or files. They are shared with whoever started this process,
    /// a shell for instance, which would not understand why they suddenly refuse to block: so they are
    /// opened anew where that can be (by `/proc`), and asked each time whether they would block where it
    /// cannot. Nothing has to be put back at the end, however the process ends. Files are read by
    /// threads; writing to a file is taken to be quick.
    ///
    /// The end of input is [`read_connection_lost`](Protocol::read_connection_lost), which by default
    /// writes what was written and closes the connection. The process's own streams stay open, so that
    /// `println!` goes on working; who reads the other end of its output sees the end when the process
    /// has exited.
    ///
    /// # Errors
    ///
    /// Those of the system; and if one of them is closed or a folder. On a reactor of the test kit there
    /// is neither.
    pub fn connect_stdio(&self, protocol: Box<dyn Protocol>) -> io::Result<Transport> {
        self.check_has_descriptors()?;
        let reader = rustix::stdio::stdin().try_clone_to_owned()?;
        let writer = rustix::stdio::stdout().try_clone_to_owned()?;
        self.connect_descriptors(Some(reader), Some(writer), protocol)
    }

    /// Puts a protocol on descriptors of any kind: one that is read, one that is written, or both.
    ///
    /// They are treated with the same care as those of [`connect_stdio`](Reactor::connect_stdio), and
    /// closed when the connection ends. What is written without a writer is an error of the connection;
    /// nothing arrives without a reader.
    ///
    /// # Errors
    ///
    /// As [`connect_stdio`](Reactor::connect_stdio).
    pub fn connect_descriptors(
        &self,
        reader: Option<OwnedFd>,
        writer: Option<OwnedFd>,
        protocol: Box<dyn Protocol>,
    ) -> io::Result<Transport> {
        self.check_has_descriptors()?;
        let core = self.core();
        core.check_open()?;
        let reader = reader.map(|descriptor| reading_end(core, descriptor)).transpose()?;
        let writer = writer.map(writing_end).transpose()?;
        descriptor::establish(core, DescriptorStream::new(reader, writer), protocol)
    }

    pub(crate) fn check_has_descriptors(&self) -> io::Result<()> {
        if self.core().backend.has_processes() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a simulated reactor has no descriptors; use its network, or a MemoryTransport",
        ))
    }
}

fn reading_end(core: &Rc<Core>, descriptor: OwnedFd) -> io::Result<End> {
    if is_file(&descriptor)? {
        return Ok(End::new(descriptor.try_clone()?, Manner::Fed(FileFeed::new(core, descriptor))));
    }
    other_end(descriptor, OFlags::RDONLY)
}

fn writing_end(descriptor: OwnedFd) -> io::Result<End> {
    if is_file(&descriptor)? {
        return Ok(End::new(descriptor, Manner::AlwaysReady));
    }
    other_end(descriptor, OFlags::WRONLY)
}

fn is_file(descriptor: &OwnedFd) -> io::Result<bool> {
    match file_type(descriptor)? {
        FileType::Directory => Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "a folder can be neither read nor written as a stream",
        )),
        FileType::RegularFile | FileType::BlockDevice => Ok(true),
        _ => Ok(false),
    }
}

fn file_type(descriptor: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(descriptor)?.st_mode))
}

fn other_end(descriptor: OwnedFd, access: OFlags) -> io::Result<End> {
    if file_type(&descriptor)? == FileType::Socket {
        return Ok(End::new(descriptor, Manner::Socket));
    }
    Ok(match open_anew(&descriptor, access) {
        Some(own) => End::new(own, Manner::NonBlocking),
        None => End::new(descriptor, Manner::Polled),
    })
}

/// Opens what is behind a pipe's or terminal's descriptor once more, so that it can be set not to block
/// without anybody else noticing. That can fail: it may belong to another user, as after `sudo`.
fn open_anew(descriptor: &OwnedFd, access: OFlags) -> Option<OwnedFd> {
    let status = fstat(descriptor).ok()?;
    let is_pipe = FileType::from_raw_mode(status.st_mode) == FileType::Fifo;
    let is_terminal = std::io::IsTerminal::is_terminal(descriptor);
    // Opening the master's side of a terminal anew makes another terminal.
    let is_master =
        (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev)) == (5, 2);
    if !is_pipe && (!is_terminal || is_master) {
        return None;
    }
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    // Whatever `/proc` is here, it must have led to the same.
    let found = fstat(&own).ok()?;
    let is_same = (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino);
    is_same.then_some(own)
}
