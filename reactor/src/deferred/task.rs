//! Tasks: futures that the loop polls, each with a deferred for its result.
//!
//! The reactor owns its tasks. A waker knows only the number of its task, so that it may go
//! wherever it likes, other threads included, and outlive the task or the reactor.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::chain::{Canceller, Origin, Place, PlaceFor};
use super::step::Slot;
use super::{CancelHandle, Deferred, Handle, Outcome, Repr};
use crate::context::LogContext;
use crate::core::{Core, Stage};
use crate::failure::{CancelledError, Failure};
use crate::inspect::Table;
use crate::ready::{self, Awaited};
use crate::remote::ReactorRemote;
use crate::slots::{Key, Slots};
use crate::teardown::dropping;

/// The tasks of one reactor.
pub(crate) struct Tasks {
    slots: Slots<Task>,
    /// A waker that nobody else holds, for the next task.
    spare_waker: Option<Arc<TaskWaker>>,
}

pub(crate) struct Task {
    work: Rc<dyn Work>,
    /// Made when the task is first polled: many come to their end then, and leave it to others.
    waker: Option<Arc<TaskWaker>>,
    /// The deferreds that its last poll has found without a result. Cancelling the task cancels them.
    awaiting: Option<Awaited>,
    is_polled: bool,
    was_cancelled: bool,
    fate: Fate,
}

/// What is to become of a task when its poll has returned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It was cancelled in the middle of a poll.
    Cancel,
    Drop,
    Live,
}

impl Tasks {
    pub(crate) fn new() -> Tasks {
        Tasks { slots: Slots::new(), spare_waker: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Lists the tasks.
    pub(crate) fn inspect(&self) -> Table {
        let rows = self.slots.iter().map(|(_, task)| {
            let state = match (task.is_polled, task.awaiting.is_some()) {
                (true, _) => "running",
                (false, true) => "awaits a deferred",
                (false, false) => "awaits something else",
            };
            let context = task.work.context().name().to_owned();
            vec![task.work.made_at().to_string(), context, state.to_owned()]
        });
        Table::of_all("Tasks", &["made at", "context", "state"], self.slots.len(), rows)
    }

    pub(crate) fn take_all(&mut self) -> Vec<Task> {
        self.slots.take_all()
    }

    fn start_poll(&mut self, key: Key, remote: &ReactorRemote) -> Option<Polled> {
        let task = self.slots.get_mut(key)?;
        if task.is_polled {
            return None;
        }
        task.is_polled = true;
        let waker = match task.waker.take() {
            Some(waker) => {
                waker.is_woken.store(false, Ordering::Release);
                waker
            }
            None => TaskWaker::renewed(self.spare_waker.take(), key, remote),
        };
        Some(Polled { work: Rc::clone(&task.work), waker })
    }
}

/// What is needed to poll a task.
struct Polled {
    work: Rc<dyn Work>,
    waker: Arc<TaskWaker>,
}

/// Makes a task of `future`; it is first polled after the current callback has returned.
#[track_caller]
pub(crate) fn spawn<T: 'static>(
    core: &Rc<Core>,
    future: impl Future<Output = Outcome<T>> + 'static,
) -> Deferred<T> {
    if core.stage.get() == Stage::Stopped {
        return Deferred::fail(CancelledError);
    }
    let place = TaskPlace { future: Cell::new(Some(Box::pin(future))), result: Cell::new(None) };
    let chain = Origin::new(Location::caller(), place);
    let key = core.tasks.borrow_mut().slots.insert(Task {
        work: chain.clone(),
        waker: None,
        awaiting: None,
        is_polled: false,
        was_cancelled: false,
        fate: Fate::Live,
    });
    chain.set_canceller(Canceller::Task(TaskHandle { core: Rc::downgrade(core), key }));
    core.ready.push_task(key);
    Deferred(Repr::Pending(Handle(chain)))
}

/// Where a task's future lies, and then its result.
struct TaskPlace<T, F> {
    /// Out of its place while it is polled.
    future: Cell<Option<Pin<Box<F>>>>,
    result: Cell<Slot<T>>,
}

impl<T: 'static, F> Place for TaskPlace<T, F> {
    fn move_to(&self, slot: &mut dyn Any) {
        self.result.move_to(slot);
    }

    fn move_from(&self, slot: &mut dyn Any) {
        self.result.move_from(slot);
    }

    fn with_failure(&self, failure: Failure, f: &mut dyn FnMut(&mut dyn Any)) {
        self.result.with_failure(failure, f);
    }

    fn take_failure(&self) -> Option<Failure> {
        self.result.take_failure()
    }
}

impl<T: 'static, F> PlaceFor<T> for TaskPlace<T, F> {
    #[inline]
    fn put(&self, value: Outcome<T>) {
        self.result.put(value);
    }
}

/// A task's deferred, whatever its type.
trait Work {
    /// Polls the future; if it is at its end, gives the deferred its result and returns true.
    fn poll(self: Rc<Self>, cx: &mut Context<'_>) -> bool;

    /// Drops the future, and fails the deferred after the current callback.
    fn dismiss(self: Rc<Self>);

    /// The context that the task was made in, and runs in.
    fn context(&self) -> &LogContext;

    /// Where the task was made.
    fn made_at(&self) -> &'static Location<'static>;
}

impl<T: 'static, F: Future<Output = Outcome<T>> + 'static> Work for Origin<TaskPlace<T, F>> {
    fn context(&self) -> &LogContext {
        self.context()
    }

    fn made_at(&self) -> &'static Location<'static> {
        self.created()
    }

    fn poll(self: Rc<Self>, cx: &mut Context<'_>) -> bool {
        let Some(mut future) = self.place().future.take() else { return true };
        let outcome = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                self.place().future.set(Some(future));
                return false;
            }
            Ok(Poll::Ready(outcome)) => outcome,
            Err(payload) => Err(Failure::from_panic(payload)),
        };
        dropping("a task", future);
        self.fire(outcome);
        true
    }

    fn dismiss(self: Rc<Self>) {
        dropping("a task", self.place().future.take());
        if !self.is_fired() && !self.is_abandoned() {
            ready::enqueue(move || self.fire(Err(Failure::plain(CancelledError))));
        }
    }
}

/// Polls a task that was woken. A number whose task is gone does nothing.
pub(crate) fn poll(core: &Rc<Core>, key: Key) {
    let polled = core.tasks.borrow_mut().start_poll(key, &core.remote);
    let Some(Polled { work, waker }) = polled else { return };
    let mut is_finished = true;
    let mut awaiting = None;
    // A panic has been logged; what remains of the task is of no use.
    let _ = core.call("a task", work.context(), || {
        ready::start_awaiting();
        let waker = Waker::from(Arc::clone(&waker));
        is_finished = Rc::clone(&work).poll(&mut Context::from_waker(&waker));
        awaiting = ready::take_awaiting();
    });
    if is_finished {
        let mut tasks = core.tasks.borrow_mut();
        let task = tasks.slots.remove(key);
        tasks.spare_waker = Some(waker);
        drop(tasks);
        drop(task);
        return;
    }
    put_back(core, key, Polled { work, waker }, awaiting);
}

fn put_back(core: &Rc<Core>, key: Key, polled: Polled, awaiting: Option<Awaited>) {
    let Polled { work, waker } = polled;
    let mut tasks = core.tasks.borrow_mut();
    let Some(task) = tasks.slots.get_mut(key) else {
        // The reactor was torn down from inside the poll.
        drop(tasks);
        return dismiss(work);
    };
    task.waker = Some(waker);
    task.awaiting = awaiting;
    task.is_polled = false;
    let fate = std::mem::replace(&mut task.fate, Fate::Live);
    drop(tasks);
    let handle = TaskHandle { core: Rc::downgrade(core), key };
    match fate {
        Fate::Live => {}
        Fate::Cancel => handle.cancel(),
        Fate::Drop => handle.drop_task(),
    }
}

/// A task as its deferred sees it.
#[derive(Clone)]
pub(super) struct TaskHandle {
    core: Weak<Core>,
    key: Key,
}

impl TaskHandle {
    /// Cancels what the task waits for; drops the task if that is no deferred, or it was cancelled before.
    pub(super) fn cancel(&self) {
        let Some(core) = self.core.upgrade() else { return };
        let awaiting = {
            let mut tasks = core.tasks.borrow_mut();
            let Some(task) = tasks.slots.get_mut(self.key) else { return };
            if task.is_polled {
                let is_again = task.was_cancelled || task.fate != Fate::Live;
                task.fate = if is_again { Fate::Drop } else { Fate::Cancel };
                return;
            }
            match std::mem::replace(&mut task.was_cancelled, true) {
                true => None,
                false => task.awaiting.take(),
            }
        };
        // It may have given some of them away in the very poll in which it awaited them.
        let awaiting: Awaited =
            awaiting.into_iter().flatten().filter(CancelHandle::has_deferred).collect();
        if awaiting.is_empty() {
            return self.drop_task();
        }
        awaiting.iter().for_each(CancelHandle::cancel);
    }

    fn drop_task(&self) {
        let Some(core) = self.core.upgrade() else { return };
        let task = core.tasks.borrow_mut().slots.remove(self.key);
        if let Some(task) = task {
            task.dismiss();
        }
    }
}

impl Task {
    /// Drops the task in its context.
    pub(crate) fn dismiss(self) {
        dismiss(self.work);
    }
}

fn dismiss(work: Rc<dyn Work>) {
    let context = work.context().clone();
    context.run(|| work.dismiss());
}

/// Wakes one task, from any thread.
struct TaskWaker {
    remote: ReactorRemote,
    key: Key,
    /// Whether the task stands in a queue to be polled.
    is_woken: AtomicBool,
}

impl TaskWaker {
    /// Makes a waker, out of a used one if nobody holds it any more.
    fn renewed(used: Option<Arc<TaskWaker>>, key: Key, remote: &ReactorRemote) -> Arc<TaskWaker> {
        if let Some(mut used) = used
            && let Some(waker) = Arc::get_mut(&mut used)
        {
            waker.key = key;
            *waker.is_woken.get_mut() = false;
            return used;
        }
        Arc::new(TaskWaker { remote: remote.clone(), key, is_woken: AtomicBool::new(false) })
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_woken.swap(true, Ordering::AcqRel) {
            return;
        }
        if !ready::push_task(self.remote.id(), self.key) {
            self.remote.wake_task(self.key);
        }
    }
}
