//! Log contexts: who is in force when, what is charged to whom.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{Clock, failure_result_of, success_result_of};
use ropewalk::{
    CancelledError, Deferred, Failure, LogContext, logging, maybe_deferred,
    run_as_background_process,
};

fn name() -> String {
    LogContext::current().name().to_owned()
}

/// The context inside a callback that was added in `request`, and the one after the whole thing,
/// whoever fires it and however it ends.
#[test]
fn a_callback_runs_in_the_context_that_added_it_and_leaves_the_firers_alone() {
    type Fire = fn(Deferred<u8>, ropewalk::Resolver<u8>) -> Deferred<u8>;
    let ways: [(&str, Fire); 4] = [
        ("a value", |deferred, resolver| {
            resolver.callback(1);
            deferred
        }),
        ("a failure", |deferred, resolver| {
            resolver.errback(std::fmt::Error);
            deferred
        }),
        ("cancelling", |deferred, _resolver| {
            deferred.cancel();
            deferred
        }),
        ("dropping the resolver", |deferred, resolver| {
            drop(resolver);
            deferred
        }),
    ];
    for (why, fire) in ways {
        for firer in [LogContext::sentinel(), LogContext::new("firer"), LogContext::new("request")]
        {
            let seen: Rc<RefCell<Vec<String>>> = Rc::default();
            let (first, second) = (seen.clone(), seen.clone());
            let (deferred, resolver) = Deferred::new();
            let deferred = LogContext::new("request").run(|| {
                deferred.add_both(move |outcome| {
                    first.borrow_mut().push(name());
                    outcome
                })
            });
            let deferred = LogContext::new("other").run(|| {
                deferred.add_both(move |_| {
                    second.borrow_mut().push(name());
                    Ok(1)
                })
            });
            let after = firer.run(|| {
                let deferred = fire(deferred, resolver);
                success_result_of(deferred);
                name()
            });
            assert_eq!(*seen.borrow(), ["request", "other"], "{why}, fired from {firer:?}");
            assert_eq!(after, firer.name(), "{why}");
            assert!(LogContext::current().is_sentinel(), "{why}");
        }
    }
}

#[test]
fn a_callback_on_a_deferred_that_has_fired_runs_in_the_current_context() {
    let deferred = LogContext::new("a").run(|| Deferred::succeed(1));
    let inside = LogContext::new("b").run(|| deferred.add_callback(|_| Ok(name())));
    assert_eq!(success_result_of(inside), "b");
}

#[test]
fn a_callback_that_changes_the_context_of_its_own_work_does_not_change_the_chains() {
    let (deferred, resolver) = Deferred::new();
    let names = LogContext::new("request").run(|| {
        deferred
            .add_callback(|()| {
                LogContext::new("inner").run(|| Deferred::succeed(()).add_callback(|()| Ok(name())))
            })
            .add_callback(|inner| Ok((inner, name())))
    });
    resolver.callback(());
    assert_eq!(success_result_of(names), ("inner".to_owned(), "request".to_owned()));
}

#[test]
fn waiting_for_another_contexts_deferred_comes_back_to_ones_own() {
    let (inner, finish) = Deferred::<()>::new();
    let inner = LogContext::new("worker").run(|| inner.add_callback(|()| Ok(name())));
    let (outer, start) = Deferred::new();
    let outer = LogContext::new("request")
        .run(|| outer.add_callback(move |()| inner).add_callback(|worker| Ok((worker, name()))));
    start.callback(());
    assert!(LogContext::current().is_sentinel(), "while it waits");
    LogContext::new("firer").run(|| {
        finish.callback(());
        assert_eq!(name(), "firer");
    });
    assert_eq!(success_result_of(outer), ("worker".to_owned(), "request".to_owned()));
}

#[test]
fn starting_work_leaves_the_starters_context_however_it_goes() {
    let caller = LogContext::new("caller");
    caller.run(|| {
        let plain = maybe_deferred(|| Ok(1));
        assert_eq!(name(), "caller");
        let raised = maybe_deferred(|| -> Result<u8, Failure> { panic!("at once") });
        assert_eq!(name(), "caller");
        let (waiting, resolver) = Deferred::<u8>::new();
        let waiting = maybe_deferred(|| waiting);
        assert_eq!(name(), "caller");
        resolver.callback(2);
        assert_eq!(name(), "caller");
        assert_eq!((success_result_of(plain), success_result_of(waiting)), (1, 2));
        failure_result_of(raised);
    });
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn a_panic_does_not_leak_a_context() {
    let (deferred, resolver) = Deferred::new();
    let deferred = LogContext::new("request")
        .run(|| deferred.add_callback(|()| -> Result<(), _> { panic!("inside") }));
    resolver.callback(());
    assert!(LogContext::current().is_sentinel());
    failure_result_of(deferred);
    let caught = std::panic::catch_unwind(|| LogContext::new("direct").run(|| panic!("inside")));
    assert!(caught.is_err());
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn tasks_timers_and_queued_calls_run_in_the_context_that_made_them() {
    let clock = Clock::new();
    let reactor = clock.reactor().clone();
    let seen: Rc<RefCell<Vec<String>>> = Rc::default();
    let (soon, later, task) = (seen.clone(), seen.clone(), seen.clone());
    let (gate, open) = Deferred::<()>::new();
    LogContext::new("request").run(|| {
        reactor.call_soon(move || soon.borrow_mut().push(format!("soon {}", name())));
        let delay = Duration::from_secs(1);
        reactor.call_later(delay, move || later.borrow_mut().push(format!("later {}", name())));
        reactor
            .spawn(async move {
                task.borrow_mut().push(format!("task {}", name()));
                gate.await?;
                task.borrow_mut().push(format!("resumed {}", name()));
                Ok(())
            })
            .detach();
    });
    clock.pump();
    LogContext::new("firer").run(|| open.callback(()));
    clock.pump();
    clock.advance(Duration::from_secs(1));
    let expected = ["soon request", "task request", "resumed request", "later request"];
    assert_eq!(*seen.borrow(), expected);
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn a_scope_is_in_force_in_each_poll_and_not_between() {
    let clock = Clock::new();
    let (gate, open) = Deferred::<()>::new();
    let inner = LogContext::new("inner");
    let names = LogContext::new("outer").run(|| {
        clock.reactor().spawn(async move {
            let inside = inner
                .scope(async move {
                    let before = name();
                    gate.await?;
                    Ok::<_, Failure>((before, name()))
                })
                .await?;
            Ok((inside, name()))
        })
    });
    clock.pump();
    assert!(LogContext::current().is_sentinel());
    open.callback(());
    clock.pump();
    let ((before, after), outside) = success_result_of(names);
    assert_eq!([&*before, &*after, &*outside], ["inner", "inner", "outer"]);
}

#[test]
fn a_background_process_has_a_context_of_its_own_and_logs_its_failure() {
    let clock = Clock::new();
    let lines = logging::capture(100);
    LogContext::new("request").run(|| {
        run_as_background_process(clock.reactor(), "retry", async {
            log::info!(target: "test", "trying");
            Err(std::fmt::Error.into())
        });
        run_as_background_process(clock.reactor(), "stop", async { Err(CancelledError.into()) });
    });
    clock.pump();
    let lines = lines.take();
    assert!(lines[0].starts_with("INFO retry-"), "{lines:?}");
    let error = lines.iter().find(|line| line.starts_with("ERROR")).expect("the failure is logged");
    assert!(error.starts_with("ERROR retry-"), "{error}");
    assert!(error.contains("background process \"retry\" failed: an error occurred"), "{error}");
}
