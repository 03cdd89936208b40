//! Taking turns: locks and semaphores whose acquisition is a deferred.
//!
//! A slot that is released while others wait is handed to the first of them: it never becomes free in
//! between. The hand-over happens after the current callback has returned, so that a long row of
//! holders that finish at once does not nest.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;

use super::{Deferred, IntoDeferred, Resolver, maybe_deferred};
use crate::failure::{CancelledError, Failure};
use crate::ready;

/// Lets at most so many holders at a time go on.
///
/// First come, first served. A free slot is given at once, without a turn of the loop. A handle is a
/// cheap clone.
///
/// ```
/// use ropewalk::DeferredSemaphore;
///
/// let uploads = DeferredSemaphore::new(2);
/// let guards = [uploads.acquire(), uploads.acquire()].map(|slot| slot.into_result().unwrap());
/// let third = uploads.acquire();
/// assert!(!third.is_fired());
/// drop(guards);
/// assert!(third.is_fired());
/// ```
#[derive(Clone)]
pub struct DeferredSemaphore {
    slots: Rc<Slots>,
}

struct Slots {
    holders_max: usize,
    free: Cell<usize>,
    held: Cell<usize>,
    waiting: RefCell<BTreeMap<u64, Resolver<Guard>>>,
    next_ticket: Cell<u64>,
    /// Called when there is neither holder nor waiter any more.
    on_idle: Option<Box<dyn Fn()>>,
}

impl DeferredSemaphore {
    /// Makes a semaphore for `holders_max` holders at a time. With zero, nobody ever gets a slot.
    pub fn new(holders_max: usize) -> Self {
        Self::with_on_idle(holders_max, None)
    }

    fn with_on_idle(holders_max: usize, on_idle: Option<Box<dyn Fn()>>) -> Self {
        Self {
            slots: Rc::new(Slots {
                holders_max,
                free: Cell::new(holders_max),
                held: Cell::new(0),
                waiting: RefCell::default(),
                next_ticket: Cell::new(0),
                on_idle,
            }),
        }
    }

    /// Waits for a slot, which is free again when the guard is dropped.
    ///
    /// Cancelling leaves the queue; so does dropping, when its turn comes.
    #[track_caller]
    pub fn acquire(&self) -> Deferred<Guard> {
        let slots = &self.slots;
        if let Some(free) = slots.free.get().checked_sub(1) {
            slots.free.set(free);
            return Deferred::succeed(Guard::new(slots));
        }
        let ticket = slots.next_ticket.get();
        slots.next_ticket.set(ticket + 1);
        let weak = Rc::downgrade(slots);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let resolver =
                weak.upgrade().and_then(|slots| slots.waiting.borrow_mut().remove(&ticket));
            if let Some(resolver) = resolver {
                resolver.errback(Failure::plain(CancelledError));
            }
        });
        slots.waiting.borrow_mut().insert(ticket, resolver);
        deferred
    }

    /// Takes a slot if one is free now and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Guard> {
        let free = self.slots.free.get().checked_sub(1)?;
        self.slots.free.set(free);
        Some(Guard::new(&self.slots))
    }

    /// Waits for a slot, calls `f` and holds the slot until what it gives has its result, which is
    /// passed on.
    ///
    /// Cancelling leaves the queue, or cancels what `f` gave; the slot is free again when that has
    /// ended. Dropping detaches: `f` is called all the same.
    ///
    /// ```
    /// use ropewalk::{Deferred, DeferredSemaphore};
    ///
    /// let uploads = DeferredSemaphore::new(1);
    /// let (first, resolver) = Deferred::new();
    /// let first = uploads.run(|| first);
    /// let second = uploads.run(|| Ok("second"));
    /// assert!(!second.is_fired());
    /// resolver.callback("first");
    /// assert_eq!(second.into_result().unwrap().unwrap(), "second");
    /// # assert_eq!(first.into_result().unwrap().unwrap(), "first");
    /// ```
    #[track_caller]
    pub fn run<T: 'static, R: IntoDeferred<T>>(
        &self,
        f: impl FnOnce() -> R + 'static,
    ) -> Deferred<T> {
        run_guarded(self.acquire(), f)
    }

    /// Whether anybody is waiting; holders do not count.
    pub fn is_queued(&self) -> bool {
        !self.slots.waiting.borrow().is_empty()
    }

    /// Returns how many wait for a slot.
    pub fn waiting_count(&self) -> usize {
        self.slots.waiting.borrow().len()
    }

    /// Returns how many slots are held, among them those that are on their way from one holder to
    /// the next.
    pub fn held_count(&self) -> usize {
        self.slots.held.get()
    }

    /// Returns how many may hold a slot at a time.
    pub fn holders_max(&self) -> usize {
        self.slots.holders_max
    }
}

/// Calls `f` once the guard is there, and drops that when the result is.
#[track_caller]
fn run_guarded<T: 'static, R: IntoDeferred<T>>(
    acquired: Deferred<Guard>,
    f: impl FnOnce() -> R + 'static,
) -> Deferred<T> {
    acquired.add_callback(move |guard| {
        maybe_deferred(f).add_both(move |outcome| {
            drop(guard);
            outcome
        })
    })
}

impl fmt::Debug for DeferredSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredSemaphore")
            .field("held", &self.slots.held.get())
            .field("waiting", &self.slots.waiting.borrow().len())
            .finish()
    }
}

/// A slot of a [`DeferredSemaphore`], [`DeferredLock`] or [`Linearizer`]; dropping it releases the slot.
#[must_use = "the slot is released when the guard is dropped"]
pub struct Guard {
    slots: Rc<Slots>,
}

impl Guard {
    fn new(slots: &Rc<Slots>) -> Self {
        slots.held.set(slots.held.get() + 1);
        Self { slots: Rc::clone(slots) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let slots = &self.slots;
        slots.held.set(slots.held.get() - 1);
        let next = slots.waiting.borrow_mut().pop_first();
        match next {
            Some((_, resolver)) => {
                // If the waiter is cancelled before its turn, the guard is dropped unseen, and the
                // slot goes on to the next.
                let guard = Guard::new(slots);
                ready::enqueue(move || resolver.callback(guard));
            }
            None => {
                slots.free.set(slots.free.get() + 1);
                if slots.held.get() == 0
                    && let Some(on_idle) = &slots.on_idle
                {
                    on_idle();
                }
            }
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// Lets one holder at a time go on.
///
/// ```
/// use ropewalk::DeferredLock;
///
/// let lock = DeferredLock::new();
/// let first = lock.acquire().into_result().unwrap().unwrap();
/// let second = lock.acquire();
/// assert!(!second.is_fired());
/// drop(first);
/// assert!(second.is_fired());
/// ```
#[derive(Clone, Debug)]
pub struct DeferredLock {
    semaphore: DeferredSemaphore,
}

impl DeferredLock {
    /// Makes a lock that nobody holds.
    pub fn new() -> Self {
        Self { semaphore: DeferredSemaphore::new(1) }
    }

    /// Waits for the lock. See [`DeferredSemaphore::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> Deferred<Guard> {
        self.semaphore.acquire()
    }

    /// Takes the lock if nobody holds it now.
    pub fn try_acquire(&self) -> Option<Guard> {
        self.semaphore.try_acquire()
    }

    /// Waits for the lock, calls `f` and holds the lock until what it gives has its result. See
    /// [`DeferredSemaphore::run`].
    #[track_caller]
    pub fn run<T: 'static, R: IntoDeferred<T>>(
        &self,
        f: impl FnOnce() -> R + 'static,
    ) -> Deferred<T> {
        self.semaphore.run(f)
    }

    /// Whether anybody is waiting; the holder does not count.
    pub fn is_queued(&self) -> bool {
        self.semaphore.is_queued()
    }

    /// Whether somebody holds the lock.
    pub fn is_locked(&self) -> bool {
        self.semaphore.held_count() > 0
    }
}

impl Default for DeferredLock {
    fn default() -> Self {
        Self::new()
    }
}

/// A queue for each key: at most so many holders of a key at a time go on.
///
/// First come, first served, key by key. A key costs nothing when nobody holds it. A handle is a cheap
/// clone.
///
/// ```
/// use ropewalk::Linearizer;
///
/// let joins = Linearizer::new();
/// let guard = joins.queue("!room:hs.example").into_result().unwrap().unwrap();
/// let waiting = joins.queue("!room:hs.example");
/// assert!(joins.is_queued(&"!room:hs.example"));
/// drop(guard);
/// assert!(waiting.is_fired());
/// ```
pub struct Linearizer<K> {
    queues: Rc<RefCell<HashMap<K, DeferredSemaphore>>>,
    holders_max: usize,
}

impl<K: Clone + Eq + Hash + 'static> Linearizer<K> {
    /// Lets one holder a key go on at a time.
    pub fn new() -> Self {
        Self::with_holders_max(1)
    }

    /// Lets `holders_max` holders a key go on at a time.
    pub fn with_holders_max(holders_max: usize) -> Self {
        Self { queues: Rc::default(), holders_max }
    }

    /// Waits for the key's turn, which lasts until the guard is dropped.
    ///
    /// Cancelling leaves the queue; so does dropping, when its turn comes. Others keep their places.
    #[track_caller]
    pub fn queue(&self, key: K) -> Deferred<Guard> {
        let queue = self.queues.borrow().get(&key).cloned();
        queue.unwrap_or_else(|| self.start_queue(key)).acquire()
    }

    /// Waits for the key's turn, calls `f` and keeps the turn until what it gives has its result. See
    /// [`DeferredSemaphore::run`].
    #[track_caller]
    pub fn run<T: 'static, R: IntoDeferred<T>>(
        &self,
        key: K,
        f: impl FnOnce() -> R + 'static,
    ) -> Deferred<T> {
        run_guarded(self.queue(key), f)
    }

    /// Whether anybody is waiting for the key; holders do not count.
    pub fn is_queued(&self, key: &K) -> bool {
        self.queues.borrow().get(key).is_some_and(DeferredSemaphore::is_queued)
    }

    /// Returns how many keys are held.
    pub fn held_key_count(&self) -> usize {
        self.queues.borrow().len()
    }

    fn start_queue(&self, key: K) -> DeferredSemaphore {
        let queues = Rc::downgrade(&self.queues);
        let idle_key = key.clone();
        let on_idle = move || {
            if let Some(queues) = queues.upgrade() {
                let queue = queues.borrow_mut().remove(&idle_key);
                drop(queue);
            }
        };
        let queue = DeferredSemaphore::with_on_idle(self.holders_max, Some(Box::new(on_idle)));
        self.queues.borrow_mut().insert(key, queue.clone());
        queue
    }
}

impl<K> Clone for Linearizer<K> {
    fn clone(&self) -> Self {
        Self { queues: Rc::clone(&self.queues), holders_max: self.holders_max }
    }
}

impl<K: Clone + Eq + Hash + 'static> Default for Linearizer<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> fmt::Debug for Linearizer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linearizer").field("held_keys", &self.queues.borrow().len()).finish()
    }
}
