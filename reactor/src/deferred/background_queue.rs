//! [`BackgroundQueue`]: work that is done in order, key by key, apart from whoever asks for it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use super::{CancelHandle, Deferred, IntoDeferred, QueueOverflow, Resolver, maybe_deferred};
use crate::background::run_as_background_process;
use crate::failure::{CancelledError, Failure};
use crate::reactor::Reactor;

/// Processes items in the order in which they were put, one at a time for each key.
///
/// Different keys do not wait for each other. The items of a key are processed in a background process
/// of its own, whose log context is named `<name>-<number>` and which ends when nothing is left to do. A
/// failure concerns its item only; the next is processed all the same. A handle is a cheap clone.
///
/// ```
/// use ropewalk::BackgroundQueue;
/// use ropewalk::testing::{Clock, success_result_of};
///
/// let clock = Clock::new();
/// let persisting = BackgroundQueue::new(clock.reactor(), "persist", |room: &&str, event: u32| {
///     Ok(format!("{room} has event {event}"))
/// });
/// persisting.put("!tea:hs.example", 1).detach();
/// let second = persisting.put("!tea:hs.example", 2);
/// clock.pump();
/// assert_eq!(success_result_of(second), "!tea:hs.example has event 2");
/// ```
pub struct BackgroundQueue<K, V, R: 'static> {
    state: Rc<State<K, V, R>>,
}

struct State<K, V, R: 'static> {
    reactor: Reactor,
    name: Box<str>,
    waiting_max: Cell<usize>,
    process: Process<K, V, R>,
    lines: RefCell<HashMap<K, Line<V, R>>>,
    next_ticket: Cell<u64>,
}

type Process<K, V, R> = Box<dyn Fn(&K, V) -> Deferred<R>>;

/// The items of one key. There is one as long as somebody works on it.
struct Line<V, R: 'static> {
    waiting: BTreeMap<u64, (V, Resolver<R>)>,
    /// The item that is being processed.
    current: Option<(u64, CancelHandle)>,
}

impl<K, V, R> BackgroundQueue<K, V, R>
where
    K: Clone + Eq + Hash + 'static,
    V: 'static,
    R: 'static,
{
    /// Makes a queue whose items are given to `process`, with their key.
    pub fn new<D: IntoDeferred<R>>(
        reactor: &Reactor,
        name: &str,
        process: impl Fn(&K, V) -> D + 'static,
    ) -> Self {
        Self {
            state: Rc::new(State {
                reactor: reactor.clone(),
                name: name.into(),
                waiting_max: Cell::new(usize::MAX),
                process: Box::new(move |key, value| process(key, value).into_deferred()),
                lines: RefCell::default(),
                next_ticket: Cell::new(0),
            }),
        }
    }

    /// Lets at most so many items of one key wait.
    #[must_use]
    pub fn with_waiting_max(self, items_max: usize) -> Self {
        self.state.waiting_max.set(items_max);
        self
    }

    /// Puts an item at the end of the key's line, and gives what comes of it.
    ///
    /// Cancelling takes the item out of the line; if it is being processed, it cancels that, and the next
    /// one is begun when that has ended. Dropping detaches: the item is processed, and a failure is
    /// logged.
    ///
    /// # Errors
    ///
    /// [`QueueOverflow`] if too many items of the key wait already; [`CancelledError`] if the reactor stops
    /// before the item's turn.
    #[track_caller]
    pub fn put(&self, key: K, value: V) -> Deferred<R> {
        let state = &self.state;
        let size_max = state.waiting_max.get();
        if self.waiting_count(&key) >= size_max {
            return Deferred::fail(Failure::plain(QueueOverflow { size_max }));
        }
        let ticket = state.next_ticket.get();
        state.next_ticket.set(ticket + 1);
        let weak = Rc::downgrade(state);
        let cancel_key = key.clone();
        let (deferred, resolver) = Deferred::with_canceller(move || {
            if let Some(state) = weak.upgrade() {
                state.cancel(&cancel_key, ticket);
            }
        });
        let is_first = {
            let mut lines = state.lines.borrow_mut();
            let is_first = !lines.contains_key(&key);
            let line = lines
                .entry(key.clone())
                .or_insert_with(|| Line { waiting: BTreeMap::new(), current: None });
            line.waiting.insert(ticket, (value, resolver));
            is_first
        };
        if is_first {
            let worker = Worker { state: Rc::clone(state), key };
            run_as_background_process(&state.reactor, &state.name, worker.work());
        }
        deferred
    }

    /// Returns how many items of the key wait for their turn.
    pub fn waiting_count(&self, key: &K) -> usize {
        self.state.lines.borrow().get(key).map_or(0, |line| line.waiting.len())
    }

    /// Returns how many keys have items that wait or are being processed.
    pub fn active_key_count(&self) -> usize {
        self.state.lines.borrow().len()
    }
}

impl<K: Eq + Hash, V, R> State<K, V, R> {
    fn cancel(&self, key: &K, ticket: u64) {
        let (current, waiting) = {
            let mut lines = self.lines.borrow_mut();
            let Some(line) = lines.get_mut(key) else { return };
            let current = line.current.as_ref().filter(|(number, _)| *number == ticket);
            (current.map(|(_, handle)| handle.clone()), line.waiting.remove(&ticket))
        };
        if let Some(handle) = current {
            handle.cancel();
        }
        if let Some((_, resolver)) = waiting {
            resolver.errback(Failure::plain(CancelledError));
        }
    }
}

/// Processes the items of one key, until none is left.
struct Worker<K: Eq + Hash, V, R: 'static> {
    state: Rc<State<K, V, R>>,
    key: K,
}

impl<K: Eq + Hash, V, R: 'static> Worker<K, V, R> {
    async fn work(self) -> Result<(), Failure> {
        let mut count = 0;
        while let Some((ticket, value, resolver)) = self.take() {
            let processed = maybe_deferred(|| (self.state.process)(&self.key, value));
            self.set_current(Some((ticket, processed.cancel_handle())));
            let outcome = processed.await;
            self.set_current(None);
            resolver.fire(outcome);
            count += 1;
            if count % ITEMS_PER_TURN == 0 {
                self.state.reactor.defer_later(Duration::ZERO, || Ok(())).await?;
            }
        }
        Ok(())
    }

    fn take(&self) -> Option<(u64, V, Resolver<R>)> {
        let mut lines = self.state.lines.borrow_mut();
        let (ticket, (value, resolver)) = lines.get_mut(&self.key)?.waiting.pop_first()?;
        Some((ticket, value, resolver))
    }

    fn set_current(&self, current: Option<(u64, CancelHandle)>) {
        if let Some(line) = self.state.lines.borrow_mut().get_mut(&self.key) {
            line.current = current;
        }
    }
}

impl<K: Eq + Hash, V, R: 'static> Drop for Worker<K, V, R> {
    /// There is nothing left to do, or the reactor has stopped.
    fn drop(&mut self) {
        let left = self.state.lines.borrow_mut().remove(&self.key);
        for (_, resolver) in left.into_iter().flat_map(|line| line.waiting.into_values()) {
            resolver.errback(Failure::plain(CancelledError));
        }
    }
}

impl<K, V, R> Clone for BackgroundQueue<K, V, R> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<K, V, R> fmt::Debug for BackgroundQueue<K, V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundQueue")
            .field("name", &self.state.name)
            .field("active_keys", &self.state.lines.borrow().len())
            .finish()
    }
}

/// Items of one key that are processed before others get their turn, if none of them has to wait.
const ITEMS_PER_TURN: usize = 64;
