//! Streams within one process, with the manners of non-blocking TCP sockets: bounded buffers, edge
//! events, half-close, reset.
//!
//! Two sockets that are joined directly hear of each other at once; this is what the test kit's clock
//! uses. In a simulated world there is a [`Path`] between them, which takes its time, and may fail.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use super::unix::{self, PeerCredentials, SendDescriptorError};
use crate::address::Address;
use crate::backend::{Event, Readiness};
use crate::slots::Key;

/// Where readiness is reported to, until the backend's next `wait` takes it.
pub(crate) type EventQueue = Rc<RefCell<Vec<Event>>>;

/// Bytes that are under way or unread in one direction before the writer is told to wait.
///
/// About what a kernel's socket pair holds, so that tests meet back-pressure where servers do.
pub(crate) const PIPE_BYTES: usize = 64 * 1024;

/// One end of a connection, as a descriptor is: dropping it closes the socket.
pub(crate) struct MemoryStream {
    socket: Rc<Socket>,
}

/// One end of a connection, as the network sees it.
pub(crate) struct Socket {
    local: Address,
    peer: Address,
    /// Descriptors that go with the next bytes.
    outgoing_descriptors: RefCell<VecDeque<OwnedFd>>,
    /// Descriptors that have come, no later than the bytes that they were sent with.
    received_descriptors: RefCell<VecDeque<OwnedFd>>,
    /// What has arrived and was not read.
    received: RefCell<VecDeque<u8>>,
    /// Where in the stream, counted from its beginning, bytes of TLS handshakes have arrived that were
    /// not read to their end.
    received_handshakes: RefCell<VecDeque<Range<u64>>>,
    /// How many bytes were read.
    read_bytes: Cell<u64>,
    /// What becomes of the bytes that this end writes.
    seal: Cell<Seal>,
    /// How many bytes more may be sent before the peer has read some.
    window_bytes: Cell<usize>,
    stage: Cell<Stage>,
    /// Set when the peer will write no more.
    is_peer_finished: Cell<bool>,
    /// Set when the peer reads no more.
    is_peer_gone: Cell<bool>,
    /// Set when this end will write no more.
    is_finished: Cell<bool>,
    /// Set when this end was told to wait before it writes more.
    is_writer_waiting: Cell<bool>,
    resets_on_close: Cell<bool>,
    watcher: RefCell<Option<Watcher>>,
    path: RefCell<Path>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Connected,
    Connecting,
    /// The connection was not made, or has ended before its time.
    Failed(io::ErrorKind),
}

/// The way to the other end.
enum Path {
    Direct(Weak<Socket>),
    Network(Rc<dyn Network>),
    /// Nothing leads anywhere any more.
    None,
}

/// Carries what a socket has to say to the other end, in its time and in order.
pub(crate) trait Network {
    fn carry(&self, news: News);
}

/// What one end of a connection tells the other.
#[derive(Debug)]
pub(crate) enum News {
    Bytes(Vec<u8>, Seal),
    /// This end is closed: it neither writes nor reads any more.
    Closed,
    /// This end writes no more.
    Finished,
    /// So many bytes were read.
    Read(usize),
    Reset,
}

/// What the network may know of some bytes.
///
/// In a simulation nothing may depend on ciphertext, which is another one each time. That of a record is
/// always of the same length, that of a handshake is not even that: signatures vary in theirs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Seal {
    /// Their number.
    Ciphertext,
    /// Nothing.
    Handshake,
    /// Nothing, and what is written next is ciphertext.
    HandshakeEnd,
    /// Everything.
    None,
}

/// What a socket is ready for that has failed.
const FAILED: Readiness =
    Readiness::READABLE.and(Readiness::CLOSING).and(Readiness::FAILED).and(Readiness::WRITABLE);

/// Hears of readiness.
pub(super) struct Watcher {
    events: EventQueue,
    key: Key,
}

impl Socket {
    /// Makes a socket that has a connection.
    pub(crate) fn connected(
        local: impl Into<Address>,
        peer: impl Into<Address>,
        capacity_bytes: usize,
    ) -> Socket {
        Socket {
            local: local.into(),
            peer: peer.into(),
            outgoing_descriptors: RefCell::default(),
            received_descriptors: RefCell::default(),
            received: RefCell::default(),
            received_handshakes: RefCell::default(),
            read_bytes: Cell::new(0),
            seal: Cell::new(Seal::None),
            window_bytes: Cell::new(capacity_bytes),
            stage: Cell::new(Stage::Connected),
            is_peer_finished: Cell::new(false),
            is_peer_gone: Cell::new(false),
            is_finished: Cell::new(false),
            is_writer_waiting: Cell::new(false),
            resets_on_close: Cell::new(false),
            watcher: RefCell::new(None),
            path: RefCell::new(Path::None),
        }
    }

    /// Makes a socket that has asked for a connection, of which it will [hear](Socket::establish).
    pub(crate) fn connecting(local: SocketAddr, peer: SocketAddr, capacity_bytes: usize) -> Socket {
        let socket = Socket::connected(local, peer, capacity_bytes);
        socket.stage.set(Stage::Connecting);
        socket
    }

    /// Sends what this end has to say over this network.
    pub(crate) fn lead_over(&self, network: Rc<dyn Network>) {
        self.path.replace(Path::Network(network));
    }

    pub(crate) fn is_connecting(&self) -> bool {
        self.stage.get() == Stage::Connecting
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.stage.get(), Stage::Failed(_))
    }

    /// The connection that was asked for is there.
    pub(crate) fn establish(&self) {
        if self.is_connecting() {
            self.stage.set(Stage::Connected);
            self.tell(Readiness::WRITABLE);
        }
    }

    /// The connection is not made, or ends now. What has not been read is lost.
    pub(crate) fn fail(&self, why: io::ErrorKind) {
        if self.has_failed() {
            return;
        }
        self.stage.set(Stage::Failed(why));
        self.received.borrow_mut().clear();
        self.tell(FAILED);
    }

    /// Takes what has come from the other end.
    pub(crate) fn receive(&self, news: News) {
        if self.stage.get() != Stage::Connected {
            return;
        }
        match news {
            News::Bytes(bytes, seal) => self.receive_bytes(&bytes, seal),
            News::Closed => {
                self.is_peer_gone.set(true);
                self.is_peer_finished.set(true);
                self.tell(Readiness::READABLE.and(Readiness::CLOSING));
            }
            News::Finished => {
                self.is_peer_finished.set(true);
                self.tell(Readiness::READABLE.and(Readiness::CLOSING));
            }
            News::Read(count) => {
                self.window_bytes.set(self.window_bytes.get() + count);
                if self.is_writer_waiting.replace(false) {
                    self.tell(Readiness::WRITABLE);
                }
            }
            News::Reset => self.fail(io::ErrorKind::ConnectionReset),
        }
    }

    fn receive_bytes(&self, bytes: &[u8], seal: Seal) {
        let mut received = self.received.borrow_mut();
        if seal == Seal::Handshake {
            let start = self.read_bytes.get() + received.len() as u64;
            let place = start..start + bytes.len() as u64;
            self.received_handshakes.borrow_mut().push_back(place);
        }
        received.extend(bytes);
        drop(received);
        self.tell(Readiness::READABLE);
    }

    fn tell(&self, readiness: Readiness) {
        Watcher::tell(&self.watcher, readiness);
    }

    fn carry(&self, news: News) {
        match &*self.path.borrow() {
            Path::Direct(peer) => {
                if let Some(peer) = peer.upgrade() {
                    peer.receive(news);
                }
            }
            Path::Network(network) => network.carry(news),
            Path::None => {}
        }
    }

    /// Sends a part of the slices, or nothing of them, as there is room.
    fn send(&self, slices: &[IoSlice<'_>]) -> usize {
        if let Path::Network(network) = &*self.path.borrow()
            && let Some(count) = self.send_handshake(&**network, slices)
        {
            return count;
        }
        let room = self.window_bytes.get();
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let count = room.min(wanted);
        if count < wanted {
            self.is_writer_waiting.set(true);
        }
        if count == 0 {
            return 0;
        }
        self.window_bytes.set(room - count);
        if let Path::Direct(peer) = &*self.path.borrow() {
            if let Some(peer) = peer.upgrade() {
                let mut left = count;
                for slice in slices {
                    let piece = &slice[..left.min(slice.len())];
                    peer.received.borrow_mut().extend(piece);
                    left -= piece.len();
                }
                let mut descriptors = self.outgoing_descriptors.borrow_mut();
                peer.received_descriptors.borrow_mut().append(&mut descriptors);
                peer.tell(Readiness::READABLE);
            }
            return count;
        }
        let mut bytes = Vec::with_capacity(count);
        for slice in slices {
            let left = count - bytes.len();
            bytes.extend_from_slice(&slice[..left.min(slice.len())]);
        }
        self.carry(News::Bytes(bytes, self.seal.get()));
        count
    }

    /// Sends bytes of a handshake, if that is what is being written: without counting them.
    fn send_handshake(&self, network: &dyn Network, slices: &[IoSlice<'_>]) -> Option<usize> {
        match self.seal.get() {
            Seal::Ciphertext | Seal::None => return None,
            Seal::Handshake => {}
            Seal::HandshakeEnd => self.seal.set(Seal::Ciphertext),
        }
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let count = bytes.len();
        network.carry(News::Bytes(bytes, Seal::Handshake));
        Some(count)
    }

    /// Notes that bytes were read, and returns how many of them the other end counts.
    fn count_read(&self, count: usize) -> usize {
        let from = self.read_bytes.get();
        let to = from + count as u64;
        self.read_bytes.set(to);
        let mut uncounted = 0;
        let mut handshakes = self.received_handshakes.borrow_mut();
        while let Some(place) = handshakes.front() {
            uncounted += place.end.min(to).saturating_sub(place.start.max(from));
            if place.end > to {
                break;
            }
            handshakes.pop_front();
        }
        count - usize::try_from(uncounted).unwrap_or(count)
    }
}

impl MemoryStream {
    pub(crate) fn new(socket: Rc<Socket>) -> MemoryStream {
        MemoryStream { socket }
    }

    /// Makes two connected ends, joined directly.
    pub(crate) fn pair(
        first: Address,
        second: Address,
        capacity_bytes: usize,
    ) -> (MemoryStream, MemoryStream) {
        let one = Rc::new(Socket::connected(first.clone(), second.clone(), capacity_bytes));
        let other = Rc::new(Socket::connected(second, first, capacity_bytes));
        one.path.replace(Path::Direct(Rc::downgrade(&other)));
        other.path.replace(Path::Direct(Rc::downgrade(&one)));
        (MemoryStream::new(one), MemoryStream::new(other))
    }

    /// Reports this end's readiness from now on; what it is now, at once.
    pub(crate) fn watch(&self, events: &EventQueue, key: Key) {
        let socket = &*self.socket;
        socket.watcher.replace(Some(Watcher::new(events, key)));
        if !socket.is_connecting() {
            socket.tell(Readiness::WRITABLE);
        }
        if !socket.received.borrow().is_empty() {
            socket.tell(Readiness::READABLE);
        }
        if socket.is_peer_finished.get() {
            socket.tell(Readiness::READABLE.and(Readiness::CLOSING));
        }
        if socket.has_failed() {
            socket.tell(FAILED);
        }
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = &*self.socket;
        match socket.stage.get() {
            Stage::Connected => {}
            Stage::Connecting => return Err(io::ErrorKind::WouldBlock.into()),
            Stage::Failed(why) => return Err(why.into()),
        }
        let mut bytes = socket.received.borrow_mut();
        if bytes.is_empty() {
            return if socket.is_peer_finished.get() {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            };
        }
        let count = io::Read::read(&mut *bytes, buffer)?;
        // The deque shows its two halves one at a time.
        let count = count + io::Read::read(&mut *bytes, &mut buffer[count..])?;
        drop(bytes);
        let counted = socket.count_read(count);
        if counted > 0 {
            socket.carry(News::Read(counted));
        }
        Ok(count)
    }

    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(data)])
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = &*self.socket;
        match socket.stage.get() {
            Stage::Connected => {}
            Stage::Connecting => return Err(io::ErrorKind::WouldBlock.into()),
            Stage::Failed(why) => return Err(why.into()),
        }
        if socket.is_peer_gone.get() || socket.is_finished.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match socket.send(slices) {
            0 if socket.is_writer_waiting.get() => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    pub(crate) fn shutdown_write(&self) {
        let socket = &*self.socket;
        if !socket.is_finished.replace(true) {
            socket.carry(News::Finished);
        }
    }

    /// What is written from now on is the business of the two ends only.
    pub(crate) fn begin_handshake(&self) {
        self.socket.seal.set(Seal::Handshake);
    }

    /// What is written from now on, or after the next write, is ciphertext.
    pub(crate) fn end_handshake(&self, is_last_to_come: bool) {
        let seal = if is_last_to_come { Seal::HandshakeEnd } else { Seal::Ciphertext };
        self.socket.seal.set(seal);
    }

    pub(crate) fn reset_on_close(&self) {
        self.socket.resets_on_close.set(true);
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        match self.socket.stage.get() {
            Stage::Failed(why) => Some(why.into()),
            Stage::Connected | Stage::Connecting => None,
        }
    }

    pub(crate) fn local_address(&self) -> &Address {
        &self.socket.local
    }

    pub(super) fn peer(&self) -> &Address {
        &self.socket.peer
    }

    /// Fails while there is no connection.
    pub(crate) fn check_connected(&self) -> io::Result<()> {
        if self.socket.is_connecting() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }

    pub(crate) fn carries_descriptors(&self) -> bool {
        matches!(self.socket.peer, Address::Unix(_))
    }

    pub(crate) fn push_descriptor(&self, descriptor: OwnedFd) -> Result<(), SendDescriptorError> {
        if !self.carries_descriptors() {
            return Err(SendDescriptorError::NotUnix);
        }
        unix::push_bounded(&mut self.socket.outgoing_descriptors.borrow_mut(), descriptor)
    }

    pub(crate) fn take_descriptor(&self) -> Option<OwnedFd> {
        self.socket.received_descriptors.borrow_mut().pop_front()
    }

    /// Both ends are this process's; what number it has is nobody's business in a simulation.
    pub(crate) fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.carries_descriptors().then(|| PeerCredentials {
            user_id: rustix::process::geteuid().as_raw(),
            group_id: rustix::process::getegid().as_raw(),
            process_id: None,
        })
    }

    /// Whether all was read that the other end will ever write.
    pub(crate) fn is_at_end(&self) -> bool {
        (self.socket.is_peer_finished.get() || self.socket.has_failed())
            && self.socket.received.borrow().is_empty()
    }

    /// Whether the other end was dropped.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.socket.is_peer_gone.get() || self.socket.has_failed()
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let socket = &*self.socket;
        socket.watcher.take();
        // As with TCP, closing with unread bytes resets.
        let is_reset = socket.resets_on_close.get() || !socket.received.borrow().is_empty();
        if !socket.has_failed() {
            let is_reset = is_reset || socket.is_connecting();
            socket.carry(if is_reset { News::Reset } else { News::Closed });
        }
        // Whatever is still under way to this end finds nobody.
        socket.path.replace(Path::None);
    }
}

impl Watcher {
    pub(super) fn new(events: &EventQueue, key: Key) -> Watcher {
        Watcher { events: Rc::clone(events), key }
    }

    pub(super) fn tell(watcher: &RefCell<Option<Watcher>>, readiness: Readiness) {
        if let Some(watcher) = &*watcher.borrow() {
            watcher.events.borrow_mut().push(Event { key: watcher.key, readiness });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(capacity_bytes: usize) -> (MemoryStream, MemoryStream) {
        let address = |port| Address::Tcp(([127, 0, 0, 1], port).into());
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
