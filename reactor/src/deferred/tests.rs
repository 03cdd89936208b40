//! What is promised about deferreds that outside tests cannot see, and chains of a million steps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::failure::{CancelledError, Panicked};

const MANY: usize = 1_000_000;

/// As many, for what takes longer, or a quarter where the compiler has not made it fast: if each took a
/// frame on the stack, of which a test's thread has 2 MiB, that would have to fit in eight bytes.
const MANY_NESTED: usize = if cfg!(debug_assertions) { MANY / 4 } else { MANY };

/// Has this thread's deferreds not counted by where they are made: that would be most of the work, and is
/// not what is tried here.
fn do_not_count() {
    crate::census::track(false);
}

#[test]
fn a_million_steps_fire_and_drop_without_recursion() {
    let (mut deferred, resolver) = Deferred::new();
    for _ in 0..MANY {
        deferred = deferred.add_callback(|n: usize| Ok(n + 1));
    }
    resolver.callback(0);
    assert_eq!(result_of(deferred).unwrap(), MANY);
}

#[test]
fn a_million_steps_pass_a_failure_on_without_recursion() {
    let (mut deferred, resolver) = Deferred::new();
    for _ in 0..MANY {
        deferred = deferred.add_callback(|n: usize| Ok(n + 1));
    }
    drop(resolver);
    assert!(result_of(deferred).unwrap_err().is::<ResolverDropped>());
}

#[test]
fn a_million_steps_that_never_run_are_dropped_without_recursion() {
    let (mut deferred, mut resolver) = Deferred::new();
    for _ in 0..MANY {
        deferred = deferred.add_callback(|n: usize| Ok(n + 1));
    }
    drop(resolver.chain.take());
    drop(deferred);
}

#[test]
fn a_million_steps_that_never_run_are_dropped_by_their_front_without_recursion() {
    let (mut deferred, mut resolver) = Deferred::new();
    for _ in 0..MANY {
        deferred = deferred.add_callback(|n: usize| Ok(n + 1));
    }
    drop(deferred);
    drop(resolver.chain.take());
}

/// Each deferred waits for the one before, which its callback has returned.
fn nested_waiting() -> (Deferred<usize>, Resolver<usize>) {
    do_not_count();
    let (mut deferred, resolver) = Deferred::new();
    for _ in 0..MANY_NESTED {
        let (outer, starter) = Deferred::new();
        let inner = deferred;
        deferred = outer.add_callback(|()| inner).add_callback(|n| Ok(n + 1));
        starter.callback(());
    }
    (deferred, resolver)
}

#[test]
fn thousands_of_nested_deferreds_fire_and_drop_without_recursion() {
    let (deferred, resolver) = nested_waiting();
    resolver.callback(0);
    assert_eq!(result_of(deferred).unwrap(), MANY_NESTED);
}

#[test]
fn thousands_of_nested_deferreds_are_cancelled_without_recursion() {
    let (deferred, resolver) = nested_waiting();
    deferred.cancel();
    assert!(resolver.is_cancelled());
    assert!(result_of(deferred).unwrap_err().is::<CancelledError>());
}

#[test]
fn thousands_of_nested_deferreds_that_never_run_are_dropped_without_recursion() {
    for handle_first in [true, false] {
        let (deferred, mut resolver) = nested_waiting();
        let origin = resolver.chain.take();
        if handle_first {
            drop(deferred);
            drop(origin);
        } else {
            drop(origin);
            drop(deferred);
        }
    }
}

#[test]
fn thousands_of_deferreds_each_owned_by_the_next_ones_callback_are_dropped_without_recursion() {
    do_not_count();
    let (mut deferred, mut first) = Deferred::<usize>::new();
    let mut origins = Vec::new();
    for _ in 0..MANY_NESTED {
        let (outer, mut starter) = Deferred::<()>::new();
        let inner = deferred;
        deferred = outer.add_callback(|()| inner);
        origins.push(starter.chain.take());
    }
    drop(first.chain.take());
    drop(origins);
    drop(deferred);
}

#[test]
fn thousands_of_resolvers_each_owned_by_the_one_befores_callback_are_dropped_without_recursion() {
    do_not_count();
    let (first, mut resolver) = Deferred::<usize>::new();
    let (fired, seen) = (Rc::new(Cell::new(false)), first);
    let flag = fired.clone();
    seen.add_both(move |outcome| {
        flag.set(outcome.is_err());
        Ok(())
    })
    .detach();
    for _ in 0..MANY_NESTED {
        let (deferred, next) = Deferred::<usize>::new();
        let inner = resolver;
        deferred
            .add_callback(move |n| {
                inner.callback(n);
                Ok(())
            })
            .add_errback(|_| Ok(()))
            .detach();
        resolver = next;
    }
    drop(resolver);
    assert!(fired.get());
}

#[test]
fn a_chain_of_deferreds_of_one_thread_leaves_nothing_behind() {
    let alive = Rc::new(());
    let (deferred, resolver) = nested_small(alive.clone());
    assert!(Rc::strong_count(&alive) > 1);
    resolver.callback(1);
    drop(deferred);
    assert_eq!(Rc::strong_count(&alive), 1);

    let (deferred, mut resolver) = nested_small(alive.clone());
    drop(resolver.chain.take());
    drop(deferred);
    assert_eq!(Rc::strong_count(&alive), 1, "a chain that never ran is a leak");
}

fn nested_small(alive: Rc<()>) -> (Deferred<usize>, Resolver<usize>) {
    let (inner, resolver) = Deferred::new();
    let (outer, starter) = Deferred::new();
    let captured = alive.clone();
    let inner = inner.add_callback(move |n| {
        let _captured = captured;
        Ok(n)
    });
    let deferred = outer.add_callback(|()| inner).add_callback(move |n| {
        let _captured = alive;
        Ok(n)
    });
    starter.callback(());
    (deferred, resolver)
}

#[test]
fn a_panicking_callback_fails_its_deferred_and_the_chain_goes_on() {
    let (deferred, resolver) = Deferred::<u32>::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    let deferred = deferred
        .add_callback(|n| if n > 0 { panic!("no {n}") } else { Ok(n) })
        .add_errback(move |failure| {
            log.borrow_mut().push(failure.downcast_ref::<Panicked>().cloned());
            Ok(7)
        });
    resolver.callback(1);
    assert_eq!(result_of(deferred).unwrap(), 7);
    assert_eq!(*seen.borrow(), [Some(Panicked { message: "no 1".into() })]);
}

fn result_of<T>(deferred: Deferred<T>) -> Outcome<T> {
    deferred.into_result().expect("the deferred has its result")
}

#[test]
fn a_result_that_nobody_will_take_goes_at_once_though_the_resolver_lives() {
    let trap = crate::testing::UnhandledErrors::trap();
    for is_gone_first in [true, false] {
        let value = Rc::new(());
        let kept = Rc::clone(&value);
        let (deferred, _resolver) = Deferred::<u32>::new();
        let handle = deferred.cancel_handle();
        let deferred = deferred.add_errback(|_| Ok(0)).add_callback(move |_| Ok(kept));
        if is_gone_first {
            drop(deferred);
            handle.cancel();
        } else {
            handle.cancel();
            drop(deferred);
        }
        assert_eq!(Rc::strong_count(&value), 1, "a value, gone first: {is_gone_first}");

        let (deferred, _resolver) = Deferred::<u32>::new();
        let handle = deferred.cancel_handle();
        let deferred = deferred.add_errback(|_| Err(Failure::plain(WaitsForItself)));
        if is_gone_first {
            drop(deferred);
            handle.cancel();
        } else {
            handle.cancel();
            drop(deferred);
        }
        assert_eq!(trap.take().len(), 1, "a failure, gone first: {is_gone_first}");
    }
}

/// Steps leave their memory to the next ones that are added at the same place.
mod used_memory {
    use super::*;

    /// One place for all types.
    fn add<T: Clone + 'static>(deferred: Deferred<T>, seen: &Rc<RefCell<Vec<T>>>) -> Deferred<T> {
        let seen = Rc::clone(seen);
        deferred.add_callback(move |value: T| {
            seen.borrow_mut().push(value.clone());
            Ok(value)
        })
    }

    #[test]
    fn serves_steps_of_different_types_that_are_added_at_one_place() {
        let (numbers, words) = (Rc::default(), Rc::default());
        for _ in 0..3 {
            let (deferred, resolver) = Deferred::new();
            let deferred = add(add(deferred, &numbers), &numbers);
            resolver.callback(7);
            assert_eq!(result_of(deferred).unwrap(), 7);
            let (deferred, resolver) = Deferred::new();
            let deferred = add(add(deferred, &words), &words);
            resolver.callback("seven".to_owned());
            assert_eq!(result_of(deferred).unwrap(), "seven");
        }
        assert_eq!(*numbers.borrow(), [7; 6]);
        assert_eq!(*words.borrow(), ["seven"; 6]);
    }

    #[test]
    fn keeps_neither_closures_nor_values_alive() {
        let seen: Rc<RefCell<Vec<Rc<()>>>> = Rc::default();
        let value = Rc::new(());
        for _ in 0..40 {
            let (deferred, resolver) = Deferred::new();
            let deferred = add(add(deferred, &seen), &seen);
            resolver.callback(Rc::clone(&value));
            result_of(deferred).unwrap();
        }
        assert_eq!(Rc::strong_count(&seen), 1);
        seen.take();
        assert_eq!(Rc::strong_count(&value), 1);
    }

    /// A chain that is fired by the destructor of a thread's local, when the memory may be gone.
    struct FiredLate(Option<(Deferred<u32>, Resolver<u32>)>);

    impl Drop for FiredLate {
        fn drop(&mut self) {
            if let Some((deferred, resolver)) = self.0.take() {
                let deferred = add(deferred, &Rc::default());
                resolver.callback(1);
                assert_eq!(result_of(deferred).unwrap(), 1);
            }
        }
    }

    thread_local! {
        static LATE: RefCell<FiredLate> = const { RefCell::new(FiredLate(None)) };
    }

    #[test]
    fn may_be_gone_before_the_last_chains_of_a_thread() {
        for is_late_first in [true, false] {
            let thread = std::thread::spawn(move || {
                let (deferred, resolver) = Deferred::new();
                if is_late_first {
                    LATE.with(|late| late.borrow_mut().0 = Some(Deferred::new()));
                }
                let deferred = add(deferred, &Rc::default());
                resolver.callback(1);
                LATE.with(|late| late.borrow_mut().0 = Some(Deferred::new()));
                result_of(deferred).unwrap()
            });
            assert_eq!(thread.join().unwrap(), 1);
        }
    }
}
