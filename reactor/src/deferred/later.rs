//! Results that come with time: [`Reactor::defer_later`].

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Deferred, IntoDeferred, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::reactor::Reactor;

impl Reactor {
    /// Calls `f` once, `delay` from now at the earliest, and gives its result.
    ///
    /// In a task this is also the way to sleep: `reactor.defer_later(delay, || Ok(())).await`. `f` runs
    /// in the context that is current now.
    ///
    /// Cancelling drops `f` uncalled, or cancels the deferred that it gave. Dropping detaches: `f` is
    /// called all the same. If the reactor stops before, the deferred fails with [`CancelledError`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::testing::{Clock, assert_no_result, success_result_of};
    ///
    /// let clock = Clock::new();
    /// let tea = clock.reactor().defer_later(Duration::from_secs(240), || Ok("tea"));
    /// clock.advance(Duration::from_secs(239));
    /// assert_no_result(&tea);
    /// clock.advance(Duration::from_secs(1));
    /// assert_eq!(success_result_of(tea), "tea");
    /// ```
    #[doc(alias = "sleep")]
    #[track_caller]
    pub fn defer_later<T: 'static, R: IntoDeferred<T>>(
        &self,
        delay: Duration,
        f: impl FnOnce() -> R + 'static,
    ) -> Deferred<T> {
        let (deferred, resolver) = Deferred::new();
        let resolver = Rc::new(Cell::new(Some(resolver)));
        let pending = CancelOnDrop { resolver: Rc::clone(&resolver) };
        let call = self.call_later(delay, move || pending.callback(()));
        if let Some(unfired) = resolver.take() {
            // Dropping the call fails the deferred.
            unfired.set_canceller(move || call.cancel());
            resolver.set(Some(unfired));
        }
        deferred.add_callback(move |()| f())
    }
}

/// Fails a deferred with [`CancelledError`] when it is dropped, unless it has been fired.
pub(crate) struct CancelOnDrop<T: 'static> {
    resolver: Rc<Cell<Option<Resolver<T>>>>,
}

impl<T: 'static> CancelOnDrop<T> {
    pub(crate) fn callback(self, value: T) {
        if let Some(resolver) = self.resolver.take() {
            resolver.callback(value);
        }
    }
}

impl<T: 'static> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if let Some(resolver) = self.resolver.take() {
            resolver.errback(Failure::plain(CancelledError));
        }
    }
}
