//! Places in a pool's queue, and the line of those who wait for one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::pool::Pool;
use crate::deferred::{Deferred, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::ready;

/// A place in the queue of a [`ThreadPool`](super::ThreadPool), kept for one job. See
/// [`ThreadPool::reserve`](super::ThreadPool::reserve).
#[must_use = "the place is given to the next in line when this is dropped"]
pub struct QueuePlace {
    pool: Rc<Pool>,
}

impl QueuePlace {
    /// Runs `f` in a thread of the pool, as [`ThreadPool::defer`](super::ThreadPool::defer) does.
    ///
    /// # Errors
    ///
    /// As there, but never that the queue is full.
    #[track_caller]
    pub fn defer<T, E, F>(self, f: F) -> Deferred<T>
    where
        T: Send + 'static,
        E: Into<Failure>,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        // The job takes its place before this one is given up, when `self` is dropped.
        match self.pool.check_open() {
            Ok(()) => self.pool.submit(f),
            Err(error) => Deferred::fail(error),
        }
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let line = &self.pool.line;
        line.reserved.set(line.reserved.get() - 1);
        self.pool.grant_places();
    }
}

impl fmt::Debug for QueuePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePlace").field("pool", &self.pool.name()).finish()
    }
}

/// Who waits for a place, and how many have one that they have not used yet.
#[derive(Default)]
pub(super) struct Line {
    pub(super) reserved: Cell<usize>,
    waiting: RefCell<BTreeMap<u64, Resolver<QueuePlace>>>,
    next_ticket: Cell<u64>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Takes out all who wait.
    pub(super) fn take_all(&self) -> BTreeMap<u64, Resolver<QueuePlace>> {
        self.waiting.take()
    }

    /// Fails all who wait.
    pub(super) fn refuse_all(&self, failure: &Failure) {
        let waiting = self.waiting.take();
        for resolver in waiting.into_values() {
            resolver.errback(failure.clone());
        }
    }
}

impl Pool {
    #[track_caller]
    pub(super) fn reserve(self: &Rc<Self>) -> Deferred<QueuePlace> {
        if let Err(error) = self.check_open() {
            return Deferred::fail(error);
        }
        if self.check_room().is_ok() {
            return Deferred::succeed(self.place());
        }
        let line = &self.line;
        let ticket = line.next_ticket.get();
        line.next_ticket.set(ticket + 1);
        let weak = Rc::downgrade(self);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let Some(pool) = weak.upgrade() else { return };
            let resolver = pool.line.waiting.borrow_mut().remove(&ticket);
            if let Some(resolver) = resolver {
                resolver.errback(Failure::plain(CancelledError));
            }
        });
        line.waiting.borrow_mut().insert(ticket, resolver);
        self.call_when_place_is_free();
        deferred
    }

    /// Gives places that have become free to those who wait.
    pub(super) fn grant_places(self: &Rc<Self>) {
        while self.line.len() > 0 {
            if !self.has_room() {
                return self.call_when_place_is_free();
            }
            let next = self.line.waiting.borrow_mut().pop_first();
            let Some((_, resolver)) = next else { return };
            // If the waiter is cancelled before its turn, the place is dropped unseen, and goes on to
            // the next.
            let place = self.place();
            ready::enqueue(move || resolver.callback(place));
        }
    }

    fn place(self: &Rc<Self>) -> QueuePlace {
        self.line.reserved.set(self.line.reserved.get() + 1);
        self.count_taken();
        QueuePlace { pool: Rc::clone(self) }
    }
}
