//! [`ReadWriteLock`]: for each key, many readers or one writer.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::rc::{Rc, Weak};

use super::{Deferred, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::ready;

/// A lock for each key, held by any number of readers or by one writer.
///
/// First come, first served, key by key: a reader that comes after a waiting writer waits for that
/// one, so that readers cannot starve writers, and readers that stand side by side in the line go on
/// together. A free lock is given at once, without a turn of the loop; otherwise it changes hands after
/// the current callback has returned. A key costs nothing when nobody holds it. A handle is a cheap
/// clone.
///
/// ```
/// use ropewalk::ReadWriteLock;
///
/// let rooms = ReadWriteLock::new();
/// let persisting = rooms.read("!room:hs.example").into_result().unwrap().unwrap();
/// let also_persisting = rooms.read("!room:hs.example").into_result().unwrap().unwrap();
/// let purging = rooms.write("!room:hs.example");
/// assert!(!purging.is_fired());
/// drop((persisting, also_persisting));
/// assert!(purging.is_fired());
/// ```
pub struct ReadWriteLock<K> {
    locks: Rc<RefCell<HashMap<K, Rc<KeyLock>>>>,
}

/// The lock of one key.
struct KeyLock {
    readers: Cell<usize>,
    has_writer: Cell<bool>,
    waiting: RefCell<BTreeMap<u64, Waiter>>,
    next_ticket: Cell<u64>,
    /// Called when there is neither holder nor waiter any more.
    on_idle: Box<dyn Fn()>,
}

enum Waiter {
    Reader(Resolver<ReadGuard>),
    Writer(Resolver<WriteGuard>),
}

impl<K: Clone + Eq + Hash + 'static> ReadWriteLock<K> {
    /// Makes the locks of all keys; nobody holds any.
    pub fn new() -> Self {
        Self { locks: Rc::default() }
    }

    /// Waits until no writer holds the key or stands in line for it, and then keeps writers out until the
    /// guard is dropped.
    ///
    /// Cancelling leaves the line at once; so does dropping, when its turn comes.
    #[track_caller]
    pub fn read(&self, key: K) -> Deferred<ReadGuard> {
        let lock = self.lock(key);
        if lock.is_free_for_reader() && lock.waiting.borrow().is_empty() {
            return Deferred::succeed(ReadGuard::new(&lock));
        }
        lock.wait(Waiter::Reader)
    }

    /// Waits until all who came before have let go of the key, and then keeps everybody else out until
    /// the guard is dropped.
    ///
    /// Cancelling leaves the line at once, and lets those go on who waited for nobody else; so does
    /// dropping, when its turn comes.
    #[track_caller]
    pub fn write(&self, key: K) -> Deferred<WriteGuard> {
        let lock = self.lock(key);
        if lock.is_free() && lock.waiting.borrow().is_empty() {
            return Deferred::succeed(WriteGuard::new(&lock));
        }
        lock.wait(Waiter::Writer)
    }

    /// Whether anybody stands in line for the key; holders do not count.
    pub fn is_queued(&self, key: &K) -> bool {
        self.locks.borrow().get(key).is_some_and(|lock| !lock.waiting.borrow().is_empty())
    }

    /// Returns how many keys are held.
    pub fn held_key_count(&self) -> usize {
        self.locks.borrow().len()
    }

    fn lock(&self, key: K) -> Rc<KeyLock> {
        let lock = self.locks.borrow().get(&key).cloned();
        lock.unwrap_or_else(|| {
            let locks = Rc::downgrade(&self.locks);
            let idle_key = key.clone();
            let on_idle = move || {
                if let Some(locks) = locks.upgrade() {
                    let lock = locks.borrow_mut().remove(&idle_key);
                    drop(lock);
                }
            };
            let lock = Rc::new(KeyLock {
                readers: Cell::new(0),
                has_writer: Cell::new(false),
                waiting: RefCell::default(),
                next_ticket: Cell::new(0),
                on_idle: Box::new(on_idle),
            });
            self.locks.borrow_mut().insert(key, Rc::clone(&lock));
            lock
        })
    }
}

impl KeyLock {
    fn is_free(&self) -> bool {
        self.readers.get() == 0 && !self.has_writer.get()
    }

    fn is_free_for_reader(&self) -> bool {
        !self.has_writer.get()
    }

    #[track_caller]
    fn wait<G: 'static>(self: &Rc<Self>, waiter: fn(Resolver<G>) -> Waiter) -> Deferred<G> {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        let weak = Rc::downgrade(self);
        let (deferred, resolver) = Deferred::with_canceller(move || KeyLock::leave(&weak, ticket));
        self.waiting.borrow_mut().insert(ticket, waiter(resolver));
        deferred
    }

    /// Leaves the line. One that waited only for the one who leaves goes on.
    fn leave(lock: &Weak<KeyLock>, ticket: u64) {
        let Some(lock) = lock.upgrade() else { return };
        let waiter = lock.waiting.borrow_mut().remove(&ticket);
        match waiter {
            Some(Waiter::Reader(resolver)) => resolver.errback(Failure::plain(CancelledError)),
            Some(Waiter::Writer(resolver)) => resolver.errback(Failure::plain(CancelledError)),
            None => return,
        }
        lock.hand_over();
    }

    /// Gives the lock to those at the front of the line who can have it.
    ///
    /// If one of them is cancelled before it hears of that, its guard is dropped unseen, and the lock
    /// goes on to the next.
    fn hand_over(self: &Rc<Self>) {
        loop {
            let next = {
                let mut waiting = self.waiting.borrow_mut();
                let Some(first) = waiting.first_entry() else { break };
                let can_go = match first.get() {
                    Waiter::Reader(_) => self.is_free_for_reader(),
                    Waiter::Writer(_) => self.is_free(),
                };
                if !can_go {
                    return;
                }
                first.remove()
            };
            match next {
                Waiter::Reader(resolver) => {
                    let guard = ReadGuard::new(self);
                    ready::enqueue(move || resolver.callback(guard));
                }
                Waiter::Writer(resolver) => {
                    let guard = WriteGuard::new(self);
                    ready::enqueue(move || resolver.callback(guard));
                }
            }
        }
        if self.is_free() {
            (self.on_idle)();
        }
    }
}

/// Keeps the writers of one key of a [`ReadWriteLock`] out until it is dropped.
#[must_use = "the lock is released when the guard is dropped"]
pub struct ReadGuard {
    lock: Rc<KeyLock>,
}

impl ReadGuard {
    fn new(lock: &Rc<KeyLock>) -> Self {
        lock.readers.set(lock.readers.get() + 1);
        Self { lock: Rc::clone(lock) }
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        self.lock.readers.set(self.lock.readers.get() - 1);
        self.lock.hand_over();
    }
}

/// Keeps everybody else who wants the same key of a [`ReadWriteLock`] out until it is dropped.
#[must_use = "the lock is released when the guard is dropped"]
pub struct WriteGuard {
    lock: Rc<KeyLock>,
}

impl WriteGuard {
    fn new(lock: &Rc<KeyLock>) -> Self {
        lock.has_writer.set(true);
        Self { lock: Rc::clone(lock) }
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        self.lock.has_writer.set(false);
        self.lock.hand_over();
    }
}

impl fmt::Debug for ReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadGuard")
    }
}

impl fmt::Debug for WriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteGuard")
    }
}

impl<K> Clone for ReadWriteLock<K> {
    fn clone(&self) -> Self {
        Self { locks: Rc::clone(&self.locks) }
    }
}

impl<K: Clone + Eq + Hash + 'static> Default for ReadWriteLock<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> fmt::Debug for ReadWriteLock<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadWriteLock").field("held_keys", &self.locks.borrow().len()).finish()
    }
}
