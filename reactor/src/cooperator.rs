//! [`Cooperator`]: long work in small steps, so that it does not hold up the loop.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::context::LogContext;
use crate::core::{Core, Stage};
use crate::deferred::{CancelHandle, Deferred, ObservableDeferred, Outcome, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::reactor::Reactor;
use crate::ready::Job;

/// Shares slices of the loop's time among tasks that are done in steps.
///
/// A task is an iterator; each call of its `next` is a step, which should take well under a
/// millisecond. The tasks take turns, one step each; when the slice is used up, they go on in the next
/// turn of the loop, and everything else has its turn in between. A step may give a deferred, and its
/// task goes on when that has its result; see [`IntoStep`] for what else it may give.
///
/// [`Reactor::cooperate`] uses the cooperator that belongs to the reactor. Make one of your own to stop
/// its tasks together or to give them slices of another length: two cooperators have a slice each. A
/// handle is a cheap clone.
#[derive(Clone)]
pub struct Cooperator {
    shared: Rc<Shared>,
}

struct Shared {
    core: Weak<Core>,
    slice: Duration,
    /// Those that can make a step.
    runnable: RefCell<VecDeque<Rc<Task>>>,
    /// Those that have not come to their end.
    unfinished: RefCell<BTreeMap<u64, Rc<Task>>>,
    next_number: Cell<u64>,
    is_scheduled: Cell<bool>,
    is_stopped: Cell<bool>,
}

struct Task {
    number: u64,
    /// Keeps the cooperator going, which lets go of the task at its end.
    cooperator: Rc<Shared>,
    context: LogContext,
    /// Out of its place while it runs, and at the end.
    work: Cell<Option<Work>>,
    /// How many more times it was paused than resumed.
    pauses: Cell<usize>,
    is_queued: Cell<bool>,
    is_stepping: Cell<bool>,
    /// What its last step gave, while that has no result.
    awaited: RefCell<Option<CancelHandle>>,
    finished: Cell<Option<TaskFinished>>,
    resolver: Cell<Option<Resolver<()>>>,
    end: ObservableDeferred<()>,
}

/// Makes a step; `None` if there are no more.
type Work = Box<dyn FnMut() -> Option<Option<Deferred<()>>>>;

/// What a step of a cooperative task may give.
///
/// `()`: go on. `Result<(), Failure>`: go on, or end with the failure. `Deferred<()>`: go on when it has
/// its result, or end with its failure. `Option<Deferred<()>>`: wait if there is something to wait for.
pub trait IntoStep {
    /// Returns what is to be waited for before the next step.
    fn into_step(self) -> Option<Deferred<()>>;
}

impl IntoStep for () {
    fn into_step(self) -> Option<Deferred<()>> {
        None
    }
}

impl IntoStep for Result<(), Failure> {
    fn into_step(self) -> Option<Deferred<()>> {
        self.err().map(Deferred::fail)
    }
}

impl IntoStep for Deferred<()> {
    fn into_step(self) -> Option<Deferred<()>> {
        Some(self)
    }
}

impl IntoStep for Option<Deferred<()>> {
    fn into_step(self) -> Option<Deferred<()>> {
        self
    }
}

impl Reactor {
    /// Takes the steps of an iterator, in slices of the loop's time that all tasks begun in this way
    /// share. See [`Cooperator`].
    ///
    /// The first step is taken in the next turn of the loop. All of them run in the context that is
    /// current now. [`std::iter::from_fn`] makes an iterator of a step function.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use ropewalk::testing::{Clock, success_result_of};
    ///
    /// let clock = Clock::new();
    /// let sum = Rc::new(Cell::new(0));
    /// let running_sum = Rc::clone(&sum);
    /// let task = clock.reactor().cooperate((1..=1000).map(move |number| {
    ///     running_sum.set(running_sum.get() + number);
    /// }));
    /// let done = task.when_done();
    /// clock.pump();
    /// success_result_of(done);
    /// assert_eq!(sum.get(), 500_500);
    /// ```
    pub fn cooperate<I>(&self, steps: I) -> CooperativeTask
    where
        I: IntoIterator<Item: IntoStep>,
        I::IntoIter: 'static,
    {
        self.core().cooperators.common.get_or_init(|| Cooperator::new(self)).cooperate(steps)
    }
}

impl Cooperator {
    /// Makes a cooperator without tasks, whose slices last a millisecond.
    #[must_use]
    pub fn new(reactor: &Reactor) -> Cooperator {
        Cooperator::with_slice(reactor, SLICE)
    }

    /// Makes a cooperator without tasks, with slices of this length. At least one step is taken in each.
    #[must_use]
    pub fn with_slice(reactor: &Reactor, slice: Duration) -> Cooperator {
        let shared = Rc::new(Shared {
            core: Rc::downgrade(reactor.core()),
            slice,
            runnable: RefCell::default(),
            unfinished: RefCell::default(),
            next_number: Cell::new(0),
            is_scheduled: Cell::new(false),
            is_stopped: Cell::new(false),
        });
        reactor.core().cooperators.register(&shared);
        Cooperator { shared }
    }

    /// As [`Reactor::cooperate`], with slices that only the tasks of this cooperator share.
    ///
    /// After [`stop`](Self::stop), the task is stopped from the beginning.
    pub fn cooperate<I>(&self, steps: I) -> CooperativeTask
    where
        I: IntoIterator<Item: IntoStep>,
        I::IntoIter: 'static,
    {
        let shared = &self.shared;
        let number = shared.next_number.get();
        shared.next_number.set(number + 1);
        let mut steps = steps.into_iter();
        let (end, resolver) = Deferred::new();
        let task = Rc::new(Task {
            number,
            cooperator: Rc::clone(shared),
            context: LogContext::current(),
            work: Cell::new(Some(Box::new(move || steps.next().map(IntoStep::into_step)))),
            pauses: Cell::new(0),
            is_queued: Cell::new(false),
            is_stepping: Cell::new(false),
            awaited: RefCell::default(),
            finished: Cell::new(None),
            resolver: Cell::new(Some(resolver)),
            end: ObservableDeferred::new(end),
        });
        shared.unfinished.borrow_mut().insert(number, Rc::clone(&task));
        if shared.is_stopped.get() {
            task.stop();
        } else {
            task.run_if_runnable();
        }
        CooperativeTask { task }
    }

    /// Stops all tasks, in the order in which they were begun, and those that are begun from now on.
    pub fn stop(&self) {
        self.shared.is_stopped.set(true);
        self.shared.end_all(Task::stop);
    }

    /// Returns how many tasks have not come to their end.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.shared.unfinished.borrow().len()
    }
}

impl Shared {
    fn schedule(self: &Rc<Shared>) {
        if self.is_scheduled.get() {
            return;
        }
        let core = self.core.upgrade().filter(|core| core.stage.get() != Stage::Stopped);
        let Some(core) = core else { return self.end_all(Task::cancel) };
        self.is_scheduled.set(true);
        let slice = Slice { shared: Some(Rc::clone(self)) };
        let job = Job::in_context(LogContext::sentinel(), move || slice.run());
        // A timer, because calls that are ready would still come in this turn.
        core.timers.borrow_mut().insert(core.backend.now(), job);
    }

    fn take_steps(self: &Rc<Shared>) {
        self.is_scheduled.set(false);
        let Some(core) = self.core.upgrade() else { return };
        let started = core.backend.now();
        for _ in 0..STEPS_PER_SLICE {
            let task = self.runnable.borrow_mut().pop_front();
            let Some(task) = task else { return };
            task.is_queued.set(false);
            task.step(&core);
            task.run_if_runnable();
            if core.backend.now() - started >= self.slice {
                break;
            }
        }
        if !self.runnable.borrow().is_empty() {
            self.schedule();
        }
    }

    fn end_all(&self, end: impl Fn(&Task)) {
        loop {
            let first = self.unfinished.borrow_mut().pop_first();
            let Some((_, task)) = first else { return };
            end(&task);
        }
    }
}

/// The cooperators of one reactor.
#[derive(Default)]
pub(crate) struct Cooperators {
    /// The reactor's own; made when it is first asked for.
    common: OnceCell<Cooperator>,
    all: RefCell<Vec<Weak<Shared>>>,
}

impl Cooperators {
    fn register(&self, shared: &Rc<Shared>) {
        let mut all = self.all.borrow_mut();
        all.retain(|cooperator| cooperator.strong_count() > 0);
        all.push(Rc::downgrade(shared));
    }

    /// Ends all tasks, because the reactor ends.
    pub(crate) fn tear_down(&self) {
        let all = self.all.borrow().clone();
        for shared in all.iter().filter_map(Weak::upgrade) {
            shared.end_all(Task::cancel);
        }
    }
}

/// A slice to come. If it is dropped instead of used, the reactor has stopped.
struct Slice {
    shared: Option<Rc<Shared>>,
}

impl Slice {
    fn run(mut self) {
        if let Some(shared) = self.shared.take() {
            shared.take_steps();
        }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.is_scheduled.set(false);
            shared.end_all(Task::cancel);
            let ended = shared.runnable.take();
            drop(ended);
        }
    }
}

impl Task {
    fn run_if_runnable(self: &Rc<Task>) {
        let can_run = self.finished.get().is_none()
            && self.pauses.get() == 0
            && !self.is_stepping.get()
            && self.awaited.borrow().is_none();
        if can_run && !self.is_queued.replace(true) {
            self.cooperator.runnable.borrow_mut().push_back(Rc::clone(self));
            self.cooperator.schedule();
        }
    }

    fn step(self: &Rc<Task>, core: &Core) {
        if self.finished.get().is_some() || self.pauses.get() > 0 {
            return;
        }
        let Some(mut work) = self.work.take() else { return };
        self.is_stepping.set(true);
        let mut step = None;
        // A panic of the step becomes its failure; one of dropping the work is logged.
        let _ = core.call("a step of a cooperative task", &self.context, || {
            step = catch_unwind(AssertUnwindSafe(&mut work))
                .unwrap_or_else(|payload| Some(Some(Deferred::fail(Failure::from_panic(payload)))));
            if self.finished.get().is_none() && step.is_some() {
                self.work.set(Some(work));
            } else {
                drop(work);
            }
        });
        self.is_stepping.set(false);
        match step {
            None => self.finish(TaskFinished::Done, Ok(())),
            Some(None) => {}
            Some(Some(deferred)) => self.wait_for(deferred),
        }
    }

    fn wait_for(self: &Rc<Task>, deferred: Deferred<()>) {
        let pending = match deferred.into_result() {
            Ok(outcome) => return self.go_on(outcome),
            Err(pending) => pending,
        };
        if self.finished.get().is_some() {
            // It was stopped in the middle of this step.
            return pending.cancel();
        }
        self.awaited.replace(Some(pending.cancel_handle()));
        let this = Rc::clone(self);
        pending
            .add_both(move |outcome| {
                this.awaited.take();
                this.go_on(outcome);
                this.run_if_runnable();
                Ok(())
            })
            .detach();
    }

    fn go_on(&self, outcome: Outcome<()>) {
        if let Err(failure) = outcome {
            self.finish(TaskFinished::Failed, Err(failure));
        }
    }

    fn stop(&self) {
        self.finish(TaskFinished::Stopped, Err(Failure::plain(TaskStopped)));
    }

    fn cancel(&self) {
        self.finish(TaskFinished::Stopped, Err(Failure::plain(CancelledError)));
    }

    fn finish(&self, how: TaskFinished, outcome: Outcome<()>) {
        if self.finished.get().is_some() {
            return;
        }
        self.finished.set(Some(how));
        let this = self.cooperator.unfinished.borrow_mut().remove(&self.number);
        // What the work owns may be anything; it goes with no borrow held, and where it belongs.
        let work = self.work.take();
        self.context.run(|| drop(work));
        let awaited = self.awaited.take();
        if let Some(awaited) = awaited {
            awaited.cancel();
        }
        let Some(resolver) = self.resolver.take() else { return };
        if let Err(failure) = &outcome
            && self.end.observer_count() == 0
        {
            if how == TaskFinished::Failed {
                self.context.run(|| log::error!("a cooperative task failed: {failure:#}"));
            }
            // Whoever asks later still gets it, and it is not reported a second time.
            self.end.observe().add_errback(|_| Ok(())).detach();
        }
        resolver.fire(outcome);
        drop(this);
    }
}

/// A task of a [`Cooperator`]. Dropping it leaves the task going. A handle is a cheap clone.
#[derive(Clone)]
pub struct CooperativeTask {
    task: Rc<Task>,
}

impl CooperativeTask {
    /// Waits for the task's end. Cancelling or dropping ends the waiting only.
    ///
    /// # Errors
    ///
    /// What a step failed with (logged if nobody waits at that time); [`TaskStopped`];
    /// [`CancelledError`] if the reactor stopped.
    #[track_caller]
    pub fn when_done(&self) -> Deferred<()> {
        self.task.end.observe()
    }

    /// Takes no more steps until [`resume`](Self::resume) was called as many times as this.
    ///
    /// # Errors
    ///
    /// How the task ended, if it has.
    pub fn pause(&self) -> Result<(), TaskFinished> {
        self.check_unfinished()?;
        self.task.pauses.set(self.task.pauses.get() + 1);
        Ok(())
    }

    /// Undoes one [`pause`](Self::pause). On a task that has ended meanwhile that changes nothing.
    ///
    /// # Errors
    ///
    /// If the task is not paused.
    pub fn resume(&self) -> Result<(), NotPaused> {
        let pauses = self.task.pauses.get().checked_sub(1).ok_or(NotPaused)?;
        self.task.pauses.set(pauses);
        self.task.run_if_runnable();
        Ok(())
    }

    /// Takes no more steps and drops the iterator; [`when_done`](Self::when_done) fails with
    /// [`TaskStopped`]. What the last step gave, if it has no result yet, is cancelled.
    ///
    /// # Errors
    ///
    /// How the task ended, if it has.
    pub fn stop(&self) -> Result<(), TaskFinished> {
        self.check_unfinished()?;
        self.task.stop();
        Ok(())
    }

    /// Returns how the task ended, if it has.
    #[must_use]
    pub fn finished(&self) -> Option<TaskFinished> {
        self.task.finished.get()
    }

    fn check_unfinished(&self) -> Result<(), TaskFinished> {
        self.finished().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Cooperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cooperator")
            .field("tasks", &self.task_count())
            .field("slice", &self.shared.slice)
            .finish()
    }
}

impl fmt::Debug for CooperativeTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CooperativeTask")
            .field("context", &self.task.context)
            .field("pauses", &self.task.pauses.get())
            .field("finished", &self.finished())
            .finish()
    }
}

/// A [`CooperativeTask`] has come to its end, in this way, and can be neither paused nor stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TaskFinished {
    /// All its steps were taken.
    #[error("the task has taken all its steps")]
    Done,
    /// A step failed.
    #[error("a step of the task has failed")]
    Failed,
    /// It was stopped.
    #[error("the task has been stopped")]
    Stopped,
}

/// A [`CooperativeTask`] was stopped before it had taken all its steps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the task was stopped")]
pub struct TaskStopped;

/// A [`CooperativeTask`] was to be resumed more often than it had been paused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the task is not paused")]
pub struct NotPaused;

/// How long tasks go on before others get their turn: as long as the loop may be held at all.
const SLICE: Duration = Duration::from_millis(1);

/// Steps in one slice. Bounds it where time stands still while steps are taken, as on a manual clock.
const STEPS_PER_SLICE: usize = 256;
