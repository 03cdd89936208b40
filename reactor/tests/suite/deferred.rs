//! Deferreds: which callbacks run, in which order, and what becomes of failures.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ropewalk::testing::{UnhandledErrors, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{
    CancelledError, Deferred, Failure, LogContext, Panicked, ResolverDropped, ResultTaken,
    WaitsForItself, logging,
};

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(&'static str);

/// What ran, in order.
#[derive(Clone, Default)]
pub(crate) struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    pub(crate) fn add(&self, entry: impl Into<String>) {
        self.0.borrow_mut().push(entry.into());
    }

    pub(crate) fn text(&self) -> String {
        self.0.borrow().join(" ")
    }
}

/// One step of a chain, and how it ends.
#[derive(Clone, Copy)]
enum Add {
    Callback(End),
    Errback(End),
    Both(End),
    Callbacks(End, End),
}

/// What a callback does: `Ok`, `Err`, a panic, or another deferred that has fired or not.
#[derive(Clone, Copy)]
enum End {
    Ok,
    Err,
    Panic,
    FiredOk,
    FiredErr,
}

impl End {
    fn give(self, name: &'static str) -> Deferred<&'static str> {
        match self {
            End::Ok | End::FiredOk => Deferred::succeed(name),
            End::Err | End::FiredErr => Deferred::fail(Refused(name)),
            End::Panic => panic!("{name}"),
        }
    }

    fn give_result(self, name: &'static str) -> Result<&'static str, Failure> {
        match self {
            End::Ok => Ok(name),
            _ => Err(Refused(name).into()),
        }
    }
}

fn name_of(failure: &Failure) -> String {
    match failure.downcast_ref::<Panicked>() {
        Some(panic) => format!("!{}", panic.message),
        None => format!("!{failure}"),
    }
}

fn add(
    deferred: Deferred<&'static str>,
    step: Add,
    name: &'static str,
    trace: &Trace,
) -> Deferred<&'static str> {
    let (on_value, on_failure) = (trace.clone(), trace.clone());
    let note_value = move |input: &str| on_value.add(format!("{name}({input})"));
    let note_failure =
        move |failure: &Failure| on_failure.add(format!("{name}({})", name_of(failure)));
    match step {
        Add::Callback(end @ (End::Ok | End::Err)) => deferred.add_callback(move |input| {
            note_value(input);
            end.give_result(name)
        }),
        Add::Callback(end) => deferred.add_callback(move |input| {
            note_value(input);
            end.give(name)
        }),
        Add::Errback(end) => deferred.add_errback(move |failure| {
            note_failure(&failure);
            end.give(name)
        }),
        Add::Both(end) => deferred.add_both(move |outcome| {
            match outcome {
                Ok(input) => note_value(input),
                Err(failure) => note_failure(&failure),
            }
            end.give(name)
        }),
        Add::Callbacks(on_ok, on_err) => deferred.add_callbacks(
            move |input| {
                note_value(input);
                on_ok.give(name)
            },
            move |failure| {
                note_failure(&failure);
                on_err.give(name)
            },
        ),
    }
}

#[test]
fn steps_run_in_order_and_pass_on_what_is_not_theirs() {
    use Add::*;
    use End::*;
    const START: Result<&str, &str> = Result::Ok("s");
    const FAILED: Result<&str, &str> = Result::Err("s");
    for (why, start, steps, expected) in [
        (
            "values go from callback to callback",
            START,
            &[Callback(Ok), Callback(Ok)][..],
            "a(s) b(a) =b",
        ),
        ("a failure passes by callbacks", FAILED, &[Callback(Ok), Callback(Ok)], "=!s"),
        ("a value passes by errbacks", START, &[Errback(Ok), Callback(Ok)], "b(s) =b"),
        ("an errback recovers", FAILED, &[Errback(Ok), Callback(Ok)], "a(!s) b(a) =b"),
        ("an errback may fail again", FAILED, &[Errback(Err), Errback(Ok)], "a(!s) b(!a) =b"),
        (
            "a callback's failure is for the next errback",
            START,
            &[Callback(Err), Callback(Ok), Errback(Ok)],
            "a(s) c(!a) =c",
        ),
        ("both sees a value", START, &[Both(Ok)], "a(s) =a"),
        ("both sees a failure", FAILED, &[Both(Ok)], "a(!s) =a"),
        ("of a pair one runs: the callback", START, &[Callbacks(Ok, Ok)], "a(s) =a"),
        ("of a pair one runs: the errback", FAILED, &[Callbacks(Ok, Ok)], "a(!s) =a"),
        (
            "a pair's callback does not fail into its own errback",
            START,
            &[Callbacks(Err, Ok), Both(Ok)],
            "a(s) b(!a) =b",
        ),
        ("a panic is a failure", START, &[Callback(Panic), Both(Ok)], "a(s) b(!a) =b"),
        ("a panicking errback fails", FAILED, &[Errback(Panic), Errback(Ok)], "a(!s) b(!a) =b"),
        (
            "panics one after the other",
            START,
            &[Callback(Panic), Errback(Panic), Errback(Panic)],
            "a(s) b(!a) c(!b) =!c",
        ),
        (
            "a fired deferred counts as its value",
            START,
            &[Callback(FiredOk), Callback(Ok)],
            "a(s) b(a) =b",
        ),
        (
            "a failed deferred counts as its failure",
            START,
            &[Callback(FiredErr), Errback(Ok)],
            "a(s) b(!a) =b",
        ),
    ] {
        // Whether callbacks are added before or after the result, the same ones run.
        for is_fired_first in [false, true] {
            let trace = Trace::default();
            let (mut deferred, resolver) = Deferred::new();
            let fire = move || match start {
                Result::Ok(value) => resolver.callback(value),
                Result::Err(name) => resolver.errback(Refused(name)),
            };
            let mut fire = Some(fire);
            if is_fired_first && let Some(fire) = fire.take() {
                fire();
            }
            for (step, name) in steps.iter().zip(["a", "b", "c"]) {
                deferred = add(deferred, *step, name, &trace);
            }
            if let Some(fire) = fire.take() {
                assert_eq!(trace.text(), "", "{why}: nothing runs before the result");
                fire();
            }
            match deferred.into_result().expect("the chain has run") {
                Result::Ok(value) => trace.add(format!("={value}")),
                Result::Err(failure) => trace.add(format!("={}", name_of(&failure))),
            }
            assert_eq!(trace.text(), expected, "{why}; fired first: {is_fired_first}");
        }
    }
}

/// Steps call each other up to a limit and go through the loop beyond it; a panic must find its way at
/// each depth, and so must what comes after it.
#[test]
fn a_panic_at_any_depth_of_a_chain_is_the_next_errbacks() {
    for at in (0..70).chain([500, 998]) {
        let (mut deferred, resolver) = Deferred::new();
        for n in 0..1000 {
            deferred = LogContext::new(format!("step {n}")).run(|| {
                deferred.add_callback(move |sum: usize| {
                    assert_eq!(LogContext::current().name(), format!("step {n}"));
                    assert_ne!(n, at, "here");
                    Ok(sum + 1)
                })
            });
            if n % 2 == 1 {
                deferred = deferred.add_errback(|failure| {
                    failure.trap::<Panicked>()?;
                    Ok(0)
                });
            }
        }
        resolver.callback(0);
        assert_eq!(success_result_of(deferred), 999 - (at | 1), "panicking at {at}");
        assert!(LogContext::current().is_sentinel());
    }
}

#[test]
fn callbacks_run_before_firing_returns() {
    let trace = Trace::default();
    let (deferred, resolver) = Deferred::new();
    let log = trace.clone();
    let deferred = deferred.add_callback(move |()| {
        log.add("callback");
        Ok(())
    });
    trace.add("before");
    resolver.callback(());
    trace.add("after");
    assert_eq!(trace.text(), "before callback after");
    success_result_of(deferred);
}

#[test]
fn a_chain_waits_for_the_deferred_that_a_callback_returns() {
    let trace = Trace::default();
    let (outer, start) = Deferred::new();
    let (inner, finish) = Deferred::new();
    let (first, last) = (trace.clone(), trace.clone());
    let outer = outer
        .add_callback(move |()| {
            first.add("first");
            inner
        })
        .add_callback(move |value: u32| {
            last.add("last");
            Ok(value + 1)
        });
    start.callback(());
    assert_eq!(trace.text(), "first");
    assert_no_result(&outer);
    finish.callback(1);
    assert_eq!(trace.text(), "first last");
    assert_eq!(success_result_of(outer), 2);
}

#[test]
fn callbacks_of_the_returned_deferred_run_before_those_of_the_chain_that_waits() {
    let trace = Trace::default();
    let (inner, finish) = Deferred::new();
    let (deep, shallow) = (trace.clone(), trace.clone());
    let inner = inner.add_callback(move |n: u32| {
        deep.add("inner");
        Ok(n + 1)
    });
    let (outer, start) = Deferred::new();
    let outer = outer.add_callback(move |()| inner).add_callback(move |n| {
        shallow.add("outer");
        Ok(n * 10)
    });
    start.callback(());
    finish.callback(1);
    assert_eq!(trace.text(), "inner outer");
    assert_eq!(success_result_of(outer), 20);
}

#[test]
fn a_callback_added_by_a_callback_to_the_chain_that_runs_comes_after_those_that_are_there() {
    let slot: Rc<RefCell<Option<Deferred<u32>>>> = Rc::default();
    let trace = Trace::default();
    let (deferred, resolver) = Deferred::new();
    let (first, second, late, inside) = (trace.clone(), trace.clone(), trace.clone(), slot.clone());
    let deferred = deferred
        .add_callback(move |n: u32| {
            first.add("first");
            let tail = inside.take().expect("the test has put it there");
            *inside.borrow_mut() = Some(tail.add_callback(move |n| {
                late.add("late");
                Ok(n * 2)
            }));
            Ok(n + 1)
        })
        .add_callback(move |n| {
            second.add("second");
            Ok(n + 1)
        });
    *slot.borrow_mut() = Some(deferred);
    resolver.callback(1);
    assert_eq!(trace.text(), "first second late");
    assert_eq!(success_result_of(slot.take().unwrap()), 6);
}

#[test]
fn a_callback_may_fire_another_chain_which_runs_at_once() {
    let trace = Trace::default();
    let (one, fire_one) = Deferred::new();
    let (two, fire_two) = Deferred::new();
    let (before, after, inside) = (trace.clone(), trace.clone(), trace.clone());
    two.add_callback(move |()| {
        inside.add("two");
        Ok(())
    })
    .detach();
    one.add_callback(move |()| {
        before.add("one");
        fire_two.callback(());
        after.add("one again");
        Ok(())
    })
    .detach();
    fire_one.callback(());
    assert_eq!(trace.text(), "one two one again");
}

#[test]
fn a_callback_that_returns_its_own_chain_fails_instead_of_waiting_for_ever() {
    let slot: Rc<RefCell<Option<Deferred<u32>>>> = Rc::default();
    let (deferred, resolver) = Deferred::new();
    let (inside, seen) = (slot.clone(), Rc::new(Cell::new(false)));
    let flag = seen.clone();
    let deferred = deferred
        .add_callback(move |()| inside.take().expect("the test has put it there"))
        .add_errback(move |failure| {
            flag.set(failure.is::<WaitsForItself>());
            Ok(0)
        });
    *slot.borrow_mut() = Some(deferred);
    resolver.callback(());
    assert!(seen.get());
}

#[test]
fn deferreds_that_would_wait_for_each_other_fail_instead_of_hanging() {
    let trap = UnhandledErrors::trap();
    let slot = Rc::new(RefCell::new(None::<Deferred<u32>>));
    let (one, fire_one) = Deferred::<()>::new();
    let (two, fire_two) = Deferred::<()>::new();
    let inside = slot.clone();
    let two = two.add_callback(move |()| inside.take().expect("the test has put it there"));
    *slot.borrow_mut() = Some(one.add_callback(move |()| two));
    fire_one.callback(());
    fire_two.callback(());
    let [report] = trap.take().try_into().expect("nobody is left who could handle it");
    assert!(report.failure.is::<WaitsForItself>());
}

#[test]
fn dropping_a_pending_deferred_lets_its_callbacks_run() {
    let ran = Rc::new(Cell::new(false));
    let (deferred, resolver) = Deferred::new();
    let flag = ran.clone();
    drop(deferred.add_callback(move |()| {
        flag.set(true);
        Ok(())
    }));
    resolver.callback(());
    assert!(ran.get());
}

#[test]
fn a_dropped_resolver_fails_its_deferred_and_says_where_that_was_made() {
    let (deferred, resolver) = Deferred::<()>::new();
    let line = line!() - 1;
    drop(resolver);
    let failure = failure_result_of(deferred);
    let error = failure.downcast_ref::<ResolverDropped>().expect("it is named");
    assert!(error.created.file().ends_with("deferred.rs"));
    assert_eq!(error.created.line(), line);
}

#[test]
fn a_dropped_resolver_fails_whoever_waits_for_its_deferred_and_nothing_else() {
    let (outer, fire) = Deferred::<()>::new();
    let (inner, resolver) = Deferred::<u32>::new();
    let outer = outer.add_callback(move |()| inner);
    fire.callback(());
    drop(resolver);
    assert!(failure_result_of(outer).is::<ResolverDropped>());
}

#[test]
fn a_resolver_dropped_in_a_callback_fails_its_deferred_after_that_callback() {
    let trace = Trace::default();
    let (one, fire) = Deferred::new();
    let (two, dropped) = Deferred::<()>::new();
    let (inside, failed) = (trace.clone(), trace.clone());
    two.add_errback(move |_| {
        failed.add("failed");
        Ok(())
    })
    .detach();
    one.add_callback(move |()| {
        drop(dropped);
        inside.add("callback");
        Ok(())
    })
    .detach();
    fire.callback(());
    assert_eq!(trace.text(), "callback failed");
}

#[test]
fn what_comes_after_a_result_was_given_by_cancelling_is_ignored() {
    let (deferred, resolver) = Deferred::<u32>::new();
    deferred.cancel();
    assert!(resolver.is_cancelled());
    resolver.callback(1);
    assert!(failure_result_of(deferred).is::<CancelledError>());
}

mod unhandled {
    use super::*;

    #[test]
    fn failures_are_reported_when_their_deferred_goes_and_handled_ones_are_not() {
        let trap = UnhandledErrors::trap();
        type Case = (&'static str, fn(Deferred<u32>), usize);
        let cases: [Case; 6] = [
            ("dropped", drop, 1),
            ("a callback does not handle it", |d| drop(d.add_callback(|n| Ok(n + 1))), 1),
            ("an errback handles it", |d| drop(d.add_errback(|_| Ok(1))), 0),
            ("an errback fails again", |d| drop(d.add_errback(Err::<u32, _>)), 1),
            ("taking the result handles it", |d| drop(d.into_result()), 0),
            (
                "cancelling is not worth a report",
                |d| d.add_errback(|_| Err(CancelledError.into())).detach(),
                0,
            ),
        ];
        for (why, treat, expected) in cases {
            treat(Deferred::fail(Refused("at once")));
            assert_eq!(trap.take().len(), expected, "{why}, fired before");
            let (deferred, resolver) = Deferred::new();
            let is_taken = why.starts_with("taking");
            treat(deferred);
            resolver.errback(Refused("later"));
            let expected = if is_taken { 1 } else { expected };
            assert_eq!(trap.take().len(), expected, "{why}, fired after");
        }
    }

    #[test]
    fn the_report_names_the_context_and_the_places() {
        let trap = UnhandledErrors::trap();
        let (deferred, resolver) = Deferred::<u32>::new();
        let request = LogContext::new("PUT-4");
        let step = request.run(|| deferred.add_callback(|_| Err::<u32, _>(Refused("no").into())));
        let line = line!() - 1;
        resolver.callback(1);
        drop(step);
        let [report] = trap.take().try_into().expect("one report");
        assert_eq!(report.context, "PUT-4");
        assert!(report.failure.is::<Refused>());
        assert_eq!(report.failure.created().line(), line);
        assert_eq!(report.deferred_created.map(|place| place.line()), Some(line));
    }

    #[test]
    fn without_a_trap_it_is_an_error_line_with_all_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot send")]
        struct CannotSend(#[source] Refused);

        let lines = logging::capture(10);
        let request = LogContext::new("PUT-5");
        let (deferred, resolver) = request.run(Deferred::<()>::new);
        resolver.errback(CannotSend(Refused("no route")));
        drop(deferred);
        let lines = lines.take();
        let [line] = &lines[..] else { panic!("one line expected: {lines:?}") };
        assert!(
            line.starts_with("ERROR PUT-5 ropewalk::deferred::unhandled: unhandled failure in deferred: cannot send: no route; failed at "),
            "{line}"
        );
        assert!(line.contains("deferred.rs:"), "{line}");
    }
}

mod awaiting {
    use super::*;

    fn poll<F: Future>(future: &mut std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn gives_the_result_once_it_is_there() {
        let (deferred, resolver) = Deferred::new();
        let mut deferred = pin!(deferred.add_callback(|n: u32| Ok(n + 1)));
        assert!(poll(&mut deferred).is_pending());
        assert!(poll(&mut deferred).is_pending());
        resolver.callback(1);
        assert!(matches!(poll(&mut deferred), Poll::Ready(Ok(2))));
        assert!(
            matches!(poll(&mut deferred), Poll::Ready(Err(failure)) if failure.is::<ResultTaken>())
        );
    }

    #[test]
    fn a_deferred_that_was_polled_can_still_be_chained() {
        let (mut deferred, resolver) = Deferred::<u32>::new();
        let mut pinned = pin!(&mut deferred);
        assert!(poll(&mut pinned).is_pending());
        let chained = deferred.add_callback(|n| Ok(n * 3));
        resolver.callback(2);
        assert_eq!(success_result_of(chained), 6);
    }

    #[test]
    fn wakes_the_task_that_asked_last() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let counts = [0, 0].map(|n| std::sync::Arc::new(Count(n.into())));
        let (deferred, resolver) = Deferred::<u32>::new();
        let mut deferred = pin!(deferred);
        for count in &counts {
            let waker = Waker::from(count.clone());
            assert!(deferred.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        resolver.callback(1);
        let woken = counts.map(|count| count.0.load(std::sync::atomic::Ordering::Relaxed));
        assert_eq!(woken, [0, 1]);
    }
}

#[test]
fn a_question_mark_in_a_callback_makes_a_failure() {
    let deferred = Deferred::succeed("x").add_callback(|text| Ok(text.parse::<u8>()?)).add_errback(
        |failure| {
            failure.trap::<std::num::ParseIntError>()?;
            Ok(9)
        },
    );
    assert_eq!(success_result_of(deferred), 9);
    let other = Deferred::<u8>::fail(Refused("other")).add_errback(|failure| {
        failure.trap::<std::num::ParseIntError>()?;
        Ok(9)
    });
    assert!(failure_result_of(other).is::<Refused>(), "what is not understood passes on");
}
