//! Cooperative tasks: taking turns, pausing, stopping, waiting, failing.

use std::cell::{Cell, RefCell};
use std::iter;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{
    Clock, UnhandledErrors, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{
    CancelledError, CooperativeTask, Cooperator, Deferred, Failure, LogContext, NotPaused,
    Panicked, Resolver, TaskFinished, TaskStopped, logging,
};

use crate::support::{Diary, note, read};

/// Begins a task of `count` steps, each of which is noted.
fn begin(
    cooperator: &Cooperator,
    diary: &Diary,
    name: &'static str,
    count: u32,
) -> CooperativeTask {
    let diary = diary.clone();
    cooperator.cooperate((1..=count).map(move |step| note(&diary, format!("{name}{step}"))))
}

/// Begins a task whose single step gives this.
fn begin_with<T: ropewalk::IntoStep + 'static>(clock: &Clock, step: T) -> CooperativeTask {
    clock.reactor().cooperate(iter::once(step))
}

#[test]
fn tasks_take_turns_one_step_each_and_end_when_their_steps_do() {
    let clock = Clock::new();
    let (cooperator, diary) = (Cooperator::new(clock.reactor()), Diary::default());
    let tasks =
        [("a", 1), ("b", 3), ("c", 2)].map(|(name, count)| begin(&cooperator, &diary, name, count));
    assert_eq!(read(&diary), [""; 0], "the first step comes in the next turn");
    let done = tasks.each_ref().map(CooperativeTask::when_done);
    clock.pump();
    assert_eq!(read(&diary), ["a1", "b1", "c1", "b2", "c2", "b3"]);
    done.into_iter().for_each(success_result_of);
    success_result_of(tasks[0].when_done());
    assert_eq!(tasks[0].finished(), Some(TaskFinished::Done));
    assert_eq!((cooperator.task_count(), clock.pending_calls()), (0, 0));
}

#[test]
fn a_slice_ends_when_its_time_is_used_up_and_others_have_their_turn() {
    let clock = Clock::new();
    let diary = Diary::default();
    let cooperator = Cooperator::with_slice(clock.reactor(), Duration::ZERO);
    begin(&cooperator, &diary, "a", 3);
    let notes = diary.clone();
    clock.reactor().call_later(Duration::ZERO, move || note(&notes, "timer"));
    clock.pump();
    assert_eq!(read(&diary), ["a1", "timer", "a2", "a3"], "one step at least, here one at most");
}

#[test]
fn an_endless_task_starves_nobody_though_time_stands_still() {
    let clock = Clock::new();
    let task = clock.reactor().cooperate(iter::repeat(()));
    let (handle, stopped) = (task.clone(), task.when_done());
    let reactor = clock.reactor().clone();
    clock.reactor().call_later(Duration::ZERO, move || {
        reactor.call_later(Duration::ZERO, move || handle.stop().unwrap());
    });
    clock.pump();
    assert!(failure_result_of(stopped).is::<TaskStopped>());
}

#[test]
fn a_paused_task_takes_no_steps_until_it_is_resumed_as_often() {
    let clock = Clock::new();
    let (cooperator, diary) = (Cooperator::new(clock.reactor()), Diary::default());
    let task = begin(&cooperator, &diary, "a", 2);
    assert_eq!(task.resume(), Err(NotPaused));
    task.pause().unwrap();
    task.pause().unwrap();
    clock.pump();
    task.resume().unwrap();
    clock.pump();
    assert_eq!(read(&diary), [""; 0]);
    task.resume().unwrap();
    assert_eq!(task.resume(), Err(NotPaused));
    clock.pump();
    assert_eq!(read(&diary), ["a1", "a2"]);
    assert_eq!(task.pause(), Err(TaskFinished::Done));
    assert_eq!(task.stop(), Err(TaskFinished::Done));
}

#[test]
fn a_task_may_pause_or_stop_itself_in_the_middle_of_a_step() {
    let clock = Clock::new();
    let slot: Rc<RefCell<Option<CooperativeTask>>> = Rc::default();
    let steps = Rc::new(Cell::new(0));
    let (inside, counted) = (slot.clone(), steps.clone());
    let task = clock.reactor().cooperate(iter::from_fn(move || {
        let task = inside.borrow().clone().unwrap();
        counted.set(counted.get() + 1);
        match counted.get() {
            1 => task.pause().unwrap(),
            _ => task.stop().unwrap(),
        }
        Some(())
    }));
    slot.replace(Some(task.clone()));
    clock.pump();
    assert_eq!(steps.get(), 1);
    task.resume().unwrap();
    clock.pump();
    assert_eq!(steps.get(), 2);
    assert!(failure_result_of(task.when_done()).is::<TaskStopped>());
    assert_eq!(Rc::strong_count(&slot), 1, "the steps and what they own are gone");
}

#[test]
fn a_step_may_give_a_deferred_and_only_its_own_task_waits() {
    let clock = Clock::new();
    let diary = Diary::default();
    let (gate, resolver) = Deferred::new();
    let (mut gate, notes) = (Some(gate), diary.clone());
    let waiting = clock.reactor().cooperate((1..=2).map(move |step| {
        note(&notes, format!("waiting{step}"));
        gate.take()
    }));
    let notes = diary.clone();
    clock.reactor().cooperate((1..=2).map(move |step| note(&notes, format!("other{step}"))));
    clock.pump();
    assert_eq!(read(&diary), ["waiting1", "other1", "other2"]);
    let done = waiting.when_done();
    waiting.pause().unwrap();
    resolver.callback(());
    clock.pump();
    assert_no_result(&done);
    waiting.resume().unwrap();
    clock.pump();
    assert_eq!(read(&diary), ["waiting2"]);
    success_result_of(done);
}

#[test]
fn whatever_fails_in_a_step_fails_the_task() {
    let clock = Clock::new();
    let (later, resolver) = Deferred::<()>::new();
    let failed = [
        begin_with(&clock, Err::<(), Failure>(std::fmt::Error.into())),
        begin_with(&clock, Deferred::<()>::fail(std::fmt::Error)),
        begin_with(&clock, Some(later)),
    ];
    let panicked = clock.reactor().cooperate(iter::from_fn(|| -> Option<()> { panic!("oh") }));
    let outcomes = failed.each_ref().map(CooperativeTask::when_done);
    let panic = panicked.when_done();
    clock.pump();
    resolver.errback(std::fmt::Error);
    for outcome in outcomes {
        assert!(failure_result_of(outcome).is::<std::fmt::Error>());
    }
    assert!(failure_result_of(panic).is::<Panicked>());
    assert_eq!(failed[2].stop(), Err(TaskFinished::Failed));
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn a_failure_that_nobody_waits_for_is_logged_once() {
    let unhandled = UnhandledErrors::trap();
    let lines = logging::capture(100);
    let clock = Clock::new();
    let task = LogContext::new("request")
        .run(|| begin_with(&clock, Deferred::<()>::fail(std::fmt::Error)));
    clock.pump();
    assert!(failure_result_of(task.when_done()).is::<std::fmt::Error>());
    drop(task);
    let lines = lines.take();
    let failed: Vec<_> =
        lines.iter().filter(|line| line.contains("cooperative task failed")).collect();
    assert_eq!(failed.len(), 1, "{lines:?}");
    assert!(failed[0].contains("request"), "{failed:?}");
    assert_eq!(unhandled.take().len(), 0);
}

#[test]
fn stopping_cancels_what_the_task_waits_for() {
    let clock = Clock::new();
    let was_cancelled = Rc::new(Cell::new(false));
    let noted = was_cancelled.clone();
    let (gate, _resolver): (Deferred<()>, Resolver<()>) =
        Deferred::with_canceller(move || noted.set(true));
    let task = begin_with(&clock, gate);
    clock.pump();
    let done = task.when_done();
    task.stop().unwrap();
    assert!(was_cancelled.get());
    assert!(failure_result_of(done).is::<TaskStopped>());
    assert_eq!(task.finished(), Some(TaskFinished::Stopped));
}

#[test]
fn stopping_the_cooperator_stops_all_its_tasks_and_those_to_come() {
    let clock = Clock::new();
    let (cooperator, diary) = (Cooperator::new(clock.reactor()), Diary::default());
    let (running, paused) =
        (begin(&cooperator, &diary, "a", 9), begin(&cooperator, &diary, "b", 9));
    paused.pause().unwrap();
    cooperator.stop();
    let late = begin(&cooperator, &diary, "c", 9);
    clock.pump();
    for task in [running, paused, late] {
        assert!(failure_result_of(task.when_done()).is::<TaskStopped>());
    }
    assert_eq!(read(&diary), [""; 0]);
}

#[test]
fn steps_run_in_the_context_that_began_the_task() {
    let clock = Clock::new();
    let diary = Diary::default();
    for name in ["one", "other"] {
        let notes = diary.clone();
        LogContext::new(name).run(|| {
            let steps = (0..2).map(move |_| note(&notes, LogContext::current().name()));
            clock.reactor().cooperate(steps)
        });
    }
    clock.pump();
    assert_eq!(read(&diary), ["one", "other", "one", "other"]);
}

#[test]
fn cancelling_when_done_ends_the_waiting_only() {
    let clock = Clock::new();
    let (cooperator, diary) = (Cooperator::new(clock.reactor()), Diary::default());
    let task = begin(&cooperator, &diary, "a", 2);
    let (cancelled, other) = (task.when_done(), task.when_done());
    cancelled.cancel();
    assert!(failure_result_of(cancelled).is::<CancelledError>());
    clock.pump();
    success_result_of(other);
}

#[test]
fn tasks_outlive_the_handles_and_end_with_the_reactor() {
    let unhandled = UnhandledErrors::trap();
    let clock = Clock::new();
    let diary = Diary::default();
    let (gate, _resolver) = Deferred::<()>::new();
    let cooperator = Cooperator::new(clock.reactor());
    drop(begin(&cooperator, &diary, "a", 2));
    let waiting = cooperator.cooperate(iter::once(gate));
    drop(cooperator);
    clock.pump();
    assert_eq!(read(&diary), ["a1", "a2"]);
    let (ended, paused) = (waiting.when_done(), clock.reactor().cooperate(iter::repeat(())));
    paused.pause().unwrap();
    let reactor = clock.reactor().clone();
    drop(clock);
    assert!(failure_result_of(ended).is::<CancelledError>());
    assert!(failure_result_of(paused.when_done()).is::<CancelledError>());
    let late = reactor.cooperate(iter::once(()));
    assert!(failure_result_of(late.when_done()).is::<CancelledError>());
    assert_eq!(unhandled.take().len(), 0);
}
