//! The course of a world: what happens next, and which host's loop turns for it.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::agenda::Due;
use super::faults::Faults;
use super::host::{HostState, Process};
use super::trace::Happening;
use super::world::{Shared, World};
use crate::agenda::item;
use crate::backend::Backend;
use crate::clock::Instant;
use crate::context::LogContext;
use crate::core::Stage;
use crate::ready;
use crate::turn::{Patience, Turner};

// Time.

impl Shared {
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn faults(&self) -> Faults {
        self.nemesis.faults()
    }

    pub(super) fn record(&self, happening: Happening) {
        self.trace.record(self.now(), happening);
    }

    pub(super) fn schedule(&self, delay: Duration, due: Due) {
        self.schedule_at(self.now() + delay, due);
    }

    /// Has this happen then; among what happens at the same time, whenever the seed decides.
    pub(super) fn schedule_at(&self, when: Instant, due: Due) {
        self.agenda.push(when, self.chance.next(), due);
    }

    /// Begins to let time pass, and looks what was done from outside since it stood still.
    #[track_caller]
    pub(super) fn set_off(self: &Rc<Shared>) -> UnderWay<'_> {
        assert!(
            !self.is_under_way.replace(true),
            "a world is moved from outside, not from the callbacks of its hosts"
        );
        let under_way = UnderWay(self);
        self.look_after_all();
        under_way
    }

    /// Has those hosts wake that have something to do because of somebody else than the network.
    fn look_after_all(&self) {
        for host in self.all_hosts() {
            let Some(process) = host.process() else { continue };
            host.synchronize(self);
            match process.has_something_to_do() || process.stage() == Stage::Stopping {
                true => self.wake_soon(&host, &process),
                false => self.wake_for_timers(&host, &process),
            }
        }
    }

    fn wake_for_timers(&self, host: &HostState, process: &Process) {
        let deadline = process.reactor.core().timers.borrow_mut().next_deadline();
        if let Some(deadline) = deadline {
            self.wake_at(host, process, host.world_time(deadline));
        }
    }

    /// Does what is next. Returns whether there was something up to `limit`.
    pub(super) fn step(self: &Rc<Shared>, limit: Instant) -> bool {
        let Some((when, due)) = self.agenda.pop(limit) else { return false };
        if when > self.now() {
            self.now.set(when);
            self.steps_at_once.set(0);
        }
        let steps = self.steps_at_once.get() + 1;
        self.steps_at_once.set(steps);
        assert!(steps < STEPS_AT_ONCE_MAX, "{steps} things happened without time passing");
        let host = match due {
            Due::Arrival(connection, side) => connection.arrive(self, side),
            Due::Call(f) => {
                f(&World::of(self));
                self.look_after_all();
                None
            }
            Due::ConnectTimeout(socket, host) => match socket.upgrade() {
                Some(socket) if socket.is_connecting() => {
                    socket.fail(io::ErrorKind::TimedOut);
                    Some(host)
                }
                _ => None,
            },
            Due::Datagram(datagram) => self.deliver_datagram(datagram),
            Due::Fault(fault) => {
                self.follow_fault(fault);
                self.look_after_all();
                None
            }
            Due::GiveUp(connection, side, since) => {
                if let Some(connection) = connection.upgrade() {
                    for host in connection.give_up(self, side, since) {
                        self.turn(host);
                    }
                }
                None
            }
            Due::Wake { host, incarnation } => self.wake(host, incarnation),
        };
        if let Some(host) = host {
            self.turn(host);
        }
        if self.is_ringing.swap(false, Ordering::Relaxed) {
            self.look_after_all();
        }
        true
    }

    pub(super) fn arrive_at(&self, limit: Instant) {
        self.now.set(self.now().max(limit));
        self.synchronize();
    }

    pub(super) fn synchronize(&self) {
        for host in self.all_hosts() {
            host.synchronize(self);
        }
    }

    fn wake(&self, host: usize, incarnation: u64) -> Option<usize> {
        let process = self.host(host).process()?;
        let is_current = process.incarnation == incarnation
            && process.wakes_at.get().is_some_and(|wakes_at| wakes_at <= self.now());
        is_current.then(|| {
            process.wakes_at.set(None);
            host
        })
    }

    /// Has the process turn as soon as time passes.
    pub(super) fn wake_soon(&self, host: &HostState, process: &Process) {
        self.wake_at(host, process, self.now());
    }

    fn wake_at(&self, host: &HostState, process: &Process, when: Instant) {
        if process.wakes_at.get().is_none_or(|wakes_at| when < wakes_at) {
            process.wakes_at.set(Some(when));
            let due = Due::Wake { host: host.number, incarnation: process.incarnation };
            self.schedule_at(when, due);
        }
    }
}

// Turning the hosts' loops.

impl Shared {
    /// Lets a host do all that it can do without time passing.
    fn turn(self: &Rc<Shared>, number: usize) {
        let host = self.host(number);
        let Some(process) = host.process() else { return };
        if host.frozen_until() > self.now() {
            return self.wake_at(&host, &process, host.frozen_until());
        }
        host.synchronize(self);
        if process.has_something_to_do() {
            self.record(Happening::Woke { host: host.name() });
            self.turn_to_rest(&host, &process);
        }
        if process.stage() == Stage::Stopping {
            self.in_process(&host, &process, || host.finish(self, &process));
        }
        self.raise_panics();
        self.wake_for_timers(&host, &process);
    }

    fn turn_to_rest(&self, host: &HostState, process: &Process) {
        self.in_process(host, process, || {
            // It fails only from inside the process's own callbacks, and then the turn goes on after
            // those.
            let Ok(mut turner) = Turner::new(&process.reactor) else { return };
            for _ in 0..TURNS_MAX {
                turner.turn(Patience::None).expect("a simulated poll without waiting cannot fail");
                let is_at_rest = !process.has_something_to_do();
                if is_at_rest || !matches!(process.stage(), Stage::Idle | Stage::Running) {
                    return;
                }
            }
            panic!("{} did not come to rest within {TURNS_MAX} turns", host.name());
        });
    }

    /// Runs `f` as code of the process, and sees what becomes of it.
    pub(super) fn in_process(&self, host: &HostState, process: &Process, f: impl FnOnce()) {
        let _watch = self.witnessed.watch(&host.name());
        let turning_before = self.turning.replace(Some(host.number));
        // A process that restarts itself dies first; the new one has a voice.
        let was_silent = self.silence.take().is_some();
        {
            let _queue = ready::install(Rc::clone(&process.reactor.core().ready));
            LogContext::sentinel().run(f);
        }
        self.turning.set(turning_before);
        drop(self.silence.take());
        if was_silent {
            self.keep_silence();
        }
    }

    /// Whether code of this host runs now.
    pub(super) fn is_turning(&self, host: &HostState) -> bool {
        self.turning.get() == Some(host.number)
    }

    /// Keeps code that was killed while it ran from having consequences.
    pub(super) fn keep_silence(&self) {
        self.silence.replace(Some(ready::silence()));
    }

    /// Passes on what callbacks have panicked with.
    fn raise_panics(&self) {
        if let Some((host, text)) = self.witnessed.take_unrecorded(self).first() {
            panic!("{host} panicked: {text}");
        }
    }
}

impl Process {
    pub(super) fn stage(&self) -> Stage {
        self.reactor.core().stage.get()
    }

    fn has_something_to_do(&self) -> bool {
        let core = self.reactor.core();
        core.agenda.has(item::AT_ONCE)
            || core.remote.has_mail()
            || self.backend.has_events()
            || self.is_timer_due()
    }

    fn is_timer_due(&self) -> bool {
        let deadline = self.reactor.core().timers.borrow_mut().next_deadline();
        deadline.is_some_and(|deadline| deadline <= self.backend.now())
    }
}

impl Shared {
    /// Ends all hosts and forgets what was still to happen.
    pub(super) fn dismantle(&self) {
        for host in self.all_hosts() {
            host.dismantle();
        }
        let _silence = ready::silence();
        drop(self.agenda.take_all());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.dismantle();
    }
}

/// The time during which time passes.
pub(super) struct UnderWay<'a>(&'a Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.is_under_way.set(false);
    }
}

/// Turns within which a host must come to rest. With a thousand callbacks a turn, that is more than any
/// protocol needs.
const TURNS_MAX: usize = 100_000;

/// What may happen without time passing.
const STEPS_AT_ONCE_MAX: u64 = 10_000_000;
