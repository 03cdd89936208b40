//! What stands behind every handle on one reactor.
//!
//! The core owns the world: connections, timers, tasks, queues. Handles that live inside the world
//! (a transport, a delayed call) point back weakly.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::backend::Backend;
use crate::clock::Instant;
use crate::context::{self, LogContext};
use crate::deferred::task::Tasks;
use crate::failure::Failure;
use crate::ready::{Job, ReadyQueue};
use crate::remote::ReactorRemote;
use crate::signals::SignalSource;
use crate::slots::{Key, Slots};
use crate::threads::ThreadPools;
use crate::timers::Timers;
use crate::transport::buffer::Spares;
use crate::transport::link::Link;
use crate::transport::tcp::Port;
use crate::turn::Buffers;

pub(crate) struct Core {
    pub(crate) backend: Rc<dyn Backend>,
    pub(crate) stage: Cell<Stage>,
    pub(crate) ready: Rc<ReadyQueue>,
    pub(crate) remote: ReactorRemote,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) tasks: RefCell<Tasks>,
    pub(crate) thread_pools: ThreadPools,
    /// Everything that events arrive for.
    pub(crate) sources: RefCell<Slots<Source>>,
    /// Sources that may have more to read although no further edge will say so.
    pub(crate) unread: RefCell<VecDeque<Key>>,
    /// Connections that were written to in this turn.
    pub(crate) unsent: RefCell<Vec<Rc<Link>>>,
    pub(crate) spares: RefCell<Spares>,
    /// The memory that turns work in; out of its place while a turn is under way.
    pub(crate) buffers: Cell<Option<Box<Buffers>>>,
    /// The clock as it was last read for the running piece of work.
    pub(crate) last_reading: Rc<Cell<Instant>>,
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
    Link(Rc<Link>),
    Port(Rc<Port>),
    Signal(Rc<SignalSource>),
}

impl Core {
    pub(crate) fn new(backend: Rc<dyn Backend>) -> Core {
        let remote = ReactorRemote::new(backend.alarm());
        Core {
            stage: Cell::new(Stage::Idle),
            ready: ReadyQueue::new(remote.id()),
            remote,
            tasks: RefCell::new(Tasks::new()),
            thread_pools: ThreadPools::default(),
            timers: RefCell::new(Timers::new()),
            sources: RefCell::new(Slots::new()),
            unread: RefCell::default(),
            unsent: RefCell::default(),
            spares: RefCell::default(),
            buffers: Cell::new(Some(Box::new(Buffers::new()))),
            last_reading: Rc::new(Cell::new(backend.now())),
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

    /// Runs somebody else's code: in this context, watched, and with its panics caught.
    ///
    /// `what` names it in the log, should it panic or hold the loop for too long.
    #[inline]
    pub(crate) fn call(
        &self,
        what: &'static str,
        context: &LogContext,
        f: impl FnOnce(),
    ) -> Result<(), Panicked> {
        let restore = context::Restore(context::swap(context.clone()));
        // Entering and leaving a context reads the clock; the sentinel's calls are timed here.
        let started = match context.is_sentinel() {
            true => self.backend.coarse_now(),
            false => self.last_reading.get(),
        };
        let result = catch_unwind(AssertUnwindSafe(f));
        drop(restore);
        let ended = match context.is_sentinel() {
            true => self.backend.coarse_now(),
            false => self.last_reading.get(),
        };
        let held = ended.since(started);
        if held > LOOP_HOLD_MAX {
            report_overlong(what, context, held);
        }
        result.map_err(|payload| {
            context.run(|| log::error!("{what} panicked: {}", Failure::from_panic(payload)));
            Panicked
        })
    }
}

impl Core {
    /// Runs a job as [`Core::call`] does.
    pub(crate) fn run_job(&self, what: &'static str, job: Job) {
        let (context, f) = job.into_parts();
        // A panic has been logged; nobody else needs to know.
        let _ = self.call(what, &context, f);
    }
}

#[cold]
fn report_overlong(what: &'static str, context: &LogContext, held: Duration) {
    let held_ms = held.as_millis();
    context.run(|| {
        log::warn!("{what} held the loop, and everybody else up; use a thread held_ms={held_ms}");
    });
}

pub(crate) fn stopped() -> io::Error {
    io::Error::other("the reactor has stopped")
}

/// Somebody else's code panicked, and that has been logged.
#[derive(Debug)]
pub(crate) struct Panicked;

/// A callback that takes longer is reported. People notice a pause of a tenth of a second, and the
/// coarse clock, which ticks every 4 to 10 ms, can tell it from none.
const LOOP_HOLD_MAX: Duration = Duration::from_millis(100);
