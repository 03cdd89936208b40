//! [`ReactorRemote`], the handle on a reactor for other threads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::Alarm;
use crate::reactor::Reactor;
use crate::ready::ReadyQueue;
use crate::slots::Key;

/// A handle on a reactor for other threads.
#[derive(Clone)]
pub struct ReactorRemote {
    shared: Arc<Shared>,
}

/// Work that another thread has sent.
pub(crate) type ForeignJob = Box<dyn FnOnce(&Reactor) + Send>;

struct Shared {
    inbox: Mutex<Inbox>,
    /// Whether the inbox may hold something; set before the alarm rings, cleared before it is
    /// emptied.
    has_mail: AtomicBool,
    alarm: Alarm,
}

#[derive(Default)]
struct Inbox {
    jobs: Vec<ForeignJob>,
    woken_tasks: Vec<Key>,
    is_closed: bool,
}

impl ReactorRemote {
    pub(crate) fn new(alarm: Alarm) -> ReactorRemote {
        let shared = Shared { inbox: Mutex::default(), has_mail: AtomicBool::new(false), alarm };
        ReactorRemote { shared: Arc::new(shared) }
    }

    /// Calls `f` on the loop's thread, soon, in the sentinel context. Calls from one thread are
    /// made in the order in which they were asked for.
    ///
    /// After the reactor has stopped, `f` is dropped, here or on the loop's thread.
    pub fn call_from_thread(&self, f: impl FnOnce(&Reactor) + Send + 'static) {
        let job: ForeignJob = Box::new(f);
        let mut inbox = self.inbox();
        if inbox.is_closed {
            // What the job owns may be anything; it is dropped without the lock.
            drop(inbox);
            drop(job);
            return;
        }
        inbox.jobs.push(job);
        drop(inbox);
        self.announce();
    }

    /// Whether the reactor has stopped and takes no calls any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.inbox().is_closed
    }

    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.shared.has_mail.load(Ordering::Acquire)
    }

    /// Has the loop poll a task. After the reactor has stopped, there is nothing to be polled.
    pub(crate) fn wake_task(&self, task: Key) {
        let mut inbox = self.inbox();
        if !inbox.is_closed {
            inbox.woken_tasks.push(task);
            drop(inbox);
            self.announce();
        }
    }

    /// Moves the jobs that have been sent behind `jobs`, and the tasks to be polled into the queue.
    pub(crate) fn collect(&self, jobs: &mut VecDeque<ForeignJob>, ready: &ReadyQueue) {
        self.shared.has_mail.store(false, Ordering::Release);
        let mut inbox = self.inbox();
        jobs.extend(inbox.jobs.drain(..));
        for task in inbox.woken_tasks.drain(..) {
            ready.push_task(task);
        }
    }

    /// Returns a number that no other living reactor has.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Takes nothing any more, and returns what was sent.
    pub(crate) fn close(&self) -> Vec<ForeignJob> {
        let mut inbox = self.inbox();
        inbox.is_closed = true;
        std::mem::take(&mut inbox.jobs)
    }

    fn announce(&self) {
        if !self.shared.has_mail.swap(true, Ordering::AcqRel) {
            self.shared.alarm.ring();
        }
    }

    /// No code of others runs under the lock, so that a poisoned one is as good as any.
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ReactorRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorRemote").field("is_stopped", &self.is_stopped()).finish()
    }
}
