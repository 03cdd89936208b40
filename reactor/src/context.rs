//! Log contexts: whose work is running, and what it costs.
//!
//! Owns the thread's current context and the charging of time to it. Does not own the capture and
//! restore around callbacks, timers, tasks and jobs: whoever runs those calls [`swap`].

mod cpu;
#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use self::cpu::CpuMeter;
pub(crate) use self::cpu::{CpuClock, restart_cpu_meter};
use crate::backend::{Backend, Stopwatch};
use crate::clock::{Instant, SystemClock};
use crate::testing::leaks::CountedContext;

/// Names the piece of work that is running (a request, a background process) and counts its cost.
///
/// The context that is current when a callback, timer, task or thread job is registered is in force
/// whenever that runs; between them the reactor runs in the *sentinel* context, which has no name, is
/// never finished and counts nothing. There is nothing to preserve or restore by hand.
///
/// A context is a cheap handle (one reference count); clones are the same context.
///
/// ```
/// use ropewalk::LogContext;
///
/// let request = LogContext::new("GET-17");
/// request.run(|| assert_eq!(LogContext::current().name(), "GET-17"));
/// assert!(LogContext::current().is_sentinel());
/// ```
#[derive(Clone, Default)]
pub struct LogContext(Option<Rc<Inner>>);

struct Inner {
    name: Name,
    parent: LogContext,
    is_finished: Cell<bool>,
    loop_nanos: Cell<u64>,
    /// All other costs; most contexts, those of idle connections above all, never have any.
    usage: OnceCell<Box<Cell<Usage>>>,
    _counted: CountedContext,
    _living: Living,
}

/// Lies in each context, and counts those that live on this thread.
struct Living;

impl Living {
    #[inline]
    fn new() -> Living {
        CURRENT.with(|current| current.living.set(current.living.get() + 1));
        Living
    }
}

impl Drop for Living {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|current| current.living.set(current.living.get() - 1));
    }
}

/// A numbered name is spelt out only when somebody asks for it: most never are. Nor are those of jobs.
enum Name {
    Connection { port: Rc<str>, number: u64, spelt: OnceCell<Box<str>> },
    Job { parent: Option<SentName>, pool: Arc<str>, spelt: OnceCell<Box<str>> },
    Numbered { kind: &'static str, number: u64, spelt: OnceCell<Box<str>> },
    Text(Box<str>),
}

/// A context's name on its way to another thread, where a job's context is named after it.
#[derive(Debug)]
pub(crate) enum SentName {
    Numbered { kind: &'static str, number: u64 },
    Text(Box<str>),
}

impl fmt::Display for SentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SentName::Numbered { kind, number } => write!(f, "{kind}-{number}"),
            SentName::Text(text) => f.write_str(text),
        }
    }
}

impl Name {
    #[inline]
    fn numbered(kind: &'static str, number: u64) -> Self {
        Name::Numbered { kind, number, spelt: OnceCell::new() }
    }

    fn as_str(&self) -> &str {
        match self {
            Name::Connection { port, number, spelt } => {
                spelt.get_or_init(|| format!("{port}-{number}").into())
            }
            Name::Job { parent: None, pool, .. } => pool,
            Name::Job { parent: Some(parent), pool, spelt } => {
                spelt.get_or_init(|| format!("{parent}-{pool}").into())
            }
            Name::Numbered { kind, number, spelt } => {
                spelt.get_or_init(|| format!("{kind}-{number}").into())
            }
            Name::Text(text) => text,
        }
    }
}

/// What a context, its children included, has cost so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time spent on the loop: by the monotonic clock, less what the system gave to others
    /// meanwhile. In a simulation, the time that calls are said to cost.
    pub loop_time: Duration,
    /// Time spent in pool threads, by the monotonic clock: waiting for a disk counts.
    pub thread_time: Duration,
    /// Processor time spent in pool threads.
    pub thread_cpu_time: Duration,
    /// How long jobs have waited for a thread of their pool.
    pub thread_wait: Duration,
    /// Database transactions run.
    pub db_transactions: u64,
    /// Time spent inside database transactions.
    pub db_time: Duration,
    /// How long database transactions have waited for a connection.
    pub db_wait: Duration,
    /// Events fetched from the database.
    pub events_fetched: u64,
    /// Time charged, of whatever kind, after the context was finished: work that outlived its request.
    pub late: Duration,
}

impl Usage {
    fn add(&mut self, cost: &Usage, is_finished: bool) {
        self.db_transactions += cost.db_transactions;
        self.events_fetched += cost.events_fetched;
        self.late = self.late.saturating_add(cost.late);
        if is_finished {
            self.late = self.late.saturating_add(cost.loop_time).saturating_add(cost.thread_time);
        } else {
            self.loop_time = self.loop_time.saturating_add(cost.loop_time);
            self.thread_time = self.thread_time.saturating_add(cost.thread_time);
            self.thread_cpu_time = self.thread_cpu_time.saturating_add(cost.thread_cpu_time);
        }
        self.thread_wait = self.thread_wait.saturating_add(cost.thread_wait);
        self.db_wait = self.db_wait.saturating_add(cost.db_wait);
        // Database time is part of thread time, so it is never `late` a second time.
        self.db_time = self.db_time.saturating_add(cost.db_time);
    }
}

impl LogContext {
    /// Makes a context that belongs to no other.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self::with_parent(Name::Text(name.into()), Self::sentinel())
    }

    /// Makes a context named `<kind>-<number>` that belongs to no other. Cheaper than making up the name.
    #[must_use]
    #[inline]
    pub fn numbered(kind: &'static str, number: u64) -> Self {
        Self::with_parent(Name::numbered(kind, number), Self::sentinel())
    }

    /// Makes the context of a connection, named after the port that has accepted it.
    pub(crate) fn of_connection(port: &Rc<str>, number: u64) -> Self {
        let name = Name::Connection { port: Rc::clone(port), number, spelt: OnceCell::new() };
        Self::with_parent(name, Self::sentinel())
    }

    /// Makes a context as [`numbered`](Self::numbered) does, in the memory of this one if nobody else
    /// holds it.
    #[must_use]
    #[inline]
    pub fn renew(mut self, kind: &'static str, number: u64) -> Self {
        if let Some(inner) = self.0.as_mut().and_then(Rc::get_mut)
            && inner.renumber(kind, number)
        {
            return self;
        }
        self.renew_as(Name::numbered(kind, number))
    }

    /// Makes the context of a thread job, named after the context that gave it, in the memory of this
    /// one if nobody else holds it.
    pub(crate) fn renew_for_job(self, parent: Option<SentName>, pool: &Arc<str>) -> Self {
        self.renew_as(Name::Job { parent, pool: Arc::clone(pool), spelt: OnceCell::new() })
    }

    #[inline]
    fn renew_as(self, name: Name) -> Self {
        if let Some(mut shared) = self.0
            && let Some(inner) = Rc::get_mut(&mut shared)
        {
            *inner = Inner::new(name, Self::sentinel());
            return Self(Some(shared));
        }
        Self::with_parent(name, Self::sentinel())
    }

    /// Returns the name in a form that can be sent to another thread; `None` for the sentinel.
    pub(crate) fn sent_name(&self) -> Option<SentName> {
        self.0.as_ref().map(|inner| match &inner.name {
            Name::Numbered { kind, number, .. } => SentName::Numbered { kind, number: *number },
            name => SentName::Text(name.as_str().into()),
        })
    }

    /// Makes a context named `<this name>-<suffix>`, whose costs are this one's too.
    ///
    /// A child of the sentinel is named `sentinel-<suffix>` and has no parent; that is nearly always a
    /// context lost on the way, and is logged as a warning.
    #[must_use]
    pub fn child(&self, suffix: &str) -> Self {
        if self.is_sentinel() {
            log::warn!(
                "starting child context {suffix:?} from the sentinel context; use LogContext::new for work of its own"
            );
        }
        let name = format!("{}-{suffix}", self.name());
        Self::with_parent(Name::Text(name.into()), self.clone())
    }

    #[inline]
    fn with_parent(name: Name, parent: LogContext) -> Self {
        Self(Some(Rc::new(Inner::new(name, parent))))
    }

    /// Returns the context that the reactor's own code runs in.
    pub const fn sentinel() -> Self {
        Self(None)
    }

    /// Returns the context in force on this thread.
    #[inline]
    pub fn current() -> Self {
        CURRENT.with(|current| {
            if current.address.get().is_null() {
                return Self::sentinel();
            }
            let context = current.context.take();
            let copy = context.clone();
            current.context.set(context);
            Self(copy)
        })
    }

    #[inline]
    fn address(&self) -> *const Inner {
        self.0.as_ref().map_or(std::ptr::null(), Rc::as_ptr)
    }

    /// Calls `f` with this context in force, and restores the one before, also if `f` panics.
    #[inline]
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        let _restore = Restore(swap(self.clone()));
        f()
    }

    /// Wraps a future so that this context is in force during each of its polls, and while it is
    /// dropped.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + Unpin + use<F> {
        Scope { context: self.clone(), future: Some(Box::pin(future)) }
    }

    /// Marks the work as done. Log lines still carry the name; costs go to [`Usage::late`] from here on.
    pub fn finish(&self) {
        if let Some(inner) = &self.0 {
            CURRENT.with(|current| current.settle_for(inner));
            inner.is_finished.set(true);
        }
    }

    /// Counts a database transaction that took `duration`, for this context and its parents.
    pub fn record_database_transaction(&self, duration: Duration) {
        self.charge(&Usage { db_transactions: 1, db_time: duration, ..Usage::default() });
    }

    /// Counts the time that a database transaction has waited for a connection, for this context and its
    /// parents.
    pub fn record_database_wait(&self, duration: Duration) {
        self.charge(&Usage { db_wait: duration, ..Usage::default() });
    }

    /// Counts events fetched from the database, for this context and its parents.
    pub fn record_events_fetched(&self, count: u64) {
        self.charge(&Usage { events_fetched: count, ..Usage::default() });
    }

    /// Returns how many contexts there are on this thread, finished or not, those of connections included:
    /// one that is still there when its work is done is held by something that should have ended with it.
    pub fn living_count() -> usize {
        CURRENT.with(|current| current.living.get())
    }

    /// Returns the name; the sentinel's is `sentinel`.
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or("sentinel", |inner| inner.name.as_str())
    }

    /// Returns the context that this one's costs are added to, or the sentinel.
    pub fn parent(&self) -> LogContext {
        self.0.as_ref().map_or(LogContext::sentinel(), |inner| inner.parent.clone())
    }

    /// Whether this is the sentinel.
    pub fn is_sentinel(&self) -> bool {
        self.0.is_none()
    }

    /// Whether [`finish`](Self::finish) was called.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.is_finished.get())
    }

    /// Whether both are the same context, not merely of the same name.
    pub fn is_same(&self, other: &LogContext) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }

    /// Returns what this context and its children have cost so far, the slice that is running now
    /// included.
    pub fn usage(&self) -> Usage {
        settle();
        self.0.as_ref().map_or_else(Usage::default, |inner| {
            let loop_time = Duration::from_nanos(inner.loop_nanos.get());
            Usage {
                loop_time,
                ..inner.usage.get().map_or_else(Usage::default, |usage| usage.get())
            }
        })
    }

    /// Adds a cost to this context and all its parents.
    pub(crate) fn charge(&self, cost: &Usage) {
        let mut context = self;
        while let Some(inner) = &context.0 {
            inner.charge(cost);
            context = &inner.parent;
        }
    }
}

impl fmt::Debug for LogContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogContext({})", self.name())
    }
}

/// A future polled in a context of its own. See [`LogContext::scope`].
struct Scope<F> {
    context: LogContext,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let future = this.future.as_mut().expect("only drop takes the future");
        this.context.run(|| future.as_mut().poll(cx))
    }
}

impl<F> Drop for Scope<F> {
    fn drop(&mut self) {
        let future = self.future.take();
        self.context.run(|| drop(future));
    }
}

/// Puts a context in force and returns the one that was.
///
/// Charges the time since the last change to the context that goes; if the sentinel comes, later: see
/// [`settle`].
#[inline(never)]
pub(crate) fn swap(context: LogContext) -> LogContext {
    CURRENT.with(|current| current.swap(context))
}

/// Puts a context in force for a callback of the loop, and returns the one that was, for [`leave`].
#[inline(always)]
pub(crate) fn enter(context: &LogContext, activity: &'static str) -> LogContext {
    let address = context.address();
    // Bit by bit, because a closure that is small enough goes into its caller: each callback comes
    // through here, and saving registers is a third of what a call costs.
    CURRENT.with(|current| current.activity.set(activity));
    let charged_before = CURRENT.with(|current| current.charged.get());
    if charged_before.is_null() {
        // The first context since the loop has waited.
        CURRENT.with(|current| current.charged.set(address));
        CURRENT.with(|current| current.address.set(address));
        let none = CURRENT.with(|current| current.context.replace(context.0.clone()));
        debug_assert!(none.is_none(), "a context that is there is charged");
        std::mem::forget(none);
        let now = time();
        CURRENT.with(|current| current.slice_started.set(now));
        return LogContext::sentinel();
    }
    if charged_before == address && CURRENT.with(|current| current.address.get().is_null()) {
        CURRENT.with(|current| current.address.set(address));
        return LogContext::sentinel();
    }
    swap(context.clone())
}

/// Puts the context back in force that was before [`enter`].
#[inline]
pub(crate) fn leave(before: LogContext) {
    match before.is_sentinel() {
        true => CURRENT.with(|current| current.address.set(std::ptr::null())),
        false => drop(swap(before)),
    }
}

/// Puts the sentinel in force for a callback of the loop. Returns what [`leave_sentinel`] wants to know,
/// and the time if the clock had to be read to settle with the context before.
#[inline(always)]
pub(crate) fn enter_sentinel() -> (Option<LogContext>, Option<Instant>) {
    if CURRENT.with(|current| current.charged.get()).is_null() {
        // It is in force already, and nobody's slice goes on.
        return (None, None);
    }
    let settled = settle();
    (Some(swap(LogContext::sentinel())), settled)
}

/// Puts the context back in force that was before [`enter_sentinel`].
#[inline(always)]
pub(crate) fn leave_sentinel(before: Option<LogContext>) {
    if let Some(before) = before {
        leave(before);
    } else if !CURRENT.with(|current| current.address.get()).is_null() {
        // The callback has left one in force, which it cannot: whoever enters one leaves it.
        debug_assert!(false, "a context leaked out of a callback");
        leave(LogContext::sentinel());
    }
}

/// Whether `context` is in force; what a chain of callbacks asks before it calls [`swap`].
#[inline]
pub(crate) fn is_current(context: &LogContext) -> bool {
    CURRENT.with(|current| current.address.get() == context.address())
}

/// What slices of time are measured with.
pub(crate) enum AccountingClock {
    Loop(Rc<dyn Backend>),
    /// The machine's clock, read without a detour: this happens twice a turn at least.
    System(SystemClock),
    Thread(Stopwatch, CpuClock),
}

impl AccountingClock {
    fn cpu_clock(&self) -> CpuClock {
        match self {
            AccountingClock::Loop(_) => CpuClock::None,
            AccountingClock::System(_) => CpuClock::Thread,
            AccountingClock::Thread(_, cpu_clock) => cpu_clock.clone(),
        }
    }
}

/// Installs the clock that loop time is measured with, and returns the one before. Without a clock no
/// loop time is counted.
pub(crate) fn install_clock(clock: Option<AccountingClock>) -> Option<AccountingClock> {
    settle();
    CURRENT.with(|current| {
        current.system_clock.set(match &clock {
            Some(AccountingClock::System(clock)) => Some(*clock),
            _ => None,
        });
        let cpu_clock = clock.as_ref().map_or(CpuClock::None, AccountingClock::cpu_clock);
        let before = current.clock.replace(clock);
        current.cpu.install(cpu_clock);
        current.slice_started.set(time());
        before
    })
}

/// Whether this thread is one of a pool's.
pub(crate) fn is_on_pool_thread() -> bool {
    CURRENT.with(|current| matches!(&*current.clock.borrow(), Some(AccountingClock::Thread(..))))
}

/// Charges the running slice up to now: before counters are read or change their meaning, and before
/// the loop waits or does something that belongs to nobody.
///
/// When the sentinel takes over from a context, its slice goes on until another context starts or this
/// is called, which spares a reading of the clock for each callback.
///
/// Returns the time if the clock had to be read for it.
#[inline]
pub(crate) fn settle() -> Option<Instant> {
    CURRENT.with(|current| current.settle())
}

/// Does what [`settle`] does, for a loop that is about to wait, with no context in force.
#[inline(always)]
pub(crate) fn settle_before_waiting() -> Option<Instant> {
    let context = CURRENT.with(|current| current.context.take())?;
    CURRENT.with(|current| current.charged.set(std::ptr::null()));
    let now = end_slice(&context);
    if CURRENT.with(|current| current.cpu.count_turn()) {
        cpu::sample();
    }
    Some(now)
}

/// Returns when the clock was last read for the accounting.
#[inline]
pub(crate) fn last_reading() -> Instant {
    CURRENT.with(|current| current.slice_started.get())
}

/// Returns when the running slice began; `None` in the sentinel context, whose time nobody measures.
#[inline]
pub(crate) fn slice_started() -> Option<Instant> {
    CURRENT.with(|current| {
        let is_sentinel = current.address.get().is_null();
        if is_sentinel { None } else { Some(current.slice_started.get()) }
    })
}

/// Restores a context when dropped, so that a panic cannot leak one.
pub(crate) struct Restore(pub(crate) LogContext);

impl Drop for Restore {
    #[inline]
    fn drop(&mut self) {
        leave(std::mem::take(&mut self.0));
    }
}

struct Current {
    /// The context in force; or, while that is the sentinel, the one before, whose slice goes on.
    context: Cell<Option<Rc<Inner>>>,
    /// Where that lies; null if there is none.
    charged: Cell<*const Inner>,
    /// Where the context in force lies; null for the sentinel.
    address: Cell<*const Inner>,
    slice_started: Cell<Instant>,
    activity: Cell<&'static str>,
    /// What slices have taken, for the turn's sum.
    busy_nanos: Cell<u64>,
    hold_nanos_max: Cell<u64>,
    overlong_count: Cell<u64>,
    clock: RefCell<Option<AccountingClock>>,
    /// The same, if it is the machine's.
    system_clock: Cell<Option<SystemClock>>,
    cpu: CpuMeter,
    /// How many contexts there are.
    living: Cell<usize>,
}

impl Current {
    /// Whether this thread is a loop's: what runs in a pool's thread keeps nobody waiting.
    #[cold]
    fn is_on_loop(&self) -> bool {
        !matches!(&*self.clock.borrow(), Some(AccountingClock::Thread(..)))
    }

    #[inline]
    fn swap(&self, context: LogContext) -> LogContext {
        let address = context.address();
        let address_before = self.address.replace(address);
        if address == address_before {
            return context;
        }
        if address.is_null() {
            // Its slice goes on until somebody else's starts.
            let before = self.context.take();
            self.context.set(before.clone());
            return LogContext(before);
        }
        let before = LogContext(self.context.replace(context.0));
        self.charged.set(address);
        match &before.0 {
            None => self.slice_started.set(time()),
            Some(inner) if !std::ptr::eq(Rc::as_ptr(inner), address) => {
                end_slice(inner);
            }
            Some(_) => {}
        }
        if address_before.is_null() { LogContext::sentinel() } else { before }
    }

    #[inline]
    fn settle(&self) -> Option<Instant> {
        let context = self.context.take();
        let Some(inner) = &context else { return None };
        let now = end_slice(inner);
        match self.address.get().is_null() {
            true => self.charged.set(std::ptr::null()),
            false => self.context.set(context),
        }
        Some(now)
    }

    /// Settles only if the running slice may be charged to `finished`: to read the clock costs more than
    /// to look.
    #[inline]
    fn settle_for(&self, finished: &Rc<Inner>) {
        let running = self.context.take();
        let is_concerned = running
            .as_ref()
            .is_some_and(|inner| Rc::ptr_eq(inner, finished) || !inner.parent.is_sentinel());
        self.context.set(running);
        if is_concerned {
            self.settle();
        }
    }
}

/// Reads the clock of this thread's accounting; without one, time stands still.
#[inline(always)]
fn time() -> Instant {
    match CURRENT.with(|current| current.system_clock.get()) {
        Some(clock) => clock.now(),
        None => time_of_another(),
    }
}

#[inline(never)]
fn time_of_another() -> Instant {
    CURRENT.with(|current| match &*current.clock.borrow() {
        None => Instant::START,
        Some(AccountingClock::Loop(backend)) => backend.now(),
        Some(AccountingClock::System(clock)) => clock.now(),
        Some(AccountingClock::Thread(stopwatch, _)) => Instant::START + stopwatch(),
    })
}

/// Charges this context with the time since the last slice began, and begins another.
#[inline(always)]
fn end_slice(inner: &Inner) -> Instant {
    let now = time();
    let started = CURRENT.with(|current| current.slice_started.replace(now));
    let nanos = now.as_nanos().saturating_sub(started.as_nanos());
    CURRENT.with(|current| current.busy_nanos.set(current.busy_nanos.get() + nanos));
    if nanos > cpu::SHORT_SLICE_NANOS_MAX {
        end_long_slice(inner, nanos);
    } else {
        CURRENT.with(|current| current.cpu.count_short_slice(nanos));
        inner.charge_loop(nanos);
    }
    now
}

/// Only in a long slice can others have had the processor for long.
#[cold]
#[inline(never)]
fn end_long_slice(inner: &Inner, nanos: u64) {
    inner.charge_loop(cpu::of_long_slice(nanos));
    CURRENT.with(|current| {
        if nanos > current.hold_nanos_max.get() && current.is_on_loop() {
            report_overlong(current.activity.get(), inner.name.as_str(), nanos);
        }
    });
}

impl Inner {
    #[inline]
    fn new(name: Name, parent: LogContext) -> Self {
        Inner {
            _counted: CountedContext::new(|| name.as_str().to_owned()),
            name,
            parent,
            is_finished: Cell::new(false),
            loop_nanos: Cell::new(0),
            usage: OnceCell::new(),
            _living: Living::new(),
        }
    }

    /// Becomes a numbered context as good as new, if it is one already and has no parent. Returns
    /// whether it is that now.
    #[inline]
    fn renumber(&mut self, kind: &'static str, number: u64) -> bool {
        let Name::Numbered { kind: own_kind, number: own_number, spelt } = &mut self.name else {
            return false;
        };
        if !self.parent.is_sentinel() {
            return false;
        }
        (*own_kind, *own_number) = (kind, number);
        spelt.take();
        self._counted = CountedContext::new(|| format!("{kind}-{number}"));
        self.is_finished.set(false);
        self.loop_nanos.set(0);
        self.usage.take();
        true
    }

    #[inline(always)]
    fn charge_loop(&self, nanos: u64) {
        let mut inner = self;
        loop {
            if inner.is_finished.get() {
                inner.charge_late(nanos);
            } else {
                inner.loop_nanos.set(inner.loop_nanos.get() + nanos);
            }
            match &inner.parent.0 {
                Some(parent) => inner = parent,
                None => return,
            }
        }
    }

    #[cold]
    fn charge_late(&self, nanos: u64) {
        self.charge(&Usage { loop_time: Duration::from_nanos(nanos), ..Usage::default() });
    }

    /// Adds a cost to this context alone.
    fn charge(&self, cost: &Usage) {
        let sum = self.usage.get_or_init(Box::default);
        let mut usage = sum.get();
        usage.add(cost, self.is_finished.get());
        sum.set(usage);
    }
}

/// Takes note of a call that was charged to nobody.
pub(crate) fn charge_sentinel(what: &str, nanos: u64) {
    CURRENT.with(|current| {
        current.busy_nanos.set(current.busy_nanos.get() + nanos);
        if nanos > current.hold_nanos_max.get() {
            report_overlong(what, LogContext::sentinel().name(), nanos);
        }
    });
}

/// Returns how long this thread's slices have taken since this was last called.
#[inline(always)]
pub(crate) fn take_busy_nanos() -> u64 {
    CURRENT.with(|current| current.busy_nanos.take())
}

/// Sets how long a slice of this thread's loop may take before it is reported.
pub(crate) fn set_hold_nanos_max(nanos: u64) {
    CURRENT.with(|current| current.hold_nanos_max.set(nanos));
}

/// Returns how many slices of this thread have been reported.
pub(crate) fn overlong_count() -> u64 {
    CURRENT.with(|current| current.overlong_count.get())
}

/// Says on behalf of `context` that it kept everybody else waiting.
#[cold]
fn report_overlong(what: &str, context: &str, nanos: u64) {
    CURRENT.with(|current| current.overlong_count.set(current.overlong_count.get() + 1));
    let held_ms = nanos / 1_000_000;
    log::warn!(
        "{what} held the loop, and everybody else up; let a thread do it \
         context={context} held_ms={held_ms}"
    );
}

/// A slice that takes longer is reported, unless the reactor was told otherwise. People notice a pause of a tenth of a
/// second.
pub(crate) const LOOP_HOLD_NANOS_MAX: u64 = 100_000_000;

thread_local! {
    // Never dropped: a context that is current when its thread ends is leaked, which spares each
    // access the check for a running destructor.
    static CURRENT: ManuallyDrop<Current> = const {
        ManuallyDrop::new(Current {
            context: Cell::new(None),
            charged: Cell::new(std::ptr::null()),
            address: Cell::new(std::ptr::null()),
            slice_started: Cell::new(Instant::START),
            activity: Cell::new("a callback"),
            busy_nanos: Cell::new(0),
            hold_nanos_max: Cell::new(LOOP_HOLD_NANOS_MAX),
            overlong_count: Cell::new(0),
            clock: RefCell::new(None),
            system_clock: Cell::new(None),
            cpu: CpuMeter::new(),
            living: Cell::new(0),
        })
    };
}
