//! Deferreds: results that aren't there yet, with callbacks to be called when they are.
//!
//! Owns the two ends, [`Deferred`] and [`Resolver`]. What lies between them and the loop that runs it
//! are in `chain`, the callbacks in `step`; what is made of several deferreds is in `combine` and `sync`.

mod background_queue;
mod batching;
mod callback;
mod cancellation;
mod chain;
mod combine;
mod concurrently;
mod erased;
mod event;
mod later;
mod observable;
mod queue;
mod read_write_lock;
mod spare;
mod step;
mod sync;
pub(crate) mod task;
#[cfg(test)]
mod tests;
mod unhandled;

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::mem;
use std::ops::Deref;
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

pub use self::background_queue::BackgroundQueue;
pub use self::batching::BatchingQueue;
pub(crate) use self::callback::Outcome;
use self::callback::{Callback, OnBoth, OnEither, OnFailure, OnValue, Taker, call_guarded};
pub(crate) use self::cancellation::ending_in_its_own_time;
use self::chain::{Canceller, Chain, ChainOf};
pub use self::combine::{DeferredList, RaceFailed, gather_results, maybe_deferred, race};
pub use self::concurrently::concurrently_execute;
pub(crate) use self::erased::AnyResolver;
pub use self::event::DeferredEvent;
pub use self::observable::ObservableDeferred;
pub use self::queue::{DeferredQueue, QueueOverflow, QueueUnderflow};
pub use self::read_write_lock::{ReadGuard, ReadWriteLock, WriteGuard};
pub use self::sync::{DeferredLock, DeferredSemaphore, Guard, Linearizer};
use self::unhandled::Unhandled;
pub use self::unhandled::UnhandledFailure;
use crate::context::LogContext;
use crate::failure::{Failure, ResolverDropped};
use crate::ready;

/// A result that isn't there yet, with a chain of callbacks and errbacks.
///
/// Whoever promises a result makes a deferred and its [`Resolver`], hands out the one and keeps the other.
/// Who gets the deferred adds callbacks, or awaits it: a deferred is also a future, with output
/// `Result<T, Failure>`.
///
/// Chaining consumes the deferred and returns the one for the callback's result. A callback returns
/// `Ok(value)`, `Err(failure)` or another `Deferred`, for which the chain then waits; `?` works inside
/// callbacks.
///
/// ```
/// use ropewalk::Deferred;
///
/// let (deferred, resolver) = Deferred::new();
/// let doubled = deferred.add_callback(|n: i32| Ok(n * 2));
/// resolver.callback(21);
/// assert_eq!(doubled.into_result().unwrap().unwrap(), 42);
/// ```
///
/// # What runs when
///
/// Callbacks run in the order in which they were added, each when those before it have run: within the
/// call that fires the deferred; within the one that adds them, if the result is there already; at the
/// end of the chain, if that is running. They run in the log context in which they were added. A chain
/// that waits for a deferred which its callback has returned goes on behind that one's own callbacks.
/// Chains may be as long, and wait as deep, as memory allows.
///
/// # Panics
///
/// A callback that panics fails its deferred with [`Panicked`](crate::Panicked); the next errback gets
/// that. Nothing is unwound into whoever fired it.
///
/// # Dropping
///
/// Dropping a deferred that has no result yet *detaches* it: the callbacks still run. A failure that
/// arrives then, or is in the deferred when it is dropped, has been handled by nobody and is logged as
/// an error, with its sources, its context and where the deferred was made ([`CancelledError`] at
/// debug level only). Dropping the resolver fails the deferred with
/// [`ResolverDropped`](crate::ResolverDropped): nobody waits in vain.
///
/// # Cancelling
///
/// See [`cancel`](Self::cancel). Losing a [`race`] and running out of [time](Self::with_timeout) cancel;
/// nothing else does by itself.
///
/// [`CancelledError`]: crate::CancelledError
#[must_use = "dropping a deferred detaches it; say so with `.detach()`"]
pub struct Deferred<T: 'static>(Repr<T>);

enum Repr<T: 'static> {
    /// Has its result; no chain was ever needed, or it has been taken out of it.
    Value(T),
    Failed(Unhandled),
    /// Will be at the end of this chain, or is there.
    Pending(Handle),
    /// Was awaited and has given its result.
    Taken,
}

/// A deferred's hold on its chain.
struct Handle(Rc<Chain>);

impl Deref for Handle {
    type Target = Rc<Chain>;

    fn deref(&self) -> &Rc<Chain> {
        &self.0
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        self.0.lose_deferred();
    }
}

/// What a callback may return: `Result<U, Failure>` or `Deferred<U>`.
pub trait IntoDeferred<U: 'static> {
    /// Makes a deferred of it; one that has its result already if it is a `Result`.
    fn into_deferred(self) -> Deferred<U>;

    /// As `into_deferred`, and tells the compiler of which kind it is.
    #[doc(hidden)]
    #[inline]
    fn give_to<K: Taker<U>>(self, taker: K) -> K::Output
    where
        Self: Sized,
    {
        taker.take_deferred(self.into_deferred())
    }
}

impl<U: 'static> IntoDeferred<U> for Result<U, Failure> {
    #[inline]
    fn into_deferred(self) -> Deferred<U> {
        Deferred::ready(self)
    }

    #[inline]
    fn give_to<K: Taker<U>>(self, taker: K) -> K::Output {
        taker.take_outcome(self)
    }
}

impl<U: 'static> IntoDeferred<U> for Deferred<U> {
    #[inline]
    fn into_deferred(self) -> Deferred<U> {
        self
    }
}

impl<T: 'static> Deferred<T> {
    /// Makes a deferred and the resolver that gives it its result.
    ///
    /// Cancelling fails it with [`CancelledError`](crate::CancelledError); whoever holds the resolver can
    /// ask [`Resolver::is_cancelled`].
    #[track_caller]
    pub fn new() -> (Deferred<T>, Resolver<T>) {
        let chain = ChainOf::new(Location::caller(), Cell::new(None));
        (Self(Repr::Pending(Handle(chain.clone()))), Resolver { chain: Some(chain) })
    }

    /// Makes a deferred whose [`cancel`](Self::cancel) calls `canceller`, in the current context, while
    /// it has no result.
    ///
    /// The canceller should stop the work and may fire the resolver; if it does not, drops it or panics
    /// (which is logged), the deferred fails with [`CancelledError`](crate::CancelledError) after it has
    /// returned. It is called once at most, and dropped when the result comes.
    ///
    /// ```
    /// use ropewalk::testing::{Clock, failure_result_of};
    /// use ropewalk::{CancelledError, Deferred};
    /// use std::time::Duration;
    ///
    /// let clock = Clock::new();
    /// let (slow, resolver) = Deferred::new();
    /// let timer = clock.reactor().call_later(Duration::from_secs(60), || resolver.callback("done"));
    /// // One that takes its timer away when nobody wants to know any more:
    /// let (wanted, resolver) = Deferred::with_canceller(move || timer.cancel());
    /// slow.add_both(move |outcome: Result<&str, _>| { resolver.fire(outcome); Ok(()) }).detach();
    /// wanted.cancel();
    /// assert!(failure_result_of(wanted).is::<CancelledError>());
    /// assert_eq!(clock.pending_calls(), 0);
    /// ```
    #[track_caller]
    pub fn with_canceller(canceller: impl FnOnce() + 'static) -> (Deferred<T>, Resolver<T>) {
        let (deferred, resolver) = Self::new();
        resolver.set_canceller(canceller);
        (deferred, resolver)
    }

    /// Makes a deferred that has its result already. Costs no memory of its own.
    pub fn succeed(value: T) -> Self {
        Self::ready(Ok(value))
    }

    /// Makes a deferred that has failed already; the failure, if it has to be made, remembers the caller.
    ///
    /// If nobody handles it, it is reported when the deferred is dropped.
    #[track_caller]
    pub fn fail(failure: impl Into<Failure>) -> Self {
        Self::ready(Err(failure.into()))
    }

    #[inline]
    pub(crate) fn ready(outcome: Outcome<T>) -> Self {
        match outcome {
            Ok(value) => Self(Repr::Value(value)),
            Err(failure) => Self(Repr::Failed(Unhandled::new(failure))),
        }
    }

    #[cold]
    fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self::ready(Err(Failure::from_panic(payload)))
    }

    /// Calls `f` with the value; a failure passes by, and `f` is dropped.
    ///
    /// If the result is there, `f` is called before this returns. If `f` panics, the deferred returned
    /// fails. Cancelling that cancels what it waits for: this deferred first, then the one that `f` has
    /// returned.
    #[track_caller]
    #[inline]
    pub fn add_callback<U, R>(self, f: impl FnOnce(T) -> R + 'static) -> Deferred<U>
    where
        U: 'static,
        R: IntoDeferred<U>,
    {
        self.add_step(OnValue(f))
    }

    /// Calls `f` with the failure; a value passes by, and `f` is dropped.
    ///
    /// [`Failure::trap`] keeps it to the failures that it understands. A failure counts as handled as soon
    /// as `f` has it; what `f` returns is the result from there on. For the rest as
    /// [`add_callback`](Self::add_callback).
    ///
    /// ```
    /// use ropewalk::{Deferred, TimeoutError};
    ///
    /// # let price: Deferred<u32> = Deferred::fail(TimeoutError { limit: std::time::Duration::ZERO });
    /// let price = price.add_errback(|failure| {
    ///     failure.trap::<TimeoutError>()?; // anything else passes on
    ///     Ok(0)
    /// });
    /// # assert_eq!(price.into_result().unwrap().unwrap(), 0);
    /// ```
    #[track_caller]
    #[inline]
    pub fn add_errback<R>(self, f: impl FnOnce(Failure) -> R + 'static) -> Deferred<T>
    where
        R: IntoDeferred<T>,
    {
        self.add_step(OnFailure(f))
    }

    /// Calls `f` with the result, whichever it is: for what has to be done in any case.
    ///
    /// `f` returns what goes on from there; to let the result through, it returns it. For the rest as
    /// [`add_callback`](Self::add_callback).
    #[track_caller]
    #[inline]
    pub fn add_both<U, R>(self, f: impl FnOnce(Result<T, Failure>) -> R + 'static) -> Deferred<U>
    where
        U: 'static,
        R: IntoDeferred<U>,
    {
        self.add_step(OnBoth(f))
    }

    /// Calls `f` with the value or `g` with the failure. A failure of `f` does not reach `g`, other than
    /// with an [`add_errback`](Self::add_errback) behind it. For the rest as
    /// [`add_callback`](Self::add_callback).
    #[track_caller]
    #[inline]
    pub fn add_callbacks<U, R, S>(
        self,
        f: impl FnOnce(T) -> R + 'static,
        g: impl FnOnce(Failure) -> S + 'static,
    ) -> Deferred<U>
    where
        U: 'static,
        R: IntoDeferred<U>,
        S: IntoDeferred<U>,
    {
        self.add_step(OnEither(f, g))
    }

    /// Cancels what the chain waits for now, if it still has no result.
    ///
    /// That is the deferred that the last called callback returned, and so on inwards, or else the
    /// deferred at the start of the chain. Its canceller is called; if that does not give it a result,
    /// it fails with [`CancelledError`](crate::CancelledError), and the chain goes on with that. The
    /// chain runs before `cancel` returns. What the resolver brings later is ignored.
    ///
    /// Does nothing if the deferred has its result, or one of its callbacks is running now. Errbacks may
    /// recover from it, or wait for something else, which can be cancelled in turn.
    ///
    /// The deferred of a [task](crate::Reactor::spawn) cancels what the task awaits, and has its result
    /// when the task has cleaned up; cancelled again, or when it awaits something other than a deferred,
    /// the task is dropped.
    pub fn cancel(&self) {
        if let Repr::Pending(chain) = &self.0 {
            chain::cancel(Rc::clone(chain));
        }
    }

    /// Returns a handle that cancels the chain and does not keep it alive: for those who add callbacks,
    /// which consumes the deferred, and may yet want to cancel.
    pub fn cancel_handle(&self) -> CancelHandle {
        match &self.0 {
            Repr::Pending(chain) => CancelHandle(Some(Rc::downgrade(chain))),
            _ => CancelHandle(None),
        }
    }

    /// Lets the work go on by itself, as dropping does, and says so. A later failure is logged.
    pub fn detach(self) {}

    /// Whether the deferred has its result. One that waits for another deferred, which a callback has
    /// returned, does not.
    pub fn is_fired(&self) -> bool {
        match &self.0 {
            Repr::Value(_) | Repr::Failed(_) => true,
            Repr::Pending(chain) => chain.is_done(),
            Repr::Taken => false,
        }
    }

    /// Returns the result, which then counts as handled.
    ///
    /// # Errors
    ///
    /// The deferred itself if it has none yet.
    pub fn into_result(mut self) -> Result<Result<T, Failure>, Self> {
        self.take_outcome().ok_or(self)
    }

    #[track_caller]
    #[inline]
    fn add_step<U: 'static>(self, callback: impl Callback<T, U>) -> Deferred<U> {
        match self.0 {
            Repr::Pending(chain) if !chain.is_done() => {
                chain.add(callback, Location::caller());
                Deferred(Repr::Pending(chain))
            }
            fired => Self(fired).add_step_to_fired(callback),
        }
    }

    #[inline(never)]
    fn add_step_to_fired<U: 'static>(mut self, callback: impl Callback<T, U>) -> Deferred<U> {
        match self.take_outcome() {
            Some(outcome) => call_guarded(callback, outcome),
            None => Deferred::fail(Failure::plain(ResultTaken)),
        }
    }

    /// Returns the outcome, or the chain that it will be at the end of.
    fn into_chain(mut self) -> Result<Outcome<T>, Rc<Chain>> {
        if let Some(outcome) = self.take_outcome() {
            return Ok(outcome);
        }
        match self.0 {
            Repr::Pending(chain) => Err(Rc::clone(&chain)),
            _ => Ok(Err(Failure::plain(ResultTaken))),
        }
    }

    fn take_outcome(&mut self) -> Option<Outcome<T>> {
        match mem::replace(&mut self.0, Repr::Taken) {
            Repr::Value(value) => Some(Ok(value)),
            Repr::Failed(failure) => Some(Err(failure.handle())),
            Repr::Pending(chain) => {
                let outcome = chain.take_result();
                if outcome.is_none() {
                    self.0 = Repr::Pending(chain);
                }
                outcome
            }
            Repr::Taken => Some(Err(Failure::plain(ResultTaken))),
        }
    }
}

impl<T: 'static> Future for Deferred<T> {
    type Output = Result<T, Failure>;

    /// Fails with [`ResultTaken`] if polled again after it gave its result. Wakes whoever polled it last.
    /// Can be chained, cancelled or dropped after a poll as before.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.take_outcome() {
            return Poll::Ready(outcome);
        }
        if let Repr::Pending(chain) = &self.0 {
            chain.set_task(cx.waker().clone());
            ready::note_awaiting(self.cancel_handle());
        }
        Poll::Pending
    }
}

impl<T: 'static> Unpin for Deferred<T> {}

impl<T: 'static> From<Result<T, Failure>> for Deferred<T> {
    fn from(outcome: Result<T, Failure>) -> Self {
        Self::ready(outcome)
    }
}

/// A callback returned the deferred of its own chain, whose result would have had to come from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a callback returned the deferred of its own chain, which would wait for itself for ever")]
pub struct WaitsForItself;

/// The result of a deferred was asked for again after it had been awaited.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the deferred has given its result already, to whoever awaited it")]
pub struct ResultTaken;

impl<T: 'static> fmt::Debug for Deferred<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_fired() { "Deferred(fired)" } else { "Deferred(pending)" })
    }
}

/// Cancels a chain of callbacks at whatever it waits for, steps that were added later included.
///
/// Made by [`Deferred::cancel_handle`]. Owns nothing, so that it can be kept inside what the callbacks
/// own.
///
/// ```
/// use ropewalk::{CancelledError, Deferred};
///
/// let (answer, _resolver) = Deferred::<u32>::new();
/// let hang_up = answer.cancel_handle();
/// let doubled = answer.add_callback(|n| Ok(n * 2));
/// hang_up.cancel();
/// assert!(doubled.into_result().unwrap().unwrap_err().is::<CancelledError>());
/// ```
#[derive(Clone, Default)]
pub struct CancelHandle(Option<Weak<Chain>>);

impl CancelHandle {
    /// As [`Deferred::cancel`]; does nothing once the chain has run to its end.
    pub fn cancel(&self) {
        if let Some(chain) = self.0.as_ref().and_then(Weak::upgrade) {
            chain::cancel(chain);
        }
    }
}

impl CancelHandle {
    /// Whether the chain still has its deferred.
    fn has_deferred(&self) -> bool {
        self.0.as_ref().and_then(Weak::upgrade).is_some_and(|chain| chain.has_deferred())
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelHandle")
    }
}

/// The other end of a [`Deferred`]: gives it its result, once.
///
/// Firing consumes it, so that a second result does not compile, and runs the callbacks before it returns;
/// see [`Deferred`] for their context. What they panic with does not come back to here.
///
/// A resolver that is dropped unfired fails its deferred with [`ResolverDropped`], after the current
/// callback has returned; unless the deferred was cancelled, or is gone with nothing chained to it.
pub struct Resolver<T: 'static> {
    chain: Option<Rc<ChainOf<T>>>,
}

impl<T: 'static> Resolver<T> {
    /// Gives the deferred its value and runs its callbacks.
    pub fn callback(self, value: T) {
        self.fire(Ok(value));
    }

    /// Fails the deferred and runs its errbacks.
    #[track_caller]
    pub fn errback(self, failure: impl Into<Failure>) {
        self.fire(Err(failure.into()));
    }

    /// Gives the deferred its result, whichever it is. Ignored if the deferred was cancelled meanwhile.
    #[inline]
    pub fn fire(mut self, result: Result<T, Failure>) {
        // Much that is dropped fails somebody else's deferred; in a process that dies, nobody hears of it.
        if result.is_err() && ready::is_silent() {
            return;
        }
        if let Some(chain) = self.chain.take() {
            chain.fire(result);
        }
    }

    /// Sets what [`Deferred::cancel`] calls, in the current context, in place of what was set before.
    ///
    /// What is set after the deferred was cancelled is dropped.
    pub fn set_canceller(&self, canceller: impl FnOnce() + 'static) {
        if let Some(chain) = &self.chain {
            let context = LogContext::current();
            let canceller = Box::new(move || context.run(canceller));
            chain.set_canceller(Canceller::Call(canceller));
        }
    }

    /// Whether the deferred is gone with nothing chained to it, so that nobody would notice its result.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.chain.as_ref().is_none_or(|chain| chain.is_abandoned())
    }

    /// Whether the deferred was cancelled: it has had its result, and whatever this end brings is
    /// ignored.
    pub fn is_cancelled(&self) -> bool {
        self.chain.as_ref().is_some_and(|chain| chain.is_fired())
    }
}

impl<T: 'static> Drop for Resolver<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(chain) = self.chain.take() {
            drop_unfired(chain);
        }
    }
}

#[cold]
fn drop_unfired<T: 'static>(chain: Rc<ChainOf<T>>) {
    if chain.is_fired() || chain.is_abandoned() {
        return;
    }
    let failure = Failure::plain(ResolverDropped { created: chain.created() });
    ready::enqueue(move || chain.fire(Err(failure)));
}

impl<T: 'static> fmt::Debug for Resolver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
