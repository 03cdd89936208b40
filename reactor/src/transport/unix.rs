//! Unix stream sockets: listening with care for the socket's file, connecting, passing descriptors.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mio::net::{UnixListener as Listener, UnixStream as Stream};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use socket2::{Domain, Socket, Type};

use crate::address::UnixAddress;

/// How a Unix socket listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnixListenOptions {
    /// Connections that the system may hold until they are accepted; further ones are refused.
    pub backlog: u32,
    /// The permissions of the socket's file: who may write to it may connect.
    pub mode: u32,
}

impl Default for UnixListenOptions {
    /// A backlog of 1,024; only processes of the same user (and root) may connect.
    fn default() -> UnixListenOptions {
        UnixListenOptions { backlog: 1024, mode: 0o600 }
    }
}

/// Who is at the other end of a Unix socket, by the word of the operating system.
///
/// It is whoever connected, or began to listen; the descriptor may have been passed on since.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// The effective user.
    pub user_id: u32,
    /// The effective group.
    pub group_id: u32,
    /// The process, if it can be seen from here. Another one may have its number by now.
    pub process_id: Option<u32>,
}

/// Why a descriptor was not taken to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendDescriptorError {
    /// This kind of connection carries only bytes.
    #[error("descriptors can be sent over Unix sockets only")]
    NotUnix,
    /// As many wait as may wait.
    #[error(
        "{limit} descriptors wait to be sent already; write at least a byte, and wait until it is sent"
    )]
    TooMany {
        /// How many may wait.
        limit: usize,
    },
}

/// A connected stream socket, and the descriptors on their way through it.
pub(crate) struct UnixStream {
    stream: Stream,
    /// They go with the next bytes.
    outgoing: RefCell<VecDeque<OwnedFd>>,
    /// They came with the last bytes that were read.
    incoming: RefCell<VecDeque<OwnedFd>>,
    has_outgoing: Cell<bool>,
}

impl UnixStream {
    pub(crate) fn new(stream: Stream) -> UnixStream {
        UnixStream {
            stream,
            outgoing: RefCell::default(),
            incoming: RefCell::default(),
            has_outgoing: Cell::new(false),
        }
    }

    pub(crate) fn socket(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn source(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Reads bytes, and keeps the descriptors that come with them for
    /// [`take_descriptor`](UnixStream::take_descriptor). The system lets one read bring those of one
    /// message only.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&self.stream, &mut slices, &mut control, flags)?;
        let mut incoming = self.incoming.borrow_mut();
        incoming.clear();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                incoming.extend(descriptors);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "descriptors that the peer has sent are lost, because this process may open no more; \
                 raise its limit of open files",
            ));
        }
        Ok(received.bytes)
    }

    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        if self.has_outgoing.get() {
            return self.write_vectored(&[IoSlice::new(data)]);
        }
        (&self.stream).write(data)
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.has_outgoing.get() {
            return (&self.stream).write_vectored(slices);
        }
        let mut outgoing = self.outgoing.borrow_mut();
        let descriptors: Vec<BorrowedFd<'_>> = outgoing.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(OUTGOING_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let flags = SendFlags::NOSIGNAL;
        let count = rustix::net::sendmsg(&self.stream, slices, &mut control, flags)?;
        drop(descriptors);
        // The system has its own references to them from the first byte on.
        outgoing.clear();
        self.has_outgoing.set(false);
        Ok(count)
    }

    pub(crate) fn push_descriptor(&self, descriptor: OwnedFd) -> Result<(), SendDescriptorError> {
        push_bounded(&mut self.outgoing.borrow_mut(), descriptor)?;
        self.has_outgoing.set(true);
        Ok(())
    }

    pub(crate) fn take_descriptor(&self) -> Option<OwnedFd> {
        self.incoming.borrow_mut().pop_front()
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        #[cfg(target_os = "linux")]
        {
            let credentials = rustix::net::sockopt::socket_peercred(&self.stream)?;
            Ok(PeerCredentials {
                user_id: credentials.uid.as_raw(),
                group_id: credentials.gid.as_raw(),
                // Zero if it lives in a namespace that cannot be seen from here.
                process_id: u32::try_from(credentials.pid.as_raw_nonzero().get()).ok(),
            })
        }
        #[cfg(not(target_os = "linux"))]
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Adds a descriptor to those that wait for the next bytes.
pub(crate) fn push_bounded(
    outgoing: &mut VecDeque<OwnedFd>,
    descriptor: OwnedFd,
) -> Result<(), SendDescriptorError> {
    if outgoing.len() >= OUTGOING_MAX {
        return Err(SendDescriptorError::TooMany { limit: OUTGOING_MAX });
    }
    outgoing.push_back(descriptor);
    Ok(())
}

/// Begins to connect, which with Unix sockets is the end of it, too.
pub(crate) fn connect(address: &UnixAddress) -> io::Result<UnixStream> {
    let socket = open()?;
    socket.connect(&address.to_socket_address()?).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(
            io::ErrorKind::WouldBlock,
            "as many connections as may wait there are waiting to be accepted; try again later",
        ),
        _ => error,
    })?;
    Ok(UnixStream::new(Stream::from_std(socket.into())))
}

fn open() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// A listening socket; its file goes when it does.
pub(crate) struct UnixListener {
    listener: Listener,
    _file: Option<SocketFile>,
}

impl UnixListener {
    /// Takes a socket that listens already. Its file, if it has one, is its maker's.
    pub(crate) fn adopt(listener: Listener) -> UnixListener {
        UnixListener { listener, _file: None }
    }

    /// Opens a listening socket. A file that a dead process has left is replaced.
    pub(crate) fn listen(
        address: &UnixAddress,
        options: &UnixListenOptions,
    ) -> io::Result<UnixListener> {
        let socket = open()?;
        let socket_address = address.to_socket_address()?;
        let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
        let UnixAddress::Path(path) = address else {
            socket.bind(&socket_address)?;
            socket.listen(backlog)?;
            return Ok(UnixListener::adopt(Listener::from_std(socket.into())));
        };
        let lock = LockFile::take(path)?;
        remove_stale(path)?;
        // Linux gives the file this mode, less the umask; it is never more open than it is to be.
        let mode = rustix::fs::Mode::from_raw_mode(options.mode);
        let _ = rustix::fs::fchmod(&socket, mode);
        socket.bind(&socket_address)?;
        let file = SocketFile::at(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(options.mode))?;
        socket.listen(backlog)?;
        drop(lock);
        Ok(UnixListener { listener: Listener::from_std(socket.into()), _file: Some(file) })
    }

    pub(crate) fn accept(&self) -> io::Result<(UnixStream, UnixAddress)> {
        let (stream, peer) = self.listener.accept()?;
        Ok((UnixStream::new(stream), UnixAddress::from_system(&peer)))
    }

    pub(crate) fn local_address(&self) -> io::Result<UnixAddress> {
        Ok(UnixAddress::from_system(&self.listener.local_addr()?))
    }

    pub(crate) fn source(&mut self) -> &mut Listener {
        &mut self.listener
    }
}

/// Removes a socket's file if nobody listens on it. What isn't a socket stays where it is.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let refuse = |why: &str| {
        let path = path.display();
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("cannot listen on {path}: {why}")))
    };
    if !metadata.file_type().is_socket() {
        return refuse("there is a file that is not a socket; move it away or use another path");
    }
    let probe = open()?;
    match probe.connect(&UnixAddress::from(path).to_socket_address()?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("removing the socket {}, on which nobody listens any more", path.display());
            fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => refuse("somebody listens there already"),
    }
}

/// Held while a socket's file is looked at and replaced, so that two processes that start at the same
/// time do not remove each other's.
struct LockFile {
    path: PathBuf,
    _file: fs::File,
}

impl LockFile {
    fn take(socket: &Path) -> io::Result<LockFile> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let nofollow = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        loop {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
            let file = options.open(&path)?;
            let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            rustix::fs::flock(&file, operation).map_err(|error| match io::Error::from(error) {
                error if error.kind() == io::ErrorKind::WouldBlock => io::Error::new(
                    io::ErrorKind::AddrInUse,
                    format!("somebody is beginning to listen on {}", socket.display()),
                ),
                error => error,
            })?;
            // The one who held it before has removed it on leaving, perhaps after it was opened here.
            let held = file.metadata()?;
            if fs::symlink_metadata(&path).is_ok_and(|found| is_same(&held, &found)) {
                return Ok(LockFile { path, _file: file });
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // While the lock is held; it is let go as the file is closed.
        let _ = fs::remove_file(&self.path);
    }
}

/// The file of a listening socket; removed on drop, unless somebody else's has taken its place.
struct SocketFile {
    path: PathBuf,
    metadata: fs::Metadata,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: std::path::absolute(path)?, metadata: fs::symlink_metadata(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if !found.is_ok_and(|found| is_same(&self.metadata, &found)) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Descriptors that may wait for the next bytes, as many as Twisted takes. All go in one message.
const OUTGOING_MAX: usize = 64;

/// What the system lets one message carry (`SCM_MAX_FD`).
const PER_MESSAGE_MAX: usize = 253;
