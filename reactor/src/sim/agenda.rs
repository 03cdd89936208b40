//! What is still to happen, in order of time; at equal times, in an order that the seed decides.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::{Rc, Weak};

use super::datagrams::Datagram;
use super::nemesis::Fault;
use super::network::{Connection, Side};
use super::world::World;
use crate::clock::Instant;
use crate::transport::memory::Socket;

/// Something that is to happen.
pub(super) enum Due {
    /// What is under way on a connection arrives.
    Arrival(Rc<Connection>, Side),
    Call(Box<dyn FnOnce(&World)>),
    /// A connection that was asked for is not made any more.
    ConnectTimeout(Weak<Socket>, usize),
    Datagram(Datagram),
    Fault(Fault),
    /// A connection is given up if it still stalls since then.
    GiveUp(Weak<Connection>, Side, Instant),
    /// A host has something to do: the next of its timers is due.
    Wake {
        host: usize,
        incarnation: u64,
    },
}

#[derive(Default)]
pub(super) struct Agenda {
    heap: RefCell<BinaryHeap<Reverse<Entry>>>,
}

struct Entry {
    when: Instant,
    /// Drawn from the seed.
    turn: u64,
    due: Due,
}

impl Agenda {
    pub(super) fn push(&self, when: Instant, turn: u64, due: Due) {
        self.heap.borrow_mut().push(Reverse(Entry { when, turn, due }));
    }

    /// Takes what is next, unless it is later than `limit`.
    pub(super) fn pop(&self, limit: Instant) -> Option<(Instant, Due)> {
        let mut heap = self.heap.borrow_mut();
        if heap.peek()?.0.when > limit {
            return None;
        }
        heap.pop().map(|Reverse(entry)| (entry.when, entry.due))
    }

    pub(super) fn take_all(&self) -> Vec<Due> {
        self.heap.take().into_iter().map(|Reverse(entry)| entry.due).collect()
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (self.when, self.turn).cmp(&(other.when, other.turn))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
