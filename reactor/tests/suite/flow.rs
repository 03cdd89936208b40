//! Producers and consumers: the rules, pipes, tees, files on their way in and out.

mod background;
mod pipes;
mod rules;
mod sender;
mod tees;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ropewalk::files::{File, OpenMode};
use ropewalk::testing::{Clock, success_result_of};
use ropewalk::{Consumer, Producer, Streaming};

/// A consumer that does what the test says, and keeps what it gets.
#[derive(Default)]
struct Sink {
    producer: RefCell<Option<(Rc<dyn Producer>, Streaming)>>,
    received: RefCell<Vec<u8>>,
    writes: Cell<usize>,
}

impl Sink {
    fn producer(&self) -> Rc<dyn Producer> {
        Rc::clone(&self.producer.borrow().as_ref().expect("a producer is registered").0)
    }

    fn is_fed(&self) -> bool {
        self.producer.borrow().is_some()
    }

    fn take(&self) -> String {
        String::from_utf8(self.received.take()).unwrap()
    }
}

impl Consumer for Sink {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        self.producer.replace(Some((producer, streaming)));
    }

    fn unregister_producer(&self) {
        drop(self.producer.take());
    }

    fn write(&self, data: &[u8]) {
        self.writes.set(self.writes.get() + 1);
        self.received.borrow_mut().extend_from_slice(data);
    }
}

fn open(clock: &Clock, path: &str, mode: OpenMode) -> File {
    let opened = clock.reactor().files().open(path, mode);
    clock.pump();
    success_result_of(opened)
}
