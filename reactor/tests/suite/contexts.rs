//! Log contexts: who is in force when, what is charged to whom.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{Clock, failure_result_of, success_result_of};
use ropewalk::{
    CancelledError, Deferred, Failure, LogContext, ObservableDeferred, Reactor, logging,
    maybe_deferred, run_as_background_process,
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

#[test]
fn background_processes_are_numbered_and_their_end_is_nobodys_business() {
    let clock = Clock::new();
    let lines = logging::capture(100);
    let names: Rc<RefCell<Vec<(String, LogContext)>>> = Rc::default();
    LogContext::new("request").run(|| {
        for _ in 0..2 {
            let names = Rc::clone(&names);
            run_as_background_process(clock.reactor(), "prune", async move {
                let context = LogContext::current();
                names.borrow_mut().push((context.name().to_owned(), context));
                Ok(())
            });
        }
        run_as_background_process(clock.reactor(), "break", async { panic!("on purpose") });
        assert_eq!(name(), "request", "starting one changes nothing for the starter");
    });
    clock.pump();
    let names = names.take();
    let numbers: Vec<u64> = names
        .iter()
        .map(|(name, _)| name.strip_prefix("prune-").unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers[1], numbers[0] + 1);
    for (_, context) in names {
        assert!(context.is_finished());
        assert!(context.parent().is_sentinel(), "it costs nobody else anything");
    }
    let errors = lines.take();
    let error = errors.iter().find(|line| line.starts_with("ERROR")).expect("it is logged");
    assert!(error.contains("\"break\" failed") && error.contains("on purpose"), "{error}");
}

#[test]
fn contexts_nest_and_each_is_restored_in_its_turn() {
    let outer = LogContext::new("GET-1");
    outer.run(|| {
        let inner = LogContext::current().child("auth");
        inner.run(|| {
            let innermost = LogContext::current().child("db");
            innermost.run(|| assert_eq!(name(), "GET-1-auth-db"));
            assert_eq!(name(), "GET-1-auth");
            // In force already: nothing to restore but itself.
            inner.run(|| assert_eq!(name(), "GET-1-auth"));
            // One that is already in force further out.
            outer.run(|| assert_eq!(name(), "GET-1"));
            assert_eq!(name(), "GET-1-auth");
        });
        assert_eq!(name(), "GET-1");
    });
    assert!(LogContext::current().is_sentinel());
}

/// A context must not be in force on two threads, so a job has a child, and that may have children.
#[test]
fn a_child_in_a_thread_costs_the_context_that_gave_the_job() {
    let reactor = Reactor::new().unwrap();
    let request = LogContext::new("GET-1");
    let part = request.child("sync");
    let names = part.run(|| {
        reactor.defer_to_thread(|| {
            let job = LogContext::current();
            let child = job.child("inner");
            child.run(|| {
                LogContext::current().record_database_transaction(Duration::from_millis(2));
                LogContext::current().record_database_wait(Duration::from_millis(1));
                LogContext::current().record_events_fetched(3);
            });
            let inner = child.usage();
            Ok::<_, Failure>((child.name().to_owned(), inner.db_transactions, inner.events_fetched))
        })
    });
    let inside = reactor.run_until(names).unwrap();
    assert_eq!(inside, ("GET-1-sync-default-inner".to_owned(), 1, 3));
    for context in [&part, &request] {
        let usage = context.usage();
        assert_eq!((usage.db_transactions, usage.events_fetched), (1, 3));
        assert_eq!(usage.db_time, Duration::from_millis(2));
        assert_eq!(usage.db_wait, Duration::from_millis(1));
        assert!(usage.thread_time > Duration::ZERO);
    }
}

/// The work was given up, the request was answered, and then the job came back.
#[test]
fn a_job_that_comes_back_to_a_finished_context_is_charged_as_late() {
    let reactor = Reactor::new().unwrap();
    let request = LogContext::new("GET-1");
    let job = request.run(|| reactor.defer_to_thread(|| Ok::<_, Failure>(())));
    request.finish();
    reactor.run_until(job).unwrap();
    let usage = request.usage();
    assert_eq!(usage.thread_time, Duration::ZERO);
    assert!(usage.late > Duration::ZERO);
}

/// Whoever joins a lookup gets his own context back, and the lookup keeps that of who started it.
#[test]
fn those_who_share_a_result_each_go_on_in_their_own_context() {
    let (source, resolver) = Deferred::new();
    let shared = LogContext::new("starter")
        .run(|| ObservableDeferred::new(source.add_callback(|()| Ok(name()))));
    let seen: Vec<_> = ["GET-1", "GET-2"]
        .into_iter()
        .map(|request| {
            LogContext::new(request)
                .run(|| shared.observe().add_callback(|inside| Ok((inside, name()))))
        })
        .collect();
    LogContext::new("firer").run(|| {
        resolver.callback(());
        assert_eq!(name(), "firer");
    });
    let seen: Vec<_> = seen.into_iter().map(success_result_of).collect();
    let expected = ["GET-1", "GET-2"].map(|name| ("starter".to_owned(), name.to_owned()));
    assert_eq!(seen, expected);
}

#[test]
fn a_context_goes_with_its_work() {
    let before = LogContext::living_count();
    let clock = Clock::new();
    LogContext::new("GET-1").run(|| {
        clock.reactor().call_later(Duration::from_secs(1), || ());
        clock.reactor().defer_to_thread(|| Ok::<_, Failure>(())).detach();
        run_as_background_process(clock.reactor(), "sweep", async { Ok(()) });
        assert_eq!(LogContext::living_count(), before + 2);
    });
    clock.advance(Duration::from_secs(1));
    assert_eq!(LogContext::living_count(), before);
    LogContext::new("GET-2").run(|| {
        clock.reactor().call_later(Duration::from_secs(3600), || ());
    });
    assert_eq!(LogContext::living_count(), before + 1);
    drop(clock);
    assert_eq!(LogContext::living_count(), before, "what still waited has gone with the clock");
}
