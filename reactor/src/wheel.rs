//! The timer queue: a wheel of lists, and what is due next in order.
//!
//! Time is cut into ticks of 65 µs. A call that is further away lies in a list with others of about its
//! time, unordered; setting it and cancelling it touch that list's ends only, and most timers, which
//! guard against something that does not happen, know nothing else. The lists stand on eight levels of
//! 64: on the lowest each holds one tick, above that 64 of the lists below. When the clock reaches a
//! list, those in it move to the levels below, and at last, tick by tick, are put in order and wait for
//! their exact instant.
//!
//! Putting a call off only notes the new deadline: the old list learns of it when its time comes.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use crate::agenda::{Agenda, item};
use crate::clock::Instant;
use crate::context::LogContext;
use crate::ready::Job;
use crate::slots::{Key, Slots};

pub(crate) struct Timers {
    calls: Slots<Timer>,
    lists: Box<[List; LISTS]>,
    /// For each level, which of its lists hold something.
    occupied: [u64; LEVELS],
    /// The tick that the wheel stands at: what lies in its lists comes after it.
    position: u64,
    /// What is due at the wheel's position or before; the soonest last.
    near: Vec<Entry>,
    /// What was set for then after those had been put in order.
    late: BinaryHeap<Reverse<Entry>>,
    /// No call is due before this.
    earliest: Instant,
    /// Whether one is due then.
    is_exact: bool,
    next_sequence: u64,
    /// When the call that was taken last was due.
    taken_deadline: Instant,
    agenda: Rc<Agenda>,
}

struct Timer {
    due: Due,
    call: Job,
    place: Place,
    previous: Key,
    next: Key,
}

/// When a call is due, and its turn among those of the same instant.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Due {
    deadline: Instant,
    sequence: u64,
}

impl Due {
    /// Returns the order among calls of the same tick, in one word: the last bits of the deadline, and
    /// then the sequence, which does not come to 2^48 in the life of a machine.
    fn within_tick(self) -> u64 {
        self.deadline.as_nanos() << (u64::BITS - TICK_BITS) | self.sequence & u64::MAX >> TICK_BITS
    }
}

/// A call that is due soon. If the call is gone or due at another time, it means nothing.
#[derive(Clone, Copy)]
struct Entry {
    due: Due,
    key: Key,
}

/// The number of a list, or [`NEAR`].
type Place = u16;

/// Not in a list.
const NEAR: Place = Place::MAX;

#[derive(Clone, Copy)]
struct List {
    first: Key,
    /// No call in it is due before this.
    earliest: Instant,
}

impl Timers {
    pub(crate) fn new(agenda: Rc<Agenda>) -> Timers {
        let empty = List { first: Key::NONE, earliest: NEVER };
        Timers {
            calls: Slots::new(),
            lists: Box::new([empty; LISTS]),
            occupied: [0; LEVELS],
            position: 0,
            near: Vec::new(),
            late: BinaryHeap::new(),
            earliest: NEVER,
            is_exact: true,
            next_sequence: 0,
            taken_deadline: Instant::START,
            agenda,
        }
    }

    pub(crate) fn insert(&mut self, deadline: Instant, call: Job) -> Key {
        let due = self.next_due(deadline);
        let (place, next) = self.place_of(deadline);
        let timer = Timer { due, call, place, previous: Key::NONE, next };
        let key = self.calls.insert(timer);
        self.put(key, due, place, next);
        self.agenda.add(item::TIMERS);
        key
    }

    /// Says what time it is. While no call is waiting the wheel moves on for nothing, and calls that are set
    /// then need not be moved from list to list on their way.
    #[inline]
    pub(crate) fn move_on_if_empty(&mut self, now: Instant) {
        if self.calls.len() == 0 {
            self.position = self.position.max(tick(now));
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Job> {
        let timer = self.calls.remove(key)?;
        if timer.place != NEAR {
            self.unlink(timer.place, timer.previous, timer.next);
        }
        self.forget_deadline(timer.due.deadline);
        Some(timer.call)
    }

    pub(crate) fn reschedule(&mut self, key: Key, deadline: Instant) {
        let due = self.next_due(deadline);
        let Some(timer) = self.calls.get_mut(key) else { return };
        let before = std::mem::replace(&mut timer.due, due);
        if timer.place != NEAR {
            if before < due {
                return self.forget_deadline(before.deadline);
            }
            let (place, previous, next) = (timer.place, timer.previous, timer.next);
            self.unlink(place, previous, next);
        }
        self.forget_deadline(before.deadline);
        self.place_again(key, due);
    }

    /// Takes the next call that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Job> {
        while let Some(entry) = self.nearest_until(now) {
            self.pop_nearest();
            if let Some(call) = self.take_if_due(entry) {
                self.forget_deadline(entry.due.deadline);
                self.taken_deadline = entry.due.deadline;
                return Some(call);
            }
        }
        self.look_for_earliest();
        None
    }

    /// Returns the next deadline.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        if !self.is_exact {
            self.find_earliest();
        }
        self.next_deadline_at_the_earliest()
    }

    /// Returns the next deadline, or that of a call that was cancelled or put off, if it is earlier.
    #[inline]
    pub(crate) fn next_deadline_at_the_earliest(&self) -> Option<Instant> {
        (self.calls.len() > 0).then_some(self.earliest)
    }

    pub(crate) fn deadline(&self, key: Key) -> Option<Instant> {
        self.calls.get(key).map(|timer| timer.due.deadline)
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Returns when the call that was taken last was due.
    pub(crate) fn taken_deadline(&self) -> Instant {
        self.taken_deadline
    }

    /// Goes through the calls, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Instant, &LogContext, &'static str)> {
        self.calls.iter().map(|(_, timer)| {
            let (context, name) = timer.call.describe();
            (timer.due.deadline, context, name)
        })
    }

    pub(crate) fn take_all(&mut self) -> Vec<Job> {
        let calls = self.calls.take_all().into_iter().map(|timer| timer.call).collect();
        self.occupied = [0; LEVELS];
        self.lists.iter_mut().for_each(|list| list.first = Key::NONE);
        self.near.clear();
        self.late.clear();
        self.forget_deadline(self.earliest);
        calls
    }

    fn next_due(&mut self, deadline: Instant) -> Due {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Due { deadline, sequence }
    }

    /// Notes that no call may be due any more when the earliest was.
    #[inline]
    fn forget_deadline(&mut self, deadline: Instant) {
        if self.calls.len() == 0 {
            self.earliest = NEVER;
            self.is_exact = true;
            self.agenda.remove(item::TIMERS);
        } else if deadline == self.earliest {
            self.is_exact = false;
        }
    }
}

// The lists.

impl Timers {
    /// Returns where a call with this deadline lies, and the first of those that lie there already.
    #[inline]
    fn place_of(&self, deadline: Instant) -> (Place, Key) {
        let tick = tick(deadline);
        if tick <= self.position {
            return (NEAR, Key::NONE);
        }
        // The lowest level on which both are under the same list of the level above.
        let level = (tick ^ self.position).ilog2() / LISTS_PER_LEVEL.ilog2();
        let place = level * LISTS_PER_LEVEL as u32 + (tick >> shift(level)) as u32 % 64;
        (place as Place, self.lists[place as usize % LISTS].first)
    }

    /// Puts a call where it was found to belong.
    #[inline(always)]
    fn put(&mut self, key: Key, due: Due, place: Place, next: Key) {
        if place == NEAR {
            self.put_late(Entry { due, key });
        } else {
            let (level, bit) = level_and_bit(place);
            self.occupied[level] |= bit;
            let list = &mut self.lists[usize::from(place) % LISTS];
            list.first = key;
            if next == Key::NONE {
                list.earliest = due.deadline;
            } else {
                list.earliest = list.earliest.min(due.deadline);
                if let Some(next) = self.calls.get_mut(next) {
                    next.previous = key;
                }
            }
        }
        if due.deadline < self.earliest {
            self.earliest = due.deadline;
            self.is_exact = true;
        }
    }

    fn put_late(&mut self, entry: Entry) {
        self.late.push(Reverse(entry));
        // Those that were cancelled or moved go when they come up, or when they are the most.
        if self.late.len() > SWEEP_ABOVE && self.late.len() / 2 > self.calls.len() {
            let calls = &self.calls;
            self.late.retain(|Reverse(entry)| is_current(calls, entry));
        }
    }

    /// Puts a call, which is in no list, where it belongs now.
    fn place_again(&mut self, key: Key, due: Due) {
        let (place, next) = self.place_of(due.deadline);
        if let Some(timer) = self.calls.get_mut(key) {
            (timer.place, timer.previous, timer.next) = (place, Key::NONE, next);
        }
        self.put(key, due, place, next);
    }

    /// Closes the gap that a call leaves.
    #[inline]
    fn unlink(&mut self, place: Place, previous: Key, next: Key) {
        match self.calls.get_mut(previous) {
            Some(previous) => previous.next = next,
            None => {
                self.lists[usize::from(place) % LISTS].first = next;
                if next == Key::NONE {
                    let (level, bit) = level_and_bit(place);
                    self.occupied[level] &= !bit;
                }
            }
        }
        if let Some(next) = self.calls.get_mut(next) {
            next.previous = previous;
        }
    }

    /// Returns the list whose time comes first, and the tick at which it does.
    #[inline]
    fn first_list(&self) -> Option<(Place, u64)> {
        let level = self.occupied.iter().position(|&lists| lists != 0)?;
        let number = self.occupied[level].trailing_zeros();
        let shift = shift(level as u32);
        let tick = (self.position >> shift & !63 | u64::from(number)) << shift;
        Some(((level * LISTS_PER_LEVEL) as Place + number as Place, tick))
    }

    /// Moves the wheel on, at most to `now`, until a tick's calls have been put in order. Returns whether
    /// there are any.
    fn advance(&mut self, now: Instant) -> bool {
        let target = tick(now);
        while let Some((place, tick)) = self.first_list()
            && tick <= target
        {
            self.position = tick;
            let (level, bit) = level_and_bit(place);
            self.occupied[level] &= !bit;
            let list = &mut self.lists[usize::from(place) % LISTS];
            let first = std::mem::replace(&mut list.first, Key::NONE);
            self.empty_list(first);
            if !self.near.is_empty() {
                self.near.sort_unstable_by_key(|entry| Reverse(entry.due.within_tick()));
                return true;
            }
        }
        self.position = self.position.max(target);
        false
    }

    /// Puts the calls of a list, which the wheel has reached, where they belong now.
    fn empty_list(&mut self, first: Key) {
        let mut key = first;
        while let Some(timer) = self.calls.get_mut(key) {
            let (due, next) = (timer.due, timer.next);
            if tick(due.deadline) <= self.position {
                timer.place = NEAR;
                self.near.push(Entry { due, key });
            } else {
                self.place_again(key, due);
            }
            key = next;
        }
    }
}

// What is due next.

impl Timers {
    /// Returns the next entry that is due at `now`, current or not.
    #[inline]
    fn nearest_until(&mut self, now: Instant) -> Option<Entry> {
        if self.near.is_empty() && self.late.is_empty() {
            self.advance(now);
        }
        loop {
            let entry = self.nearest()?;
            if entry.due.deadline <= now {
                return Some(entry);
            }
            // What lies in the lists comes after the wheel's position, and so does `now` perhaps.
            if !is_current(&self.calls, &entry) {
                self.pop_nearest();
            } else {
                return None;
            }
            if self.near.is_empty() && self.late.is_empty() {
                self.advance(now);
            }
        }
    }

    #[inline]
    fn nearest(&self) -> Option<Entry> {
        let near = self.near.last();
        match self.late.peek() {
            None => near.copied(),
            Some(Reverse(late)) => match near {
                Some(near) if near.due < late.due => Some(*near),
                _ => Some(*late),
            },
        }
    }

    #[inline]
    fn pop_nearest(&mut self) {
        match (self.near.last(), self.late.peek()) {
            (Some(near), Some(Reverse(late))) if late.due < near.due => drop(self.late.pop()),
            (Some(_), _) => drop(self.near.pop()),
            (None, _) => drop(self.late.pop()),
        }
    }

    #[inline]
    fn take_if_due(&mut self, entry: Entry) -> Option<Job> {
        let timer = self.calls.get(entry.key)?;
        if timer.due != entry.due {
            return None;
        }
        self.calls.remove(entry.key).map(|timer| timer.call)
    }

    /// Sets `earliest` to what is known without a search.
    fn look_for_earliest(&mut self) {
        if self.is_exact {
            return;
        }
        self.earliest = match (self.nearest(), self.first_list()) {
            (Some(entry), _) => entry.due.deadline,
            (None, Some((place, _))) => self.lists[usize::from(place) % LISTS].earliest,
            (None, None) => NEVER,
        };
    }

    /// Sets `earliest` to the next deadline.
    #[inline(never)]
    fn find_earliest(&mut self) {
        self.is_exact = true;
        self.earliest = NEVER;
        while let Some(entry) = self.nearest() {
            if is_current(&self.calls, &entry) {
                self.earliest = entry.due.deadline;
                return;
            }
            self.pop_nearest();
        }
        while let Some((place, _)) = self.first_list() {
            if let Some(earliest) = self.earliest_in_list(place) {
                self.earliest = earliest;
                return;
            }
        }
    }

    /// Moves those that were put off out of the list, and returns the earliest deadline of the others.
    fn earliest_in_list(&mut self, place: Place) -> Option<Instant> {
        let mut earliest = None;
        let mut key = self.lists[usize::from(place) % LISTS].first;
        while let Some(timer) = self.calls.get(key) {
            let (due, previous, next) = (timer.due, timer.previous, timer.next);
            if self.place_of(due.deadline).0 == place {
                earliest = Some(earliest.map_or(due.deadline, |e: Instant| e.min(due.deadline)));
            } else {
                self.unlink(place, previous, next);
                self.place_again(key, due);
            }
            key = next;
        }
        if let Some(earliest) = earliest {
            self.lists[usize::from(place) % LISTS].earliest = earliest;
        }
        earliest
    }
}

#[inline]
fn is_current(calls: &Slots<Timer>, entry: &Entry) -> bool {
    calls.get(entry.key).is_some_and(|timer| timer.due == entry.due)
}

#[inline]
fn tick(instant: Instant) -> u64 {
    instant.as_nanos() >> TICK_BITS
}

/// Returns how many bits of a tick lie below a level.
#[inline]
fn shift(level: u32) -> u32 {
    level * LISTS_PER_LEVEL.ilog2()
}

#[inline]
fn level_and_bit(place: Place) -> (usize, u64) {
    let place = usize::from(place);
    (place / LISTS_PER_LEVEL % LEVELS, 1 << (place % LISTS_PER_LEVEL))
}

/// A tick is 2^16 ns: short enough that putting its calls in order takes little, long enough that a
/// quiet reactor does not wake for the ticks before a deadline.
const TICK_BITS: u32 = 16;

/// The lists of a level fit the bits of a word.
const LISTS_PER_LEVEL: usize = 64;

/// So many levels hold all instants there are: 16 bits in a tick, and six a level.
const LEVELS: usize = 8;

const LISTS: usize = LEVELS * LISTS_PER_LEVEL;

/// Later than any deadline but the last.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// A heap smaller than this is not worth sweeping.
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
