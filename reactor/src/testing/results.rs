//! What to ask of a deferred in a test, and a trap for failures that nobody handles.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::deferred::{Deferred, UnhandledFailure};
use crate::failure::Failure;
use crate::ready::{self, UnhandledWatcher};

/// Returns the value that a deferred has.
///
/// # Panics
///
/// If it has failed, or has no result yet.
#[track_caller]
pub fn success_result_of<T: 'static>(deferred: Deferred<T>) -> T {
    match deferred.into_result() {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => panic!("success expected, but it failed: {failure:#}"),
        Err(pending) => {
            pending.detach();
            panic!("success expected, but there is no result yet");
        }
    }
}

/// Returns the failure that a deferred has.
///
/// # Panics
///
/// If it has a value, or no result yet.
#[track_caller]
pub fn failure_result_of<T: 'static>(deferred: Deferred<T>) -> Failure {
    match deferred.into_result() {
        Ok(Ok(_)) => panic!("failure expected, but it succeeded"),
        Ok(Err(failure)) => failure,
        Err(pending) => {
            pending.detach();
            panic!("failure expected, but there is no result yet");
        }
    }
}

/// Checks that a deferred has no result yet.
///
/// # Panics
///
/// If it has one.
#[track_caller]
pub fn assert_no_result<T: 'static>(deferred: &Deferred<T>) {
    assert!(!deferred.is_fired(), "no result expected yet, but there is one");
}

/// Catches this thread's failures that nobody handled, for as long as it lives.
///
/// A test that expects some takes them out; dropping the trap with failures left in it panics.
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::testing::UnhandledErrors;
///
/// let trap = UnhandledErrors::trap();
/// drop(Deferred::<()>::fail(std::fmt::Error));
/// assert_eq!(trap.take().len(), 1);
/// ```
pub struct UnhandledErrors {
    caught: Rc<RefCell<Vec<UnhandledFailure>>>,
    before: Option<UnhandledWatcher>,
}

impl UnhandledErrors {
    /// Sets the trap.
    #[must_use = "the trap is removed when it is dropped"]
    pub fn trap() -> UnhandledErrors {
        let caught: Rc<RefCell<Vec<UnhandledFailure>>> = Rc::default();
        let sink = Rc::clone(&caught);
        let before = ready::set_unhandled_watcher(Some(Rc::new(move |failure| {
            sink.borrow_mut().push(failure);
        })));
        UnhandledErrors { caught, before }
    }

    /// Returns what has been caught since the last time, and forgets it.
    #[must_use]
    pub fn take(&self) -> Vec<UnhandledFailure> {
        self.caught.take()
    }
}

impl Drop for UnhandledErrors {
    fn drop(&mut self) {
        ready::set_unhandled_watcher(self.before.take());
        let left = self.caught.take();
        if !left.is_empty() && !std::thread::panicking() {
            panic!("nobody handled {} failures: {left:?}", left.len());
        }
    }
}

impl fmt::Debug for UnhandledErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.caught.borrow().iter()).finish()
    }
}
