//! Tasks: futures that the loop polls, each with a deferred for its result.
//!
//! The reactor owns its tasks. A waker knows only the number of its task, so that it may go
//! wherever it likes, other threads included, and outlive the task or the reactor.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::{CancelHandle, Deferred, Outcome, Resolver};
use crate::context::LogContext;
use crate::core::{Core, Stage};
use crate::failure::{CancelledError, Failure};
use crate::ready;
use crate::remote::ReactorRemote;
use crate::slots::{Key, Slots};
use crate::teardown::dropping;

/// The tasks of one reactor.
pub(crate) type Tasks = Slots<Task>;

pub(crate) struct Task {
    /// Out of its place while it is polled.
    body: Option<Body>,
    context: LogContext,
    waker: Arc<TaskWaker>,
    /// The deferred that it waits for now, if that is what it waits for.
    awaiting: Option<CancelHandle>,
    fate: Fate,
}

type Body = Pin<Box<dyn Future<Output = ()>>>;

/// What is to become of a task when its poll has returned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It was cancelled in the middle of a poll.
    Cancel,
    Drop,
    Live,
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
    let (deferred, resolver) = Deferred::new();
    let report = Rc::new(Report { resolver: Cell::new(Some(resolver)) });
    let weak_report = Rc::downgrade(&report);
    let body = Box::pin(run(future, report));
    let key = core.tasks.borrow_mut().insert_with(|key| Task {
        body: Some(body),
        context: LogContext::current(),
        waker: Arc::new(TaskWaker {
            remote: core.remote.clone(),
            key,
            is_woken: AtomicBool::new(true),
        }),
        awaiting: None,
        fate: Fate::Live,
    });
    let handle = Handle { core: Rc::downgrade(core), key };
    core.ready.push_task(key);
    // Cancelling fails the deferred at once; here it is given another one, which has the result of
    // the task's cleaning up. Cancelling again finds that one, and drops the task.
    deferred.add_errback(move |failure| {
        let report = weak_report.upgrade().filter(|_| failure.is::<CancelledError>());
        let Some(report) = report else { return Deferred::fail(failure) };
        let again = handle.clone();
        let (cleaned_up, resolver) = Deferred::with_canceller(move || again.drop_task());
        report.resolver.set(Some(resolver));
        drop(report);
        handle.cancel();
        cleaned_up
    })
}

/// Who gets the task's result.
struct Report<T: 'static> {
    resolver: Cell<Option<Resolver<T>>>,
}

impl<T: 'static> Drop for Report<T> {
    /// The task was dropped before its end.
    fn drop(&mut self) {
        if let Some(resolver) = self.resolver.take() {
            ready::enqueue(move || resolver.errback(CancelledError));
        }
    }
}

/// Runs a task to its end and reports the result.
async fn run<T: 'static>(future: impl Future<Output = Outcome<T>>, report: Rc<Report<T>>) {
    let mut future = std::pin::pin!(future);
    let outcome = std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .unwrap_or_else(|payload| Poll::Ready(Err(Failure::from_panic(payload))))
    })
    .await;
    if let Some(resolver) = report.resolver.take() {
        resolver.fire(outcome);
    }
}

/// Polls a task that was woken. A number whose task is gone does nothing.
pub(crate) fn poll(core: &Rc<Core>, key: Key) {
    let Some((mut body, context, waker)) = take_body(core, key) else { return };
    waker.is_woken.store(false, Ordering::Release);
    let waker = Waker::from(waker);
    let mut is_finished = true;
    drop(ready::take_awaiting());
    let result = core.call("a task", &context, || {
        is_finished = body.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    });
    let awaiting = ready::take_awaiting();
    if is_finished || result.is_err() {
        let task = core.tasks.borrow_mut().remove(key);
        drop(task);
        return context.run(|| dropping("a task", body));
    }
    put_back(core, key, body, awaiting);
}

fn take_body(core: &Core, key: Key) -> Option<(Body, LogContext, Arc<TaskWaker>)> {
    let mut tasks = core.tasks.borrow_mut();
    let task = tasks.get_mut(key)?;
    let body = task.body.take()?;
    Some((body, task.context.clone(), Arc::clone(&task.waker)))
}

fn put_back(core: &Rc<Core>, key: Key, body: Body, awaiting: Option<CancelHandle>) {
    let mut tasks = core.tasks.borrow_mut();
    let Some(task) = tasks.get_mut(key) else {
        // The reactor was torn down from inside the poll.
        drop(tasks);
        return dropping("a task", body);
    };
    task.body = Some(body);
    task.awaiting = awaiting;
    let fate = std::mem::replace(&mut task.fate, Fate::Live);
    drop(tasks);
    let handle = Handle { core: Rc::downgrade(core), key };
    match fate {
        Fate::Live => {}
        Fate::Cancel => handle.cancel(),
        Fate::Drop => handle.drop_task(),
    }
}

/// A task as its deferred sees it.
#[derive(Clone)]
struct Handle {
    core: Weak<Core>,
    key: Key,
}

impl Handle {
    /// Cancels the deferred that the task waits for; drops the task if it waits for none.
    fn cancel(&self) {
        let Some(core) = self.core.upgrade() else { return };
        let awaiting = {
            let mut tasks = core.tasks.borrow_mut();
            let Some(task) = tasks.get_mut(self.key) else { return };
            if task.body.is_none() {
                task.fate = Fate::Cancel;
                return;
            }
            task.awaiting.take()
        };
        match awaiting {
            Some(awaiting) => awaiting.cancel(),
            None => self.drop_task(),
        }
    }

    fn drop_task(&self) {
        let Some(core) = self.core.upgrade() else { return };
        let task = {
            let mut tasks = core.tasks.borrow_mut();
            match tasks.get_mut(self.key) {
                Some(task) if task.body.is_none() => {
                    task.fate = Fate::Drop;
                    None
                }
                _ => tasks.remove(self.key),
            }
        };
        if let Some(task) = task {
            task.dismiss();
        }
    }
}

impl Task {
    /// Drops the task in its context.
    pub(crate) fn dismiss(self) {
        let context = self.context.clone();
        context.run(|| dropping("a task", self));
    }
}

/// Wakes one task, from any thread.
struct TaskWaker {
    remote: ReactorRemote,
    key: Key,
    /// Whether the task stands in a queue to be polled.
    is_woken: AtomicBool,
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
