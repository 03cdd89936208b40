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
