//! One turn of the loop.
//!
//! In this order: poll; what became ready; timers that are due; jobs from other threads; callbacks
//! and tasks that are ready; and last, before the next poll, writing what was written. Each phase
//! has a budget. Whatever it leaves over makes the next poll return at once.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::backend::{Event, Readiness};
use crate::clock::Instant;
use crate::context::{self, AccountingClock, LogContext};
use crate::core::{Core, Source};
use crate::deferred::task;
use crate::reactor::Reactor;
use crate::ready::{self, Ready};
use crate::remote::ForeignJob;
use crate::slots::Key;
use crate::teardown::dropping;

/// The memory that turns work in, kept between them.
pub(crate) struct Buffers {
    events: Vec<Event>,
    /// Jobs from other threads that the budget has left over.
    foreign: VecDeque<ForeignJob>,
    /// What all connections read into. No callback can read, so it is never shared.
    pub(crate) scratch: Box<[u8]>,
}

impl Buffers {
    pub(crate) fn new() -> Buffers {
        Buffers {
            events: Vec::new(),
            foreign: VecDeque::new(),
            scratch: vec![0; SCRATCH_BYTES].into(),
        }
    }
}

/// How long a turn may wait for something to happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// Until something happens or the next timer is due.
    UntilEvent,
}

/// The right to turn the loop: held by one caller at a time.
pub(crate) struct Turner<'a> {
    reactor: &'a Reactor,
    core: &'a Rc<Core>,
    buffers: Option<Box<Buffers>>,
    _queue: ready::Installed,
    clock_before: Option<AccountingClock>,
    context_before: LogContext,
}

impl<'a> Turner<'a> {
    /// # Errors
    ///
    /// If the loop is turning already: this was called from inside one of its callbacks.
    pub(crate) fn new(reactor: &'a Reactor) -> io::Result<Turner<'a>> {
        let core = reactor.core();
        let Some(buffers) = core.buffers.take() else {
            return Err(io::Error::other(
                "the reactor runs already; a callback cannot wait for it, return a Deferred instead",
            ));
        };
        let context_before = context::swap(LogContext::sentinel());
        Ok(Turner {
            reactor,
            core,
            buffers: Some(buffers),
            _queue: ready::install(Rc::clone(&core.ready)),
            clock_before: context::install_clock(Some(accounting_clock(core))),
            context_before,
        })
    }

    /// Makes one turn.
    pub(crate) fn turn(&mut self, patience: Patience) -> io::Result<()> {
        self.poll(patience)?;
        self.serve_events();
        self.serve_unread();
        self.serve_timers();
        self.serve_foreign_jobs();
        self.serve_ready();
        self.flush();
        Ok(())
    }

    /// Whether the next turn has something to do without waiting for it.
    pub(crate) fn has_work(&self) -> bool {
        !self.core.ready.is_empty()
            || self.core.remote.has_mail()
            || !self.buffers().foreign.is_empty()
            || !self.core.unread.borrow().is_empty()
            || !self.core.unsent.borrow().is_empty()
    }

    fn poll(&mut self, patience: Patience) -> io::Result<()> {
        let timeout = if patience == Patience::None || self.has_work() {
            Some(Duration::ZERO)
        } else if self.core.timers.borrow().is_empty() {
            None
        } else {
            let deadline = self.core.timers.borrow_mut().next_deadline();
            deadline.map(|deadline| deadline.since(self.core.backend.now()))
        };
        let Buffers { events, .. } = &mut **self.buffers_mut();
        let mut events = std::mem::take(events);
        events.clear();
        let result = self.core.backend.wait(timeout, &mut events);
        self.buffers_mut().events = events;
        result
    }

    fn serve_events(&mut self) {
        for index in 0..self.buffers().events.len() {
            let Event { key, readiness } = self.buffers().events[index];
            self.serve_source(key, readiness);
        }
    }

    /// Serves those that were left unread before this turn; who joins now waits for the next.
    fn serve_unread(&mut self) {
        let count = self.core.unread.borrow().len();
        for _ in 0..count {
            let Some(key) = self.core.unread.borrow_mut().pop_front() else { return };
            self.serve_source(key, Readiness::READABLE.and(Readiness::UNREAD));
        }
    }

    #[inline]
    fn serve_source(&mut self, key: Key, readiness: Readiness) {
        // Cloned, because what is called may remove the source.
        let source = self.core.sources.borrow().get(key).cloned();
        let core = self.core;
        match source {
            Some(Source::Link(link)) => link.serve(core, readiness, self.buffers_mut()),
            Some(Source::Port(port)) => port.serve(core),
            Some(Source::Signal(signal)) => signal.serve(core),
            // An event of a source that is gone, which the system had reported before it went.
            None => {}
        }
    }

    fn serve_timers(&mut self) {
        if self.core.timers.borrow().is_empty() {
            return;
        }
        let now = self.core.backend.now();
        for _ in 0..TIMERS_PER_TURN {
            let call = self.core.timers.borrow_mut().pop_due(now);
            let Some(call) = call else { return };
            self.core.run_job("a delayed call", call);
        }
    }

    fn serve_foreign_jobs(&mut self) {
        if self.core.remote.has_mail() {
            let Buffers { foreign, .. } = &mut **self.buffers_mut();
            let mut jobs = std::mem::take(foreign);
            self.core.remote.collect(&mut jobs, &self.core.ready);
            self.buffers_mut().foreign = jobs;
        }
        for _ in 0..FOREIGN_JOBS_PER_TURN {
            let Some(job) = self.buffers_mut().foreign.pop_front() else { return };
            let reactor = self.reactor;
            // A panic has been logged; nobody else needs to know.
            let _ =
                self.core.call("a call from a thread", &LogContext::sentinel(), || job(reactor));
        }
    }

    fn serve_ready(&mut self) {
        for _ in 0..READY_PER_TURN {
            match self.core.ready.pop() {
                Some(Ready::Job(job)) => self.core.run_job("a queued call", job),
                Some(Ready::Task(key)) => task::poll(self.core, key),
                None => return,
            }
        }
    }

    /// Runs what is ready, however long it goes on within reason.
    pub(crate) fn serve_ready_to_the_end(&mut self) {
        for _ in 0..READY_ROUNDS_AT_THE_END {
            if self.core.ready.is_empty() {
                return;
            }
            self.serve_ready();
        }
    }

    pub(crate) fn drop_foreign_jobs(&mut self) {
        let jobs = std::mem::take(&mut self.buffers_mut().foreign);
        for job in jobs {
            dropping("a call from a thread", job);
        }
    }

    fn flush(&mut self) {
        if self.core.unsent.borrow().is_empty() {
            return;
        }
        // Flushing calls nobody, so that the list can only grow by those whose budget ran out.
        let mut unsent = self.core.unsent.take();
        for link in unsent.drain(..) {
            link.flush(self.core);
        }
        let mut left_over = self.core.unsent.borrow_mut();
        if left_over.is_empty() {
            *left_over = unsent;
        }
    }

    fn buffers(&self) -> &Buffers {
        self.buffers.as_ref().expect("they are there until the turner is dropped")
    }

    fn buffers_mut(&mut self) -> &mut Box<Buffers> {
        self.buffers.as_mut().expect("they are there until the turner is dropped")
    }
}

impl Drop for Turner<'_> {
    fn drop(&mut self) {
        context::install_clock(self.clock_before.take());
        context::swap(std::mem::take(&mut self.context_before));
        self.core.buffers.set(self.buffers.take());
    }
}

/// Returns the backend's clock, which leaves behind what it has shown.
fn accounting_clock(core: &Core) -> AccountingClock {
    let backend = Rc::clone(&core.backend);
    let last_reading = Rc::clone(&core.last_reading);
    Rc::new(move || {
        let now = backend.now();
        last_reading.set(now);
        now.since(Instant::START)
    })
}

/// What one read can bring. Larger than most bursts of one peer, small enough for the second-level
/// cache.
const SCRATCH_BYTES: usize = 64 * 1024;

// Budgets: what one phase may do before the others get their turn again. Each is a few hundred
// microseconds of ordinary callbacks.
const TIMERS_PER_TURN: usize = 512;
const FOREIGN_JOBS_PER_TURN: usize = 512;
const READY_PER_TURN: usize = 1024;

/// At the end of the reactor, callbacks that queue each other for ever are given up on.
const READY_ROUNDS_AT_THE_END: usize = 64;
