//! Listening for connections in memory, and those that wait to be accepted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};

use super::memory::{EventQueue, MemoryStream, PIPE_BYTES, Watcher};
use crate::address::Address;
use crate::backend::Readiness;
use crate::slots::Key;

/// Accepts streams that somebody in this process connects.
pub(crate) struct MemoryListener {
    shared: Rc<Backlog>,
}

/// A listener as its connectors see it.
pub(crate) struct Backlog {
    address: Address,
    capacity: usize,
    waiting: RefCell<VecDeque<MemoryStream>>,
    watcher: RefCell<Option<Watcher>>,
}

impl MemoryListener {
    /// Makes a listener for which `capacity` connections may wait.
    pub(crate) fn new(address: Address, capacity: usize) -> MemoryListener {
        let shared =
            Backlog { address, capacity, waiting: RefCell::default(), watcher: RefCell::new(None) };
        MemoryListener { shared: Rc::new(shared) }
    }

    pub(crate) fn backlog(&self) -> Weak<Backlog> {
        Rc::downgrade(&self.shared)
    }

    pub(crate) fn watch(&self, events: &EventQueue, key: Key) {
        self.shared.watcher.replace(Some(Watcher::new(events, key)));
        if !self.shared.waiting.borrow().is_empty() {
            Watcher::tell(&self.shared.watcher, Readiness::READABLE);
        }
    }

    pub(crate) fn accept(&self) -> io::Result<(MemoryStream, Address)> {
        let stream = self.shared.waiting.borrow_mut().pop_front();
        let stream = stream.ok_or(io::ErrorKind::WouldBlock)?;
        let peer = stream.peer().clone();
        Ok((stream, peer))
    }

    pub(crate) fn local_address(&self) -> &Address {
        &self.shared.address
    }
}

impl Backlog {
    /// Connects from `local` and returns the connector's end.
    pub(crate) fn connect(&self, local: Address) -> MemoryStream {
        let (connecting, accepted) = MemoryStream::pair(local, self.address.clone(), PIPE_BYTES);
        self.push(accepted);
        connecting
    }

    /// Whether so many connections wait that the next one must.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.borrow().len() >= self.capacity
    }

    /// Adds a connection to those that wait to be accepted.
    pub(crate) fn push(&self, accepted: MemoryStream) {
        self.waiting.borrow_mut().push_back(accepted);
        Watcher::tell(&self.watcher, Readiness::READABLE);
    }
}
