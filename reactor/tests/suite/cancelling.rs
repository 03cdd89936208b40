//! Cancelling: whom it reaches, and what becomes of the chain.

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::testing::{assert_no_result, failure_result_of, success_result_of};
use ropewalk::{CancelledError, Deferred, LogContext, logging};

use crate::deferred::Trace;

mod places;

/// Where a chain can be when it is cancelled, and who must hear of it.
#[test]
fn reaches_what_the_chain_waits_for_now() {
    for (waits_for, expected) in
        [(0, "origin =cancelled"), (1, "inner =cancelled"), (2, "innermost =cancelled"), (3, "=3")]
    {
        let trace = Trace::default();
        let watch = |name: &'static str| {
            let trace = trace.clone();
            Deferred::<u32>::with_canceller(move || trace.add(name))
        };
        let (origin, fire_origin) = watch("origin");
        let (inner, fire_inner) = watch("inner");
        let (innermost, fire_innermost) = watch("innermost");
        let inner = inner.add_callback(move |_| innermost);
        let chain = origin.add_callback(move |_| inner).add_callback(|n| Ok(n + 1));
        let resolvers = [fire_origin, fire_inner, fire_innermost];
        let mut kept = Vec::new();
        for (index, resolver) in resolvers.into_iter().enumerate() {
            if index < waits_for {
                resolver.callback(2);
            } else {
                kept.push(resolver);
            }
        }
        chain.cancel();
        match chain.into_result().expect("cancelling gives a result") {
            Ok(value) => trace.add(format!("={value}")),
            Err(failure) => trace.add(format!("={failure}")),
        }
        assert_eq!(trace.text(), expected, "waiting at {waits_for}");
    }
}

#[test]
fn a_canceller_may_give_the_result_itself() {
    let slot = Rc::new(Cell::new(None::<ropewalk::Resolver<u32>>));
    let inside = slot.clone();
    let (deferred, resolver) = Deferred::with_canceller(move || {
        if let Some(resolver) = inside.take() {
            resolver.callback(5);
        }
    });
    slot.set(Some(resolver));
    deferred.cancel();
    assert_eq!(success_result_of(deferred), 5);
}

#[test]
fn a_panicking_canceller_does_not_prevent_the_failure() {
    let lines = logging::capture(10);
    let (deferred, _resolver) = Deferred::<()>::with_canceller(|| panic!("stuck"));
    deferred.cancel();
    assert!(failure_result_of(deferred).is::<CancelledError>());
    assert!(lines.take().iter().any(|line| line.contains("canceller failed: panicked: stuck")));
}

/// The resolver of a deferred that was cancelled is still there while its chain waits for another one.
#[test]
fn a_canceller_that_is_set_too_late_goes_at_once() {
    let trace = Trace::default();
    let (deferred, resolver) = Deferred::<u32>::new();
    let noted = trace.clone();
    let (inner, _fire_inner) = Deferred::<u32>::with_canceller(move || noted.add("inner"));
    let deferred = deferred.add_errback(move |_| inner);
    deferred.cancel();
    assert_no_result(&deferred);
    let (held, noted) = (Rc::new(()), trace.clone());
    let watch = Rc::downgrade(&held);
    resolver.set_canceller(move || {
        noted.add("late");
        drop(held);
    });
    assert!(watch.upgrade().is_none(), "nobody would ever call it");
    deferred.cancel();
    assert_eq!(trace.text(), "inner");
    assert!(failure_result_of(deferred).is::<CancelledError>());
}

#[test]
fn the_chain_may_recover() {
    let (deferred, _resolver) = Deferred::<u32>::new();
    let deferred = deferred.add_errback(|failure| {
        failure.trap::<CancelledError>()?;
        Ok(0)
    });
    deferred.cancel();
    assert_eq!(success_result_of(deferred), 0);
}

#[test]
fn a_step_may_answer_it_by_waiting_for_something_else_which_can_be_cancelled_in_turn() {
    let (deferred, _resolver) = Deferred::<u32>::new();
    let (cleaning, cleaned) = Deferred::<u32>::new();
    let deferred = deferred.add_errback(move |_| cleaning);
    deferred.cancel();
    assert_no_result(&deferred);
    deferred.cancel();
    assert!(cleaned.is_cancelled());
    assert!(failure_result_of(deferred).is::<CancelledError>());
}

#[test]
fn calls_the_canceller_once_in_its_own_context_and_not_after_the_result() {
    let trace = Trace::default();
    let log = trace.clone();
    let request = LogContext::new("GET-1");
    let (deferred, resolver) = request
        .run(|| Deferred::<()>::with_canceller(move || log.add(LogContext::current().name())));
    deferred.cancel();
    deferred.cancel();
    drop(resolver);
    assert_eq!(trace.text(), "GET-1");
    let (fired, resolver) = Deferred::<()>::with_canceller(|| panic!("it has its result"));
    resolver.callback(());
    fired.cancel();
    success_result_of(fired);
}

#[test]
fn a_handle_cancels_after_callbacks_were_added_and_after_the_deferred_is_gone() {
    let (deferred, resolver) = Deferred::<u32>::new();
    let handle = deferred.cancel_handle();
    let later = deferred.add_callback(|n| Ok(n + 1));
    handle.cancel();
    assert!(failure_result_of(later).is::<CancelledError>());
    drop(resolver);
    handle.cancel();

    let (detached, resolver) = Deferred::<u32>::new();
    let handle = detached.cancel_handle();
    let (inner, finish) = Deferred::<u32>::new();
    detached.add_callback(move |_| inner).detach();
    resolver.callback(1);
    handle.cancel();
    assert!(finish.is_cancelled(), "a detached chain that waits can still be found");
}

#[test]
fn from_inside_a_callback_of_the_chain_does_nothing() {
    let (deferred, resolver) = Deferred::<u32>::new();
    let handle = deferred.cancel_handle();
    let deferred = deferred.add_callback(move |n| {
        handle.cancel();
        Ok(n)
    });
    resolver.callback(3);
    assert_eq!(success_result_of(deferred), 3);
}
