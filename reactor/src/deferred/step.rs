//! The nodes that a chain of deferreds is made of, and the loop that runs them.
//!
//! A chain is a singly linked list that starts at an [`Origin`] (what a `Resolver` fires) and goes on
//! through steps, one for each callback. Each node is one allocation: it owns its closure, its captured
//! context and the slot that its result is put into. Ownership runs forward, from the resolver to the
//! last step; the `Deferred` handle owns the last node and the origin, the latter for cancelling only.
//! When a callback returns another deferred, its own step becomes the last one of that other chain.
//!
//! Nothing here recurses over the length of a chain: [`run`] asks one node after the other to hand its
//! result on, and dropping takes the list apart link by link.

use std::any::Any;
use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::{Rc, Weak};
use std::task::Waker;

use super::{Deferred, IntoDeferred, Repr, ResultTaken, unhandled};
use crate::context::{self, LogContext};
use crate::failure::{CancelledError, Failure};
use crate::ready;

/// What a deferred ends with.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// One link of a chain: a slot for a `T`, and who gets it next.
pub(super) struct Node<T, J: ?Sized> {
    pub(super) value: Cell<Option<Outcome<T>>>,
    pub(super) next: Cell<Next<T>>,
    /// In force when the node was made, while its callback runs, and when its failure is reported.
    pub(super) context: LogContext,
    created: &'static Location<'static>,
    /// What fills the slot: an [`Origin`] or a [`Step`]. Last, so that it can be `dyn`.
    job: J,
}

/// Erases what fills a node's slot.
pub(super) trait Job {}

/// The start of a chain: filled by its resolver.
pub(super) struct Origin {
    is_fired: Cell<bool>,
    canceller: Cell<Option<Box<dyn FnOnce()>>>,
    /// The origin of the chain that this chain waits for, once a callback returned one.
    inner: Cell<Option<Weak<dyn Head>>>,
    /// The origin of the chain that waits for this one. Owned, as all that is still to run is owned by
    /// what will run it.
    outer: Cell<Option<Rc<dyn Head>>>,
}

/// A callback that waits for the node before it. Empty once it has been called.
pub(super) struct Step<F: 'static>(Cell<Option<F>>);

impl Job for Origin {}
impl<F> Job for Step<F> {}

impl<F: 'static> Drop for Step<F> {
    #[inline]
    fn drop(&mut self) {
        // The chain went away before it ran. What the closure owns may own the next such chain.
        if mem::needs_drop::<F>()
            && let Some(callback) = self.0.take()
        {
            ready::drop_in_turn(Box::new(callback));
        }
    }
}

/// Who gets a node's value.
pub(super) enum Next<T> {
    Nobody,
    /// The callback that was added to it.
    Step(Rc<dyn Receive<T>>),
    /// The callback of another chain, which returned this chain's deferred.
    Outer(Rc<dyn Adopt<T>>),
    /// The task that awaits it; the value stays for the task to fetch.
    Task(Waker),
}

impl<T> Next<T> {
    fn into_link(self) -> Option<Rc<dyn Link>> {
        match self {
            Next::Step(step) => Some(step),
            Next::Outer(step) => Some(step),
            Next::Nobody | Next::Task(_) => None,
        }
    }
}

/// A node as the running loop sees it.
pub(super) trait Link {
    /// Hands the value on and returns the node that has one now.
    fn forward(self: Rc<Self>, run: &mut Run) -> Option<Rc<dyn Link>>;

    /// Puts a failure in place of the value that a panicking callback did not give.
    fn fail(&self, failure: Failure);

    /// Takes the next node out, for dropping.
    fn detach_next(&self) -> Option<Rc<dyn Link>>;
}

/// A step as the node before it sees it.
pub(super) trait Receive<T>: Link {
    /// Calls the callback; returns the step itself if that gave it a value.
    fn receive(self: Rc<Self>, input: Outcome<T>, run: &mut Run) -> Option<Rc<dyn Link>>;
}

/// A step as the chain that its callback returned sees it.
pub(super) trait Adopt<T>: Link {
    fn adopt(self: Rc<Self>, value: Outcome<T>) -> Rc<dyn Link>;
}

/// An origin, whatever its type; what cancelling needs.
pub(super) trait Head {
    fn origin(&self) -> &Origin;
    fn cancel(self: Rc<Self>);
}

/// A callback of any of the kinds that can be added.
pub(super) trait Callback<T, U>: 'static {
    fn call(self, input: Outcome<T>) -> Deferred<U>;
}

pub(super) struct OnValue<F>(pub(super) F);
pub(super) struct OnFailure<F>(pub(super) F);
pub(super) struct OnBoth<F>(pub(super) F);
pub(super) struct OnEither<F, G>(pub(super) F, pub(super) G);

impl<T, U: 'static, R: IntoDeferred<U>, F: FnOnce(T) -> R + 'static> Callback<T, U> for OnValue<F> {
    #[inline]
    fn call(self, input: Outcome<T>) -> Deferred<U> {
        match input {
            Ok(value) => (self.0)(value).into_deferred(),
            Err(failure) => Deferred::ready(Err(failure)),
        }
    }
}

impl<T: 'static, R: IntoDeferred<T>, F: FnOnce(Failure) -> R + 'static> Callback<T, T>
    for OnFailure<F>
{
    #[inline]
    fn call(self, input: Outcome<T>) -> Deferred<T> {
        match input {
            Ok(value) => Deferred::ready(Ok(value)),
            Err(failure) => (self.0)(failure).into_deferred(),
        }
    }
}

impl<T, U: 'static, R: IntoDeferred<U>, F: FnOnce(Outcome<T>) -> R + 'static> Callback<T, U>
    for OnBoth<F>
{
    #[inline]
    fn call(self, input: Outcome<T>) -> Deferred<U> {
        (self.0)(input).into_deferred()
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
    fn call(self, input: Outcome<T>) -> Deferred<U> {
        match input {
            Ok(value) => (self.0)(value).into_deferred(),
            Err(failure) => (self.1)(failure).into_deferred(),
        }
    }
}

/// Calls a callback; a panic becomes its failure.
#[inline]
pub(super) fn call_guarded<T, U>(callback: impl Callback<T, U>, input: Outcome<T>) -> Deferred<U> {
    match catch_unwind(AssertUnwindSafe(|| callback.call(input))) {
        Ok(deferred) => deferred,
        Err(payload) => Deferred::panicked(payload),
    }
}

impl<T, J> Node<T, J> {
    #[inline]
    fn new(job: J, context: LogContext, created: &'static Location<'static>) -> Rc<Self> {
        Rc::new(Self {
            value: Cell::new(None),
            next: Cell::new(Next::Nobody),
            context,
            created,
            job,
        })
    }
}

impl<T: 'static> Node<T, Origin> {
    pub(super) fn origin(created: &'static Location<'static>) -> Rc<Self> {
        let origin = Origin {
            is_fired: Cell::new(false),
            canceller: Cell::new(None),
            inner: Cell::new(None),
            outer: Cell::new(None),
        };
        Self::new(origin, LogContext::current(), created)
    }

    pub(super) fn set_canceller(&self, canceller: Option<Box<dyn FnOnce()>>) {
        self.job.canceller.set(canceller);
    }

    pub(super) fn is_fired(&self) -> bool {
        self.job.is_fired.get()
    }

    pub(super) fn has_no_next(&self) -> bool {
        let next = self.next.replace(Next::Nobody);
        let has_none = matches!(next, Next::Nobody);
        self.next.set(next);
        has_none
    }

    /// Gives the chain its value and runs it. Does nothing the second time: what was cancelled has had
    /// its result.
    pub(super) fn fire(self: Rc<Self>, value: Outcome<T>) {
        if self.job.is_fired.replace(true) {
            return;
        }
        drop(self.job.canceller.take());
        self.value.set(Some(value));
        run(self.clone(), self);
    }

    pub(super) fn created(&self) -> &'static Location<'static> {
        self.created
    }
}

impl<T: 'static, F: 'static> Node<T, Step<F>> {
    #[inline]
    pub(super) fn step(
        callback: F,
        context: LogContext,
        created: &'static Location<'static>,
    ) -> Rc<Self> {
        Self::new(Step(Cell::new(Some(callback))), context, created)
    }
}

impl<T, U: 'static, F: Callback<T, U>> Receive<T> for Node<U, Step<F>> {
    fn receive(self: Rc<Self>, input: Outcome<T>, run: &mut Run) -> Option<Rc<dyn Link>> {
        let callback = self.job.0.take()?;
        run.enter(&self.context);
        let mut guard = PanicGuard { run, node: Some(self) };
        let result = callback.call(input);
        let this = guard.node.take()?;
        drop(guard);
        match result.0 {
            Repr::Value(value) => this.value.set(Some(Ok(value))),
            Repr::Failed(failure) => this.value.set(Some(Err(failure.handle()))),
            Repr::Pending(tail, head) => match tail.value.take() {
                Some(value) => this.value.set(Some(value)),
                None => {
                    tail.next.set(Next::Outer(this));
                    run.wait_for(&head);
                    return None;
                }
            },
            Repr::Taken => this.fail(Failure::new(ResultTaken)),
        }
        Some(this)
    }
}

impl<U: 'static, F: 'static> Adopt<U> for Node<U, Step<F>> {
    fn adopt(self: Rc<Self>, value: Outcome<U>) -> Rc<dyn Link> {
        self.value.set(Some(value));
        self
    }
}

impl<T: 'static, J: 'static> Link for Node<T, J> {
    fn forward(self: Rc<Self>, run: &mut Run) -> Option<Rc<dyn Link>> {
        // Nearly always this is the only owner. Then all goes on the stack, and the memory is free
        // before the next callback runs.
        match Rc::try_unwrap(self) {
            Ok(node) => match node.next.replace(Next::Nobody) {
                // Nobody is left who could take it; dropping reports a failure.
                Next::Nobody | Next::Task(_) => None,
                Next::Step(step) => {
                    let value = node.value.take()?;
                    drop(node);
                    step.receive(value, run)
                }
                Next::Outer(step) => {
                    let value = node.value.take()?;
                    drop(node);
                    run.resume_outer();
                    Some(step.adopt(value))
                }
            },
            Err(node) => node.forward_shared(run),
        }
    }

    fn fail(&self, failure: Failure) {
        self.value.set(Some(Err(failure)));
    }

    fn detach_next(&self) -> Option<Rc<dyn Link>> {
        self.next.replace(Next::Nobody).into_link()
    }
}

impl<T: 'static, J: 'static> Node<T, J> {
    /// Forwards the value of a node that a deferred or a resolver also owns.
    fn forward_shared(&self, run: &mut Run) -> Option<Rc<dyn Link>> {
        match self.next.replace(Next::Nobody) {
            Next::Nobody => None,
            Next::Task(waker) => {
                waker.wake();
                None
            }
            Next::Step(step) => step.receive(self.value.take()?, run),
            Next::Outer(step) => {
                let value = self.value.take()?;
                run.resume_outer();
                Some(step.adopt(value))
            }
        }
    }
}

impl<T, J: ?Sized> Drop for Node<T, J> {
    #[inline]
    fn drop(&mut self) {
        if matches!(self.next.get_mut(), Next::Step(_) | Next::Outer(_)) {
            drop_chain(self.next.replace(Next::Nobody).into_link());
        }
        if matches!(self.value.get_mut(), Some(Err(_)))
            && let Some(Err(failure)) = self.value.take()
        {
            report_unhandled(&self.context, &failure, self.created);
        }
    }
}

#[cold]
fn drop_chain(mut link: Option<Rc<dyn Link>>) {
    while let Some(node) = link {
        link = if Rc::strong_count(&node) == 1 { node.detach_next() } else { None };
    }
}

#[cold]
fn report_unhandled(context: &LogContext, failure: &Failure, created: &'static Location<'static>) {
    context.run(|| unhandled::report(failure, Some(created)));
}

/// Tells the running loop which callback panicked.
struct PanicGuard<'a, T: 'static, F: 'static> {
    run: &'a mut Run,
    node: Option<Rc<Node<T, Step<F>>>>,
}

impl<T: 'static, F: 'static> Drop for PanicGuard<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.run.panicked = Some(node);
        }
    }
}

impl<T: 'static> Head for Node<T, Origin> {
    fn origin(&self) -> &Origin {
        &self.job
    }

    fn cancel(self: Rc<Self>) {
        if self.is_fired() {
            return;
        }
        if let Some(canceller) = self.job.canceller.take()
            && let Err(payload) = catch_unwind(AssertUnwindSafe(canceller))
        {
            log::error!("canceller failed: {}", Failure::from_panic(payload));
        }
        self.fire(Err(Failure::new(CancelledError)));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let mut outer = self.outer.take();
        while let Some(head) = outer {
            outer = if Rc::strong_count(&head) == 1 { head.origin().outer.take() } else { None };
        }
    }
}

/// Cancels what the chain that starts at `head` waits for now.
pub(super) fn cancel(mut head: Rc<dyn Head>) {
    loop {
        let origin = head.origin();
        let inner = origin.inner.take();
        origin.inner.set(inner.clone());
        match inner.and_then(|inner| inner.upgrade()) {
            Some(inner) => head = inner,
            None => break,
        }
    }
    head.cancel();
}

/// A run of the loop over a chain: where it is, and what to put back at its end.
pub(super) struct Run {
    /// The origin of the chain whose step runs now.
    head: Option<Rc<dyn Head>>,
    /// The context that was in force before the first step changed it.
    home: Option<LogContext>,
    /// The step whose callback has just panicked.
    panicked: Option<Rc<dyn Link>>,
    _in_chain: ready::InChain,
}

fn run(head: Rc<dyn Head>, first: Rc<dyn Link>) {
    let in_chain = ready::enter_chain();
    let mut run = Run { head: Some(head), home: None, panicked: None, _in_chain: in_chain };
    let mut link = Some(first);
    // One guard for the whole run: setting one up for each callback would cost more than the rest of
    // the step does.
    while let Err(payload) = catch_unwind(AssertUnwindSafe(|| run.go(link.take()))) {
        run.recover(payload, &mut link);
    }
}

impl Run {
    #[inline]
    fn go(&mut self, mut link: Option<Rc<dyn Link>>) {
        while let Some(node) = link {
            link = node.forward(self);
        }
    }

    /// Goes on behind a panic: with the failure of the callback, if it came from one.
    #[cold]
    fn recover(&mut self, payload: Box<dyn Any + Send>, link: &mut Option<Rc<dyn Link>>) {
        let failure = Failure::from_panic(payload);
        match self.panicked.take() {
            Some(node) => {
                node.fail(failure);
                *link = Some(node);
            }
            None => log::error!("dropping what a callback left failed: {failure}"),
        }
    }

    /// Puts a step's context in force.
    #[inline]
    fn enter(&mut self, context: &LogContext) {
        if !context::is_current(context) {
            let before = context::swap(context.clone());
            self.home.get_or_insert(before);
        }
    }

    /// Notes that the chain goes on when the one that starts at `inner` has its result.
    fn wait_for(&mut self, inner: &Rc<dyn Head>) {
        if let Some(head) = self.head.take() {
            head.origin().inner.set(Some(Rc::downgrade(inner)));
            inner.origin().outer.set(Some(head));
        }
    }

    /// Goes from a finished chain to the one that waited for it.
    fn resume_outer(&mut self) {
        self.head = self.head.take().and_then(|head| head.origin().outer.take());
        if let Some(head) = &self.head {
            head.origin().inner.take();
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            context::swap(home);
        }
    }
}
