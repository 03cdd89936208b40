//! One turn of the loop.
//!
//! In this order: poll; what became ready; timers that are due; jobs from other threads; callbacks
//! and tasks that are ready; and last, before the next poll, writing what was written. Each phase
//! has a budget. Whatever it leaves over makes the next poll return at once.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use crate::agenda::item;
use crate::allowance::{Allowance, CALLS_PER_LOOK};
use crate::backend::{Backend, Event, Events, Readiness};
use crate::clock::Instant;
use crate::context::{self, AccountingClock, LogContext};
use crate::core::{Core, Source};
use crate::deferred::task;
use crate::reactor::Reactor;
use crate::ready::{self, Ready};
use crate::remote::ForeignJob;
use crate::teardown::dropping;
use crate::transport::outbox::Batch;

/// The memory that turns work in, kept between them.
pub(crate) struct Buffers {
    events: Events,
    /// What was flushed last, empty again.
    batch: Option<Box<Batch>>,
    /// Jobs from other threads that the budget has left over.
    foreign: VecDeque<ForeignJob>,
    /// What all connections read into. No callback can read, so it is never shared.
    pub(crate) scratch: Box<[u8]>,
    /// What is read before it is decrypted. Empty until there is a connection with TLS.
    pub(crate) ciphertext: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Buffers {
        Buffers {
            events: Events::new(),
            batch: None,
            foreign: VecDeque::new(),
            scratch: vec![0; SCRATCH_BYTES].into(),
            ciphertext: Vec::new(),
        }
    }

    fn empty() -> Buffers {
        Buffers {
            events: Events::none(),
            batch: None,
            foreign: VecDeque::new(),
            scratch: Box::default(),
            ciphertext: Vec::new(),
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
    backend: &'a dyn Backend,
    /// What the last poll has brought; of `buffers`, but not lent along with them.
    events: Events,
    buffers: Box<Buffers>,
    /// When the clock had last been read for the accounting as this turn's poll began.
    last_reading: Instant,
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
        let Some(mut buffers) = core.buffers.take() else {
            return Err(io::Error::other(
                "the reactor runs already; a callback cannot wait for it, return a Deferred instead",
            ));
        };
        let context_before = context::swap(LogContext::sentinel());
        context::set_hold_nanos_max(core.hold_nanos_max.get());
        let accounting_clock = match core.backend.system_clock() {
            Some(clock) => AccountingClock::System(clock),
            None => AccountingClock::Loop(Rc::clone(&core.backend)),
        };
        Ok(Turner {
            reactor,
            core,
            backend: &*core.backend,
            events: mem::replace(&mut buffers.events, Events::none()),
            buffers,
            last_reading: Instant::START,
            _queue: ready::install(Rc::clone(&core.ready)),
            clock_before: context::install_clock(Some(accounting_clock)),
            context_before,
        })
    }

    /// Makes one turn.
    #[inline]
    pub(crate) fn turn(&mut self, patience: Patience) -> io::Result<()> {
        self.poll(patience)?;
        let unread_count = self.core.unread_count();
        self.serve_events();
        let core = self.core;
        if unread_count > 0 || core.agenda.has(SERVED_AFTER_EVENTS) || core.remote.has_mail() {
            self.serve_queues(unread_count);
        }
        if core.agenda.has(item::UNSENT) {
            self.flush();
        }
        Ok(())
    }

    /// Does what comes between the events and the flushing, if there is anything.
    #[inline(never)]
    fn serve_queues(&mut self, unread_count: usize) {
        if unread_count > 0 {
            self.serve_unread(unread_count);
        }
        if self.core.agenda.has(item::TIMERS)
            && let Some(now) = self.time_of_due_timers()
        {
            self.serve_timers(now);
        }
        if self.core.remote.has_mail() || self.core.agenda.has(item::FOREIGN) {
            self.serve_foreign_jobs();
        }
        if self.core.agenda.has(item::READY) {
            self.serve_ready();
        }
    }

    /// Whether the next turn has something to do without waiting for it.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.core.agenda.has(item::AT_ONCE) || self.core.remote.has_mail()
    }

    #[inline(always)]
    fn poll(&mut self, patience: Patience) -> io::Result<()> {
        let core = &**self.core;
        let settled = context::settle_before_waiting();
        let has_to_look = patience == Patience::None || core.agenda.has(item::AT_ONCE);
        // It says also whether there is mail.
        let timeout = if has_to_look || !core.remote.may_sleep() {
            Some(Duration::ZERO)
        } else if core.agenda.has(item::TIMERS) {
            let deadline = core.timers.borrow().next_deadline_at_the_earliest();
            deadline.map(|deadline| deadline.since(settled.unwrap_or_else(|| core.backend.now())))
        } else {
            None
        };
        self.last_reading = context::last_reading();
        core.counters.turns.add(1);
        core.looked_at_clock.set(None);
        if settled.is_some() {
            core.counters.turn_nanos.observe(context::take_busy_nanos());
        }
        let result = self.backend.wait(timeout, &mut self.events);
        core.remote.woke();
        result
    }

    #[inline(always)]
    fn serve_events(&mut self) {
        let core = self.core;
        core.counters.events.add(self.events.system.len());
        if self.events.system.len() + self.events.listed.len() > CALLS_PER_LOOK as usize {
            return self.serve_many_events();
        }
        for event in self.events.system.iter() {
            serve_source(core, event, &mut self.buffers);
        }
        if !self.events.listed.is_empty() {
            self.serve_listed_events();
        }
    }

    /// Serves the events that no system has reported.
    #[inline(never)]
    fn serve_listed_events(&mut self) {
        self.core.agenda.remove(item::EVENTS);
        for event in self.events.listed.drain(..) {
            serve_source(self.core, event, &mut self.buffers);
        }
    }

    /// Serves as many as the time allows, those left over from the turn before first.
    #[inline(never)]
    fn serve_many_events(&mut self) {
        let core = self.core;
        let mut left_over = mem::take(&mut self.events.listed);
        left_over.extend(self.events.system.iter());
        let mut allowance = Allowance::new(self.backend, u32::MAX);
        let mut served = 0;
        for &event in &left_over {
            if !allowance.take() {
                break;
            }
            served += 1;
            serve_source(core, event, &mut self.buffers);
        }
        left_over.drain(..served);
        match left_over.is_empty() {
            true => core.agenda.remove(item::EVENTS),
            false => core.agenda.add(item::EVENTS),
        }
        self.events.listed = left_over;
    }

    /// Serves those that were left unread before this turn; who has joined since waits for the next.
    #[inline(never)]
    fn serve_unread(&mut self, count: usize) {
        let mut allowance = Allowance::new(self.backend, u32::try_from(count).unwrap_or(u32::MAX));
        while allowance.take() {
            let Some(key) = self.core.next_unread() else { return };
            let readiness = Readiness::READABLE.and(Readiness::UNREAD);
            serve_source(self.core, Event { key, readiness }, &mut self.buffers);
        }
    }

    /// Returns the time if a timer is due.
    #[inline]
    fn time_of_due_timers(&self) -> Option<Instant> {
        let next_deadline = self.core.timers.borrow().next_deadline_at_the_earliest()?;
        // Events that were served have had the clock read, and what has become due since then comes
        // in the next turn.
        let last_reading = context::last_reading();
        let now = match last_reading == self.last_reading {
            true => self.core.backend.now(),
            false => last_reading,
        };
        (next_deadline <= now).then_some(now)
    }

    #[inline(never)]
    fn serve_timers(&mut self, now: Instant) {
        let mut allowance = Allowance::new(self.backend, TIMERS_PER_TURN);
        let mut is_first = true;
        while allowance.take() {
            let call = self.core.timers.borrow_mut().pop_due(now);
            let Some(call) = call else { return };
            if is_first {
                let deadline = self.core.timers.borrow().taken_deadline();
                let late = u64::try_from(now.since(deadline).as_nanos()).unwrap_or(u64::MAX);
                self.core.counters.timer_lag_nanos.observe(late);
                is_first = false;
            }
            self.core.run_job(call);
        }
    }

    #[inline(never)]
    fn serve_foreign_jobs(&mut self) {
        if self.core.remote.has_mail() {
            self.core.remote.collect(&mut self.buffers.foreign, &self.core.ready);
        }
        let mut allowance = Allowance::new(self.backend, FOREIGN_JOBS_PER_TURN);
        while allowance.take() {
            let Some(job) = self.buffers.foreign.pop_front() else { break };
            let reactor = self.reactor;
            // A panic has been logged; nobody else needs to know.
            let _ =
                self.core.call("a call from a thread", &LogContext::sentinel(), || job(reactor));
        }
        match self.buffers.foreign.is_empty() {
            true => self.core.agenda.remove(item::FOREIGN),
            false => self.core.agenda.add(item::FOREIGN),
        }
    }

    #[inline(never)]
    fn serve_ready(&mut self) {
        let mut allowance = Allowance::new(self.backend, READY_PER_TURN);
        while allowance.take() {
            match self.core.ready.pop() {
                Some(Ready::Job(job)) => self.core.run_job(job),
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
        let jobs = mem::take(&mut self.buffers.foreign);
        for job in jobs {
            dropping("a call from a thread", job);
        }
    }

    #[inline(always)]
    fn flush(&mut self) {
        if !self.core.outbox.flush_only_link(self.core) {
            self.flush_all();
        }
    }

    #[inline(never)]
    fn flush_all(&mut self) {
        let empty = self.buffers.batch.take().unwrap_or_default();
        let mut batch = self.core.outbox.take(empty);
        batch.flush(self.core);
        self.buffers.batch = Some(batch);
    }
}

/// Serves what an event came for. An event may come for a source that is gone: the system had
/// reported it before that went.
#[inline(always)]
fn serve_source(core: &Rc<Core>, event: Event, buffers: &mut Buffers) {
    // Cloned, because what is called may remove the source.
    // Borrowed as if to be changed, which is the cheaper way to borrow.
    let source = match core.sources.borrow_mut().get(event.key) {
        Some(Source::Link(transport)) => Ok(transport.clone()),
        Some(other) => Err(other.clone()),
        None => return,
    };
    match source {
        Ok(transport) => transport.serve(core, event.readiness, buffers),
        Err(other) => serve_other_source(core, other, event.readiness, buffers),
    }
}

#[inline(never)]
fn serve_other_source(
    core: &Rc<Core>,
    source: Source,
    readiness: Readiness,
    buffers: &mut Buffers,
) {
    match source {
        Source::Child(child) => child.serve(core),
        Source::Datagrams(port) => port.serve(core, readiness, &mut buffers.scratch),
        Source::Link(_) => {}
        Source::Port(port) => port.serve(core, readiness),
        Source::Signal(signal) => signal.serve(core),
    }
}

impl Drop for Turner<'_> {
    fn drop(&mut self) {
        context::install_clock(self.clock_before.take());
        context::swap(mem::take(&mut self.context_before));
        let mut buffers = mem::replace(&mut self.buffers, Box::new(Buffers::empty()));
        buffers.events = mem::replace(&mut self.events, Events::none());
        self.core.buffers.set(Some(buffers));
    }
}

/// What is looked at in a turn between the events and the flushing.
const SERVED_AFTER_EVENTS: u32 = item::FOREIGN | item::READY | item::TIMERS;

/// What one read can bring. Larger than most bursts of one peer, small enough for the second-level
/// cache.
const SCRATCH_BYTES: usize = 64 * 1024;

// Budgets: what one phase may do before the others get their turn again, if its calls are short. Each is
// a few hundred microseconds of ordinary callbacks.
const TIMERS_PER_TURN: u32 = 512;
const FOREIGN_JOBS_PER_TURN: u32 = 512;
const READY_PER_TURN: u32 = 1024;

/// At the end of the reactor, callbacks that queue each other for ever are given up on.
const READY_ROUNDS_AT_THE_END: usize = 64;
