//! Locks and queues against models that are too simple to be wrong: whoever stands in a line gets what
//! the model says, whatever others do.

use std::collections::VecDeque;

use proptest::prelude::*;
use ropewalk::testing::{failure_result_of, success_result_of};
use ropewalk::{CancelledError, Deferred, DeferredQueue, Linearizer, ReadWriteLock};

/// Somebody in a line: the deferred while it waits, and what it holds after that.
enum Place<G: 'static> {
    Waiting(Deferred<G>),
    Holding(G),
}

impl<G: 'static> Place<G> {
    /// Takes what has been given.
    fn settle(self) -> Place<G> {
        match self {
            Place::Waiting(deferred) if deferred.is_fired() => {
                Place::Holding(success_result_of(deferred))
            }
            place => place,
        }
    }

    fn is_holding(&self) -> bool {
        matches!(self, Place::Holding(_))
    }

    /// Lets go, or leaves the line.
    fn leave(self) {
        if let Place::Waiting(deferred) = self {
            deferred.cancel();
            assert!(failure_result_of(deferred).is::<CancelledError>());
        }
    }
}

/// Either kind of guard; which one, its line knows.
#[expect(dead_code, reason = "a guard is held, not looked at")]
enum Held {
    Read(ropewalk::ReadGuard),
    Write(ropewalk::WriteGuard),
}

proptest! {
    /// A reader holds the lock unless a writer is before it, a writer if nobody is before it.
    #[test]
    fn a_read_write_lock_is_held_by_whom_the_line_says(
        steps in prop::collection::vec((0..3, any::<prop::sample::Index>()), 1..60),
    ) {
        let lock = ReadWriteLock::new();
        let mut line: Vec<(bool, Place<Held>)> = Vec::new();
        for (kind, index) in steps {
            match kind {
                0 => {
                    let read = lock.read(0).add_callback(|guard| Ok(Held::Read(guard)));
                    line.push((false, Place::Waiting(read)));
                }
                1 => {
                    let write = lock.write(0).add_callback(|guard| Ok(Held::Write(guard)));
                    line.push((true, Place::Waiting(write)));
                }
                _ if line.is_empty() => {}
                _ => line.remove(index.index(line.len())).1.leave(),
            }
            line = line.into_iter().map(|(is_writer, place)| (is_writer, place.settle())).collect();
            let mut has_writer_before = false;
            for (position, (is_writer, place)) in line.iter().enumerate() {
                let should_hold = match is_writer {
                    true => position == 0,
                    false => !has_writer_before,
                };
                prop_assert_eq!(place.is_holding(), should_hold, "place {}", position);
                has_writer_before |= is_writer;
            }
            let has_waiting = line.iter().any(|(_, place)| !place.is_holding());
            prop_assert_eq!(lock.is_queued(&0), has_waiting);
        }
        while !line.is_empty() {
            line.remove(0).1.leave();
            line = line.into_iter().map(|(is_writer, place)| (is_writer, place.settle())).collect();
        }
        prop_assert_eq!(lock.held_key_count(), 0);
    }

    /// The first so many of each line hold it.
    #[test]
    fn a_linearizer_lets_the_first_of_each_line_go_on(
        holders_max in 1..4usize,
        steps in prop::collection::vec((0..4, 0..2usize, any::<prop::sample::Index>()), 1..60),
    ) {
        let linearizer = Linearizer::with_holders_max(holders_max);
        let mut lines: [Vec<Place<_>>; 2] = Default::default();
        for (kind, key, index) in steps {
            let line = &mut lines[key];
            match kind {
                0 | 1 => line.push(Place::Waiting(linearizer.queue(key))),
                _ if line.is_empty() => {}
                _ => line.remove(index.index(line.len())).leave(),
            }
            *line = line.drain(..).map(Place::settle).collect();
            for (position, place) in line.iter().enumerate() {
                prop_assert_eq!(place.is_holding(), position < holders_max);
            }
            prop_assert_eq!(linearizer.is_queued(&key), line.len() > holders_max);
        }
        let held = lines.iter().filter(|line| !line.is_empty()).count();
        prop_assert_eq!(linearizer.held_key_count(), held);
    }

    /// What is put comes out once and in order, to the callers in theirs; nothing else is kept.
    #[test]
    fn a_queue_gives_each_item_once_and_in_order(
        size_max in 0..3usize,
        backlog_max in 0..3usize,
        steps in prop::collection::vec((0..6, any::<prop::sample::Index>()), 1..80),
    ) {
        let queue = DeferredQueue::new(size_max, backlog_max);
        let mut getters: Vec<Deferred<u32>> = Vec::new();
        let mut putters: Vec<(u32, Deferred<()>)> = Vec::new();
        // The model.
        let (mut items, mut waiting_puts) = (VecDeque::new(), VecDeque::new());
        let mut next_item = 0;
        for (kind, index) in steps {
            match kind {
                0 | 1 => {
                    next_item += 1;
                    let has_room = items.len() < size_max || !getters.is_empty();
                    let is_taken = match kind {
                        0 => queue.put(next_item).is_ok(),
                        _ => {
                            let put = queue.put_later(next_item);
                            let is_taken = put.is_fired();
                            if !is_taken {
                                waiting_puts.push_back(next_item);
                                putters.push((next_item, put));
                            }
                            is_taken
                        }
                    };
                    prop_assert_eq!(is_taken, has_room && (waiting_puts.is_empty() || is_taken));
                    if is_taken && getters.is_empty() {
                        items.push_back(next_item);
                    } else if is_taken {
                        let getter = getters.remove(0);
                        prop_assert_eq!(success_result_of(getter), next_item);
                    }
                }
                2 => {
                    let got = queue.get();
                    let expected = items.pop_front().or_else(|| waiting_puts.pop_front());
                    match expected {
                        // Without room of its own, the queue takes an item only for a caller who waits.
                        Some(_) if size_max == 0 && backlog_max == 0 => {
                            failure_result_of(got);
                            waiting_puts.push_front(expected.unwrap());
                        }
                        Some(item) => prop_assert_eq!(success_result_of(got), item),
                        None if getters.len() < backlog_max => getters.push(got),
                        None => drop(failure_result_of(got)),
                    }
                }
                3 => {
                    let expected = items.pop_front();
                    prop_assert_eq!(queue.try_get(), expected);
                }
                4 if !getters.is_empty() => {
                    let getter = getters.remove(index.index(getters.len()));
                    getter.cancel();
                    prop_assert!(failure_result_of(getter).is::<CancelledError>());
                }
                5 if !putters.is_empty() => {
                    let (item, put) = putters.remove(index.index(putters.len()));
                    put.cancel();
                    waiting_puts.retain(|waiting| *waiting != item);
                    prop_assert!(failure_result_of(put).is::<CancelledError>());
                }
                _ => {}
            }
            // Whoever waits for room moves up.
            while items.len() < size_max && let Some(item) = waiting_puts.pop_front() {
                items.push_back(item);
            }
            putters.retain(|(item, put)| {
                let still_waits = waiting_puts.contains(item);
                assert_eq!(put.is_fired(), !still_waits, "item {item}");
                still_waits
            });
            prop_assert_eq!(queue.len(), items.len());
            prop_assert_eq!(queue.waiting_count(), getters.len());
            prop_assert!(getters.iter().all(|getter| !getter.is_fired()));
        }
    }
}
