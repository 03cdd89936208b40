//! [`BatchingQueue`]: values of many callers that are dealt with together.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use super::{Deferred, IntoDeferred, Resolver, maybe_deferred};
use crate::background::run_as_background_process;
use crate::failure::{CancelledError, Failure};
use crate::reactor::Reactor;

/// Gathers values, key by key, and has each batch of them processed together.
///
/// The first value of a key starts a pass in the next turn of the loop, so that what is asked for at the
/// same moment shares one pass. What comes during a pass waits for the next one of its key; different
/// keys do not wait for each other. A pass runs in a log context of its own, named `<name>-<number>`.
/// A handle is a cheap clone.
///
/// ```
/// use ropewalk::BatchingQueue;
/// use ropewalk::testing::{Clock, success_result_of};
///
/// let clock = Clock::new();
/// let sums = BatchingQueue::new(clock.reactor(), "sum", |_key: &(), numbers: Vec<u32>| {
///     Ok((numbers.len(), numbers.iter().sum::<u32>()))
/// });
/// let (one, other) = (sums.add((), 1), sums.add((), 41));
/// clock.pump();
/// assert_eq!(success_result_of(one), (2, 42));
/// assert_eq!(success_result_of(other), (2, 42));
/// ```
pub struct BatchingQueue<K, V, R: 'static> {
    state: Rc<State<K, V, R>>,
}

struct State<K, V, R: 'static> {
    reactor: Reactor,
    name: Box<str>,
    batch_max: Cell<usize>,
    process: Process<K, V, R>,
    waiting: RefCell<HashMap<K, Waiting<V, R>>>,
    next_ticket: Cell<u64>,
}

type Process<K, V, R> = Box<dyn Fn(&K, Vec<V>) -> Deferred<R>>;

/// The values of one key, and who waits for what comes of them.
type Waiting<V, R> = BTreeMap<u64, (V, Resolver<R>)>;

impl<K, V, R> BatchingQueue<K, V, R>
where
    K: Clone + Eq + Hash + 'static,
    V: 'static,
    R: Clone + 'static,
{
    /// Makes a queue whose batches are given to `process`, with their key.
    ///
    /// Each caller gets a clone of what `process` gives, or of the failure.
    pub fn new<D: IntoDeferred<R>>(
        reactor: &Reactor,
        name: &str,
        process: impl Fn(&K, Vec<V>) -> D + 'static,
    ) -> Self {
        Self {
            state: Rc::new(State {
                reactor: reactor.clone(),
                name: name.into(),
                batch_max: Cell::new(usize::MAX),
                process: Box::new(move |key, values| process(key, values).into_deferred()),
                waiting: RefCell::default(),
                next_ticket: Cell::new(0),
            }),
        }
    }

    /// Gives at most so many values to one pass; the others wait for the next. At least one.
    #[must_use]
    pub fn with_batch_max(self, values_max: usize) -> Self {
        self.state.batch_max.set(values_max.max(1));
        self
    }

    /// Adds a value to the key's next batch, and gives the result of that batch.
    ///
    /// Cancelling before its pass takes the value back; after that it stops waiting only, and the pass
    /// goes on for the others. Dropping detaches: the value is processed.
    #[track_caller]
    pub fn add(&self, key: K, value: V) -> Deferred<R> {
        let state = &self.state;
        let ticket = state.next_ticket.get();
        state.next_ticket.set(ticket + 1);
        let weak = Rc::downgrade(state);
        let cancel_key = key.clone();
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let Some(state) = weak.upgrade() else { return };
            let taken = match state.waiting.borrow_mut().get_mut(&cancel_key) {
                Some(values) => values.remove(&ticket),
                None => None,
            };
            if let Some((_, resolver)) = taken {
                resolver.errback(Failure::plain(CancelledError));
            }
        });
        let is_first = {
            let mut waiting = state.waiting.borrow_mut();
            // An entry, even an empty one, has somebody who makes its passes.
            let is_first = !waiting.contains_key(&key);
            waiting.entry(key.clone()).or_default().insert(ticket, (value, resolver));
            is_first
        };
        if is_first {
            let passes = Passes { state: Rc::clone(state), key };
            run_as_background_process(&state.reactor, &state.name, passes.make());
        }
        deferred
    }

    /// Returns how many values of the key wait for a pass.
    pub fn waiting_count(&self, key: &K) -> usize {
        self.state.waiting.borrow().get(key).map_or(0, BTreeMap::len)
    }
}

/// Makes the passes of one key, until nothing is left to do.
struct Passes<K: Eq + Hash, V, R: 'static> {
    state: Rc<State<K, V, R>>,
    key: K,
}

impl<K: Eq + Hash, V, R: Clone + 'static> Passes<K, V, R> {
    async fn make(self) -> Result<(), Failure> {
        loop {
            // What is about to be asked for shall be in this pass already.
            self.state.reactor.defer_later(Duration::ZERO, || Ok(())).await?;
            let batch = self.take_batch();
            if batch.is_empty() {
                return Ok(());
            }
            let (values, resolvers): (Vec<V>, Vec<Resolver<R>>) = batch.into_iter().unzip();
            let outcome = maybe_deferred(|| (self.state.process)(&self.key, values)).await;
            for resolver in resolvers {
                resolver.fire(outcome.clone());
            }
        }
    }

    fn take_batch(&self) -> Vec<(V, Resolver<R>)> {
        let mut waiting = self.state.waiting.borrow_mut();
        let Some(values) = waiting.get_mut(&self.key) else { return Vec::new() };
        let mut batch = Vec::new();
        while batch.len() < self.state.batch_max.get()
            && let Some((_, value)) = values.pop_first()
        {
            batch.push(value);
        }
        batch
    }
}

impl<K: Eq + Hash, V, R: 'static> Drop for Passes<K, V, R> {
    /// There is nothing left to do, or the reactor has stopped.
    fn drop(&mut self) {
        let left = self.state.waiting.borrow_mut().remove(&self.key);
        for (_, resolver) in left.into_iter().flat_map(BTreeMap::into_values) {
            resolver.errback(Failure::plain(CancelledError));
        }
    }
}

impl<K, V, R> Clone for BatchingQueue<K, V, R> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<K, V, R> fmt::Debug for BatchingQueue<K, V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchingQueue")
            .field("name", &self.state.name)
            .field("active_keys", &self.state.waiting.borrow().len())
            .finish()
    }
}
