//! Checks that a test leaves nothing behind: no deferred, context, delayed call, task or connection.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Clock;
use crate::census::{self, Place};

/// What lives on this thread. Kept only in builds with debug assertions, which tests are.
#[derive(Clone, Debug, Default)]
struct Living {
    /// How many were made at a place.
    deferreds: BTreeMap<Place, usize>,
    contexts: Contexts,
}

/// The names of contexts by their numbers.
#[derive(Clone, Debug, Default)]
struct Contexts {
    names: BTreeMap<u64, String>,
    next: u64,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// Lies in each log context, and remembers those that live on this thread.
pub(crate) struct CountedContext {
    #[cfg(debug_assertions)]
    number: u64,
}

impl CountedContext {
    #[inline]
    pub(crate) fn new(name: impl FnOnce() -> String) -> CountedContext {
        #[cfg(debug_assertions)]
        {
            let name = name();
            // The thread's locals may be gone already when the last contexts are made or go.
            let number = CONTEXTS.try_with(|contexts| {
                let mut contexts = contexts.borrow_mut();
                contexts.next += 1;
                let number = contexts.next;
                contexts.names.insert(number, name);
                number
            });
            CountedContext { number: number.unwrap_or(0) }
        }
        #[cfg(not(debug_assertions))]
        {
            let _ = name;
            CountedContext {}
        }
    }
}

#[cfg(debug_assertions)]
impl Drop for CountedContext {
    fn drop(&mut self) {
        let _ = CONTEXTS.try_with(|contexts| contexts.borrow_mut().names.remove(&self.number));
    }
}

impl Living {
    fn now() -> Living {
        Living { deferreds: census::places(), contexts: CONTEXTS.with_borrow(Contexts::clone) }
    }

    /// Returns how many deferreds have been made since `before` and not gone, for each place.
    fn deferreds_since(&self, before: &Living) -> Vec<(Place, usize)> {
        let count_before = |place| before.deferreds.get(place).copied().unwrap_or(0);
        let since = self
            .deferreds
            .iter()
            .map(|(place, count)| (*place, count.saturating_sub(count_before(place))));
        since.filter(|(_, count)| *count > 0).collect()
    }

    fn contexts_since(&self, before: &Living) -> Vec<&str> {
        let since = self.contexts.names.range(before.contexts.next + 1..);
        since.map(|(_, name)| name.as_str()).collect()
    }
}

fn describe_deferreds(deferreds: &[(Place, usize)]) -> String {
    let places: Vec<_> = deferreds
        .iter()
        .take(PLACES_SHOWN_MAX)
        .map(|(place, count)| format!("{count} made at {place}"))
        .collect();
    let more = deferreds.len().saturating_sub(PLACES_SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} places more") } else { String::new() };
    format!("{} ({}{more})", counted(total(deferreds), "deferred"), places.join(", "))
}

fn total(deferreds: &[(Place, usize)]) -> usize {
    deferreds.iter().map(|(_, count)| count).sum()
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Who forgot one thing forgot it at one place; a screen of them helps nobody.
const PLACES_SHOWN_MAX: usize = 8;

/// Checks that the deferreds of this thread which were made since are gone when it is dropped.
///
/// A deferred that is still there then is most often one that somebody waits for and nobody will
/// ever fire. Make it before the [`Clock`], so that it is dropped after that. Finds nothing in builds
/// without debug assertions. [`Clock::expect_nothing_left`] checks more.
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::testing::NoDeferredLeaks;
///
/// let check = NoDeferredLeaks::watch();
/// let (deferred, resolver) = Deferred::<()>::new();
/// assert_eq!(check.living(), 1);
/// resolver.callback(());
/// drop(deferred);
/// ```
#[derive(Debug)]
pub struct NoDeferredLeaks {
    before: Living,
}

impl NoDeferredLeaks {
    /// Begins to watch.
    #[must_use = "the check is made when it is dropped"]
    pub fn watch() -> NoDeferredLeaks {
        NoDeferredLeaks { before: Living::now() }
    }

    /// Returns how many deferreds have been made since and not gone.
    #[must_use]
    pub fn living(&self) -> usize {
        total(&Living::now().deferreds_since(&self.before))
    }
}

impl Drop for NoDeferredLeaks {
    fn drop(&mut self) {
        let living = Living::now().deferreds_since(&self.before);
        if !living.is_empty() && !std::thread::panicking() {
            panic!(
                "still there: {}; does somebody wait for them in vain?",
                describe_deferreds(&living)
            );
        }
    }
}

/// Checks when it is dropped that everything which a test began has come to its end.
///
/// Made by [`Clock::expect_nothing_left`]. What was there before that does not count.
#[derive(Debug)]
#[must_use = "the check is made when it is dropped"]
pub struct NothingLeft<'a> {
    clock: &'a Clock,
    before: Living,
    calls: usize,
    tasks: usize,
    connections: usize,
}

impl<'a> NothingLeft<'a> {
    pub(super) fn watch(clock: &'a Clock) -> NothingLeft<'a> {
        NothingLeft {
            clock,
            before: Living::now(),
            calls: clock.pending_calls(),
            tasks: clock.pending_tasks(),
            connections: clock.open_connections(),
        }
    }

    /// Returns what is there now and was not when this was made, a line for each kind.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let clock = self.clock;
        let mut left = Vec::new();
        for (now, before, noun) in [
            (clock.pending_calls(), self.calls, "delayed call"),
            (clock.pending_tasks(), self.tasks, "task"),
            (clock.open_connections(), self.connections, "connection or port"),
        ] {
            if now > before {
                left.push(counted(now - before, noun));
            }
        }
        let living = Living::now();
        let deferreds = living.deferreds_since(&self.before);
        if !deferreds.is_empty() {
            left.push(describe_deferreds(&deferreds));
        }
        let contexts = living.contexts_since(&self.before);
        if !contexts.is_empty() {
            left.push(format!("{} ({})", counted(contexts.len(), "context"), contexts.join(", ")));
        }
        left
    }
}

impl Drop for NothingLeft<'_> {
    fn drop(&mut self) {
        let left = self.left();
        if !left.is_empty() && !std::thread::panicking() {
            panic!("the test leaves behind: {}", left.join("; "));
        }
    }
}
