//! What stands behind every handle on one reactor.
//!
//! The core owns the world: connections, timers, tasks, queues. Handles that live inside the world
//! (a transport, a delayed call) point back weakly.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::agenda::{Agenda, item};
use crate::backend::Backend;
use crate::clock::Instant;
use crate::context::{self, LogContext};
use crate::cooperator::Cooperators;
use crate::counters::Counters;
use crate::deferred::task::Tasks;
use crate::failure::Failure;
use crate::process::Child;
use crate::process::InheritedSockets;
use crate::ready::{Job, ReadyQueue};
use crate::remote::ReactorRemote;
use crate::resolver::Lookups;
use crate::signals::SignalSource;
use crate::slots::{Key, Slots};
use crate::threads::{ThreadPool, ThreadPools};
use crate::transport::Transport;
use crate::transport::outbox::Outbox;
use crate::transport::port::Port;
use crate::turn::Buffers;
use crate::udp;
use crate::wheel::Timers;

pub(crate) struct Core {
    pub(crate) backend: Rc<dyn Backend>,
    pub(crate) stage: Cell<Stage>,
    pub(crate) ready: Rc<ReadyQueue>,
    pub(crate) remote: ReactorRemote,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) tasks: RefCell<Tasks>,
    pub(crate) thread_pools: ThreadPools,
    pub(crate) cooperators: Cooperators,
    pub(crate) lookups: Lookups,
    /// The sockets that this process was started with, once an endpoint has asked for one.
    pub(crate) inherited: RefCell<Option<InheritedSockets>>,
    /// Where files are waited for; made when first asked for.
    pub(crate) files_pool: OnceCell<ThreadPool>,
    /// Everything that events arrive for.
    pub(crate) sources: RefCell<Slots<Source>>,
    /// Sources that may have more to read although no further edge will say so.
    unread: RefCell<VecDeque<Key>>,
    pub(crate) outbox: Rc<Outbox>,
    /// Which of the queues hold something.
    pub(crate) agenda: Rc<Agenda>,
    pub(crate) counters: Counters,
    /// The memory that turns work in; out of its place while a turn is under way.
    pub(crate) buffers: Cell<Option<Box<Buffers>>>,
    /// When the last call in the sentinel context ended, if that was since the loop has waited.
    pub(crate) looked_at_clock: Cell<Option<Instant>>,
    /// How much virtual time each call of somebody else's code takes; the machine's time passes by
    /// itself.
    pub(crate) cost_of_calls_nanos: Cell<u64>,
    /// Calls that take longer are reported.
    pub(crate) hold_nanos_max: Cell<u64>,
}

/// How far the life of a reactor has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    Idle,
    Running,
    Stopping,
    Stopped,
}

/// Something that events arrive for.
#[derive(Clone)]
pub(crate) enum Source {
    Child(Rc<Child>),
    Datagrams(Rc<udp::Port>),
    Link(Transport),
    Port(Rc<Port>),
    Signal(Rc<SignalSource>),
}

impl Core {
    /// Makes the core that `this` will lead to.
    pub(crate) fn new(backend: Rc<dyn Backend>, this: &Weak<Core>) -> Core {
        let remote = ReactorRemote::new(backend.alarm());
        let agenda: Rc<Agenda> = Rc::default();
        Core {
            stage: Cell::new(Stage::Idle),
            ready: ReadyQueue::new(remote.id(), Rc::clone(&agenda)),
            remote,
            tasks: RefCell::new(Tasks::new()),
            thread_pools: ThreadPools::default(),
            cooperators: Cooperators::default(),
            lookups: Lookups::default(),
            inherited: RefCell::default(),
            files_pool: OnceCell::new(),
            timers: RefCell::new(Timers::new(Rc::clone(&agenda))),
            sources: RefCell::new(Slots::new()),
            unread: RefCell::default(),
            outbox: Rc::new(Outbox::new(Weak::clone(this), Rc::clone(&agenda))),
            agenda,
            counters: Counters::default(),
            buffers: Cell::new(Some(Box::new(Buffers::new()))),
            looked_at_clock: Cell::default(),
            cost_of_calls_nanos: Cell::default(),
            hold_nanos_max: Cell::new(context::LOOP_HOLD_NANOS_MAX),
            backend,
        }
    }

    /// Fails if the reactor takes no new work any more.
    pub(crate) fn check_open(&self) -> io::Result<()> {
        match self.stage.get() {
            Stage::Idle | Stage::Running => Ok(()),
            Stage::Stopping | Stage::Stopped => Err(stopped()),
        }
    }

    /// Has the source served in the next turn, as if it had become readable: it was not read to the
    /// end, and no further edge will say so.
    pub(crate) fn read_later(&self, source: Key) {
        self.agenda.add(item::UNREAD);
        self.unread.borrow_mut().push_back(source);
    }

    /// Takes the source that has waited longest for [`read_later`](Core::read_later).
    pub(crate) fn next_unread(&self) -> Option<Key> {
        let mut unread = self.unread.borrow_mut();
        let source = unread.pop_front();
        if unread.is_empty() {
            self.agenda.remove(item::UNREAD);
        }
        source
    }

    #[inline]
    pub(crate) fn unread_count(&self) -> usize {
        if self.agenda.has(item::UNREAD) { self.unread.borrow().len() } else { 0 }
    }

    /// Runs somebody else's code: in this context, watched, and with its panics caught.
    ///
    /// `what` names it in the log, should it panic or hold the loop for too long.
    #[inline(always)]
    pub(crate) fn call(
        &self,
        what: &'static str,
        context: &LogContext,
        f: impl FnOnce(),
    ) -> Result<(), Panicked> {
        if context.is_sentinel() {
            return self.call_as_sentinel(what, f);
        }
        let before = context::enter(context, what);
        let result = catch_unwind(AssertUnwindSafe(f));
        self.pay_for_call();
        context::leave(before);
        result.map_err(|payload| report_panic(what, context, payload))
    }

    /// The sentinel's time is charged to nobody, so that overlong calls are noticed here.
    #[inline(never)]
    fn call_as_sentinel(&self, what: &'static str, f: impl FnOnce()) -> Result<(), Panicked> {
        let (before, settled) = context::enter_sentinel();
        // Between two such calls nothing happens that would take long.
        let looked = settled.or_else(|| self.looked_at_clock.get());
        let started = looked.unwrap_or_else(|| self.backend.coarse_now());
        let result = catch_unwind(AssertUnwindSafe(f));
        self.pay_for_call();
        let ended = self.backend.coarse_now();
        self.looked_at_clock.set(Some(ended));
        let held = ended.as_nanos().saturating_sub(started.as_nanos());
        context::leave_sentinel(before);
        context::charge_sentinel(what, held);
        result.map_err(|payload| report_panic(what, &LogContext::sentinel(), payload))
    }
}

impl Core {
    #[inline]
    fn pay_for_call(&self) {
        let nanos = self.cost_of_calls_nanos.get();
        if nanos != 0 {
            self.backend.pass_time(Duration::from_nanos(nanos));
        }
    }

    /// Runs a job as [`Core::call`] does.
    pub(crate) fn run_job(&self, job: Job) {
        let (context, f) = job.into_parts();
        let name = f.name();
        // A panic has been logged; nobody else needs to know.
        let _ = self.call(name, &context, || f.call());
    }
}

#[cold]
fn report_panic(what: &str, context: &LogContext, payload: Box<dyn Any + Send>) -> Panicked {
    let failure = Failure::from_panic(payload);
    context.run(|| log::error!("{what} panicked: {failure}"));
    Panicked
}

pub(crate) fn stopped() -> io::Error {
    io::Error::other("the reactor has stopped")
}

/// Somebody else's code panicked, and that has been logged.
#[derive(Debug)]
pub(crate) struct Panicked;
