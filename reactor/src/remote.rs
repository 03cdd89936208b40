//! [`ReactorRemote`], the handle on a reactor for other threads.

mod blocking;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

pub use self::blocking::BlockingCallError;
use self::blocking::Interrupt;
use crate::backend::Alarm;
use crate::reactor::Reactor;
use crate::ready::ReadyQueue;
use crate::slots::Key;

/// A handle on a reactor for other threads: for those that the program has started itself, or a library
/// in its name. (What a pool's job has found comes back by itself.)
///
/// ```
/// use ropewalk::Reactor;
///
/// # fn main() -> std::io::Result<()> {
/// let reactor = Reactor::new()?;
/// let remote = reactor.remote();
/// let sensor = std::thread::spawn(move || {
///     // ... waits for the hardware, and then:
///     remote.call_from_thread(|reactor| reactor.stop());
/// });
/// reactor.run()?;
/// # sensor.join().unwrap();
/// # Ok(())
/// # }
/// ```
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
    /// Whether the loop waits, or is about to without looking again: nobody else need be woken.
    is_asleep: AtomicBool,
    alarm: Alarm,
    /// The loop's.
    thread: ThreadId,
}

#[derive(Default)]
struct Inbox {
    jobs: VecDeque<ForeignJob>,
    woken_tasks: Vec<Key>,
    /// Threads that wait for a result.
    blocked: Vec<Arc<dyn Interrupt>>,
    is_closed: bool,
}

impl ReactorRemote {
    pub(crate) fn new(alarm: Alarm) -> ReactorRemote {
        let shared = Shared {
            inbox: Mutex::default(),
            has_mail: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            alarm,
            thread: thread::current().id(),
        };
        ReactorRemote { shared: Arc::new(shared) }
    }

    /// Calls `f` on the loop's thread, soon, in the sentinel context.
    ///
    /// Calls from one thread are made in the order in which they were asked for, and so are calls from
    /// several threads that have agreed on an order among themselves. The loop makes some hundreds of
    /// them a turn, so that other work has its turn too.
    ///
    /// Any number of calls may wait: somebody who can make them faster than the loop takes them uses
    /// [`try_call_from_thread`](Self::try_call_from_thread). After the reactor has stopped, `f` is dropped,
    /// here or on the loop's thread. A panic of `f` is logged.
    pub fn call_from_thread(&self, f: impl FnOnce(&Reactor) + Send + 'static) {
        // It has been dropped if the reactor has stopped, as documented; nothing else can be wrong.
        let _ = self.send(Box::new(f), usize::MAX);
    }

    /// As [`call_from_thread`](Self::call_from_thread), unless there are more than 65,536 calls that the
    /// loop has not begun to make.
    ///
    /// # Errors
    ///
    /// [`CallRefused`]: too many calls wait, or the reactor has stopped. `f` has been dropped.
    pub fn try_call_from_thread(
        &self,
        f: impl FnOnce(&Reactor) + Send + 'static,
    ) -> Result<(), CallRefused> {
        self.send(Box::new(f), CALLS_MAX)
    }

    fn send(&self, job: ForeignJob, calls_max: usize) -> Result<(), CallRefused> {
        let mut inbox = self.inbox();
        let refused = match inbox.is_closed {
            true => Some(CallRefused::Stopped),
            false if inbox.jobs.len() >= calls_max => Some(CallRefused::TooMany { calls_max }),
            false => None,
        };
        if let Some(refused) = refused {
            // What the job owns may be anything; it is dropped without the lock.
            drop(inbox);
            drop(job);
            return Err(refused);
        }
        inbox.jobs.push_back(job);
        drop(inbox);
        self.announce();
        Ok(())
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

    /// Says that the loop is about to wait, and whether it may: nothing has come that nobody rings
    /// for.
    #[inline]
    pub(crate) fn may_sleep(&self) -> bool {
        // This store and the load, the sender's store and load: with all of them in one order, at least
        // one of the two sees what the other has stored.
        self.shared.is_asleep.store(true, Ordering::SeqCst);
        !self.shared.has_mail.load(Ordering::SeqCst)
    }

    /// Says that the loop does not wait any more.
    #[inline]
    pub(crate) fn woke(&self) {
        self.shared.is_asleep.store(false, Ordering::Relaxed);
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

    /// Moves the jobs that have been sent into `jobs`, if that is empty, and the tasks to be polled into
    /// the queue.
    pub(crate) fn collect(&self, jobs: &mut VecDeque<ForeignJob>, ready: &ReadyQueue) {
        self.shared.has_mail.store(false, Ordering::Release);
        let mut inbox = self.inbox();
        if jobs.is_empty() {
            std::mem::swap(jobs, &mut inbox.jobs);
        } else if !inbox.jobs.is_empty() {
            // They stay, so that their number is known to those who send more.
            self.shared.has_mail.store(true, Ordering::Release);
        }
        for task in inbox.woken_tasks.drain(..) {
            ready.push_task(task);
        }
    }

    /// Returns a number that no other living reactor has.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Takes nothing any more, and returns what was sent.
    pub(crate) fn close(&self) -> VecDeque<ForeignJob> {
        let mut inbox = self.inbox();
        inbox.is_closed = true;
        let blocked = std::mem::take(&mut inbox.blocked);
        let jobs = std::mem::take(&mut inbox.jobs);
        drop(inbox);
        for thread in blocked {
            thread.interrupt();
        }
        jobs
    }

    fn announce(&self) {
        let is_first = !self.shared.has_mail.swap(true, Ordering::SeqCst);
        if is_first && self.shared.is_asleep.load(Ordering::SeqCst) {
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

/// Why a reactor did not take a call from another thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallRefused {
    /// The reactor has stopped.
    #[error("the reactor has stopped and takes no calls any more")]
    Stopped,
    /// As many calls wait for the loop as may wait.
    #[error("{calls_max} calls wait for the loop already; send fewer, or try again later")]
    TooMany {
        /// How many may wait.
        calls_max: usize,
    },
}

/// A loop that is some hundred milliseconds behind; each call takes a few dozen bytes and what it owns.
const CALLS_MAX: usize = 65_536;
