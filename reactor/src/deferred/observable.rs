//! One result, many who wait for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use super::{CancelHandle, Deferred, Outcome, Resolver, unhandled};
use crate::context::LogContext;
use crate::failure::{CancelledError, Failure};

/// A deferred that any number of callers can wait for.
///
/// Each call of [`observe`](Self::observe) gives a deferred of its own. Observers get the result in the
/// order in which they came; a result that is there already is given at once. Cancelling or dropping an
/// observer removes only that one: the work goes on. A handle is a cheap clone.
///
/// A failure counts as handled once anybody observed it, and is logged otherwise, with where this was made.
/// Dropping the last handle lets the work go on, and its observers get the result.
///
/// ```
/// use ropewalk::{Deferred, ObservableDeferred};
///
/// let (deferred, resolver) = Deferred::new();
/// let shared = ObservableDeferred::new(deferred);
/// let (first, second) = (shared.observe(), shared.observe());
/// resolver.callback("result");
/// assert_eq!(first.into_result().unwrap().unwrap(), "result");
/// assert_eq!(second.into_result().unwrap().unwrap(), "result");
/// ```
pub struct ObservableDeferred<T: Clone + 'static> {
    state: Rc<State<T>>,
}

struct State<T: 'static> {
    outcome: RefCell<Option<Outcome<T>>>,
    observers: RefCell<BTreeMap<u64, Resolver<T>>>,
    next_observer: Cell<u64>,
    source: CancelHandle,
    context: LogContext,
    created: &'static Location<'static>,
}

impl<T: Clone + 'static> ObservableDeferred<T> {
    /// Takes over a deferred.
    #[track_caller]
    pub fn new(source: Deferred<T>) -> Self {
        let state = Rc::new(State {
            outcome: RefCell::default(),
            observers: RefCell::default(),
            next_observer: Cell::new(0),
            source: source.cancel_handle(),
            context: LogContext::current(),
            created: Location::caller(),
        });
        let receiver = Rc::clone(&state);
        source
            .add_both(move |outcome| {
                receiver.receive(outcome);
                Ok(())
            })
            .detach();
        Self { state }
    }

    /// Returns a deferred for the result. Cancelling it fails it and removes this observer only, dropping it
    /// removes nothing but itself.
    #[track_caller]
    pub fn observe(&self) -> Deferred<T> {
        self.state.is_observed_from_now_on();
        if let Some(outcome) = self.outcome() {
            return Deferred::ready(outcome);
        }
        let id = self.state.next_observer.get();
        self.state.next_observer.set(id + 1);
        let state = Rc::downgrade(&self.state);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let resolver =
                state.upgrade().and_then(|state| state.observers.borrow_mut().remove(&id));
            if let Some(resolver) = resolver {
                resolver.errback(Failure::plain(CancelledError));
            }
        });
        self.state.observers.borrow_mut().insert(id, resolver);
        deferred
    }

    /// Returns the result if it is there.
    pub fn outcome(&self) -> Option<Result<T, Failure>> {
        self.state.outcome.borrow().clone()
    }

    /// Whether the result is there.
    pub fn is_fired(&self) -> bool {
        self.state.outcome.borrow().is_some()
    }

    /// Returns how many wait for the result now.
    pub fn observer_count(&self) -> usize {
        self.state.observers.borrow().len()
    }

    /// Cancels the work itself; all observers get what comes of that.
    pub fn cancel(&self) {
        self.state.source.cancel();
    }

    /// Whether both are handles on the same result.
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.state, &other.state)
    }
}

impl<T: Clone + 'static> State<T> {
    fn receive(&self, outcome: Outcome<T>) {
        *self.outcome.borrow_mut() = Some(outcome.clone());
        // One at a time: an observer may cancel another one.
        loop {
            let next = self.observers.borrow_mut().pop_first();
            let Some((_, resolver)) = next else { break };
            resolver.fire(outcome.clone());
        }
    }
}

impl<T: 'static> State<T> {
    fn is_observed_from_now_on(&self) {
        // The counter alone tells: it is nonzero once there was an observer.
        if self.next_observer.get() == 0 {
            self.next_observer.set(1);
        }
    }
}

impl<T: 'static> Drop for State<T> {
    fn drop(&mut self) {
        if self.next_observer.get() == 0
            && let Some(Err(failure)) = self.outcome.take()
        {
            self.context.run(|| unhandled::report(&failure, Some(self.created)));
        }
    }
}

impl<T: Clone + 'static> Clone for ObservableDeferred<T> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<T: Clone + 'static> fmt::Debug for ObservableDeferred<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservableDeferred")
            .field("is_fired", &self.is_fired())
            .field("observers", &self.observer_count())
            .finish()
    }
}
