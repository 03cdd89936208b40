//! Protocols and producers that write down what happens to them.

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::{ConnectionLost, Protocol, Transport};

/// What happened, in order.
pub(crate) type Diary = Rc<RefCell<Vec<String>>>;

pub(crate) fn note(diary: &Diary, entry: impl Into<String>) {
    diary.borrow_mut().push(entry.into());
}

/// Notes everything, echoes nothing.
pub(crate) struct Recorder {
    pub(crate) diary: Diary,
}

impl Recorder {
    pub(crate) fn new(diary: &Diary) -> Recorder {
        Recorder { diary: Rc::clone(diary) }
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
        transport.lose_connection();
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
