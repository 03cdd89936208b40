//! Streams within one process, with the manners of non-blocking TCP sockets: bounded buffers, edge
//! events, half-close, reset.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use crate::backend::{Event, Readiness};
use crate::slots::Key;

/// Where readiness is reported to, until the backend's next `wait` takes it.
pub(crate) type EventQueue = Rc<RefCell<Vec<Event>>>;

/// Bytes that wait in one direction before the writer is told to wait.
///
/// About what a kernel's socket pair holds, so that tests meet back-pressure where servers do.
pub(crate) const PIPE_BYTES: usize = 64 * 1024;

/// One end of a pair of streams.
pub(crate) struct MemoryStream {
    local: SocketAddr,
    peer: SocketAddr,
    /// What this end writes.
    outgoing: Rc<Pipe>,
    /// What this end reads.
    incoming: Rc<Pipe>,
    resets_on_close: Cell<bool>,
}

/// One direction.
struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    capacity_bytes: usize,
    /// Set when the writer will write no more.
    is_finished: Cell<bool>,
    /// Set when the reader is gone.
    is_abandoned: Cell<bool>,
    /// Set when the writer dropped the connection.
    is_reset: Cell<bool>,
    /// Set when the writer found the pipe full.
    is_writer_waiting: Cell<bool>,
    reader: RefCell<Option<Watcher>>,
    writer: RefCell<Option<Watcher>>,
}

struct Watcher {
    events: EventQueue,
    key: Key,
}

impl MemoryStream {
    /// Makes two connected ends.
    pub(crate) fn pair(
        first: SocketAddr,
        second: SocketAddr,
        capacity_bytes: usize,
    ) -> (MemoryStream, MemoryStream) {
        let there = Rc::new(Pipe::new(capacity_bytes));
        let back = Rc::new(Pipe::new(capacity_bytes));
        let end = |local, peer, outgoing: &Rc<Pipe>, incoming: &Rc<Pipe>| MemoryStream {
            local,
            peer,
            outgoing: Rc::clone(outgoing),
            incoming: Rc::clone(incoming),
            resets_on_close: Cell::new(false),
        };
        (end(first, second, &there, &back), end(second, first, &back, &there))
    }

    /// Reports this end's readiness from now on; what it is now, at once.
    pub(crate) fn watch(&self, events: &EventQueue, key: Key) {
        let watcher = || Some(Watcher { events: Rc::clone(events), key });
        self.incoming.reader.replace(watcher());
        self.outgoing.writer.replace(watcher());
        self.outgoing.tell_writer(Readiness::WRITABLE);
        if !self.incoming.bytes.borrow().is_empty() {
            self.incoming.tell_reader(Readiness::READABLE);
        }
        if self.incoming.is_finished.get() {
            self.incoming.tell_reader(Readiness::READABLE.and(Readiness::CLOSING));
        }
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let pipe = &*self.incoming;
        if pipe.is_reset.get() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut bytes = pipe.bytes.borrow_mut();
        if bytes.is_empty() {
            return if pipe.is_finished.get() {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            };
        }
        let count = io::Read::read(&mut *bytes, buffer)?;
        // The deque shows its two halves one at a time.
        let count = count + io::Read::read(&mut *bytes, &mut buffer[count..])?;
        drop(bytes);
        if pipe.is_writer_waiting.replace(false) {
            pipe.tell_writer(Readiness::WRITABLE);
        }
        Ok(count)
    }

    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(data)])
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let pipe = &*self.outgoing;
        if self.incoming.is_reset.get() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if pipe.is_abandoned.get() || pipe.is_finished.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut bytes = pipe.bytes.borrow_mut();
        let before = bytes.len();
        for slice in slices {
            let room = pipe.capacity_bytes - bytes.len();
            let count = room.min(slice.len());
            bytes.extend(&slice[..count]);
            if count < slice.len() {
                pipe.is_writer_waiting.set(true);
                break;
            }
        }
        let count = bytes.len() - before;
        drop(bytes);
        if count > 0 {
            pipe.tell_reader(Readiness::READABLE);
        } else if pipe.is_writer_waiting.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    pub(crate) fn shutdown_write(&self) {
        if !self.outgoing.is_finished.replace(true) {
            self.outgoing.tell_reader(Readiness::READABLE.and(Readiness::CLOSING));
        }
    }

    pub(crate) fn reset_on_close(&self) {
        self.resets_on_close.set(true);
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.incoming.is_reset.get().then(|| io::ErrorKind::ConnectionReset.into())
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local
    }

    #[expect(clippy::unnecessary_wraps, reason = "the other kinds of stream can fail here")]
    pub(crate) fn peer_address(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    /// Whether all was read that the other end will ever write.
    pub(crate) fn is_at_end(&self) -> bool {
        self.incoming.is_finished.get() && self.incoming.bytes.borrow().is_empty()
    }

    /// Whether the other end was dropped.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.outgoing.is_abandoned.get()
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        // As with TCP, closing with unread bytes resets.
        let is_reset = self.resets_on_close.get() || !self.incoming.bytes.borrow().is_empty();
        if is_reset {
            self.outgoing.is_reset.set(true);
            self.outgoing.bytes.borrow_mut().clear();
        }
        self.incoming.is_abandoned.set(true);
        self.outgoing.is_finished.set(true);
        self.incoming.reader.take();
        self.outgoing.writer.take();
        let mut readiness = Readiness::READABLE.and(Readiness::CLOSING);
        if is_reset {
            readiness = readiness.and(Readiness::FAILED).and(Readiness::WRITABLE);
        }
        self.outgoing.tell_reader(readiness);
    }
}

impl Pipe {
    fn new(capacity_bytes: usize) -> Pipe {
        Pipe {
            bytes: RefCell::default(),
            capacity_bytes,
            is_finished: Cell::new(false),
            is_abandoned: Cell::new(false),
            is_reset: Cell::new(false),
            is_writer_waiting: Cell::new(false),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
        }
    }

    fn tell_reader(&self, readiness: Readiness) {
        Watcher::tell(&self.reader, readiness);
    }

    fn tell_writer(&self, readiness: Readiness) {
        Watcher::tell(&self.writer, readiness);
    }
}

impl Watcher {
    fn tell(watcher: &RefCell<Option<Watcher>>, readiness: Readiness) {
        if let Some(watcher) = &*watcher.borrow() {
            watcher.events.borrow_mut().push(Event { key: watcher.key, readiness });
        }
    }
}

/// Accepts streams that somebody in this process connects.
pub(crate) struct MemoryListener {
    shared: Rc<Backlog>,
}

/// A listener as its connectors see it.
pub(crate) struct Backlog {
    address: SocketAddr,
    waiting: RefCell<VecDeque<MemoryStream>>,
    watcher: RefCell<Option<Watcher>>,
}

impl MemoryListener {
    pub(crate) fn new(address: SocketAddr) -> MemoryListener {
        let shared = Backlog { address, waiting: RefCell::default(), watcher: RefCell::new(None) };
        MemoryListener { shared: Rc::new(shared) }
    }

    pub(crate) fn backlog(&self) -> Weak<Backlog> {
        Rc::downgrade(&self.shared)
    }

    pub(crate) fn watch(&self, events: &EventQueue, key: Key) {
        self.shared.watcher.replace(Some(Watcher { events: Rc::clone(events), key }));
        if !self.shared.waiting.borrow().is_empty() {
            Watcher::tell(&self.shared.watcher, Readiness::READABLE);
        }
    }

    pub(crate) fn accept(&self) -> io::Result<(MemoryStream, SocketAddr)> {
        let stream = self.shared.waiting.borrow_mut().pop_front();
        let stream = stream.ok_or(io::ErrorKind::WouldBlock)?;
        let peer = stream.peer;
        Ok((stream, peer))
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.shared.address
    }
}

impl Backlog {
    /// Connects from `local` and returns the connector's end.
    pub(crate) fn connect(&self, local: SocketAddr) -> MemoryStream {
        let (connecting, accepted) = MemoryStream::pair(local, self.address, PIPE_BYTES);
        self.waiting.borrow_mut().push_back(accepted);
        Watcher::tell(&self.watcher, Readiness::READABLE);
        connecting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(capacity_bytes: usize) -> (MemoryStream, MemoryStream) {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        MemoryStream::pair(address(1), address(2), capacity_bytes)
    }

    fn error<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn a_full_pipe_blocks_the_writer_until_the_reader_makes_room() {
        let (writer, reader) = pair(4);
        let events = EventQueue::default();
        writer.watch(&events, Key::NONE);
        events.borrow_mut().clear();
        assert_eq!(writer.write(b"abcdef").unwrap(), 4);
        assert_eq!(error(writer.write(b"ef")), Some(io::ErrorKind::WouldBlock));
        assert!(events.borrow().is_empty());
        let mut buffer = [0; 3];
        assert_eq!(reader.read(&mut buffer).unwrap(), 3);
        assert!(events.borrow()[0].readiness.has(Readiness::WRITABLE), "one edge, and no more");
        assert_eq!(events.borrow().len(), 1);
        assert_eq!(writer.write(b"ef").unwrap(), 2);
        let mut buffer = [0; 9];
        assert_eq!(reader.read(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"def");
        assert_eq!(error(reader.read(&mut buffer)), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn half_a_close_leaves_the_other_direction_open() {
        let (one, other) = pair(9);
        one.write(b"last").unwrap();
        one.shutdown_write();
        let mut buffer = [0; 9];
        assert_eq!(other.read(&mut buffer).unwrap(), 4);
        assert_eq!(other.read(&mut buffer).unwrap(), 0);
        other.write(b"still").unwrap();
        assert_eq!(one.read(&mut buffer).unwrap(), 5);
        assert_eq!(error(one.write(b"no")), Some(io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn closing_with_unread_bytes_resets_the_other_end() {
        let (one, other) = pair(9);
        other.write(b"unread").unwrap();
        one.write(b"lost").unwrap();
        drop(one);
        let mut buffer = [0; 9];
        assert_eq!(error(other.read(&mut buffer)), Some(io::ErrorKind::ConnectionReset));
        assert_eq!(error(other.write(b"no")), Some(io::ErrorKind::ConnectionReset));
    }
}
