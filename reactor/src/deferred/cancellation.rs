//! Keeping a cancellation from work that must not be broken off.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{Deferred, Outcome, Resolver};
use crate::failure::{CancelledError, Failure};

impl<T: 'static> Deferred<T> {
    /// Keeps cancellations from the work: cancelling the deferred returned fails that one only, at once,
    /// and the work goes on by itself.
    ///
    /// For work that others share or that must not be left half done, when the caller needs not know how
    /// it ends. A failure that comes after the cancelling is logged; a value is dropped. A deferred that
    /// has its result is returned as it is.
    ///
    /// ```
    /// use ropewalk::{CancelledError, Deferred};
    ///
    /// let (work, resolver) = Deferred::<u32>::new();
    /// let caller = work.stop_cancellation();
    /// caller.cancel();
    /// assert!(caller.into_result().unwrap().unwrap_err().is::<CancelledError>());
    /// assert!(!resolver.is_cancelled());
    /// ```
    #[track_caller]
    pub fn stop_cancellation(self) -> Deferred<T> {
        if self.is_fired() {
            return self;
        }
        let (shielded, resolver) = Deferred::new();
        self.add_both(move |outcome| match outcome {
            // Nobody is there to handle it.
            Err(failure) if resolver.is_cancelled() => Err(failure),
            outcome => {
                resolver.fire(outcome);
                Ok(())
            }
        })
        .detach();
        shielded
    }

    /// Keeps cancellations from the work and its end from the canceller: a deferred that was cancelled
    /// fails with [`CancelledError`], but only when the work has ended.
    ///
    /// For work that holds something, a lock for instance, which the caller is about to release. A
    /// failure with which the work ends after that is logged; a value is dropped. Cancelling again
    /// changes nothing. A deferred that has its result is returned as it is.
    ///
    /// ```
    /// use ropewalk::{CancelledError, Deferred};
    ///
    /// let (work, resolver) = Deferred::<u32>::new();
    /// let caller = work.delay_cancellation();
    /// caller.cancel();
    /// assert!(!caller.is_fired());
    /// resolver.callback(1);
    /// assert!(caller.into_result().unwrap().unwrap_err().is::<CancelledError>());
    /// ```
    #[track_caller]
    pub fn delay_cancellation(self) -> Deferred<T> {
        if self.is_fired() {
            return self;
        }
        let wait = Wait::new(None);
        let delayed = wait.deferred();
        self.add_both(move |outcome| wait.end_as_cancelled(outcome)).detach();
        delayed
    }
}

/// Makes a deferred for work that ends in its own time: cancelling it asks the work to `give_up`, once,
/// and what the work ends with is still the result.
#[track_caller]
pub(crate) fn ending_in_its_own_time<T: 'static>(
    give_up: impl FnOnce() + 'static,
) -> (Deferred<T>, WorkEnd<T>) {
    let wait = Wait::new(Some(Box::new(give_up)));
    (wait.deferred(), WorkEnd(wait))
}

/// The other end of [`ending_in_its_own_time`].
pub(crate) struct WorkEnd<T: 'static>(Rc<Wait<T>>);

impl<T: 'static> WorkEnd<T> {
    pub(crate) fn fire(self, outcome: Outcome<T>) {
        let resolver = self.0.resolver.take();
        if let Some(resolver) = resolver {
            resolver.fire(outcome);
        }
    }
}

impl<T: 'static> Drop for WorkEnd<T> {
    /// The work was dropped, as tasks are when the reactor stops.
    fn drop(&mut self) {
        let resolver = self.0.resolver.take();
        if let Some(resolver) = resolver {
            resolver.errback(Failure::plain(CancelledError));
        }
    }
}

/// Somebody waits for work, come what may.
struct Wait<T: 'static> {
    resolver: RefCell<Option<Resolver<T>>>,
    is_cancelled: Cell<bool>,
    /// Called when it is cancelled for the first time.
    on_cancel: Cell<Option<Box<dyn FnOnce()>>>,
}

impl<T: 'static> Wait<T> {
    fn new(on_cancel: Option<Box<dyn FnOnce()>>) -> Rc<Self> {
        Rc::new(Self {
            resolver: RefCell::default(),
            is_cancelled: Cell::new(false),
            on_cancel: Cell::new(on_cancel),
        })
    }

    /// Returns a deferred that follows each cancelling with another such deferred.
    #[track_caller]
    fn deferred(self: &Rc<Self>) -> Deferred<T> {
        let (deferred, resolver) = Deferred::new();
        self.resolver.replace(Some(resolver));
        let this = Rc::downgrade(self);
        deferred.add_errback(move |failure| {
            let Some(this) = this.upgrade() else { return Deferred::fail(failure) };
            let resolver = this.resolver.take();
            match resolver {
                // The failure came from cancelling, and the work goes on.
                Some(_) => {
                    this.is_cancelled.set(true);
                    let again = this.deferred();
                    if let Some(on_cancel) = this.on_cancel.take() {
                        on_cancel();
                    }
                    again
                }
                None => Deferred::fail(failure),
            }
        })
    }

    fn end_as_cancelled(&self, outcome: Outcome<T>) -> Result<(), Failure> {
        let resolver = self.resolver.take();
        let Some(resolver) = resolver else { return Ok(()) };
        if !self.is_cancelled.get() {
            resolver.fire(outcome);
            return Ok(());
        }
        resolver.errback(Failure::plain(CancelledError));
        // Nobody is there to handle a failure.
        outcome.map(drop)
    }
}
