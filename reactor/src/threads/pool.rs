//! The loop's side of a pool.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::options::{ThreadPoolError, ThreadPoolOptions, ThreadPoolStatistics};
use super::parcel::Parcel;
use super::place::Line;
use super::worker::Shared;
use crate::context::LogContext;
use crate::core::{Core, Stage};
use crate::deferred::{AnyResolver, Deferred, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::reactor::Reactor;
use crate::ready::{self, Job};
use crate::slots::{Key, Slots};
use crate::teardown::dropping;

pub(super) struct Pool {
    id: u64,
    pub(super) core: Weak<Core>,
    runs_inline: bool,
    /// How many of its threads are at work, where they are simulated.
    pub(super) busy_threads: Cell<usize>,
    pub(super) shared: Arc<Shared>,
    /// Those whose job has not come back.
    waiting: RefCell<Slots<Waiting>>,
    /// Keeps the pool as long as anybody waits.
    itself: RefCell<Option<Rc<Pool>>>,
    /// Jobs that were given in this turn, to be handed over together.
    batch: RefCell<Vec<Box<Parcel>>>,
    next_number: Cell<u64>,
    /// No fewer than there are in the batch, in the queue, and in reserved places.
    taken_at_most: Cell<usize>,
    /// Results on their way to those who wait.
    arrivals: RefCell<Vec<Box<Parcel>>>,
    is_collecting: Cell<bool>,
    pub(super) line: Line,
    is_stopping: Cell<bool>,
    stopped: RefCell<Vec<Resolver<()>>>,
}

/// Waits for a job's result.
struct Waiting {
    resolver: AnyResolver,
    context: LogContext,
    number: u64,
}

impl Pool {
    pub(super) fn new(reactor: &Reactor, options: ThreadPoolOptions, id: u64) -> Rc<Pool> {
        let core = reactor.core();
        Rc::new(Pool {
            id,
            core: Rc::downgrade(core),
            runs_inline: core.backend.runs_thread_jobs_inline(),
            busy_threads: Cell::new(0),
            shared: Arc::new(Shared::new(options, reactor.remote(), reactor.stopwatch(), id)),
            waiting: RefCell::new(Slots::new()),
            itself: RefCell::default(),
            batch: RefCell::default(),
            next_number: Cell::new(0),
            taken_at_most: Cell::new(0),
            arrivals: RefCell::default(),
            is_collecting: Cell::new(false),
            line: Line::default(),
            is_stopping: Cell::new(false),
            stopped: RefCell::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    /// # Errors
    ///
    /// If the pool, or its reactor, takes no jobs any more.
    pub(super) fn check_open(&self) -> Result<(), ThreadPoolError> {
        let has_reactor =
            self.core.upgrade().is_some_and(|core| core.stage.get() != Stage::Stopped);
        match has_reactor && !self.is_stopping.get() {
            true => Ok(()),
            false => Err(self.shared.stopped_error()),
        }
    }

    /// # Errors
    ///
    /// If no job may be added.
    pub(super) fn check_room(self: &Rc<Self>) -> Result<(), ThreadPoolError> {
        self.check_open()?;
        // Those who wait for a place come first.
        if self.line.len() > 0 {
            self.grant_places();
        }
        match self.has_room() && self.line.len() == 0 {
            true => Ok(()),
            false => Err(ThreadPoolError::QueueFull {
                pool: self.name().to_owned(),
                queue_max: self.shared.options.queue_max,
            }),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        let queue_max = self.shared.options.queue_max;
        if self.taken_at_most.get() >= queue_max {
            // Looked up only now: the threads write to it with each job.
            let taken = self.batch.borrow().len() + self.shared.queued() + self.line.reserved.get();
            self.taken_at_most.set(taken);
        }
        self.taken_at_most.get() < queue_max
    }

    /// Counts a job, or a place, that is taken.
    pub(super) fn count_taken(&self) {
        self.taken_at_most.set(self.taken_at_most.get() + 1);
    }

    /// Queues a job for which there is room.
    #[track_caller]
    pub(super) fn submit<T, E, F>(self: &Rc<Self>, f: F) -> Deferred<T>
    where
        T: Send + 'static,
        E: Into<Failure>,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        self.count_taken();
        let (deferred, resolver) = Deferred::new();
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let context = LogContext::current();
        let mut parcel = None;
        self.waiting.borrow_mut().insert_with(|key| {
            parcel = Some(Parcel::new(key, number, &context, f));
            let weak = Rc::downgrade(self);
            resolver.set_canceller(move || {
                if let Some(pool) = weak.upgrade() {
                    pool.cancel(key);
                }
            });
            let resolver = AnyResolver::new(resolver).expect("it has not been used");
            Waiting { resolver, context, number }
        });
        if self.itself.borrow().is_none() {
            self.itself.replace(Some(Rc::clone(self)));
        }
        self.batch.borrow_mut().extend(parcel);
        self.hand_over_in_time(number);
        deferred
    }

    pub(super) fn stop(self: &Rc<Self>, limit: Duration) -> Deferred<usize> {
        self.close();
        let (deferred, resolver) = Deferred::new();
        self.stopped.borrow_mut().push(resolver);
        self.tell_if_stopped();
        let Some(core) = self.core.upgrade() else { return deferred.add_both(|_| Ok(0)) };
        let pool = Rc::clone(self);
        deferred.with_timeout(&Reactor::from_core(core), limit).add_both(move |outcome| {
            Ok(match outcome {
                Ok(()) => 0,
                Err(_) => pool.abandon(),
            })
        })
    }

    pub(super) fn pending_jobs(&self) -> Vec<Vec<String>> {
        let waiting = self.waiting.borrow();
        let mut jobs: Vec<_> = waiting.iter().map(|(_, job)| (job.number, &job.context)).collect();
        jobs.sort_by_key(|(number, _)| *number);
        let row = |(number, context): (u64, &LogContext)| {
            vec![self.name().to_owned(), number.to_string(), context.name().to_owned()]
        };
        jobs.into_iter().map(row).collect()
    }

    pub(super) fn statistics(&self) -> ThreadPoolStatistics {
        let mut statistics = self.shared.queue().statistics();
        statistics.queued += self.batch.borrow().len();
        statistics.waiting_for_place = self.line.len();
        statistics
    }

    /// Has the loop called when a job leaves the queue.
    pub(super) fn call_when_place_is_free(&self) {
        self.shared.queue().wants_places = true;
    }

    /// Delivers what has come back, and hands over what that leads to.
    pub(super) fn collect(self: &Rc<Self>) {
        if self.is_collecting.replace(true) {
            return;
        }
        for _ in 0..COLLECTIONS_PER_TURN {
            let mut arrivals = self.arrivals.take();
            let mut queue = self.shared.queue();
            std::mem::swap(&mut arrivals, &mut queue.finished);
            queue.has_called_loop = !arrivals.is_empty();
            drop(queue);
            let is_empty = arrivals.is_empty();
            for parcel in arrivals.drain(..) {
                self.deliver(parcel);
            }
            self.arrivals.replace(arrivals);
            self.hand_over();
            if is_empty {
                break;
            }
        }
        self.is_collecting.set(false);
        self.come_back_for_the_rest();
        self.grant_places();
        self.tell_if_stopped();
    }

    /// Jobs may finish as fast as they are delivered: the others have their turn in between.
    fn come_back_for_the_rest(&self) {
        let has_more = self.shared.queue().has_called_loop;
        if let Some(core) = self.core.upgrade()
            && has_more
        {
            let id = self.id;
            core.remote.call_from_thread(move |reactor| reactor.core().thread_pools.collect(id));
        }
    }

    fn deliver(&self, mut parcel: Box<Parcel>) {
        let mut all = self.waiting.borrow_mut();
        let waiting = all.remove(parcel.key);
        let _last = if all.len() == 0 { self.itself.take() } else { None };
        drop(all);
        match waiting {
            Some(Waiting { resolver, context, .. }) => {
                if !context.is_sentinel() {
                    context.charge(&parcel.usage());
                }
                resolver.fire(parcel.outcome());
            }
            // It was cancelled while it ran.
            None => dropping("the result of a cancelled job", parcel),
        }
    }

    fn refuse(&self, key: Key, failure: impl FnOnce() -> Failure) {
        let mut all = self.waiting.borrow_mut();
        let waiting = all.remove(key);
        let _last = if all.len() == 0 { self.itself.take() } else { None };
        drop(all);
        if let Some(waiting) = waiting {
            waiting.resolver.errback(failure());
        }
    }

    /// Hands a job over: now, or with others at the end of what is going on.
    fn hand_over_in_time(self: &Rc<Self>, number: u64) {
        let Some(core) = self.core.upgrade() else { return };
        let weak = Rc::downgrade(self);
        if self.runs_inline {
            self.hand_over();
            return self.run_on_loop(&core, number);
        }
        let batched = self.batch.borrow().len();
        let is_wanted = batched >= BATCH_MIN && (self.shared.is_awake() || batched >= BATCH_MAX);
        if is_wanted || !ready::is_turning(core.remote.id()) {
            self.hand_over();
        } else if batched == 1 && !self.is_collecting.get() {
            core.ready.push(Job::in_context(LogContext::sentinel(), move || {
                if let Some(pool) = weak.upgrade() {
                    pool.hand_over();
                }
            }));
        }
    }

    fn hand_over(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.is_empty() {
            return;
        }
        let result = self.shared.add(batch.drain(..), !self.runs_inline);
        drop(batch);
        if let Err(error) = result {
            self.fail_for_want_of_threads(error);
        }
    }

    #[cold]
    fn fail_for_want_of_threads(&self, error: io::Error) {
        let mut queue = self.shared.queue();
        let jobs = queue.take_all();
        self.shared.publish(&queue);
        drop(queue);
        for job in jobs {
            // The error cannot be copied, but what it is made of can.
            let source = match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            };
            let pool = self.name().to_owned();
            self.refuse(job.key, || ThreadPoolError::NoThread { pool, source }.into());
            dropping("a job without a thread", job);
        }
    }

    fn cancel(self: &Rc<Self>, key: Key) {
        let number = self.waiting.borrow().get(key).map(|waiting| waiting.number);
        let Some(number) = number else { return };
        let mut batch = self.batch.borrow_mut();
        let place = batch.iter().position(|job| job.number == number);
        let job = place.map(|place| batch.remove(place));
        drop(batch);
        let mut queue = self.shared.queue();
        let job = match job {
            Some(job) => {
                queue.count_cancelled();
                Some(job)
            }
            None => queue.cancel(number),
        };
        self.shared.publish(&queue);
        drop(queue);
        // One that runs is let go as well: its deferred fails now, and the result will find nobody.
        self.refuse(key, || Failure::plain(CancelledError));
        if let Some(job) = job {
            dropping("a cancelled job", job);
            self.grant_places();
            self.tell_if_stopped();
        }
    }

    /// Takes no job any more.
    fn close(&self) {
        self.is_stopping.set(true);
        self.hand_over();
        self.shared.stop();
        self.line.refuse_all(&self.shared.stopped_error().into());
    }

    fn tell_if_stopped(&self) {
        let is_idle = self.batch.borrow().is_empty()
            && !self.is_collecting.get()
            && self.shared.queue().is_idle();
        if !self.is_stopping.get() || !is_idle {
            return;
        }
        for resolver in self.stopped.take() {
            resolver.callback(());
        }
    }

    /// Fails what waits, and returns how many threads are still at work.
    fn abandon(&self) -> usize {
        let mut queue = self.shared.queue();
        let jobs = queue.take_all();
        self.shared.publish(&queue);
        let running = queue.running();
        drop(queue);
        if running > 0 {
            log::warn!(
                "abandoning {running} threads of pool {:?}, whose jobs have not ended in time",
                self.name()
            );
        }
        for job in jobs {
            self.refuse(job.key, || self.shared.stopped_error().into());
            dropping("a job that has not begun", job);
        }
        running
    }

    /// The end of the reactor.
    pub(super) fn tear_down(&self) {
        self.close();
        self.abandon();
        let waiting = self.waiting.borrow_mut().take_all();
        let _last = self.itself.take();
        for waiting in waiting {
            waiting.resolver.errback(self.shared.stopped_error().into());
        }
        self.tell_if_stopped();
    }

    /// The end of the reactor's process, of which nobody is told.
    pub(super) fn kill(&self) {
        self.is_stopping.set(true);
        self.shared.stop();
        let mut queue = self.shared.queue();
        let jobs = (queue.take_all(), std::mem::take(&mut queue.finished), self.batch.take());
        drop(queue);
        dropping("thread jobs", jobs);
        let waiting = self.waiting.borrow_mut().take_all();
        dropping("who waits for thread jobs", waiting);
        dropping("who waits for a pool", (self.line.take_all(), self.stopped.take()));
        self.itself.take();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Threads end when nothing is left for them to do.
        self.shared.stop();
    }
}

/// So many jobs are handed over at once, without waiting for more, to a thread that is awake: few enough
/// for it to go on while the loop makes the next ones.
const BATCH_MIN: usize = 16;

/// So many are handed over even if that wakes a thread.
const BATCH_MAX: usize = 256;

/// How often the loop looks for more results before it turns to others.
const COLLECTIONS_PER_TURN: usize = 16;
