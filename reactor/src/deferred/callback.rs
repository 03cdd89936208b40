//! The kinds of callbacks that can be added to a deferred, and what is done with what they give.
//!
//! A callback hands its result to a [`Taker`] instead of returning it: so the compiler knows at each
//! call whether it deals with a result or with a deferred, and the former needs no detour.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Deferred, IntoDeferred};
use crate::failure::Failure;
use crate::ready;

/// What a deferred ends with.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// A callback of any of the kinds that can be added.
pub(super) trait Callback<T, U: 'static>: 'static {
    /// Calls it, and tells `taker` what it gave.
    fn call<S: Taker<U>>(self, input: Outcome<T>, taker: S) -> S::Output;
}

/// Takes what a callback gives. Which of the two it is, the compiler nearly always knows.
#[doc(hidden)]
pub trait Taker<T: 'static> {
    type Output;

    fn take_outcome(self, outcome: Result<T, Failure>) -> Self::Output;
    fn take_deferred(self, deferred: Deferred<T>) -> Self::Output;
}

pub(super) struct OnValue<F>(pub(super) F);
pub(super) struct OnFailure<F>(pub(super) F);
pub(super) struct OnBoth<F>(pub(super) F);
pub(super) struct OnEither<F, G>(pub(super) F, pub(super) G);

impl<T, U: 'static, R: IntoDeferred<U>, F: FnOnce(T) -> R + 'static> Callback<T, U> for OnValue<F> {
    #[inline]
    fn call<S: Taker<U>>(self, input: Outcome<T>, taker: S) -> S::Output {
        match input {
            Ok(value) => (self.0)(value).give_to(taker),
            Err(failure) => taker.take_outcome(Err(failure)),
        }
    }
}

impl<T: 'static, R: IntoDeferred<T>, F: FnOnce(Failure) -> R + 'static> Callback<T, T>
    for OnFailure<F>
{
    #[inline]
    fn call<S: Taker<T>>(self, input: Outcome<T>, taker: S) -> S::Output {
        match input {
            Ok(value) => taker.take_outcome(Ok(value)),
            Err(failure) => (self.0)(failure).give_to(taker),
        }
    }
}

impl<T, U: 'static, R: IntoDeferred<U>, F: FnOnce(Outcome<T>) -> R + 'static> Callback<T, U>
    for OnBoth<F>
{
    #[inline]
    fn call<S: Taker<U>>(self, input: Outcome<T>, taker: S) -> S::Output {
        (self.0)(input).give_to(taker)
    }
}

impl<T, U: 'static, R, S, F, G> Callback<T, U> for OnEither<F, G>
where
    R: IntoDeferred<U>,
    S: IntoDeferred<U>,
    F: FnOnce(T) -> R + 'static,
    G: FnOnce(Failure) -> S + 'static,
{
    #[inline]
    fn call<K: Taker<U>>(self, input: Outcome<T>, taker: K) -> K::Output {
        match input {
            Ok(value) => (self.0)(value).give_to(taker),
            Err(failure) => (self.1)(failure).give_to(taker),
        }
    }
}

/// Makes a deferred of what a callback gives.
struct AsDeferred;

impl<T: 'static> Taker<T> for AsDeferred {
    type Output = Deferred<T>;

    #[inline]
    fn take_outcome(self, outcome: Outcome<T>) -> Deferred<T> {
        Deferred::ready(outcome)
    }

    #[inline]
    fn take_deferred(self, deferred: Deferred<T>) -> Deferred<T> {
        deferred
    }
}

/// Calls a callback; a panic becomes its failure.
#[inline]
pub(super) fn call_guarded<T, U: 'static>(
    callback: impl Callback<T, U>,
    input: Outcome<T>,
) -> Deferred<U> {
    let _in_chain = ready::enter_chain();
    match catch_unwind(AssertUnwindSafe(|| callback.call(input, AsDeferred))) {
        Ok(deferred) => deferred,
        Err(payload) => Deferred::panicked(payload),
    }
}
