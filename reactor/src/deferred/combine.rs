//! One deferred made of several, or of one and a time limit.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::{CancelHandle, Deferred, IntoDeferred, Outcome, Resolver, unhandled};
use crate::failure::{CancelledError, Failure, TimeoutError};
use crate::reactor::Reactor;
use crate::timers::DelayedCall;

/// Waits for all, and gives their values in the order of the deferreds.
///
/// Fails as soon as one of them fails, with that very failure. The others go on; their values are
/// dropped, and so are their failures, which are mostly of the same cause ([`DeferredList`] can report
/// them). Cancelling cancels all that have no result yet; dropping lets them go on.
///
/// ```
/// use ropewalk::{Deferred, gather_results};
///
/// let (slow, resolver) = Deferred::new();
/// let both = gather_results(vec![slow, Deferred::succeed(2)]);
/// resolver.callback(1);
/// assert_eq!(both.into_result().unwrap().unwrap(), [1, 2]);
/// ```
#[track_caller]
pub fn gather_results<T: 'static>(deferreds: Vec<Deferred<T>>) -> Deferred<Vec<T>> {
    DeferredList::new(deferreds)
        .fire_on_one_errback()
        .consume_errors()
        .collect()
        .add_callback(|outcomes| outcomes.into_iter().collect::<Result<Vec<T>, Failure>>())
}

/// Gives the value that comes first, with its index, and cancels the others.
///
/// A failure does not win unless all fail. Cancelling cancels all.
///
/// ```
/// use ropewalk::{Deferred, race};
///
/// let (slow, loser) = Deferred::new();
/// let winner = race(vec![slow, Deferred::succeed("quick")]);
/// assert_eq!(winner.into_result().unwrap().unwrap(), (1, "quick"));
/// assert!(loser.is_cancelled());
/// ```
///
/// # Errors
///
/// [`RaceFailed`] if all of them failed, at once if there are none; [`CancelledError`] if all of them
/// were cancelled.
#[track_caller]
pub fn race<T: 'static>(deferreds: Vec<Deferred<T>>) -> Deferred<(usize, T)> {
    let losers: Rc<RefCell<Vec<CancelHandle>>> = Rc::default();
    *losers.borrow_mut() = deferreds.iter().map(Deferred::cancel_handle).collect();
    DeferredList::new(deferreds).consume_errors().first().add_callback(move |(winner, value)| {
        for (index, loser) in losers.take().into_iter().enumerate() {
            if index != winner {
                loser.cancel();
            }
        }
        Ok((winner, value))
    })
}

/// None of the deferreds of a [`race`] or a [`DeferredList::first`] had a value.
#[derive(Clone, Debug, thiserror::Error)]
#[error("all {} deferreds failed, the last one with: {}", .failures.len(),
    .failures.last().map_or_else(|| "there were none".to_owned(), ToString::to_string))]
pub struct RaceFailed {
    /// What each of them failed with, in their order.
    pub failures: Vec<Failure>,
}

/// Calls `f` and makes a deferred of whatever comes of it; a panic becomes a failure.
///
/// The way to call code that may do either: whoever calls needs to look in one place only.
///
/// ```
/// use ropewalk::{Deferred, Failure, Panicked, maybe_deferred};
///
/// let deferred = maybe_deferred(|| -> Result<u32, Failure> { panic!("out of ink") });
/// assert!(deferred.into_result().unwrap().unwrap_err().is::<Panicked>());
/// ```
#[track_caller]
pub fn maybe_deferred<T: 'static, R: IntoDeferred<T>>(f: impl FnOnce() -> R) -> Deferred<T> {
    match catch_unwind(AssertUnwindSafe(|| f().into_deferred())) {
        Ok(deferred) => deferred,
        Err(payload) => Deferred::fail(Failure::from_panic(payload)),
    }
}

/// Several deferreds that are waited for together.
///
/// [`collect`](Self::collect) waits for all results, [`first`](Self::first) for the first value.
///
/// A failure that is in the list's own result is for whoever gets that. One that came too late for it, or
/// before a value that came [`first`](Self::first), has been handled by nobody and is reported as such,
/// unless the list was told to [`consume_errors`](Self::consume_errors).
///
/// Cancelling the deferred made cancels all that have no result yet; what they make of it goes into the
/// result, if that can be had at once, and is [`CancelledError`] otherwise. Dropping it lets all go on.
///
/// ```
/// use ropewalk::{Deferred, DeferredList};
///
/// let all = DeferredList::new(vec![Deferred::succeed(1), Deferred::fail(std::fmt::Error)]).collect();
/// let outcomes = all.into_result().unwrap().unwrap();
/// assert!(matches!(&outcomes[0], Ok(1)));
/// assert!(matches!(&outcomes[1], Err(failure) if failure.is::<std::fmt::Error>()));
/// ```
#[must_use = "call `collect` or `first`"]
pub struct DeferredList<T: 'static> {
    deferreds: Vec<Deferred<T>>,
    fires_on_one_errback: bool,
    consumes_errors: bool,
}

impl<T: 'static> DeferredList<T> {
    /// Takes the deferreds.
    pub fn new(deferreds: Vec<Deferred<T>>) -> Self {
        Self { deferreds, fires_on_one_errback: false, consumes_errors: false }
    }

    /// Fails as soon as one of them fails, with that failure. The others go on.
    #[doc(alias = "fireOnOneErrback")]
    pub fn fire_on_one_errback(mut self) -> Self {
        self.fires_on_one_errback = true;
        self
    }

    /// Drops failures that are not in the result, instead of reporting them as unhandled.
    #[doc(alias = "consumeErrors")]
    pub fn consume_errors(mut self) -> Self {
        self.consumes_errors = true;
        self
    }

    /// Waits for all, and gives their results in the order of the deferreds.
    #[track_caller]
    pub fn collect(self) -> Deferred<Vec<Result<T, Failure>>> {
        let fires_on_one_errback = self.fires_on_one_errback;
        self.wait(
            move |_, outcome| match outcome {
                Err(failure) if fires_on_one_errback => Verdict::End(Err(failure)),
                outcome => Verdict::Keep(outcome),
            },
            Ok,
        )
    }

    /// Waits for the first value, and gives its index with it. The others go on.
    ///
    /// # Errors
    ///
    /// [`RaceFailed`] if all of them failed, at once if there are none; [`CancelledError`] if all of them
    /// were cancelled. With [`fire_on_one_errback`](Self::fire_on_one_errback), a failure that comes before
    /// the first value.
    #[doc(alias = "fireOnOneCallback")]
    #[track_caller]
    pub fn first(self) -> Deferred<(usize, T)> {
        let fires_on_one_errback = self.fires_on_one_errback;
        self.wait(
            move |index, outcome| match outcome {
                Ok(value) => Verdict::End(Ok((index, value))),
                Err(failure) if fires_on_one_errback => Verdict::End(Err(failure)),
                failed => Verdict::Keep(failed),
            },
            |outcomes| {
                let failures: Vec<Failure> = outcomes.into_iter().filter_map(Result::err).collect();
                match failures.first() {
                    Some(first)
                        if failures.iter().all(|failure| failure.is::<CancelledError>()) =>
                    {
                        Err(first.clone())
                    }
                    _ => Err(RaceFailed { failures }.into()),
                }
            },
        )
    }

    /// Shows each result to `judge`, which keeps it or ends the waiting; if it kept all, `finish` makes
    /// the result of them.
    #[track_caller]
    fn wait<U: 'static>(
        self,
        judge: impl Fn(usize, Outcome<T>) -> Verdict<T, U> + 'static,
        finish: impl FnOnce(Vec<Outcome<T>>) -> Outcome<U> + 'static,
    ) -> Deferred<U> {
        let made_at = Location::caller();
        let count = self.deferreds.len();
        let cancels: Vec<CancelHandle> =
            self.deferreds.iter().map(Deferred::cancel_handle).collect();
        let (deferred, resolver) =
            Deferred::with_canceller(move || cancels.iter().for_each(CancelHandle::cancel));
        let waiting = Rc::new(Waiting {
            missing: Cell::new(count),
            kept: RefCell::new((0..count).map(|_| None).collect()),
            resolver: Cell::new(Some(resolver)),
            finish: Cell::new(Some(finish)),
            made_at: (!self.consumes_errors).then_some(made_at),
        });
        let judge = Rc::new(judge);
        for (index, one) in self.deferreds.into_iter().enumerate() {
            let (waiting, judge) = (Rc::clone(&waiting), Rc::clone(&judge));
            one.add_both(move |outcome| {
                waiting.receive(index, outcome, &*judge);
                Ok(())
            })
            .detach();
        }
        waiting.end_if_none_missing();
        deferred
    }
}

/// What becomes of a result that has come.
enum Verdict<T, U> {
    End(Outcome<U>),
    Keep(Outcome<T>),
}

struct Waiting<T, U: 'static, F> {
    missing: Cell<usize>,
    kept: RefCell<Vec<Option<Outcome<T>>>>,
    /// Gone when there is a result.
    resolver: Cell<Option<Resolver<U>>>,
    finish: Cell<Option<F>>,
    /// Where the list was made, if failures that are not in its result are to be reported.
    made_at: Option<&'static Location<'static>>,
}

impl<T, U: 'static, F: FnOnce(Vec<Outcome<T>>) -> Outcome<U>> Waiting<T, U, F> {
    fn receive(
        &self,
        index: usize,
        outcome: Outcome<T>,
        judge: &impl Fn(usize, Outcome<T>) -> Verdict<T, U>,
    ) {
        let resolver = self.resolver.take();
        let is_over = resolver.as_ref().is_none_or(Resolver::is_cancelled);
        self.resolver.set(resolver);
        if is_over {
            return self.lose(outcome.err());
        }
        match judge(index, outcome) {
            Verdict::End(end) => {
                let kept = self.kept.take();
                self.end(end);
                self.lose(kept.into_iter().flatten().filter_map(Result::err));
            }
            Verdict::Keep(outcome) => {
                if let Some(slot) = self.kept.borrow_mut().get_mut(index) {
                    *slot = Some(outcome);
                }
                self.missing.set(self.missing.get() - 1);
                self.end_if_none_missing();
            }
        }
    }

    fn end_if_none_missing(&self) {
        if self.missing.get() == 0
            && let Some(finish) = self.finish.take()
        {
            let kept: Vec<_> = self.kept.take().into_iter().flatten().collect();
            let resolver = self.resolver.take();
            // Nobody will ever look into the list.
            let is_abandoned = resolver.as_ref().is_some_and(Resolver::is_abandoned);
            self.resolver.set(resolver);
            let unseen: Vec<Failure> = match is_abandoned {
                true => kept.iter().filter_map(|kept| kept.as_ref().err().cloned()).collect(),
                false => Vec::new(),
            };
            let outcome = finish(kept);
            if outcome.is_ok() {
                self.lose(unseen);
            }
            self.end(outcome);
        }
    }

    fn end(&self, outcome: Outcome<U>) {
        if let Some(resolver) = self.resolver.take() {
            resolver.fire(outcome);
        }
    }

    fn lose(&self, failures: impl IntoIterator<Item = Failure>) {
        if let Some(made_at) = self.made_at {
            for failure in failures {
                unhandled::report(&failure, Some(made_at));
            }
        }
    }
}

impl<T: 'static> Deferred<T> {
    /// Gives the work `limit` of time; then it is cancelled.
    ///
    /// A deferred that has its result is returned as it is.
    ///
    /// # Errors
    ///
    /// [`TimeoutError`], never a bare [`CancelledError`], when the time is up; this also if the
    /// cancelling is ignored. Any other failure or value that cancelling brings passes through. Cancelling
    /// the deferred returned cancels the work and the timer.
    #[track_caller]
    pub fn with_timeout(self, reactor: &Reactor, limit: Duration) -> Deferred<T> {
        if self.is_fired() {
            return self;
        }
        let cancel = self.cancel_handle();
        let (deferred, resolver) = {
            let cancel = cancel.clone();
            Deferred::with_canceller(move || cancel.cancel())
        };
        let timeout = Rc::new(Timeout {
            resolver: Cell::new(Some(resolver)),
            is_over: Cell::new(false),
            timer: Cell::new(None),
        });
        let timer = reactor.call_later(limit, {
            let timeout = Rc::clone(&timeout);
            move || {
                timeout.is_over.set(true);
                cancel.cancel();
                timeout.end(Err(Failure::plain(TimeoutError { limit })));
            }
        });
        timeout.timer.set(Some(timer));
        self.add_both(move |outcome| {
            timeout.end(match outcome {
                Err(failure) if timeout.is_over.get() && failure.is::<CancelledError>() => {
                    Err(Failure::plain(TimeoutError { limit }))
                }
                outcome => outcome,
            });
            Ok(())
        })
        .detach();
        deferred
    }
}

struct Timeout<T: 'static> {
    resolver: Cell<Option<Resolver<T>>>,
    is_over: Cell<bool>,
    timer: Cell<Option<DelayedCall>>,
}

impl<T: 'static> Timeout<T> {
    fn end(&self, outcome: Outcome<T>) {
        if let Some(timer) = self.timer.take() {
            timer.cancel();
        }
        if let Some(resolver) = self.resolver.take() {
            resolver.fire(outcome);
        }
    }
}
