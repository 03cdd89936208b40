//! [`DeferredEvent`]: something that has happened or not, and those who wait for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::{Deferred, Resolver};
use crate::failure::{CancelledError, Failure};

/// A flag that can be waited for.
///
/// Setting it lets everybody go on who waits, in the order in which they came, and whoever comes
/// while it is set goes on at once. A handle is a cheap clone.
///
/// ```
/// use ropewalk::DeferredEvent;
///
/// let caught_up = DeferredEvent::new();
/// let waiting = caught_up.wait();
/// assert!(!waiting.is_fired());
/// caught_up.set();
/// assert!(waiting.is_fired());
/// assert!(caught_up.wait().is_fired());
/// ```
#[derive(Clone, Default)]
pub struct DeferredEvent {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    is_set: Cell<bool>,
    waiting: RefCell<BTreeMap<u64, Resolver<()>>>,
    next_ticket: Cell<u64>,
}

impl DeferredEvent {
    /// Makes an event that has not happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag, and lets those go on who wait, before this returns.
    ///
    /// They all go on, even if one of them clears the flag again. Who begins to wait meanwhile, on a
    /// flag that was cleared, waits for the next time.
    pub fn set(&self) {
        self.state.is_set.set(true);
        let newcomers_from = self.state.next_ticket.get();
        // One at a time: one of them may cancel another.
        while let Some(resolver) = self.state.pop_before(newcomers_from) {
            resolver.callback(());
        }
    }

    /// Clears the flag: who comes from now on waits.
    pub fn clear(&self) {
        self.state.is_set.set(false);
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.state.is_set.get()
    }

    /// Waits until the flag is set.
    ///
    /// Cancelling stops waiting, and changes nothing for others.
    #[track_caller]
    pub fn wait(&self) -> Deferred<()> {
        let state = &self.state;
        if state.is_set.get() {
            return Deferred::succeed(());
        }
        let ticket = state.next_ticket.get();
        state.next_ticket.set(ticket + 1);
        let weak = Rc::downgrade(state);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let resolver =
                weak.upgrade().and_then(|state| state.waiting.borrow_mut().remove(&ticket));
            if let Some(resolver) = resolver {
                resolver.errback(Failure::plain(CancelledError));
            }
        });
        state.waiting.borrow_mut().insert(ticket, resolver);
        deferred
    }

    /// Returns how many are waiting.
    pub fn waiting_count(&self) -> usize {
        self.state.waiting.borrow().len()
    }
}

impl State {
    fn pop_before(&self, ticket: u64) -> Option<Resolver<()>> {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.first_entry()?;
        (*first.key() < ticket).then(|| first.remove())
    }
}

impl fmt::Debug for DeferredEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredEvent")
            .field("is_set", &self.is_set())
            .field("waiting", &self.waiting_count())
            .finish()
    }
}
