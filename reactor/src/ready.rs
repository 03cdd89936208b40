//! The ready queue: what is to happen after the current callback has returned.
//!
//! Owns the queue, and which queue is the running reactor's on this thread. Does not decide when the
//! queue is served: the reactor's turn does, within its budget. On a thread without a queue, jobs run
//! at the end of the outermost deferred chain that is running, or at once if none is.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use smallvec::SmallVec;

use crate::agenda::{Agenda, item};
use crate::context::{self, LogContext};
use crate::deferred::{CancelHandle, UnhandledFailure};
use crate::failure::Failure;
use crate::slots::Key;
use crate::teardown::dropping;

/// A piece of work together with the context it was queued in.
pub(crate) struct Job {
    context: LogContext,
    run: Box<dyn Call>,
}

/// A closure that can say what it is.
pub(crate) trait Call {
    fn call(self: Box<Self>);

    /// Where in the program it was written: `chat::Room::close::{{closure}}`.
    fn name(&self) -> &'static str;
}

impl<F: FnOnce()> Call for F {
    fn call(self: Box<Self>) {
        self();
    }

    fn name(&self) -> &'static str {
        std::any::type_name::<F>()
    }
}

impl Job {
    /// Captures the current context along with `f`.
    pub(crate) fn new(f: impl FnOnce() + 'static) -> Self {
        Self::in_context(LogContext::current(), f)
    }

    pub(crate) fn in_context(context: LogContext, f: impl FnOnce() + 'static) -> Self {
        Self { context, run: Box::new(f) }
    }

    /// Takes the job apart, for a caller that runs it itself.
    pub(crate) fn into_parts(self) -> (LogContext, Box<dyn Call>) {
        (self.context, self.run)
    }

    /// The context, and what is called.
    pub(crate) fn describe(&self) -> (&LogContext, &'static str) {
        (&self.context, self.run.name())
    }

    /// Runs the job in its context. A panic is logged and goes no further.
    pub(crate) fn run(self) {
        let Self { context, run } = self;
        let _restore = context::Restore(context::swap(context));
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| run.call())) {
            let failure = Failure::from_panic(payload);
            log::error!("queued job failed: {failure}");
        }
    }
}

/// Something that is ready to run.
pub(crate) enum Ready {
    Job(Job),
    /// The number of a task to be polled.
    Task(Key),
}

/// What is ready, in the order it was queued.
pub(crate) struct ReadyQueue {
    /// The reactor whose queue it is; see [`ReactorRemote::id`](crate::ReactorRemote).
    owner: usize,
    agenda: Rc<Agenda>,
    entries: RefCell<VecDeque<Ready>>,
}

impl ReadyQueue {
    pub(crate) fn new(owner: usize, agenda: Rc<Agenda>) -> Rc<Self> {
        Rc::new(Self { owner, agenda, entries: RefCell::default() })
    }

    pub(crate) fn push(&self, job: Job) {
        self.push_ready(Ready::Job(job));
    }

    pub(crate) fn push_task(&self, task: Key) {
        self.push_ready(Ready::Task(task));
    }

    #[inline]
    fn push_ready(&self, ready: Ready) {
        self.agenda.add(item::READY);
        self.entries.borrow_mut().push_back(ready);
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<Ready> {
        let mut entries = self.entries.borrow_mut();
        let ready = entries.pop_front();
        if entries.is_empty() {
            self.agenda.remove(item::READY);
        }
        ready
    }

    /// Drops everything, what dropping it queues included.
    pub(crate) fn clear(&self) {
        while let Some(ready) = self.pop() {
            dropping("a queued call", ready);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }
}

/// Makes `queue` this thread's until the guard is dropped.
pub(crate) fn install(queue: Rc<ReadyQueue>) -> Installed {
    Installed { before: THREAD.with(|thread| thread.queue.replace(Some(queue))) }
}

/// Puts back the queue that was in force before [`install`].
#[must_use = "the queue is uninstalled when the guard is dropped"]
pub(crate) struct Installed {
    before: Option<Rc<ReadyQueue>>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        let before = self.before.take();
        drop(THREAD.with(|thread| thread.queue.replace(before)));
    }
}

/// Whether the reactor `owner` is turning now, on this thread, and no other one inside it.
#[inline]
pub(crate) fn is_turning(owner: usize) -> bool {
    THREAD.with(|thread| thread.queue.borrow().as_ref().is_some_and(|queue| queue.owner == owner))
}

/// Returns this thread's queue.
pub(crate) fn current() -> Option<Rc<ReadyQueue>> {
    THREAD.with(|thread| thread.queue.borrow().clone())
}

/// Queues `f`, with the current context, to run after the current callback has returned.
pub(crate) fn enqueue(f: impl FnOnce() + 'static) {
    if is_silent() {
        // What it owns may queue more of its kind when it is dropped, as the guard of a lock does.
        return drop_in_turn(Box::new(f));
    }
    let job = Job::new(f);
    match current() {
        Some(queue) => queue.push(job),
        None => {
            THREAD.with(|thread| thread.stray.borrow_mut().push_back(job));
            run_stray_jobs();
        }
    }
}

/// Queues a task of the reactor `owner` to be polled. Returns whether that could be done: that reactor
/// is turning now, on this thread.
pub(crate) fn push_task(owner: usize, task: Key) -> bool {
    THREAD.with(|thread| match &*thread.queue.borrow() {
        Some(queue) if queue.owner == owner => {
            queue.push_task(task);
            true
        }
        _ => false,
    })
}

/// What a task waits for: one deferred mostly, several if it awaits them together.
pub(crate) type Awaited = SmallVec<[CancelHandle; 1]>;

/// Notes what the task that is being polled waits for, if one is.
pub(crate) fn note_awaiting(awaited: CancelHandle) {
    THREAD.with(|thread| {
        if thread.is_noting.get() {
            thread.awaited.borrow_mut().get_or_insert_default().push(awaited);
        }
    });
}

/// Begins to take notes for a task that is about to be polled.
pub(crate) fn start_awaiting() {
    THREAD.with(|thread| {
        thread.is_noting.set(true);
        *thread.awaited.borrow_mut() = None;
    });
}

/// Returns what was noted with [`note_awaiting`], if anything was, and takes no more notes.
pub(crate) fn take_awaiting() -> Option<Awaited> {
    THREAD.with(|thread| {
        thread.is_noting.set(false);
        thread.awaited.take()
    })
}

/// Says that a chain of callbacks is running until the guard is dropped.
#[inline]
pub(crate) fn enter_chain() -> InChain {
    THREAD.with(|thread| thread.chains.set(thread.chains.get() + 1));
    InChain
}

/// See [`enter_chain`].
pub(crate) struct InChain;

impl Drop for InChain {
    #[inline]
    fn drop(&mut self) {
        let is_idle = THREAD.with(|thread| {
            thread.chains.set(thread.chains.get() - 1);
            thread.chains.get() == 0 && thread.stray.borrow().is_empty()
        });
        if !is_idle {
            run_stray_jobs();
        }
    }
}

#[cold]
fn run_stray_jobs() {
    THREAD.with(|thread| {
        if thread.chains.get() > 0 {
            return;
        }
        // Counts as a chain, so that what these jobs queue waits its turn instead of nesting.
        thread.chains.set(1);
        loop {
            let job = thread.stray.borrow_mut().pop_front();
            let Some(job) = job else { break };
            job.run();
        }
        thread.chains.set(0);
    });
}

/// Drops `thing`, or has it dropped by the drop that is under way, so that a long list of things that
/// own each other is taken down in a loop instead of by recursion.
pub(crate) fn drop_in_turn(thing: Box<dyn Any>) {
    THREAD.with(|thread| {
        thread.doomed.borrow_mut().push(thing);
        if thread.is_dropping.replace(true) {
            return;
        }
        loop {
            let thing = thread.doomed.borrow_mut().pop();
            let Some(thing) = thing else { break };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(thing))) {
                log::error!("dropping a callback failed: {}", Failure::from_panic(payload));
            }
        }
        thread.is_dropping.set(false);
    });
}

/// Makes `watcher` hear of this thread's unhandled failures, instead of the log, and returns the one
/// before.
pub(crate) fn set_unhandled_watcher(watcher: Option<UnhandledWatcher>) -> Option<UnhandledWatcher> {
    THREAD.with(|thread| thread.unhandled_watcher.replace(watcher))
}

/// Makes `watcher` hear of each panic that this thread catches, and returns the one before.
pub(crate) fn set_panic_watcher(watcher: Option<PanicWatcher>) -> Option<PanicWatcher> {
    THREAD.with(|thread| thread.panic_watcher.replace(watcher))
}

/// Tells the watcher of panics, if there is one.
pub(crate) fn tell_panic_watcher(failure: &Failure) {
    let watcher = THREAD.with(|thread| thread.panic_watcher.borrow().clone());
    if let Some(watcher) = watcher {
        watcher(failure);
    }
}

/// Has nothing follow, on this thread, from what goes away until the guard is dropped: no failure for
/// the deferreds of dropped resolvers, no report of failures that nobody handled. So goes the memory of
/// a process that dies.
pub(crate) fn silence() -> Silence {
    THREAD.with(|thread| thread.silences.set(thread.silences.get() + 1));
    Silence(())
}

/// Whether nothing is to follow from what goes away now.
pub(crate) fn is_silent() -> bool {
    THREAD.with(|thread| thread.silences.get() > 0)
}

/// See [`silence`].
pub(crate) struct Silence(());

impl Drop for Silence {
    fn drop(&mut self) {
        THREAD.with(|thread| thread.silences.set(thread.silences.get() - 1));
    }
}

/// Passes the watcher to `f`, and says whether there is one.
pub(crate) fn with_unhandled_watcher(f: impl FnOnce(UnhandledWatcher)) -> bool {
    let watcher = THREAD.with(|thread| thread.unhandled_watcher.borrow().clone());
    let is_watched = watcher.is_some();
    if let Some(watcher) = watcher {
        f(watcher);
    }
    is_watched
}

/// Hears of each failure that nobody handled.
pub(crate) type UnhandledWatcher = Rc<dyn Fn(UnhandledFailure)>;

/// Hears of each panic that was caught.
pub(crate) type PanicWatcher = Rc<dyn Fn(&Failure)>;

struct Thread {
    unhandled_watcher: RefCell<Option<UnhandledWatcher>>,
    panic_watcher: RefCell<Option<PanicWatcher>>,
    silences: Cell<u32>,
    queue: RefCell<Option<Rc<ReadyQueue>>>,
    stray: RefCell<VecDeque<Job>>,
    chains: Cell<u32>,
    doomed: RefCell<Vec<Box<dyn Any>>>,
    /// What the task that is being polled waits for.
    awaited: RefCell<Option<Awaited>>,
    /// Whether a task is being polled.
    is_noting: Cell<bool>,
    is_dropping: Cell<bool>,
}

thread_local! {
    // Never dropped, so that it can still be used while a thread's other locals are.
    static THREAD: ManuallyDrop<Thread> = const {
        ManuallyDrop::new(Thread {
            unhandled_watcher: RefCell::new(None),
            panic_watcher: RefCell::new(None),
            silences: Cell::new(0),
            queue: RefCell::new(None),
            stray: RefCell::new(VecDeque::new()),
            chains: Cell::new(0),
            doomed: RefCell::new(Vec::new()),
            awaited: RefCell::new(None),
            is_noting: Cell::new(false),
            is_dropping: Cell::new(false),
        })
    };
}
