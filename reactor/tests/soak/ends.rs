//! The two ends of a connection, what they have been asked to do, and what came of it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::LazyLock;

use ropewalk::{ConnectionLost, Producer, Protocol, Streaming, Transport};

/// What happened to all ends together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Ends whose connection was made, and lost.
    pub(crate) made: Cell<usize>,
    pub(crate) lost: Cell<usize>,
    /// How they were lost.
    pub(crate) clean: Cell<usize>,
    pub(crate) aborted: Cell<usize>,
    pub(crate) failed: Cell<usize>,
    /// Ends that have heard that the other one finished sending.
    pub(crate) ends_of_stream: Cell<usize>,
    /// What producers were told.
    pub(crate) pauses: Cell<usize>,
    pub(crate) stops: Cell<usize>,
    /// Whether ends are to finish what they are at.
    pub(crate) is_ending: Cell<bool>,
    /// What should not have happened.
    pub(crate) complaints: RefCell<Vec<String>>,
}

impl Tally {
    pub(crate) fn complain(&self, complaint: String) {
        self.complaints.borrow_mut().push(complaint);
    }
}

fn count(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

/// What a connection is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Tcp,
    Tls,
    Unix,
}

/// A connection: the end that connected, and the one that accepted.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) kind: Kind,
    ends: [Rc<End>; 2],
}

impl Pair {
    pub(crate) fn new(number: usize, tally: &Rc<Tally>) -> Pair {
        let ends = [0, 1].map(|side| Rc::new(End::new(number, side, tally)));
        let kind = match number % 64 {
            0 => Kind::Tls,
            kind if kind.is_multiple_of(3) => Kind::Unix,
            _ => Kind::Tcp,
        };
        Pair { kind, ends }
    }

    pub(crate) fn end(&self, side: usize) -> Rc<End> {
        Rc::clone(&self.ends[side])
    }

    /// Whether nothing will happen to it any more. The second end may never have learnt whose it is.
    pub(crate) fn is_over(&self) -> bool {
        let [near, far] = &self.ends;
        near.lost.borrow().is_some() && far.transport.borrow().is_none()
    }

    /// Compares what went in at one end with what came out at the other, for each direction.
    pub(crate) fn check(&self) {
        let [near, far] = &self.ends;
        assert!(near.lost.borrow().is_some(), "connection {} was never lost", near.number);
        for (from, to) in [(near, far), (far, near)] {
            let (sent, received) = (from.sent.get(), to.received.get());
            let number = to.number;
            let reason = to.lost.borrow();
            let is_clean = reason.as_ref().is_some_and(ConnectionLost::is_clean);
            // A Unix socket has no way to say that it was aborted: its peer sees a common end.
            let is_cut_off = self.kind == Kind::Unix
                && matches!(*from.lost.borrow(), Some(ConnectionLost::Aborted));
            let is_in_order = is_clean && !to.has_given_up.get() || to.is_at_end.get();
            if is_in_order && !is_cut_off {
                assert_eq!(received, sent, "connection {number}, closed in order: {self:#?}");
            }
            assert!(received <= sent, "connection {number}: {received} of {sent} bytes came");
            assert!(!matches!(reason.as_ref(), Some(ConnectionLost::ProtocolPanicked)));
            let is_peaceful = [near, far].iter().all(|end| !end.has_given_up.get());
            assert!(!is_peaceful || is_clean, "connection {number}: nobody asked for {reason:?}");
        }
    }
}

/// One end of a connection.
pub(crate) struct End {
    number: usize,
    /// Which bytes it sends.
    salt: usize,
    transport: RefCell<Option<Transport>>,
    sent: Cell<usize>,
    received: Cell<usize>,
    /// Whether it was asked to finish sending, or to close.
    has_finished: Cell<bool>,
    has_given_up: Cell<bool>,
    /// Whether it has heard that the other one finished sending.
    is_at_end: Cell<bool>,
    spring: RefCell<Option<Rc<Spring>>>,
    lost: RefCell<Option<ConnectionLost>>,
    tally: Rc<Tally>,
}

impl End {
    fn new(number: usize, side: usize, tally: &Rc<Tally>) -> End {
        End {
            number,
            salt: number * 2 + side,
            transport: RefCell::default(),
            sent: Cell::default(),
            received: Cell::default(),
            has_finished: Cell::default(),
            has_given_up: Cell::default(),
            is_at_end: Cell::default(),
            spring: RefCell::default(),
            lost: RefCell::default(),
            tally: Rc::clone(tally),
        }
    }

    /// Returns the transport of an end that is open, as far as it knows.
    pub(crate) fn transport(&self) -> Option<Transport> {
        self.transport.borrow().clone()
    }

    pub(crate) fn write(&self, transport: &Transport, length: usize) {
        // While a producer is registered, it alone writes.
        if !self.has_finished.get() && self.spring.borrow().is_none() {
            self.send(transport, length);
        }
    }

    fn send(&self, transport: &Transport, length: usize) {
        transport.write(expected(self.salt, self.sent.get(), length));
        self.sent.set(self.sent.get() + length);
    }

    pub(crate) fn feed(self: &Rc<End>, transport: &Transport, streaming: Streaming, length: usize) {
        if self.has_finished.get() || self.spring.borrow().is_some() {
            return;
        }
        let spring = Rc::new(Spring {
            end: Rc::downgrade(self),
            left: Cell::new(length),
            is_held: Cell::new(streaming == Streaming::Pull),
            streaming,
        });
        self.spring.replace(Some(Rc::clone(&spring)));
        transport.register_producer(spring, streaming);
    }

    /// Has a push producer write something, if it may.
    pub(crate) fn push(&self, transport: &Transport) {
        let spring = self.spring.borrow().clone();
        if let Some(spring) = spring.filter(|spring| !spring.is_held.get()) {
            spring.flow(self, transport, PIECE_BYTES * 4);
        }
    }

    pub(crate) fn finish_sending(&self, transport: &Transport) {
        self.has_finished.set(true);
        transport.lose_write_connection();
    }

    pub(crate) fn close(&self, transport: &Transport) {
        self.has_finished.set(true);
        self.has_given_up.set(true);
        transport.lose_connection();
    }

    pub(crate) fn abort(&self, transport: &Transport) {
        self.has_finished.set(true);
        self.has_given_up.set(true);
        transport.abort_connection();
    }

    pub(crate) fn abort_if_open(&self) {
        if let Some(transport) = self.transport() {
            self.abort(&transport);
        }
    }

    pub(crate) fn close_if_open(&self) {
        if let Some(transport) = self.transport() {
            self.close(&transport);
        }
    }

    /// Reads all that comes, writes all that is left to be written, and finishes.
    pub(crate) fn come_to_an_end(&self) {
        let Some(transport) = self.transport() else { return };
        transport.resume_producing();
        self.finish_sending(&transport);
        self.push_all(&transport);
    }

    fn push_all(&self, transport: &Transport) {
        let spring = self.spring.borrow().clone();
        if let Some(spring) = spring.filter(|spring| !spring.is_held.get()) {
            spring.flow(self, transport, usize::MAX);
        }
    }

    fn made(&self, transport: &Transport) {
        self.transport.replace(Some(transport.clone()));
    }

    fn received(&self, data: &[u8]) {
        let start = self.received.get();
        if self.has_given_up.get() {
            self.tally
                .complain(format!("connection {}: told something after its end", self.number));
        }
        if data != expected(self.salt ^ 1, start, data.len()) {
            self.tally.complain(format!("connection {}: other bytes came at {start}", self.number));
        }
        self.received.set(start + data.len());
    }

    fn read_lost(&self, transport: &Transport) {
        count(&self.tally.ends_of_stream);
        self.is_at_end.set(true);
        // Some go on sending, and finish when it occurs to them.
        if self.number.is_multiple_of(2) {
            self.close(transport);
        }
    }

    fn lost(&self, reason: ConnectionLost) {
        self.transport.replace(None);
        self.spring.replace(None);
        self.lost.replace(Some(reason));
    }
}

fn count_lost(tally: &Tally, reason: &ConnectionLost) {
    count(&tally.lost);
    match reason {
        ConnectionLost::Aborted => count(&tally.aborted),
        ConnectionLost::Done => count(&tally.clean),
        ConnectionLost::Failed(_) | ConnectionLost::Truncated => count(&tally.failed),
        reason => tally.complain(format!("lost: {reason}")),
    }
}

/// The protocol of an end that connects. It says first which connection this is.
pub(crate) struct Dialled {
    end: Rc<End>,
}

impl Dialled {
    pub(crate) fn new(end: Rc<End>) -> Dialled {
        Dialled { end }
    }
}

impl Protocol for Dialled {
    fn connection_made(&mut self, transport: &Transport) {
        count(&self.end.tally.made);
        self.end.made(transport);
        transport.write(&u32::try_from(self.end.number).unwrap().to_be_bytes());
        if self.end.tally.is_ending.get() {
            self.end.come_to_an_end();
        }
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.end.received(data);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.end.read_lost(transport);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        count_lost(&self.end.tally, &reason);
        self.end.lost(reason);
    }
}

/// The protocol of an end that is accepted. It learns from its first bytes which connection this is.
pub(crate) struct Accepted {
    pairs: Rc<RefCell<Vec<Rc<Pair>>>>,
    tally: Rc<Tally>,
    header: Vec<u8>,
    end: Option<Rc<End>>,
}

impl Accepted {
    pub(crate) fn new(pairs: Rc<RefCell<Vec<Rc<Pair>>>>, tally: Rc<Tally>) -> Accepted {
        Accepted { pairs, tally, header: Vec::new(), end: None }
    }
}

impl Protocol for Accepted {
    fn connection_made(&mut self, _: &Transport) {
        count(&self.tally.made);
    }

    fn data_received(&mut self, transport: &Transport, mut data: &[u8]) {
        if self.end.is_none() {
            let (header, rest) = data.split_at(data.len().min(4 - self.header.len()));
            self.header.extend_from_slice(header);
            data = rest;
            let Ok(number) = self.header.as_slice().try_into().map(u32::from_be_bytes) else {
                return;
            };
            let end = self.pairs.borrow()[number as usize].end(1);
            end.made(transport);
            if self.tally.is_ending.get() {
                end.come_to_an_end();
            }
            self.end = Some(end);
        }
        if let Some(end) = self.end.as_ref().filter(|_| !data.is_empty()) {
            end.received(data);
        }
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        match &self.end {
            Some(end) => end.read_lost(transport),
            None => transport.lose_connection(),
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        count_lost(&self.tally, &reason);
        if let Some(end) = &self.end {
            end.lost(reason);
        }
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End")
            .field("sent", &self.sent)
            .field("received", &self.received)
            .field("has_finished", &self.has_finished)
            .field("has_given_up", &self.has_given_up)
            .field("is_at_end", &self.is_at_end)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

/// A producer with so many bytes to give.
struct Spring {
    end: Weak<End>,
    left: Cell<usize>,
    /// Whether a push producer was paused; a pull producer always waits to be asked.
    is_held: Cell<bool>,
    streaming: Streaming,
}

impl Spring {
    fn flow(&self, end: &End, transport: &Transport, bytes_max: usize) {
        let mut bytes = self.left.get().min(bytes_max);
        self.left.set(self.left.get() - bytes);
        while bytes > 0 {
            let piece = bytes.min(PATTERN_PIECE_MAX);
            end.send(transport, piece);
            bytes -= piece;
        }
        if self.left.get() == 0 {
            end.spring.replace(None);
            transport.unregister_producer();
        }
    }
}

impl Producer for Spring {
    fn pause_producing(&self) {
        self.is_held.set(true);
        if let Some(end) = self.end.upgrade() {
            count(&end.tally.pauses);
        }
    }

    fn resume_producing(&self) {
        let Some(end) = self.end.upgrade() else { return };
        let Some(transport) = end.transport() else { return };
        if self.streaming == Streaming::Push {
            self.is_held.set(false);
        }
        let is_last = self.streaming == Streaming::Push && end.tally.is_ending.get();
        self.flow(&end, &transport, if is_last { usize::MAX } else { PIECE_BYTES });
    }

    fn stop_producing(&self) {
        if let Some(end) = self.end.upgrade() {
            count(&end.tally.stops);
            end.spring.replace(None);
        }
    }
}

/// What a producer writes at a time.
const PIECE_BYTES: usize = 10_000;

const PATTERN_PIECE_MAX: usize = 256 * 1024;

/// A prime, so that no power of two that buffers are cut at hides a shift.
const PERIOD: usize = 251;

/// Returns what an end sends from `start` on.
fn expected(salt: usize, start: usize, length: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..PERIOD + PATTERN_PIECE_MAX).map(|place| (place % PERIOD) as u8).collect()
    });
    let first = (start + salt * 7) % PERIOD;
    &PATTERN[first..first + length]
}
