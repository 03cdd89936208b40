//! The nodes that a chain of deferreds is made of, and the loop that runs them.
//!
//! A chain is a singly linked list that starts at an [`Origin`] (what a `Resolver` fires) and goes on
//! through steps, one for each callback. Each node is one allocation: it owns its closure, its captured
//! context and the slot that its result is put into. Ownership runs forward, from the resolver to the
//! last step; the `Deferred` handle owns the last node and the origin, the latter for cancelling only.
//! When a callback returns another deferred, its own step becomes the last one of that other chain.
//!
//! Nothing here recurses over the length of a chain: a step calls the next one, but after some such
//! calls they all return to [`run`], which goes on from there; dropping takes the list apart link by link.

use std::any::Any;
use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::{Rc, Weak};
use std::task::Waker;

use super::callback::{Callback, Outcome, Taker};
use super::{Deferred, WaitsForItself, unhandled};
use crate::context::{self, LogContext};
use crate::failure::{CancelledError, Failure};
use crate::ready;
use crate::testing::leaks::Counted;

/// One link of a chain: a slot for a `T`, and who gets it next.
pub(super) struct Node<T, J: ?Sized> {
    /// Says what is in the slot, which cannot be looked at without taking it out.
    content: Cell<Content>,
    slot: Cell<Slot<T>>,
    next: NextNode<T>,
    /// In force when the node was made, while its callback runs, and when its failure is reported.
    pub(super) context: LogContext,
    created: &'static Location<'static>,
    /// What fills the slot: an [`Origin`] or a [`Step`]. Last, so that it can be `dyn`.
    job: J,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Content {
    Nothing,
    Outcome,
    Task,
}

enum Slot<T> {
    Empty,
    Failed(Failure),
    /// The task that awaits the value, and will fetch it from here.
    Task(Waker),
    Value(T),
}

/// Erases what fills a node's slot.
pub(super) trait Job {}

/// Who gets a node's value. Dropping one takes the rest of the chain down link by link.
struct NextNode<T>(Cell<Option<Rc<dyn Receive<T>>>>);

impl<T> Drop for NextNode<T> {
    #[inline]
    fn drop(&mut self) {
        if self.0.get_mut().is_some()
            && let Some(next) = self.0.take()
        {
            drop_chain(next);
        }
    }
}

/// The start of a chain: filled by its resolver.
pub(super) struct Origin {
    is_fired: Cell<bool>,
    canceller: Cell<Option<Box<dyn FnOnce()>>>,
    /// The origin of the chain that this chain waits for, once a callback returned one.
    inner: Cell<Option<Weak<dyn Head>>>,
    /// The origin of the chain that waits for this one. Owned, as all that is still to run is owned by
    /// what will run it.
    outer: Cell<Option<Rc<dyn Head>>>,
    _counted: Counted,
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

/// A node as the running loop sees it.
pub(super) trait Link {
    /// Hands the value on.
    fn forward(self: Rc<Self>, run: &mut Run);

    /// Puts a failure in place of the value that a panicking callback did not give.
    fn fail(&self, failure: Failure);

    /// Takes the next node out, for dropping.
    fn detach_next(&self) -> Option<Rc<dyn Link>>;
}

/// A step as the node before it sees it.
pub(super) trait Receive<T>: Link {
    /// Calls the callback, and passes on what that gives.
    fn receive(self: Rc<Self>, input: Outcome<T>, run: &mut Run);
}

/// A step as the chain that its callback returned sees it.
trait Adopt<T>: Link {
    fn adopt(self: Rc<Self>, value: Outcome<T>, run: &mut Run);
}

/// Stands at the end of a chain whose deferred a callback of another chain has returned.
struct Outer<T> {
    step: Cell<Option<Rc<dyn Adopt<T>>>>,
}

/// An origin, whatever its type; what cancelling needs.
pub(super) trait Head {
    fn origin(&self) -> &Origin;
    fn cancel(self: Rc<Self>);
}

impl<T, J> Node<T, J> {
    #[inline]
    fn new(job: J, context: LogContext, created: &'static Location<'static>) -> Rc<Self> {
        // Written in place: `Rc::new` would make it on the stack and copy it, because of what it would
        // have to drop if there were no memory.
        Rc::new_cyclic(move |_| Self {
            content: Cell::new(Content::Nothing),
            slot: Cell::new(Slot::Empty),
            next: NextNode(Cell::new(None)),
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
            _counted: Counted::new(),
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
        let next = self.next.0.take();
        let has_none = next.is_none();
        self.next.0.set(next);
        has_none
    }

    /// Gives the chain its value and runs it. Does nothing the second time: what was cancelled has had
    /// its result.
    pub(super) fn fire(self: Rc<Self>, value: Outcome<T>) {
        if self.job.is_fired.replace(true) {
            return;
        }
        drop(self.job.canceller.take());
        match self.next.0.take() {
            Some(next) => run(self, |run| next.receive(value, run)),
            None => self.put(value),
        }
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

impl<T, J: ?Sized> Node<T, J> {
    /// Has the value given to `next` when it comes.
    #[inline]
    pub(super) fn attach(&self, next: Rc<dyn Receive<T>>) {
        let before = self.next.0.replace(Some(next));
        debug_assert!(
            before.is_none(),
            "only its deferred can attach to a node, which that consumes"
        );
        // Known to be nothing; the compiler need not look.
        mem::forget(before);
    }

    /// Wakes `task` when there is a value to fetch.
    pub(super) fn attach_task(&self, task: Waker) {
        self.slot.set(Slot::Task(task));
        self.content.set(Content::Task);
    }

    /// Takes the value out, or forgets the task that awaited it.
    #[inline]
    pub(super) fn take(&self) -> Option<Outcome<T>> {
        if self.content.get() == Content::Nothing { None } else { self.take_content() }
    }

    fn take_content(&self) -> Option<Outcome<T>> {
        self.content.set(Content::Nothing);
        match self.slot.replace(Slot::Empty) {
            Slot::Empty | Slot::Task(_) => None,
            Slot::Failed(failure) => Some(Err(failure)),
            Slot::Value(value) => Some(Ok(value)),
        }
    }

    #[inline]
    pub(super) fn is_filled(&self) -> bool {
        self.content.get() == Content::Outcome
    }

    /// Leaves the value here, for a deferred to take.
    fn put(&self, outcome: Outcome<T>) {
        self.content.set(Content::Outcome);
        let slot = match outcome {
            Ok(value) => Slot::Value(value),
            Err(failure) => Slot::Failed(failure),
        };
        if let Slot::Task(task) = self.slot.replace(slot) {
            task.wake();
        }
    }
}

impl<T, J: ?Sized> Drop for Node<T, J> {
    #[inline]
    fn drop(&mut self) {
        if self.is_filled()
            && let Slot::Failed(failure) = self.slot.replace(Slot::Empty)
        {
            report_unhandled(&self.context, &failure, self.created);
        }
    }
}

#[cold]
#[inline(never)]
fn report_unhandled(context: &LogContext, failure: &Failure, created: &'static Location<'static>) {
    context.run(|| unhandled::report(failure, Some(created)));
}

impl<T: 'static, F: 'static> Node<T, Step<F>> {
    #[inline(always)]
    fn pass_on(self: Rc<Self>, value: Outcome<T>, run: &mut Run) {
        match self.next.0.take() {
            // This node goes when that has returned, not before: so there is nothing else to clean up
            // should the next callback panic.
            Some(next) if run.may_nest() => next.receive(value, run),
            next => self.keep(value, next, run),
        }
    }

    /// Keeps the value, for a deferred to take or for the loop to pass on.
    #[inline(never)]
    fn keep(self: Rc<Self>, value: Outcome<T>, next: Option<Rc<dyn Receive<T>>>, run: &mut Run) {
        self.put(value);
        if next.is_some() {
            self.next.0.set(next);
            run.stuck = Some(self);
        }
    }
}

impl<T, U: 'static, F: Callback<T, U>> Receive<T> for Node<U, Step<F>> {
    fn receive(self: Rc<Self>, input: Outcome<T>, run: &mut Run) {
        let Some(callback) = self.job.0.take() else { return ignore(input) };
        run.enter(&self.context);
        callback.call(input, Called { run, node: Some(self) });
    }
}

/// A step gets a value once. Out of line, so that nobody need be prepared to drop one.
#[cold]
#[inline(never)]
fn ignore<T>(input: Outcome<T>) {
    drop(input);
}

/// A step whose callback is being called. If this is dropped instead of used, it has panicked.
struct Called<'a, T: 'static, F: 'static> {
    run: &'a mut Run,
    node: Option<Rc<Node<T, Step<F>>>>,
}

impl<T: 'static, F: 'static> Taker<T> for Called<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn take_outcome(mut self, outcome: Outcome<T>) {
        if let Some(node) = self.node.take() {
            node.pass_on(outcome, self.run);
        }
    }

    #[inline]
    fn take_deferred(mut self, deferred: Deferred<T>) {
        if let Some(node) = self.node.take() {
            node.wait_for(deferred, self.run);
        }
    }
}

impl<T: 'static, F: 'static> Drop for Called<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.run.panicked = Some(node);
        }
    }
}

impl<U: 'static, F: 'static> Node<U, Step<F>> {
    #[inline(never)]
    fn wait_for(self: Rc<Self>, deferred: Deferred<U>, run: &mut Run) {
        match deferred.into_parts() {
            Ok(outcome) => self.pass_on(outcome, run),
            // Its result would have to come from this very step, which would then wait for ever.
            Err((_, head)) if run.is_at(&head) => {
                self.pass_on(Err(Failure::new(WaitsForItself)), run);
            }
            Err((tail, head)) => {
                tail.attach(Rc::new(Outer { step: Cell::new(Some(self)) }));
                run.wait_for(&head);
            }
        }
    }
}

impl<U: 'static, F: 'static> Adopt<U> for Node<U, Step<F>> {
    fn adopt(self: Rc<Self>, value: Outcome<U>, run: &mut Run) {
        self.pass_on(value, run);
    }
}

impl<T: 'static> Receive<T> for Outer<T> {
    fn receive(self: Rc<Self>, value: Outcome<T>, run: &mut Run) {
        run.resume_outer();
        if let Some(step) = self.step.take() {
            step.adopt(value, run);
        }
    }
}

impl<T: 'static, J: 'static> Link for Node<T, J> {
    fn forward(self: Rc<Self>, run: &mut Run) {
        if let Some(next) = self.next.0.take()
            && let Some(value) = self.take()
        {
            drop(self);
            next.receive(value, run);
        }
    }

    fn fail(&self, failure: Failure) {
        self.put(Err(failure));
    }

    fn detach_next(&self) -> Option<Rc<dyn Link>> {
        Some(self.next.0.take()?)
    }
}

impl<T: 'static> Link for Outer<T> {
    fn forward(self: Rc<Self>, _run: &mut Run) {}

    fn fail(&self, _failure: Failure) {}

    fn detach_next(&self) -> Option<Rc<dyn Link>> {
        Some(self.step.take()?)
    }
}

#[cold]
fn drop_chain(first: Rc<dyn Link>) {
    let mut link = Some(first);
    while let Some(node) = link {
        link = if Rc::strong_count(&node) == 1 { node.detach_next() } else { None };
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
        self.fire(Err(Failure::plain(CancelledError)));
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
    /// The node that keeps its value because calls were nested too deep.
    stuck: Option<Rc<dyn Link>>,
    nesting_left: u32,
    _in_chain: ready::InChain,
}

/// Runs the chain that starts at `head`, beginning with `first`.
#[inline]
fn run(head: Rc<dyn Head>, first: impl FnOnce(&mut Run)) {
    let mut run = Run {
        head: Some(head),
        home: None,
        panicked: None,
        stuck: None,
        nesting_left: NESTING_MAX,
        _in_chain: ready::enter_chain(),
    };
    // One guard for the whole run: setting one up for each callback would cost more than the rest of
    // the step does.
    let result = catch_unwind(AssertUnwindSafe(|| {
        first(&mut run);
        if run.stuck.is_some() {
            run.go_on();
        }
    }));
    if let Err(payload) = result {
        run.recover(payload);
    }
}

impl Run {
    #[inline(never)]
    fn go_on(&mut self) {
        while let Some(node) = self.stuck.take() {
            self.nesting_left = NESTING_MAX;
            node.forward(self);
        }
    }

    /// Goes on behind a panic: with the failure of the callback, if it came from one.
    #[cold]
    fn recover(&mut self, payload: Box<dyn Any + Send>) {
        let mut panic = Some(payload);
        while let Some(payload) = panic.take() {
            let failure = Failure::from_panic(payload);
            let Some(node) = self.panicked.take() else {
                log::error!("dropping what a callback left failed: {failure}");
                return;
            };
            node.fail(failure);
            self.stuck = Some(node);
            panic = catch_unwind(AssertUnwindSafe(|| self.go_on())).err();
        }
    }

    /// Whether a step may call the next one itself. That saves a way through the loop; the limit keeps
    /// the stack small however long the chain is.
    #[inline]
    fn may_nest(&mut self) -> bool {
        self.nesting_left = self.nesting_left.wrapping_sub(1);
        self.nesting_left != 0
    }

    /// Puts a step's context in force.
    #[inline]
    fn enter(&mut self, context: &LogContext) {
        if !context::is_current(context) {
            self.change_context(context);
        }
    }

    #[inline(never)]
    fn change_context(&mut self, context: &LogContext) {
        let before = context::swap(context.clone());
        self.home.get_or_insert(before);
    }

    /// Whether the chain that starts at `head` is the one that runs now.
    fn is_at(&self, head: &Rc<dyn Head>) -> bool {
        self.head.as_ref().is_some_and(|running| Rc::ptr_eq(running, head))
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

/// How many steps may call each other; each takes some 200 bytes of stack at most.
const NESTING_MAX: u32 = 32;

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            context::leave(home);
        }
    }
}
