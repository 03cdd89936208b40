//! Tasks: waking, cancelling, panicking, contexts.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ropewalk::testing::{
    Clock, UnhandledErrors, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{CancelledError, Deferred, LogContext, Panicked, Reactor};

use crate::support::{Diary, note, read};

/// Notes when it is dropped, and in which context.
struct Dropped(Diary);

impl Drop for Dropped {
    fn drop(&mut self) {
        note(&self.0, format!("dropped in {}", LogContext::current().name()));
    }
}

#[test]
fn a_task_is_first_polled_after_the_current_callback_and_awaits_deferreds() {
    let clock = Clock::new();
    let diary = Diary::default();
    let (answer, resolver) = Deferred::new();
    let notes = Rc::clone(&diary);
    let task = clock.reactor().spawn(async move {
        note(&notes, "started");
        let answer: u32 = answer.await?;
        note(&notes, "resumed");
        Ok(answer + 1)
    });
    assert_eq!(read(&diary), [""; 0]);
    clock.pump();
    assert_eq!(read(&diary), ["started"]);
    resolver.callback(41);
    assert_no_result(&task);
    clock.pump();
    assert_eq!(success_result_of(task), 42);
    assert_eq!(clock.pending_tasks(), 0);
}

#[test]
fn a_task_runs_in_the_context_that_spawned_it() {
    let clock = Clock::new();
    let (gate, resolver) = Deferred::new();
    let task = LogContext::new("request").run(|| {
        clock.reactor().spawn(async move {
            let before = LogContext::current().name().to_owned();
            gate.await?;
            Ok((before, LogContext::current().name().to_owned()))
        })
    });
    clock.pump();
    LogContext::new("somebody else").run(|| resolver.callback(()));
    clock.pump();
    assert_eq!(success_result_of(task), ("request".to_owned(), "request".to_owned()));
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn cancelling_lets_the_task_clean_up_and_its_result_counts() {
    let clock = Clock::new();
    let (never, _resolver) = Deferred::<()>::new();
    let task = clock.reactor().spawn(async move {
        let failure = never.await.unwrap_err();
        assert!(failure.is::<CancelledError>());
        Ok("cleaned up")
    });
    clock.pump();
    task.cancel();
    clock.pump();
    assert_eq!(success_result_of(task), "cleaned up");
}

#[test]
fn a_task_cancelled_twice_is_dropped_where_it_stands() {
    let clock = Clock::new();
    let diary = Diary::default();
    let witness = Dropped(Rc::clone(&diary));
    let (never, _resolver) = Deferred::<()>::new();
    let (nor_this, _resolver_2) = Deferred::<()>::new();
    let task = LogContext::new("request").run(|| {
        clock.reactor().spawn(async move {
            let _witness = witness;
            let _ = never.await;
            nor_this.await
        })
    });
    clock.pump();
    task.cancel();
    clock.pump();
    assert_no_result(&task);
    assert_eq!(read(&diary), [""; 0]);
    task.cancel();
    assert!(failure_result_of(task).is::<CancelledError>());
    clock.pump();
    assert_eq!(read(&diary), ["dropped in request"]);
    assert_eq!(clock.pending_tasks(), 0);
}

#[test]
fn a_task_that_awaits_a_foreign_future_is_dropped_when_cancelled() {
    let clock = Clock::new();
    let diary = Diary::default();
    let witness = Dropped(Rc::clone(&diary));
    let task = clock.reactor().spawn(async move {
        let _witness = witness;
        pending::<()>().await;
        Ok(())
    });
    clock.pump();
    task.cancel();
    assert!(failure_result_of(task).is::<CancelledError>());
    assert_eq!(read(&diary), ["dropped in sentinel"]);
}

#[test]
fn a_task_may_cancel_itself() {
    let clock = Clock::new();
    let own = Rc::new(Cell::new(None::<Deferred<()>>));
    let handle = Rc::clone(&own);
    let (never, _resolver) = Deferred::<()>::new();
    let seen = Rc::new(Cell::new(false));
    let saw = Rc::clone(&seen);
    let task = clock.reactor().spawn(async move {
        if let Some(own) = handle.take() {
            own.cancel();
            own.detach();
        }
        saw.set(never.await.is_err());
        Ok(())
    });
    own.set(Some(task));
    clock.pump();
    assert!(seen.get(), "what it awaited next was cancelled");
    assert_eq!(clock.pending_tasks(), 0);
}

#[test]
fn dropping_the_deferred_lets_the_task_go_on_and_reports_its_failure() {
    let clock = Clock::new();
    let trap = UnhandledErrors::trap();
    let (gate, resolver) = Deferred::<()>::new();
    drop(clock.reactor().spawn(async move {
        gate.await?;
        Err::<(), _>(std::fmt::Error.into())
    }));
    clock.pump();
    resolver.callback(());
    clock.pump();
    assert_eq!(trap.take().len(), 1);
}

#[test]
fn a_panicking_task_fails_its_deferred() {
    let clock = Clock::new();
    let task = clock.reactor().spawn::<()>(async { panic!("on purpose") });
    clock.pump();
    assert!(failure_result_of(task).is::<Panicked>());
    assert_eq!(clock.pending_tasks(), 0);
}

#[test]
fn a_task_that_wakes_itself_does_not_starve_timers() {
    let clock = Clock::new();
    let polls = Rc::new(Cell::new(0_u32));
    let counted = Rc::clone(&polls);
    let is_over = Rc::new(Cell::new(false));
    let ended = Rc::clone(&is_over);
    let task = clock.reactor().spawn(poll_fn(move |cx| {
        counted.set(counted.get() + 1);
        cx.waker().wake_by_ref();
        if ended.get() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }));
    clock.reactor().call_later(Duration::ZERO, move || is_over.set(true));
    clock.pump();
    success_result_of(task);
    assert!(polls.get() < 5_000, "the timer had its turn after {} polls", polls.get());
}

#[test]
fn a_waker_works_from_another_thread_and_outlives_task_and_reactor() {
    let reactor = Reactor::new().unwrap();
    let waker = Rc::new(Cell::new(None::<Waker>));
    let slot = Rc::clone(&waker);
    let mut is_second = false;
    let task = reactor.spawn(poll_fn(move |cx| {
        if is_second {
            return Poll::Ready(Ok(7));
        }
        is_second = true;
        let waker = cx.waker().clone();
        slot.set(Some(waker.clone()));
        std::thread::spawn(move || waker.wake());
        Poll::Pending
    }));
    assert_eq!(reactor.run_until(task).unwrap(), 7);
    let waker = waker.take().unwrap();
    waker.wake_by_ref();
    reactor.stop();
    reactor.run().unwrap();
    drop(reactor);
    waker.wake();
}

#[test]
fn stopping_drops_tasks_and_fails_who_waits_for_them() {
    let clock = Clock::new();
    let diary = Diary::default();
    let witness = Dropped(Rc::clone(&diary));
    let task = LogContext::new("request").run(|| {
        clock.reactor().spawn(async move {
            let _witness = witness;
            pending::<()>().await;
            Ok(())
        })
    });
    clock.pump();
    drop(clock);
    assert_eq!(read(&diary), ["dropped in request"]);
    assert!(failure_result_of(task).is::<CancelledError>());
}

#[test]
fn a_waker_that_outlives_its_task_wakes_no_other_one() {
    let clock = Clock::new();
    let kept = Rc::new(Cell::new(None::<Waker>));
    let slot = Rc::clone(&kept);
    let first = clock.reactor().spawn(poll_fn(move |cx| {
        slot.set(Some(cx.waker().clone()));
        Poll::Ready(Ok(()))
    }));
    clock.pump();
    success_result_of(first);
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    let second = clock.reactor().spawn(poll_fn(move |_| {
        counted.set(counted.get() + 1);
        Poll::<Result<(), _>>::Pending
    }));
    clock.pump();
    kept.take().unwrap().wake();
    clock.pump();
    assert_eq!(polls.get(), 1);
    assert_no_result(&second);
}

#[test]
fn a_storm_of_wakes_from_other_threads_costs_one_poll_for_each_that_it_finds_asleep() {
    const WAKES: u32 = 10_000;
    let reactor = Reactor::new().unwrap();
    let polls = Rc::new(Cell::new(0_u32));
    let counted = Rc::clone(&polls);
    let stormed = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let seen = std::sync::Arc::clone(&stormed);
    let task = reactor.spawn(poll_fn(move |cx| {
        counted.set(counted.get() + 1);
        if counted.get() == 1 {
            let (waker, stormed) = (cx.waker().clone(), std::sync::Arc::clone(&stormed));
            // All of them come before the loop can look.
            let storm = std::thread::spawn(move || {
                for _ in 0..WAKES {
                    waker.wake_by_ref();
                    stormed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
            storm.join().unwrap();
            return Poll::Pending;
        }
        Poll::Ready(Ok(seen.load(std::sync::atomic::Ordering::Relaxed)))
    }));
    assert_eq!(reactor.run_until(task).unwrap(), WAKES);
    assert_eq!(polls.get(), 2);
}

#[test]
fn a_task_whose_reactor_ends_inside_its_poll_is_dropped_after_it() {
    let diary = Diary::default();
    let witness = Dropped(Rc::clone(&diary));
    let clock = Clock::new();
    let reactor = clock.reactor().clone();
    let notes = Rc::clone(&diary);
    let task = clock.reactor().spawn(async move {
        let _witness = witness;
        reactor.stop();
        note(&notes, "stopped");
        pending::<()>().await;
        Ok(())
    });
    clock.pump();
    drop(clock);
    assert_eq!(read(&diary), ["stopped", "dropped in sentinel"]);
    assert!(failure_result_of(task).is::<CancelledError>());
}

#[test]
fn what_a_task_owned_is_gone_before_its_result_is_given() {
    let clock = Clock::new();
    let diary = Diary::default();
    let witness = Dropped(Rc::clone(&diary));
    let notes = Rc::clone(&diary);
    let mut witness = Some(witness);
    let task = clock
        .reactor()
        .spawn(poll_fn(move |_| {
            assert!(witness.as_mut().is_some());
            Poll::Ready(Ok(()))
        }))
        .add_callback(move |()| {
            note(&notes, "result");
            Ok(())
        });
    clock.pump();
    success_result_of(task);
    assert_eq!(read(&diary), ["dropped in sentinel", "result"]);
}

#[test]
fn cancelling_cancels_all_that_a_task_awaits_together() {
    let clock = Clock::new();
    let (one, _resolver_one) = Deferred::<u32>::new();
    let (two, _resolver_two) = Deferred::<u32>::new();
    let task = clock.reactor().spawn(async move {
        let (one, two) = futures_util::join!(one, two);
        Ok([one, two].map(|outcome| outcome.is_err_and(|failure| failure.is::<CancelledError>())))
    });
    clock.pump();
    task.cancel();
    clock.pump();
    assert_eq!(success_result_of(task), [true, true]);
}

#[test]
fn what_a_task_no_longer_awaits_is_not_cancelled_with_it() {
    let clock = Clock::new();
    let (one, resolver_one) = Deferred::<u32>::new();
    let (two, resolver_two) = Deferred::<u32>::new();
    let (gate, open) = Deferred::<()>::new();
    let task = clock.reactor().spawn(async move {
        let mut one = one;
        // Awaited once, then given up for the gate, then detached.
        let first = futures_util::future::select(&mut one, gate).await;
        drop(first);
        one.detach();
        two.await
    });
    clock.pump();
    open.callback(());
    clock.pump();
    task.cancel();
    clock.pump();
    assert!(failure_result_of(task).is::<CancelledError>());
    assert!(resolver_two.is_cancelled());
    assert!(!resolver_one.is_cancelled(), "detached work goes on");
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("dropped"));
    }
}

#[test]
fn panics_of_all_kinds_become_failures_or_log_lines_and_the_loop_goes_on() {
    fn boom() -> Result<u32, ropewalk::Failure> {
        std::panic::resume_unwind(Box::new("boom"))
    }
    let lines = ropewalk::logging::capture(100);
    let clock = Clock::new();
    let reactor = clock.reactor();
    let (gate, open) = Deferred::<()>::new();
    let at_once = reactor.spawn(async { boom() });
    let after_an_await = reactor.spawn(async move {
        gate.await?;
        boom()
    });
    let in_a_callback = reactor.spawn(async { Ok(1) }).add_callback(|_: u32| boom());
    let grenade = Grenade;
    let while_dropped = reactor.spawn(poll_fn(move |_| {
        let _ = &grenade;
        Poll::Ready(Ok(2))
    }));
    reactor.call_soon(|| drop(boom()));
    reactor.call_later(Duration::ZERO, || drop(boom()));
    let well = reactor.spawn(async { Ok(3) });
    clock.pump();
    open.callback(());
    clock.pump();
    for failed in [at_once, after_an_await, in_a_callback] {
        assert!(failure_result_of(failed).is::<Panicked>());
    }
    assert_eq!(success_result_of(while_dropped), 2);
    assert_eq!(success_result_of(well), 3);
    assert_eq!(clock.pending_tasks(), 0);
    let lines = lines.take();
    // The call that was queued and the one that was delayed, each named by its closure.
    let booms = lines.iter().filter(|line| line.contains("{{closure}} panicked: panicked: boom"));
    assert_eq!(booms.count(), 2, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("dropping a task panicked")), "{lines:?}");
}

#[test]
fn a_task_cancelled_by_what_drops_it_or_by_a_stranger_ends_in_the_same_way() {
    // A time limit, a race and a list cancel as anybody does.
    let clock = Clock::new();
    let reactor = clock.reactor();
    let cleaning = |name: &'static str| {
        let (never, resolver) = Deferred::<()>::new();
        let task = reactor.spawn(async move {
            let cause = never.await.unwrap_err();
            assert!(cause.is::<CancelledError>());
            let _kept = resolver;
            Ok(name)
        });
        clock.pump();
        task
    };
    let limited = cleaning("limit").with_timeout(reactor, Duration::from_secs(1));
    clock.advance(Duration::from_secs(1));
    assert!(failure_result_of(limited).is::<ropewalk::TimeoutError>(), "it took a turn to answer");
    let raced = ropewalk::race(vec![cleaning("race"), Deferred::succeed("quick")]);
    assert_eq!(success_result_of(raced).1, "quick");
    let listed = ropewalk::gather_results(vec![cleaning("list")]);
    listed.cancel();
    assert!(failure_result_of(listed).is::<CancelledError>());
    clock.pump();
    assert_eq!(clock.pending_tasks(), 0, "all have cleaned up");
}
