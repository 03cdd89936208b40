//! The order of calls, by cases and against a plain list.

use std::cell::RefCell;
use std::time::Duration;

use proptest::prelude::*;

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
    assert_eq!(fixture.timers.len(), 0);
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
    assert!(fixture.timers.late.len() <= SWEEP_ABOVE + 1);
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
    assert!(fixture.timers.late.len() <= SWEEP_ABOVE + 1);
    assert_eq!(fixture.made_by(99), [""; 0]);
    assert_eq!(fixture.made_by(100), ["idle"]);
}

#[test]
fn many_resets_leave_nothing_behind() {
    let mut fixture = Fixture::new();
    let key = fixture.insert(1, "idle");
    for seconds in 2..10_000 {
        fixture.timers.reschedule(key, at(seconds));
    }
    assert_eq!(fixture.timers.late.len(), 0);
    assert_eq!(fixture.made_by(9_998), [""; 0]);
    assert_eq!(fixture.made_by(9_999), ["idle"]);
}

#[test]
fn calls_for_now_that_are_cancelled_do_not_pile_up() {
    let mut fixture = Fixture::new();
    fixture.insert(9, "last");
    assert_eq!(fixture.made_by(5), [""; 0]);
    for _ in 0..10_000 {
        let key = fixture.insert(5, "cancelled");
        fixture.timers.remove(key);
    }
    assert!(fixture.timers.late.len() <= SWEEP_ABOVE + 1);
    assert_eq!(fixture.made_by(9), ["last"]);
}

#[test]
fn a_clock_that_jumps_does_no_harm() {
    let years = 365 * 86_400;
    let mut fixture = Fixture::new();
    for (seconds, name) in [(400 * years, "late"), (1, "soon"), (100 * years, "middle")] {
        fixture.insert(seconds, name);
    }
    assert_eq!(fixture.made_by(300 * years), ["soon", "middle"]);
    // Set for the past, as seen from here; and the clock seems to go back, which no clock should.
    fixture.insert(2, "past");
    assert_eq!(fixture.made_by(1), [""; 0]);
    assert_eq!(fixture.made_by(3), ["past"]);
    fixture.timers.insert(Instant::from_nanos(u64::MAX), Job::new(|| {}));
    assert_eq!(fixture.timers.next_deadline(), Some(at(400 * years)));
    assert_eq!(fixture.made_by(500 * years), ["late"]);
    assert_eq!(fixture.timers.next_deadline(), Some(Instant::from_nanos(u64::MAX)));
    assert!(fixture.timers.pop_due(Instant::from_nanos(u64::MAX)).is_some());
    assert_eq!(fixture.timers.next_deadline(), None);
}

/// The same by a list that is searched from end to end.
#[derive(Default)]
struct Model {
    calls: Vec<(Due, Key, u32)>,
    next_sequence: u64,
}

impl Model {
    fn due(&mut self, deadline: Instant) -> Due {
        self.next_sequence += 1;
        Due { deadline, sequence: self.next_sequence - 1 }
    }

    fn next(&self) -> Option<Due> {
        self.calls.iter().map(|call| call.0).min()
    }

    fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let next = self.next().filter(|due| due.deadline <= now)?;
        let place = self.calls.iter().position(|call| call.0 == next)?;
        Some(self.calls.remove(place).2)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    Cancel(usize),
    Insert(u64),
    LookAhead,
    /// Makes so many of the calls that are due.
    Make(usize),
    Reschedule(usize, u64),
}

/// Times from nanoseconds to weeks.
fn nanos() -> impl Strategy<Value = u64> {
    (0u32..50, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => nanos().prop_map(Step::Advance),
        2 => any::<usize>().prop_map(Step::Cancel),
        5 => nanos().prop_map(Step::Insert),
        1 => Just(Step::LookAhead),
        3 => (0usize..6).prop_map(Step::Make),
        3 => (any::<usize>(), nanos()).prop_map(|(which, delay)| Step::Reschedule(which, delay)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_of_steps_makes_the_same_calls_as_a_plain_list(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let made: Rc<RefCell<Vec<u32>>> = Rc::default();
        let (mut timers, mut model) = (Timers::new(Rc::default()), Model::default());
        let (mut now, mut number) = (Instant::START, 0);
        for step in steps {
            match step {
                Step::Advance(nanos) => now += Duration::from_nanos(nanos),
                Step::Cancel(which) if !model.calls.is_empty() => {
                    let (_, key, _) = model.calls.remove(which % model.calls.len());
                    prop_assert!(timers.remove(key).is_some());
                    prop_assert!(timers.remove(key).is_none());
                }
                Step::Insert(nanos) => {
                    number += 1;
                    let (made, name) = (Rc::clone(&made), number);
                    let deadline = now + Duration::from_nanos(nanos);
                    let job = Job::new(move || made.borrow_mut().push(name));
                    timers.move_on_if_empty(now);
                    let key = timers.insert(deadline, job);
                    let due = model.due(deadline);
                    model.calls.push((due, key, number));
                }
                Step::LookAhead => {
                    let next = model.next().map(|due| due.deadline);
                    prop_assert_eq!(timers.next_deadline(), next);
                }
                Step::Make(count) => {
                    for _ in 0..count {
                        if let Some(call) = timers.pop_due(now) {
                            call.run();
                        }
                        let expected = model.pop_due(now);
                        prop_assert_eq!(made.borrow_mut().pop(), expected);
                    }
                }
                Step::Reschedule(which, nanos) if !model.calls.is_empty() => {
                    let which = which % model.calls.len();
                    let deadline = now + Duration::from_nanos(nanos);
                    timers.reschedule(model.calls[which].1, deadline);
                    model.calls[which].0 = model.due(deadline);
                }
                Step::Cancel(_) | Step::Reschedule(..) => {}
            }
            prop_assert_eq!(timers.len(), model.calls.len());
            let bound = timers.next_deadline_at_the_earliest();
            prop_assert!(bound <= model.next().map(|due| due.deadline));
        }
        now = Instant::from_nanos(u64::MAX);
        while let Some(expected) = model.pop_due(now) {
            timers.pop_due(now).expect("one is left").run();
            prop_assert_eq!(made.borrow_mut().pop(), Some(expected));
        }
        prop_assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn waking_at_the_earliest_bound_always_leads_to_the_next_call(
        delays in prop::collection::vec((nanos(), any::<bool>()), 1..60),
    ) {
        let mut timers = Timers::new(Rc::default());
        let keys: Vec<_> = delays
            .iter()
            .map(|&(nanos, is_cancelled)| {
                (timers.insert(Instant::from_nanos(nanos), Job::new(|| {})), is_cancelled)
            })
            .collect();
        for (key, _) in keys.iter().filter(|(_, is_cancelled)| *is_cancelled) {
            timers.remove(*key);
        }
        let mut wakings = 0;
        while let Some(bound) = timers.next_deadline_at_the_earliest() {
            wakings += 1;
            prop_assert!(wakings <= 10 * delays.len(), "in vain: {wakings}");
            while timers.pop_due(bound).is_some() {}
            prop_assert!(timers.next_deadline_at_the_earliest().is_none_or(|next| next > bound));
        }
    }
}
