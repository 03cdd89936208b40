//! Chains: what a deferred, its resolver and the callbacks between them have in common, and the loop
//! that runs the callbacks.
//!
//! A chain belongs to its resolver, which fires it, and to its `Deferred`, which adds steps and takes the
//! result. When a callback returns another deferred, that one's chain comes to own this one, as all that
//! is still to run is owned by what will run it.
//!
//! Nothing here recurses over the length of a chain, or over how many wait for each other.

use std::any::Any;
use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::{Rc, Weak};
use std::task::Waker;

use super::callback::{Callback, Outcome};
use super::step::{self, Slot, Step, Steps};
use super::task::TaskHandle;
use super::unhandled;
use crate::census;
use crate::context::{self, LogContext};
use crate::failure::{CancelledError, Failure};
use crate::ready;
use crate::teardown::dropping;

/// One chain of callbacks.
pub(super) struct Origin<P: Place + ?Sized> {
    stage: Cell<Stage>,
    /// Whether its deferred is there, or nobody else will ever want the result.
    has_deferred: Cell<bool>,
    /// Whether the census knows of it.
    is_counted: bool,
    /// Steps that were added and have not begun, the last one first.
    added: Cell<Steps>,
    /// The step that the chain stands at while it waits for another chain, or has its result; those
    /// that come after it hang on it.
    here: Cell<Option<Box<dyn Step>>>,
    /// Of a chain that has not fired, or waits for another one.
    canceller: Cell<Option<Canceller>>,
    /// The chain that waits for this one.
    outer: Cell<Option<Rc<Chain>>>,
    /// The task that awaits the result, and will fetch it; or has awaited it and then added steps, and
    /// is woken for nothing.
    task: Cell<Option<Waker>>,
    context: LogContext,
    created: &'static Location<'static>,
    /// Where the result lies if there are no steps. Last, so that it can be `dyn`.
    place: P,
}

/// A chain, whatever its types.
pub(super) type Chain = Origin<dyn Place>;

/// A chain as its resolver knows it.
pub(super) type ChainOf<T> = Origin<Cell<Slot<T>>>;

/// What cancelling does.
pub(super) enum Canceller {
    /// Calls this before it fails the chain.
    Call(Box<dyn FnOnce()>),
    /// The chain waits for this one, which is cancelled instead.
    Chain(Weak<Chain>),
    /// The chain has the result of this task, which is cancelled instead of the chain.
    Task(TaskHandle),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Stage {
    /// Has its result, if that has not been taken.
    Done,
    /// Its callbacks are being called, or one of them waits for another deferred.
    Running,
    Unfired,
}

/// Room for a value of whatever type.
pub(super) trait Place {
    /// Moves the value to a [`Slot`].
    fn move_to(&self, slot: &mut dyn Any);

    /// Moves a value here from a [`Slot`].
    fn move_from(&self, slot: &mut dyn Any);

    /// Shows `f` the failure in a [`Slot`] of the right type.
    fn with_failure(&self, failure: Failure, f: &mut dyn FnMut(&mut dyn Any));

    /// Takes the value out if it is a failure.
    fn take_failure(&self) -> Option<Failure>;
}

/// Room for a `T`.
pub(super) trait PlaceFor<T>: Place {
    fn put(&self, value: Outcome<T>);
}

impl<T: 'static> PlaceFor<T> for Cell<Slot<T>> {
    #[inline]
    fn put(&self, value: Outcome<T>) {
        self.set(Some(value));
    }
}

impl<T: 'static> Place for Cell<Slot<T>> {
    fn move_to(&self, slot: &mut dyn Any) {
        if let Some(slot) = slot.downcast_mut::<Slot<T>>() {
            *slot = self.take();
        }
    }

    fn move_from(&self, slot: &mut dyn Any) {
        self.set(step::take(slot));
    }

    fn with_failure(&self, failure: Failure, f: &mut dyn FnMut(&mut dyn Any)) {
        let mut slot: Slot<T> = Some(Err(failure));
        f(&mut slot);
    }

    fn take_failure(&self) -> Option<Failure> {
        self.take().and_then(Result::err)
    }
}

impl<P: Place> Origin<P> {
    #[inline]
    pub(super) fn new(created: &'static Location<'static>, place: P) -> Rc<Self> {
        // Written in place: `Rc::new` would make it on the stack and copy it, because of what it would
        // have to drop if there were no memory.
        Rc::new_cyclic(move |_| Self {
            stage: Cell::new(Stage::Unfired),
            has_deferred: Cell::new(true),
            is_counted: census::count(created),
            added: Cell::default(),
            here: Cell::new(None),
            canceller: Cell::new(None),
            outer: Cell::new(None),
            task: Cell::new(None),
            context: LogContext::current(),
            created,
            place,
        })
    }

    pub(super) fn place(&self) -> &P {
        &self.place
    }
}

impl<P: Place + 'static> Origin<P> {
    /// Gives the chain its value and runs it. Does nothing the second time: what was cancelled has had
    /// its result.
    #[inline]
    pub(super) fn fire<T: 'static>(self: Rc<Self>, value: Outcome<T>)
    where
        P: PlaceFor<T>,
    {
        if self.stage.get() != Stage::Unfired {
            return;
        }
        if self.is_bare() {
            self.drop_canceller();
            self.place.put(value);
            return self.end();
        }
        run(self, &mut Some(value));
    }
}

impl<P: Place + ?Sized> Origin<P> {
    /// Sets what cancelling does while the chain has not fired; after that it would never be wanted.
    pub(super) fn set_canceller(&self, canceller: Canceller) {
        if self.is_fired() {
            return dropping("a canceller", canceller);
        }
        self.canceller.set(Some(canceller));
    }

    pub(super) fn is_fired(&self) -> bool {
        self.stage.get() != Stage::Unfired
    }

    /// Whether the chain has its result, which nobody has taken yet.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.stage.get() == Stage::Done
    }

    fn has_no_steps(&self) -> bool {
        let added = self.added.take();
        let has_none = added.0.is_none();
        self.added.set(added);
        has_none
    }

    /// Whether nobody would notice its result: the deferred is gone, with nothing chained to it.
    pub(super) fn is_abandoned(&self) -> bool {
        !self.has_deferred() && self.is_bare()
    }

    pub(super) fn has_deferred(&self) -> bool {
        self.has_deferred.get()
    }

    /// Notes that the deferred is gone, and its result with it.
    #[inline]
    pub(super) fn lose_deferred(&self) {
        self.has_deferred.set(false);
        if self.is_done() {
            self.drop_result();
        }
    }

    /// Whether there is nothing to do with the value but to keep it.
    fn is_bare(&self) -> bool {
        self.has_no_steps() && !self.has_outer()
    }

    fn has_outer(&self) -> bool {
        let outer = self.outer.take();
        let has_outer = outer.is_some();
        self.outer.set(outer);
        has_outer
    }

    fn drop_canceller(&self) {
        if let Some(Canceller::Call(canceller)) = self.canceller.take() {
            dropping("a canceller", canceller);
        }
    }

    /// Says that the result is there.
    #[inline]
    fn end(&self) {
        self.stage.set(Stage::Done);
        if !self.has_deferred() {
            // The resolver of a chain that was cancelled may live for long.
            return self.drop_result();
        }
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    pub(super) fn created(&self) -> &'static Location<'static> {
        self.created
    }

    /// The context that it was made in.
    pub(super) fn context(&self) -> &LogContext {
        &self.context
    }

    /// Wakes `task` when there is a value to fetch.
    pub(super) fn set_task(&self, task: Waker) {
        self.task.set(Some(task));
    }

    /// Adds a step at the end of a chain that has no result yet.
    #[inline]
    pub(super) fn add<T: 'static, U: 'static>(
        &self,
        callback: impl Callback<T, U>,
        created: &'static Location<'static>,
    ) {
        let before = self.added.take().0.take();
        let step = step::new(callback, before, LogContext::current(), created);
        // Known to be nothing; the compiler need not look.
        mem::forget(self.added.replace(Steps(Some(step))));
    }

    /// Takes the result, if it is there.
    #[inline]
    pub(super) fn take_result<T: 'static>(&self) -> Option<Outcome<T>> {
        if self.is_done() { self.take_result_of_done() } else { None }
    }

    fn take_result_of_done<T: 'static>(&self) -> Option<Outcome<T>> {
        let mut slot: Slot<T> = None;
        match self.here.take() {
            Some(step) => step.give(&mut slot),
            None => self.place.move_to(&mut slot),
        }
        slot
    }
}

impl<P: Place + ?Sized> Drop for Origin<P> {
    #[inline]
    fn drop(&mut self) {
        if self.is_counted {
            census::uncount(self.created);
        }
        // Each of these is rarely there.
        if self.added.get_mut().0.is_some() {
            drop(self.added.take().reversed());
        }
        if let Some(outer) = self.outer.take() {
            drop_outer(outer);
        }
    }
}

impl<P: Place + ?Sized> Origin<P> {
    /// Drops the result that nobody will take. A failure is reported.
    fn drop_result(&self) {
        match self.here.take() {
            Some(mut step) => {
                if let Some((failure, context, created)) = step.take_failure() {
                    report_unhandled(context, &failure, created);
                }
                dropping("a result", step);
            }
            None => {
                if let Some(failure) = self.place.take_failure() {
                    report_unhandled(&self.context, &failure, self.created);
                }
            }
        }
    }
}

#[cold]
#[inline(never)]
fn report_unhandled(context: &LogContext, failure: &Failure, created: &'static Location<'static>) {
    context.run(|| unhandled::report(failure, Some(created)));
}

#[cold]
#[inline(never)]
fn drop_outer(outer: Rc<Chain>) {
    let mut next = Some(outer);
    while let Some(chain) = next {
        next = if Rc::strong_count(&chain) == 1 { chain.outer.take() } else { None };
    }
}

/// Cancels what `chain` waits for now.
pub(super) fn cancel(mut chain: Rc<Chain>) {
    while let Some(inner) = chain.inner() {
        chain = inner;
    }
    if chain.is_fired() {
        return;
    }
    // A canceller that drops the resolver has not given another result.
    let _in_chain = ready::enter_chain();
    match chain.canceller.take() {
        Some(Canceller::Task(task)) => {
            chain.canceller.set(Some(Canceller::Task(task.clone())));
            return task.cancel();
        }
        Some(Canceller::Call(canceller)) => {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(canceller)) {
                log::error!("canceller failed: {}", Failure::from_panic(payload));
            }
        }
        Some(Canceller::Chain(_)) | None => {}
    }
    if !chain.is_fired() {
        let failure = Failure::plain(CancelledError);
        let place = Rc::clone(&chain);
        let mut chain = Some(chain);
        place.place.with_failure(failure, &mut |slot| {
            if let Some(chain) = chain.take() {
                run(chain, slot);
            }
        });
    }
}

impl Chain {
    fn inner(&self) -> Option<Rc<Chain>> {
        let canceller = self.canceller.take()?;
        let inner = match &canceller {
            Canceller::Chain(inner) => inner.upgrade(),
            Canceller::Call(_) | Canceller::Task(_) => None,
        };
        self.canceller.set(Some(canceller));
        inner
    }

    /// Whether this chain waits for `other`, or is it.
    fn waits_for(self: &Rc<Self>, other: &Rc<Chain>) -> bool {
        let mut chain = Rc::clone(self);
        for _ in 0..CYCLE_LENGTH_MAX {
            if Rc::ptr_eq(&chain, other) {
                return true;
            }
            match chain.inner() {
                Some(inner) => chain = inner,
                None => return false,
            }
        }
        false
    }
}

/// Chains that wait for each other in a ring are noticed if they are no more than this: whoever makes
/// such a ring does it with two or three, and to follow a million of them each time would take too long.
const CYCLE_LENGTH_MAX: usize = 16;

/// Runs a chain that has not fired, beginning with the value in the slot.
fn run(chain: Rc<Chain>, first: &mut dyn Any) {
    chain.stage.set(Stage::Running);
    chain.drop_canceller();
    let mut run = Run {
        chain,
        here: None,
        has_panicked: false,
        home: None,
        nesting_left: NESTING_MAX,
        _in_chain: ready::enter_chain(),
    };
    // One guard for the whole run: setting one up for each callback would cost more than the rest of
    // the step does.
    let mut result = catch_unwind(AssertUnwindSafe(|| {
        run.start(first);
        run.go_on();
    }));
    while let Err(payload) = result {
        let failure = Failure::from_panic(payload);
        let Some(step) = run.here.as_mut().filter(|_| run.has_panicked) else {
            return log::error!("going on with a chain of callbacks failed: {failure}");
        };
        step.fail(failure);
        run.has_panicked = false;
        result = catch_unwind(AssertUnwindSafe(|| run.go_on()));
    }
}

/// A run of the loop over a chain: where it is, and what to put back at its end.
pub(super) struct Run {
    chain: Rc<Chain>,
    /// The step that keeps its result, because it is the last one or calls were nested too deep.
    here: Option<Box<dyn Step>>,
    /// Whether that step's callback has panicked, so that there is no result.
    has_panicked: bool,
    /// The context that was in force before the first step changed it.
    home: Option<LogContext>,
    nesting_left: u32,
    _in_chain: ready::InChain,
}

impl Run {
    #[inline]
    fn start(&mut self, first: &mut dyn Any) {
        match self.chain.added.take().reversed().0.take() {
            Some(step) => step.receive(first, self),
            None => self.end(first),
        }
    }

    /// Goes on with the step that keeps its result.
    #[inline]
    fn go_on(&mut self) {
        while let Some(mut here) = self.here.take() {
            self.nesting_left = NESTING_MAX;
            let next =
                here.replace_link(None).or_else(|| self.chain.added.take().reversed().0.take());
            match next {
                Some(next) => {
                    here.replace_link(Some(next));
                    here.forward(self);
                }
                None if self.chain.has_outer() => self.resume_outer(here.result()),
                None => {
                    self.chain.here.set(Some(here));
                    self.chain.end();
                }
            }
        }
    }

    /// The end of a chain without steps.
    #[cold]
    fn end(&mut self, first: &mut dyn Any) {
        if self.chain.has_outer() {
            self.resume_outer(first);
        } else {
            self.chain.place.move_from(first);
            self.chain.end();
        }
    }

    /// Goes from a chain that is at its end to the one that waits for it.
    #[inline(never)]
    fn resume_outer(&mut self, result: &mut dyn Any) {
        let Some(outer) = self.chain.outer.take() else { return };
        self.chain = outer;
        self.chain.canceller.take();
        if let Some(step) = self.chain.here.take() {
            step.adopt(result, self);
        }
    }

    /// Leaves a step with its result to [`go_on`](Self::go_on).
    pub(super) fn stop_at(&mut self, step: Box<dyn Step>) {
        self.here = Some(step);
    }

    /// The same for a step without a result.
    pub(super) fn stop_at_panicked(&mut self, step: Box<dyn Step>) {
        self.here = Some(step);
        self.has_panicked = true;
    }

    /// Whether a step may call the next one itself. That saves a way through the loop; the limit keeps
    /// the stack small however long the chain is.
    #[inline]
    pub(super) fn may_nest(&mut self) -> bool {
        self.nesting_left = self.nesting_left.wrapping_sub(1);
        self.nesting_left != 0
    }

    /// Puts a step's context in force.
    #[inline]
    pub(super) fn enter(&mut self, context: &LogContext) {
        if !context::is_current(context) {
            self.change_context(context);
        }
    }

    #[inline(never)]
    fn change_context(&mut self, context: &LogContext) {
        let before = context::swap(context.clone());
        self.home.get_or_insert(before);
    }

    /// Whether `inner` waits for the chain that runs, or is it.
    pub(super) fn is_awaited_by(&self, inner: &Rc<Chain>) -> bool {
        inner.waits_for(&self.chain)
    }

    /// Leaves the chain at `step` until `inner` has a result.
    pub(super) fn wait_for(&mut self, inner: &Rc<Chain>, step: Box<dyn Step>) {
        self.chain.here.set(Some(step));
        self.chain.canceller.set(Some(Canceller::Chain(Rc::downgrade(inner))));
        inner.outer.set(Some(Rc::clone(&self.chain)));
    }
}

/// How many steps may call each other; each takes some 200 bytes of stack at most.
const NESTING_MAX: u32 = 32;

impl Drop for Run {
    #[inline]
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            context::leave(home);
        }
    }
}
