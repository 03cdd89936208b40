//! What is promised about deferreds that outside tests cannot see, and chains of a million steps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::failure::{CancelledError, Panicked};

const MANY: usize = 1_000_000;

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
    drop(resolver.origin.take());
    drop(deferred);
}

#[test]
fn a_million_steps_that_never_run_are_dropped_by_their_front_without_recursion() {
    let (mut deferred, mut resolver) = Deferred::new();
    for _ in 0..MANY {
        deferred = deferred.add_callback(|n: usize| Ok(n + 1));
    }
    drop(deferred);
    drop(resolver.origin.take());
}

/// Each deferred waits for the one before, which its callback has returned.
fn nested_waiting() -> (Deferred<usize>, Resolver<usize>) {
    let (mut deferred, resolver) = Deferred::new();
    for _ in 0..MANY {
        let (outer, starter) = Deferred::new();
        let inner = deferred;
        deferred = outer.add_callback(|()| inner).add_callback(|n| Ok(n + 1));
        starter.callback(());
    }
    (deferred, resolver)
}

#[test]
fn a_million_nested_deferreds_fire_and_drop_without_recursion() {
    let (deferred, resolver) = nested_waiting();
    resolver.callback(0);
    assert_eq!(result_of(deferred).unwrap(), MANY);
}

#[test]
fn a_million_nested_deferreds_are_cancelled_without_recursion() {
    let (deferred, resolver) = nested_waiting();
    deferred.cancel();
    assert!(resolver.is_cancelled());
    assert!(result_of(deferred).unwrap_err().is::<CancelledError>());
}

#[test]
fn a_million_nested_deferreds_that_never_run_are_dropped_without_recursion() {
    for handle_first in [true, false] {
        let (deferred, mut resolver) = nested_waiting();
        let origin = resolver.origin.take();
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
fn a_million_deferreds_each_owned_by_the_next_ones_callback_are_dropped_without_recursion() {
    let (mut deferred, mut first) = Deferred::<usize>::new();
    let mut origins = Vec::new();
    for _ in 0..MANY {
        let (outer, mut starter) = Deferred::<()>::new();
        let inner = deferred;
        deferred = outer.add_callback(|()| inner);
        origins.push(starter.origin.take());
    }
    drop(first.origin.take());
    drop(origins);
    drop(deferred);
}

#[test]
fn a_million_resolvers_each_owned_by_the_one_befores_callback_are_dropped_without_recursion() {
    let (first, mut resolver) = Deferred::<usize>::new();
    let (fired, seen) = (Rc::new(Cell::new(false)), first);
    let flag = fired.clone();
    seen.add_both(move |outcome| {
        flag.set(outcome.is_err());
        Ok(())
    })
    .detach();
    for _ in 0..MANY {
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
    drop(resolver.origin.take());
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
