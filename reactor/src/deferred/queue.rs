//! [`DeferredQueue`]: items on their way from those who have them to those who want them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::{Rc, Weak};

use super::{Deferred, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::ready;

/// A queue whose [`get`](Self::get) gives a deferred, bounded both ways.
///
/// At most `size_max` items wait to be got, and at most `backlog_max` callers of `get` wait for items.
/// Items are got in the order in which they were put, by the callers in the order in which they came.
/// A handle is a cheap clone.
///
/// A waiting caller gets its item after the current callback has returned, so that two who feed each
/// other do not nest. An item is never lost on its way: one whose caller is cancelled, or has dropped
/// its deferred, goes to the next.
///
/// ```
/// use ropewalk::{DeferredQueue, QueueOverflow};
///
/// let jobs = DeferredQueue::new(2, 1);
/// let waiting = jobs.get();
/// jobs.put("first")?;
/// assert_eq!(waiting.into_result().unwrap().unwrap(), "first");
/// jobs.put("second")?;
/// jobs.put("third")?;
/// assert!(jobs.put("one too many").is_err());
/// # Ok::<(), QueueOverflow>(())
/// ```
pub struct DeferredQueue<T: 'static> {
    state: Rc<State<T>>,
}

struct State<T: 'static> {
    size_max: usize,
    backlog_max: usize,
    items: RefCell<VecDeque<T>>,
    getters: RefCell<BTreeMap<u64, Resolver<T>>>,
    putters: RefCell<BTreeMap<u64, (T, Resolver<()>)>>,
    /// Those whose item is in the queue, and who are about to hear of it.
    admitted: RefCell<BTreeMap<u64, Resolver<()>>>,
    next_ticket: Cell<u64>,
    /// Whether items and callers will be brought together after the current callback.
    is_serving: Cell<bool>,
}

impl<T: 'static> DeferredQueue<T> {
    /// Makes an empty queue for at most `size_max` items and `backlog_max` waiting callers.
    ///
    /// With a size of zero, an item can only be put while somebody waits for it. A queue that is to
    /// have no bound says so with `usize::MAX`.
    pub fn new(size_max: usize, backlog_max: usize) -> Self {
        Self {
            state: Rc::new(State {
                size_max,
                backlog_max,
                items: RefCell::default(),
                getters: RefCell::default(),
                putters: RefCell::default(),
                admitted: RefCell::default(),
                next_ticket: Cell::new(0),
                is_serving: Cell::new(false),
            }),
        }
    }

    /// Puts an item at the queue's end.
    ///
    /// # Errors
    ///
    /// [`QueueOverflow`] if the queue is full; the item is dropped. Ask [`is_full`](Self::is_full) before
    /// if it is still needed then, or use [`put_later`](Self::put_later).
    pub fn put(&self, item: T) -> Result<(), QueueOverflow> {
        let state = &self.state;
        if self.is_full() {
            return Err(QueueOverflow { size_max: state.size_max });
        }
        state.items.borrow_mut().push_back(item);
        state.serve_later();
        Ok(())
    }

    /// Puts an item at the queue's end once there is room for it, in the order of the calls.
    ///
    /// The deferred fires when the item is in the queue. Cancelling it before that takes the item back
    /// and drops it; dropping the deferred leaves the item waiting for room. Those who wait for room are
    /// not counted anywhere: each of them should wait before it puts the next.
    #[track_caller]
    pub fn put_later(&self, item: T) -> Deferred<()> {
        let state = &self.state;
        if !self.is_full() {
            state.items.borrow_mut().push_back(item);
            state.serve_later();
            return Deferred::succeed(());
        }
        let ticket = state.next_ticket();
        let weak = Rc::downgrade(state);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let Some(state) = weak.upgrade() else { return };
            let putter = state.putters.borrow_mut().remove(&ticket);
            match putter {
                Some((item, resolver)) => {
                    drop(item);
                    resolver.errback(Failure::plain(CancelledError));
                }
                None => state.tell_admitted(ticket),
            }
        });
        state.putters.borrow_mut().insert(ticket, (item, resolver));
        deferred
    }

    /// Takes the item at the queue's front, or waits for one.
    ///
    /// Cancelling stops waiting; the item that would have come goes to the next.
    ///
    /// # Errors
    ///
    /// [`QueueUnderflow`] if too many wait already.
    #[track_caller]
    pub fn get(&self) -> Deferred<T> {
        let state = &self.state;
        let promised = state.getters.borrow().len();
        if promised == 0
            && let Some(item) = self.try_get()
        {
            return Deferred::succeed(item);
        }
        if !state.has_room_for_getter() && !state.has_forgotten_getters() {
            let error = QueueUnderflow { backlog_max: state.backlog_max };
            return Deferred::fail(Failure::plain(error));
        }
        let ticket = state.next_ticket();
        let weak: Weak<State<T>> = Rc::downgrade(state);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let resolver =
                weak.upgrade().and_then(|state| state.getters.borrow_mut().remove(&ticket));
            if let Some(resolver) = resolver {
                resolver.errback(Failure::plain(CancelledError));
            }
        });
        state.getters.borrow_mut().insert(ticket, resolver);
        state.admit_putters();
        deferred
    }

    /// Takes the item at the queue's front, if there is one that nobody waits for.
    pub fn try_get(&self) -> Option<T> {
        let state = &self.state;
        if state.items.borrow().len() <= state.getters.borrow().len() {
            return None;
        }
        let item = state.items.borrow_mut().pop_front();
        state.admit_putters();
        item
    }

    /// Returns how many items are in the queue and promised to nobody.
    pub fn len(&self) -> usize {
        let promised = self.state.getters.borrow().len();
        self.state.items.borrow().len().saturating_sub(promised)
    }

    /// Whether the queue has no item to give.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether [`put`](Self::put) would fail.
    pub fn is_full(&self) -> bool {
        let state = &self.state;
        !state.has_room() || !state.putters.borrow().is_empty()
    }

    /// Returns how many wait for items that are not there.
    pub fn waiting_count(&self) -> usize {
        let items = self.state.items.borrow().len();
        self.state.getters.borrow().len().saturating_sub(items)
    }
}

impl<T: 'static> State<T> {
    fn next_ticket(&self) -> u64 {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        ticket
    }

    fn has_room(&self) -> bool {
        let promised = self.getters.borrow().len();
        self.items.borrow().len() < self.size_max.saturating_add(promised)
    }

    /// Brings items and callers together after the current callback.
    fn serve_later(self: &Rc<Self>) {
        if !self.getters.borrow().is_empty() && !self.is_serving.replace(true) {
            let state = Rc::clone(self);
            ready::enqueue(move || state.serve());
        }
    }

    fn serve(self: Rc<Self>) {
        self.is_serving.set(false);
        while !self.items.borrow().is_empty() {
            let getter = self.getters.borrow_mut().pop_first();
            let Some((_, resolver)) = getter else { break };
            // Who has gone without cancelling shall not take an item along.
            if resolver.is_abandoned() {
                continue;
            }
            let item = self.items.borrow_mut().pop_front();
            self.admit_putters();
            if let Some(item) = item {
                resolver.callback(item);
            }
        }
        self.admit_putters();
    }

    /// Lets those in who wait for room, as far as there is some.
    fn admit_putters(self: &Rc<Self>) {
        while self.has_room() {
            let putter = self.putters.borrow_mut().pop_first();
            let Some((ticket, (item, resolver))) = putter else { return };
            self.items.borrow_mut().push_back(item);
            self.admitted.borrow_mut().insert(ticket, resolver);
            let state = Rc::clone(self);
            ready::enqueue(move || state.tell_admitted(ticket));
            self.serve_later();
        }
    }

    fn tell_admitted(&self, ticket: u64) {
        let resolver = self.admitted.borrow_mut().remove(&ticket);
        if let Some(resolver) = resolver {
            resolver.callback(());
        }
    }

    fn has_room_for_getter(&self) -> bool {
        // Those whose item is there already are waiting for their turn only.
        let waiting_max = self.backlog_max.saturating_add(self.items.borrow().len());
        self.getters.borrow().len() < waiting_max
    }

    /// Forgets those who have dropped their deferreds, and says whether there were any.
    fn has_forgotten_getters(&self) -> bool {
        let mut getters = self.getters.borrow_mut();
        let count = getters.len();
        getters.retain(|_, resolver| !resolver.is_abandoned());
        getters.len() < count
    }
}

impl<T: 'static> Clone for DeferredQueue<T> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<T: 'static> fmt::Debug for DeferredQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredQueue")
            .field("items", &self.state.items.borrow().len())
            .field("getters", &self.state.getters.borrow().len())
            .field("putters", &self.state.putters.borrow().len())
            .finish()
    }
}

/// A [`DeferredQueue`] was full.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the queue holds {size_max} items already; wait with put_later, or make it larger")]
pub struct QueueOverflow {
    /// How many items it may hold.
    pub size_max: usize,
}

/// Too many waited for a [`DeferredQueue`]'s items.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{backlog_max} callers wait for the queue's items already, which is its limit")]
pub struct QueueUnderflow {
    /// How many may wait.
    pub backlog_max: usize,
}
