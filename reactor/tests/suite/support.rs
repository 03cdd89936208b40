//! Protocols and producers that write down what happens to them.

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::{ConnectionLost, Producer, Protocol, Transport};

/// What happened, in order.
pub(crate) type Diary = Rc<RefCell<Vec<String>>>;

pub(crate) fn note(diary: &Diary, entry: impl Into<String>) {
    diary.borrow_mut().push(entry.into());
}

/// Returns what was noted since the last time.
pub(crate) fn read(diary: &Diary) -> Vec<String> {
    diary.take()
}

/// Notes everything, answers nothing.
pub(crate) struct Recorder {
    pub(crate) diary: Diary,
    /// Whether it goes on writing when the peer has finished.
    pub(crate) outlives_peer: bool,
}

impl Recorder {
    pub(crate) fn new(diary: &Diary) -> Recorder {
        Recorder { diary: Rc::clone(diary), outlives_peer: false }
    }
}

impl Protocol for Recorder {
    fn connection_made(&mut self, _: &Transport) {
        note(&self.diary, "made");
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        note(&self.diary, format!("data {}", String::from_utf8_lossy(data)));
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        note(&self.diary, "read lost");
        if !self.outlives_peer {
            transport.lose_connection();
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        note(&self.diary, format!("lost: {reason}"));
    }
}

/// Sends back what it gets.
pub(crate) struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

/// Counts what it gets.
#[derive(Default)]
pub(crate) struct Counter {
    pub(crate) bytes: usize,
    pub(crate) is_lost: bool,
}

impl Protocol for Counter {
    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.bytes += data.len();
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.is_lost = true;
    }
}

/// Calls a function with what it gets.
pub(crate) struct OnData<F>(pub(crate) F);

impl<F: FnMut(&Transport, &[u8])> Protocol for OnData<F> {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        (self.0)(transport, data);
    }
}

/// Notes what it is told.
pub(crate) struct RecordingProducer(pub(crate) Diary);

impl Producer for RecordingProducer {
    fn pause_producing(&self) {
        note(&self.0, "pause");
    }

    fn resume_producing(&self) {
        note(&self.0, "resume");
    }

    fn stop_producing(&self) {
        note(&self.0, "stop");
    }
}
