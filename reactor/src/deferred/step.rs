//! The steps that a chain of deferreds is made of: one piece of memory for each callback.
//!
//! A step owns its closure, the context that was captured with it and, if it is the last one, what the
//! closure gave. Steps form a list with a single owner, so that nothing needs counting: while callbacks are
//! added, each points at the one before it; the running chain turns that round. Neighbours know nothing of
//! each other's types, and hand over values in a [`Slot`] whose type is checked when it is opened.

use std::any::Any;
use std::marker::PhantomData;
use std::mem;
use std::panic::Location;

use super::callback::{Callback, Outcome, Taker};
use super::chain::Run;
use super::spare::{self, Reuse};
use super::{Deferred, WaitsForItself};
use crate::context::LogContext;
use crate::failure::Failure;
use crate::ready;

/// What a value is handed over in; empty before and after.
pub(super) type Slot<T> = Option<Outcome<T>>;

/// Takes the value out of a [`Slot`].
#[inline]
pub(super) fn take<T: 'static>(slot: &mut dyn Any) -> Option<Outcome<T>> {
    let slot = slot.downcast_mut::<Slot<T>>();
    debug_assert!(slot.is_some(), "a step is only put behind one that gives what it takes");
    slot?.take()
}

/// A step, whatever its types.
pub(super) trait Step: Any {
    /// Calls the callback with what is in the slot, and passes on what it gives.
    fn receive(self: Box<Self>, input: &mut dyn Any, run: &mut Run);

    /// Passes on the result of the deferred that the callback gave.
    fn adopt(self: Box<Self>, result: &mut dyn Any, run: &mut Run);

    /// Passes on the result that it has kept, if there is somebody to pass it to.
    fn forward(self: Box<Self>, run: &mut Run);

    /// The result that it has kept, in a [`Slot`] of its type.
    fn result(&mut self) -> &mut dyn Any;

    /// Moves the result that it has kept to a [`Slot`] of its type.
    fn give(self: Box<Self>, slot: &mut dyn Any);

    /// Keeps a failure in place of the result that a panicking callback did not give.
    fn fail(&mut self, failure: Failure);

    /// Takes the result out if it is a failure, and says where the step was added and in which context.
    fn take_failure(&mut self) -> Option<(Failure, &LogContext, &'static Location<'static>)>;

    /// Puts another step in place of the one that this one points at.
    fn replace_link(&mut self, link: Link) -> Link;

    /// Drops the step, and returns the one that it points at.
    fn discard(self: Box<Self>) -> Link;
}

/// How a step points at another one.
pub(super) type Link = Option<Box<dyn Step>>;

/// A list of steps. Dropping one takes it apart step by step.
#[derive(Default)]
pub(super) struct Steps(pub(super) Link);

/// A callback that takes a `T` and gives a `U`.
struct Node<T, U: 'static, F: 'static> {
    link: Link,
    state: State<U, F>,
    /// In force when the step was added, while its callback runs, and when its failure is reported.
    context: LogContext,
    created: &'static Location<'static>,
    _input: PhantomData<fn(T)>,
}

enum State<U, F> {
    /// Has been called. What it gave is on its way, or still to come.
    Called,
    Has(Slot<U>),
    Waits(F),
}

/// Makes a step that comes after `before`.
#[inline]
pub(super) fn new<T: 'static, U: 'static>(
    callback: impl Callback<T, U>,
    before: Link,
    context: LogContext,
    created: &'static Location<'static>,
) -> Box<dyn Step> {
    let state = State::Waits(callback);
    match spare::take::<Node<T, U, _>>(created) {
        Some(mut node) => {
            // What it has been is gone; the compiler need not look.
            mem::forget(mem::replace(&mut node.state, state));
            mem::forget(mem::replace(&mut node.link, before));
            mem::forget(mem::replace(&mut node.context, context));
            node.created = created;
            node
        }
        None => Box::new(Node { link: before, state, context, created, _input: PhantomData }),
    }
}

impl Steps {
    /// Turns the list round.
    #[inline]
    pub(super) fn reversed(mut self) -> Steps {
        let mut turned = None;
        while let Some(mut step) = self.0.take() {
            self.0 = step.replace_link(turned);
            turned = Some(step);
        }
        Steps(turned)
    }
}

impl Drop for Steps {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            discard(self.0.take());
        }
    }
}

/// Drops a list of steps.
#[cold]
#[inline(never)]
pub(super) fn discard(first: Link) {
    let mut next = first;
    while let Some(step) = next {
        next = step.discard();
    }
}

impl<T: 'static, U: 'static, F: Callback<T, U>> Step for Node<T, U, F> {
    fn receive(mut self: Box<Self>, input: &mut dyn Any, run: &mut Run) {
        let State::Waits(callback) = mem::replace(&mut self.state, State::Called) else { return };
        let Some(input) = take(input) else { return };
        run.enter(&self.context);
        callback.call(input, Called { run, node: Some(self) });
    }

    fn adopt(self: Box<Self>, result: &mut dyn Any, run: &mut Run) {
        if let Some(outcome) = take(result) {
            self.pass_on(outcome, run);
        }
    }

    fn forward(mut self: Box<Self>, run: &mut Run) {
        if let State::Has(slot) = &mut self.state
            && let Some(outcome) = slot.take()
        {
            self.pass_on(outcome, run);
        }
    }

    fn result(&mut self) -> &mut dyn Any {
        if !matches!(self.state, State::Has(_)) {
            self.state = State::Has(None);
        }
        let State::Has(slot) = &mut self.state else { unreachable!("that was just seen to") };
        slot
    }

    fn give(mut self: Box<Self>, slot: &mut dyn Any) {
        if let Some(slot) = slot.downcast_mut::<Slot<U>>()
            && let State::Has(result) = mem::replace(&mut self.state, State::Called)
        {
            *slot = result;
            self.recycle();
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.state = State::Has(Some(Err(failure)));
    }

    fn take_failure(&mut self) -> Option<(Failure, &LogContext, &'static Location<'static>)> {
        match &mut self.state {
            State::Has(slot) => Some((slot.take()?.err()?, &self.context, self.created)),
            _ => None,
        }
    }

    fn replace_link(&mut self, link: Link) -> Link {
        mem::replace(&mut self.link, link)
    }

    fn discard(mut self: Box<Self>) -> Link {
        // The chain went away before it ran. What the closure owns may own the next such chain.
        if let State::Waits(callback) = mem::replace(&mut self.state, State::Called)
            && mem::needs_drop::<F>()
        {
            ready::drop_in_turn(Box::new(callback));
        }
        self.link.take()
    }
}

impl<T: 'static, U: 'static, F: Callback<T, U>> Reuse for Node<T, U, F> {
    #[inline]
    fn created(&self) -> &'static Location<'static> {
        self.created
    }
}

impl<T: 'static, U: 'static, F: Callback<T, U>> Node<T, U, F> {
    #[inline(always)]
    fn pass_on(mut self: Box<Self>, outcome: Outcome<U>, run: &mut Run) {
        match self.link.take() {
            Some(next) if run.may_nest() => {
                self.recycle();
                next.receive(&mut Some(outcome), run);
            }
            next => self.keep(outcome, next, run),
        }
    }

    /// Leaves the memory of a step that points at nothing and has passed on its result.
    #[inline(always)]
    fn recycle(mut self: Box<Self>) {
        drop(mem::take(&mut self.context));
        spare::put(self);
    }

    /// Keeps the result, for the loop to pass on or for a deferred to take.
    #[inline(never)]
    fn keep(mut self: Box<Self>, outcome: Outcome<U>, next: Link, run: &mut Run) {
        self.link = next;
        self.state = State::Has(Some(outcome));
        run.stop_at(self);
    }

    #[inline(never)]
    fn wait_for(self: Box<Self>, deferred: Deferred<U>, run: &mut Run) {
        match deferred.into_chain() {
            Ok(outcome) => self.pass_on(outcome, run),
            // Its result would have to come from this very step, which would then wait for ever.
            Err(inner) if run.is_awaited_by(&inner) => {
                self.pass_on(Err(Failure::new(WaitsForItself)), run);
            }
            Err(inner) => run.wait_for(&inner, self),
        }
    }
}

/// A step whose callback is being called. If this is dropped instead of used, it has panicked.
struct Called<'a, T: 'static, U: 'static, F: Callback<T, U>> {
    run: &'a mut Run,
    node: Option<Box<Node<T, U, F>>>,
}

impl<T: 'static, U: 'static, F: Callback<T, U>> Taker<U> for Called<'_, T, U, F> {
    type Output = ();

    #[inline(always)]
    fn take_outcome(mut self, outcome: Outcome<U>) {
        if let Some(node) = self.node.take() {
            node.pass_on(outcome, self.run);
        }
    }

    #[inline]
    fn take_deferred(mut self, deferred: Deferred<U>) {
        if let Some(node) = self.node.take() {
            node.wait_for(deferred, self.run);
        }
    }
}

impl<T: 'static, U: 'static, F: Callback<T, U>> Drop for Called<'_, T, U, F> {
    #[inline]
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.run.stop_at_panicked(node);
        }
    }
}
