//! A stretch of a file that the system sends by itself, without its bytes passing through the process.
//!
//! The call is made in a thread job, on a duplicate of the socket's descriptor: a page that is not in memory
//! has that thread wait for the disk, never the loop. Meanwhile the loop sends nothing on that connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::link::{Link, flag};
use super::stream::Stream;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::files::FileRange;

/// How one call for a file's bytes went.
struct Sent {
    bytes: u64,
    socket: OwnedFd,
    end: End,
}

enum End {
    All,
    /// The socket takes nothing until it says so.
    Blocked,
    /// The connection failed.
    Connection(io::Error),
    /// The file ended or failed, or cannot be sent in this way.
    File(io::Error),
}

impl Link {
    /// Has the system send these bytes, if it can: a file of the machine on a plain TCP connection.
    pub(crate) fn take_file(self: &Rc<Link>, range: &FileRange) -> Option<Deferred<u64>> {
        if !cfg!(target_os = "linux")
            || self.state.has(flag::TLS | flag::WRITE_BLOCKED | flag::SENDING_FILE)
            || self.state.has(flag::CONNECTING | flag::HANDSHAKING | flag::METERED)
            || !self.takes_writes()
            || self.buffered_bytes() > 0
        {
            return None;
        }
        range.file.system_file()?;
        let socket = match &*self.stream.borrow() {
            // Without a descriptor to spare, the bytes go the long way.
            Some(Stream::Tcp(stream)) => stream.as_fd().try_clone_to_owned().ok()?,
            _ => return None,
        };
        self.state.set(flag::SENDING_FILE);
        let (offset, length_bytes) = (range.offset, range.length_bytes);
        let file = Arc::clone(&range.file);
        let sent = range.pool.defer(move || match file.system_file() {
            Some(file) => Ok::<_, Failure>(send(socket, file, offset, length_bytes)),
            None => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        });
        let link = Rc::clone(self);
        Some(sent.add_both(move |sent| {
            link.state.clear(flag::SENDING_FILE);
            link.file_sent(sent)
        }))
    }

    /// Does what the loop has to do about bytes that were sent in a thread.
    fn file_sent(self: &Rc<Link>, sent: Result<Sent, Failure>) -> Result<u64, Failure> {
        let Some(core) = self.core().filter(|_| !self.state.has(flag::LOST)) else {
            return sent.map(|sent| sent.bytes);
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(failure) => {
                self.flush_later();
                return Err(failure);
            }
        };
        core.counters.bytes_out.add(sent.bytes as usize);
        match sent.end {
            End::All => {}
            End::Blocked => self.block_writing(&sent.socket),
            End::Connection(error) => {
                self.close_with(&core, error);
                return Ok(sent.bytes);
            }
            End::File(error) => {
                self.flush_later();
                // The bytes count first; the error, if it was one, will show again.
                return if sent.bytes > 0 { Ok(sent.bytes) } else { Err(error.into()) };
            }
        }
        if !self.state.has(flag::WRITE_BLOCKED) {
            self.flush_now(&core);
        }
        Ok(sent.bytes)
    }

    /// Waits for the socket to take more, unless it does already: the edge that said so may have come
    /// before anybody waited for it.
    fn block_writing(&self, socket: &OwnedFd) {
        let mut question = [PollFd::new(socket, PollFlags::OUT)];
        let is_writable =
            poll(&mut question, Some(&Timespec::default())).is_ok_and(|count| count > 0);
        if !is_writable {
            self.state.set(flag::WRITE_BLOCKED);
        }
    }
}

#[cfg(target_os = "linux")]
fn send(socket: OwnedFd, file: &std::fs::File, offset: u64, length_bytes: u64) -> Sent {
    let mut position = offset;
    let end_at = offset.saturating_add(length_bytes);
    let end = loop {
        let rest = usize::try_from(end_at - position).unwrap_or(usize::MAX);
        if rest == 0 {
            break End::All;
        }
        match rustix::fs::sendfile(&socket, file, Some(&mut position), rest) {
            Ok(0) => break End::File(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break End::Blocked,
            // A file system that cannot do this.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                break End::File(io::ErrorKind::Unsupported.into());
            }
            Err(
                error @ (Errno::CONNRESET
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NOTCONN
                | Errno::PIPE
                | Errno::TIMEDOUT),
            ) => break End::Connection(error.into()),
            Err(error) => break End::File(error.into()),
        }
    };
    Sent { bytes: position - offset, socket, end }
}

#[cfg(not(target_os = "linux"))]
fn send(socket: OwnedFd, _: &std::fs::File, _: u64, _: u64) -> Sent {
    Sent { bytes: 0, socket, end: End::File(io::ErrorKind::Unsupported.into()) }
}
