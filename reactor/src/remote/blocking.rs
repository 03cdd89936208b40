//! Other threads that wait for a result from the loop.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::ReactorRemote;
use crate::backend::Alarm;
use crate::context;
use crate::deferred::{IntoDeferred, maybe_deferred};
use crate::failure::Failure;
use crate::reactor::Reactor;
use crate::ready;

/// Why a thread may not wait for the loop, or has waited in vain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockingCallError {
    /// The thread is one of a pool's. Were jobs to wait for the loop, a few of them could occupy all
    /// threads, and the loop's next job would wait for them.
    #[error(
        "a job in a thread pool cannot wait for the loop; let the job end, and go on in a callback"
    )]
    InThreadJob,
    /// The thread is the loop's, which would wait for itself.
    #[error(
        "the loop's own thread cannot wait for the loop; add a callback to the Deferred instead"
    )]
    OnReactorThread,
    /// The reactor is simulated: its loop turns only when the test says so, on the test's thread.
    #[error("nobody can wait for a simulated reactor; pump its clock instead")]
    Simulated,
    /// The reactor has stopped, before the call or before there was a result.
    #[error("the reactor has stopped and gives no results any more")]
    Stopped,
}

impl ReactorRemote {
    /// Calls `f` on the loop's thread and waits until what it returns has a result.
    ///
    /// For threads that the program has started itself, or a library in its name; Twisted calls it
    /// `blockingCallFromThread`. `f` runs in the sentinel context. There is no limit in time: limit the
    /// deferred that `f` returns, with [`Deferred::with_timeout`](crate::Deferred::with_timeout).
    ///
    /// # Errors
    ///
    /// The failure of what `f` returns; [`Panicked`](crate::Panicked) if `f` panics; and
    /// [`BlockingCallError`], at once if waiting makes no sense here, or when the reactor stops.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::{Deferred, Reactor};
    ///
    /// # fn main() -> Result<(), ropewalk::Failure> {
    /// let reactor = Reactor::new()?;
    /// let remote = reactor.remote();
    /// let other = std::thread::spawn(move || {
    ///     let answer = remote.block_on_reactor_thread(|reactor| {
    ///         let (deferred, resolver) = Deferred::new();
    ///         reactor.call_later(Duration::from_millis(1), || resolver.callback(42));
    ///         deferred
    ///     });
    ///     remote.call_from_thread(Reactor::stop);
    ///     answer
    /// });
    /// reactor.run()?;
    /// assert_eq!(other.join().unwrap()?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn block_on_reactor_thread<T, R>(
        &self,
        f: impl FnOnce(&Reactor) -> R + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        R: IntoDeferred<T>,
    {
        self.check_may_block()?;
        let answer = Arc::new(Answer::<T>::default());
        if !self.register(Arc::clone(&answer) as Arc<dyn Interrupt>) {
            return Err(BlockingCallError::Stopped.into());
        }
        let slot = Arc::clone(&answer);
        self.call_from_thread(move |reactor| {
            maybe_deferred(|| f(reactor))
                .add_both(move |outcome| {
                    slot.put(Some(outcome));
                    Ok(())
                })
                .detach();
        });
        let outcome = answer.wait();
        self.forget(&answer);
        outcome.unwrap_or_else(|| Err(BlockingCallError::Stopped.into()))
    }

    fn check_may_block(&self) -> Result<(), BlockingCallError> {
        if matches!(self.shared.alarm, Alarm::Manual) {
            return Err(BlockingCallError::Simulated);
        }
        // A thread that turns another loop would hold that one up.
        if thread::current().id() == self.shared.thread || ready::current().is_some() {
            return Err(BlockingCallError::OnReactorThread);
        }
        if context::is_on_pool_thread() {
            return Err(BlockingCallError::InThreadJob);
        }
        Ok(())
    }

    /// Has the waiting ended with the reactor. Returns whether that has not stopped yet.
    fn register(&self, waiting: Arc<dyn Interrupt>) -> bool {
        let mut inbox = self.inbox();
        if inbox.is_closed {
            return false;
        }
        inbox.blocked.push(waiting);
        true
    }

    fn forget<T>(&self, answer: &Arc<Answer<T>>) {
        let address = Arc::as_ptr(answer).cast::<()>();
        self.inbox().blocked.retain(|other| Arc::as_ptr(other).cast::<()>() != address);
    }
}

/// Ends a thread's waiting.
pub(super) trait Interrupt: Send + Sync {
    fn interrupt(&self);
}

/// Where a thread waits.
struct Answer<T> {
    state: Mutex<State<T>>,
    has_come: Condvar,
}

enum State<T> {
    Waiting,
    /// `None`: there will not be one.
    Come(Option<Result<T, Failure>>),
}

impl<T> Default for Answer<T> {
    fn default() -> Answer<T> {
        Answer { state: Mutex::new(State::Waiting), has_come: Condvar::new() }
    }
}

impl<T> Answer<T> {
    fn wait(&self) -> Option<Result<T, Failure>> {
        let mut state = self.state();
        loop {
            if let State::Come(outcome) = &mut *state {
                return outcome.take();
            }
            state = self.has_come.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, outcome: Option<Result<T, Failure>>) {
        let mut state = self.state();
        if let State::Waiting = *state {
            *state = State::Come(outcome);
            self.has_come.notify_one();
        }
    }

    /// No code of others runs under the lock, so that a poisoned one is as good as any.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> Interrupt for Answer<T> {
    fn interrupt(&self) {
        self.put(None);
    }
}
