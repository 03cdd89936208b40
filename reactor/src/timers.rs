//! The timer queue, and [`DelayedCall`], the handle on one timer.
//!
//! Deadlines lie in a heap, the calls themselves in a table. Cancelling empties the place in the
//! table and putting off only notes the new deadline there: the heap learns of either when the old
//! deadline comes up, so that the usual life of a time-out (set, put off many times, cancelled)
//! costs the heap one entry. Deadlines of cancelled calls are swept out when they outnumber the
//! others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::agenda::{Agenda, item};
use crate::clock::Instant;
use crate::core::Core;
use crate::ready::Job;
use crate::slots::{Key, Slots};

/// A call that [`Reactor::call_later`](crate::Reactor::call_later) has scheduled.
///
/// Dropping it leaves the call scheduled. Once the call has been made or cancelled, or the reactor
/// has stopped, every method does nothing.
#[derive(Clone)]
pub struct DelayedCall {
    core: Weak<Core>,
    key: Key,
}

impl DelayedCall {
    pub(crate) fn new(core: Weak<Core>, key: Key) -> DelayedCall {
        DelayedCall { core, key }
    }

    /// Drops the call.
    pub fn cancel(&self) {
        let Some(core) = self.core.upgrade() else { return };
        let cancelled = core.timers.borrow_mut().remove(self.key);
        // What the call owns is dropped here, with no borrow held: it may be anything.
        drop(cancelled);
    }

    /// Schedules the call for `delay` from now, whatever it was scheduled for.
    ///
    /// Among calls of the same instant it takes its place as if it were new.
    pub fn reset(&self, delay: Duration) {
        let Some(core) = self.core.upgrade() else { return };
        let deadline = core.backend.now() + delay;
        core.timers.borrow_mut().reschedule(self.key, deadline);
    }

    /// Puts the call off by `more`.
    pub fn delay(&self, more: Duration) {
        let Some(core) = self.core.upgrade() else { return };
        let mut timers = core.timers.borrow_mut();
        if let Some(deadline) = timers.deadline(self.key) {
            timers.reschedule(self.key, deadline + more);
        }
    }

    /// Whether the call is still to come.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.deadline().is_some()
    }

    /// Returns when the call will be made; `None` if it is not to come any more.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.core.upgrade()?.timers.borrow().deadline(self.key)
    }
}

impl fmt::Debug for DelayedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedCall").field("deadline", &self.deadline()).finish()
    }
}

pub(crate) struct Timers {
    calls: Slots<Timer>,
    heap: BinaryHeap<Reverse<Entry>>,
    /// Whether the heap's top is known to be up to date: nearly always, as most turns touch no timer.
    is_top_current: bool,
    next_sequence: u64,
    agenda: Rc<Agenda>,
}

struct Timer {
    due: Due,
    call: Job,
}

/// When a call is due, and its turn among those of the same instant.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Due {
    deadline: Instant,
    sequence: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    due: Due,
    key: Key,
}

impl Timers {
    pub(crate) fn new(agenda: Rc<Agenda>) -> Timers {
        Timers {
            calls: Slots::new(),
            heap: BinaryHeap::new(),
            is_top_current: false,
            next_sequence: 0,
            agenda,
        }
    }

    pub(crate) fn insert(&mut self, deadline: Instant, call: Job) -> Key {
        let due = self.next_due(deadline);
        let key = self.calls.insert(Timer { due, call });
        self.heap.push(Reverse(Entry { due, key }));
        self.is_top_current = false;
        self.agenda.add(item::TIMERS);
        key
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Job> {
        let timer = self.calls.remove(key)?;
        self.is_top_current = false;
        self.sweep_if_stale();
        Some(timer.call)
    }

    pub(crate) fn reschedule(&mut self, key: Key, deadline: Instant) {
        let due = self.next_due(deadline);
        let Some(timer) = self.calls.get_mut(key) else { return };
        let is_earlier = due < timer.due;
        timer.due = due;
        self.is_top_current = false;
        // Of several entries for one call, the first to come up that finds it due makes it, and the
        // others find nothing.
        if is_earlier {
            self.heap.push(Reverse(Entry { due, key }));
            self.sweep_if_stale();
        }
    }

    /// Takes the next call that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Job> {
        while let Some(&Reverse(entry)) = self.heap.peek() {
            if entry.due.deadline > now {
                return None;
            }
            self.heap.pop();
            self.is_top_current = false;
            let Some(timer) = self.calls.get(entry.key) else { continue };
            if timer.due == entry.due {
                return self.calls.remove(entry.key).map(|timer| timer.call);
            }
            if timer.due > entry.due {
                self.heap.push(Reverse(Entry { due: timer.due, key: entry.key }));
            }
        }
        None
    }

    /// Returns the next deadline, bringing the heap's top up to date first.
    #[inline]
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        if !self.is_top_current {
            self.bring_top_up_to_date();
        }
        self.next_deadline_at_the_earliest()
    }

    /// Returns the next deadline, or that of a call that was cancelled or put off, if it is earlier.
    #[inline]
    pub(crate) fn next_deadline_at_the_earliest(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.due.deadline)
    }

    #[inline(never)]
    fn bring_top_up_to_date(&mut self) {
        self.is_top_current = true;
        while let Some(&Reverse(entry)) = self.heap.peek() {
            let due = self.calls.get(entry.key).map(|timer| timer.due);
            match due {
                Some(due) if due == entry.due => return,
                Some(due) if due > entry.due => {
                    self.heap.pop();
                    self.heap.push(Reverse(Entry { due, key: entry.key }));
                }
                _ => {
                    self.heap.pop();
                }
            }
        }
        self.agenda.remove(item::TIMERS);
    }

    pub(crate) fn deadline(&self, key: Key) -> Option<Instant> {
        self.calls.get(key).map(|timer| timer.due.deadline)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn take_all(&mut self) -> Vec<Job> {
        self.heap.clear();
        self.calls.take_all().into_iter().map(|timer| timer.call).collect()
    }

    fn next_due(&mut self, deadline: Instant) -> Due {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Due { deadline, sequence }
    }

    /// Rebuilds the heap once most of its entries are of no use.
    fn sweep_if_stale(&mut self) {
        if self.heap.len() > SWEEP_ABOVE && self.heap.len() / 2 > self.calls.len() {
            self.heap.clear();
            let entries = self.calls.iter().map(|(key, timer)| Entry { due: timer.due, key });
            self.heap.extend(entries.map(Reverse));
        }
    }
}

/// Heaps smaller than this are not worth sweeping.
const SWEEP_ABOVE: usize = 64;

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.due == other.due
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Fixture {
        timers: Timers,
        made: Rc<RefCell<Vec<&'static str>>>,
    }

    impl Fixture {
        fn new() -> Fixture {
            Fixture { timers: Timers::new(Rc::default()), made: Rc::default() }
        }

        fn insert(&mut self, seconds: u64, name: &'static str) -> Key {
            let made = Rc::clone(&self.made);
            self.timers.insert(at(seconds), Job::new(move || made.borrow_mut().push(name)))
        }

        fn made_by(&mut self, seconds: u64) -> Vec<&'static str> {
            while let Some(call) = self.timers.pop_due(at(seconds)) {
                call.run();
            }
            self.made.take()
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn calls_are_made_in_order_and_equal_deadlines_first_come_first_served() {
        let mut fixture = Fixture::new();
        for (seconds, name) in [(2, "b1"), (1, "a1"), (2, "b2"), (1, "a2"), (3, "c"), (2, "b3")] {
            fixture.insert(seconds, name);
        }
        assert_eq!(fixture.timers.next_deadline(), Some(at(1)));
        assert_eq!(fixture.made_by(2), ["a1", "a2", "b1", "b2", "b3"]);
        assert_eq!(fixture.made_by(3), ["c"]);
        assert!(fixture.timers.is_empty());
    }

    #[test]
    fn a_call_that_is_put_off_comes_later_and_behind_older_ones_of_that_instant() {
        let mut fixture = Fixture::new();
        let moved = fixture.insert(1, "moved");
        fixture.insert(5, "older");
        fixture.timers.reschedule(moved, at(5));
        assert_eq!(fixture.timers.next_deadline(), Some(at(5)));
        assert_eq!(fixture.made_by(4), [""; 0]);
        assert_eq!(fixture.made_by(5), ["older", "moved"]);
    }

    #[test]
    fn a_call_that_is_brought_forward_and_put_off_again_is_made_once() {
        let mut fixture = Fixture::new();
        let moved = fixture.insert(9, "moved");
        for seconds in [3, 7, 2, 4] {
            fixture.timers.reschedule(moved, at(seconds));
        }
        assert_eq!(fixture.made_by(3), [""; 0]);
        assert_eq!(fixture.timers.next_deadline(), Some(at(4)));
        assert_eq!(fixture.made_by(20), ["moved"]);
        assert_eq!(fixture.timers.next_deadline(), None);
    }

    #[test]
    fn deadlines_of_cancelled_calls_do_not_pile_up() {
        let mut fixture = Fixture::new();
        fixture.insert(1_000_000, "last");
        for seconds in 0..10_000 {
            let key = fixture.insert(seconds, "cancelled");
            assert!(fixture.timers.remove(key).is_some());
            assert!(fixture.timers.remove(key).is_none());
        }
        assert!(fixture.timers.heap.len() <= SWEEP_ABOVE + 1);
        assert_eq!(fixture.made_by(2_000_000), ["last"]);
    }

    #[test]
    fn bringing_forward_again_and_again_does_not_pile_up() {
        let mut fixture = Fixture::new();
        let key = fixture.insert(100, "idle");
        for _ in 0..10_000 {
            fixture.timers.reschedule(key, at(50));
            fixture.timers.reschedule(key, at(100));
        }
        assert!(fixture.timers.heap.len() <= SWEEP_ABOVE + 1);
        assert_eq!(fixture.made_by(99), [""; 0]);
        assert_eq!(fixture.made_by(100), ["idle"]);
    }

    #[test]
    fn many_resets_leave_one_entry_in_the_heap() {
        let mut fixture = Fixture::new();
        let key = fixture.insert(1, "idle");
        for seconds in 2..10_000 {
            fixture.timers.reschedule(key, at(seconds));
        }
        assert_eq!(fixture.timers.heap.len(), 1);
        assert_eq!(fixture.made_by(9_998), [""; 0]);
        assert_eq!(fixture.made_by(9_999), ["idle"]);
    }
}
