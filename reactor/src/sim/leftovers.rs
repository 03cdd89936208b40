//! What should not be there at the end of a scenario, and what should not have happened in it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::trace::Happening;
use super::world::Shared;
use crate::core::Source;
use crate::deferred::UnhandledFailure;
use crate::failure::Failure;
use crate::ready::{self, PanicWatcher, UnhandledWatcher};

/// Something that a scenario may leave behind, if it [says so](super::World::tolerate).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Leftover {
    /// Connections that are still open. Listening ports are no leftover.
    Connections,
    /// Deferreds that live on when all hosts are gone: somebody outside holds them, or they hold
    /// each other.
    Deferreds,
    /// Panics of callbacks, tasks and thread jobs.
    Panics,
    /// Tasks that have not come to their end.
    Tasks,
    /// Calls that are still to be made.
    Timers,
    /// Failures of deferreds that nobody handled.
    UnhandledFailures,
}

/// What the hosts' code did that nobody was told of.
#[derive(Default)]
pub(super) struct Witnessed {
    tolerated: Cell<u8>,
    log: Rc<RefCell<Log>>,
}

#[derive(Default)]
struct Log {
    panics: Vec<(Rc<str>, String)>,
    /// With the number of those that are in the trace.
    unhandled: Vec<(Rc<str>, String)>,
    recorded: usize,
}

impl Witnessed {
    pub(super) fn tolerate(&self, leftover: Leftover) {
        self.tolerated.set(self.tolerated.get() | 1 << leftover as u8);
    }

    pub(super) fn is_tolerated(&self, leftover: Leftover) -> bool {
        self.tolerated.get() & 1 << leftover as u8 != 0
    }

    /// Hears of panics and unhandled failures of this host's code until the guard is dropped.
    pub(super) fn watch(&self, host: &Rc<str>) -> Watch {
        let (log, name) = (Rc::clone(&self.log), Rc::clone(host));
        let unhandled = move |unhandled: UnhandledFailure| {
            let text = format!("{:#} (context {})", unhandled.failure, unhandled.context);
            log.borrow_mut().unhandled.push((Rc::clone(&name), text));
        };
        let (log, name) = (Rc::clone(&self.log), Rc::clone(host));
        let panic = move |failure: &Failure| {
            log.borrow_mut().panics.push((Rc::clone(&name), failure.to_string()));
        };
        Watch {
            unhandled_before: ready::set_unhandled_watcher(Some(Rc::new(unhandled))),
            panics_before: ready::set_panic_watcher(Some(Rc::new(panic))),
        }
    }

    /// Puts what is new into the trace, and returns panics that are not tolerated.
    pub(super) fn take_unrecorded(&self, world: &Shared) -> Vec<(Rc<str>, String)> {
        let mut log = self.log.borrow_mut();
        let panics = std::mem::take(&mut log.panics);
        let unhandled = log.unhandled[log.recorded..].to_vec();
        log.recorded = log.unhandled.len();
        drop(log);
        for (host, text) in unhandled {
            world.record(Happening::Unhandled { host, text });
        }
        for (host, text) in &panics {
            let (host, text) = (Rc::clone(host), text.clone());
            world.record(Happening::Panicked { host, text });
        }
        if self.is_tolerated(Leftover::Panics) { Vec::new() } else { panics }
    }
}

impl Shared {
    /// Returns what is left on the hosts and not tolerated, one line each.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for host in self.all_hosts() {
            let Some(process) = host.process() else { continue };
            let core = process.reactor.core();
            let sources = core.sources.borrow();
            let links = sources.iter().filter(|(_, source)| matches!(source, Source::Link(_)));
            let counts = [
                (Leftover::Connections, "connections", links.count()),
                (Leftover::Timers, "calls to be made later", core.timers.borrow().len()),
                (Leftover::Tasks, "tasks", core.tasks.borrow().len()),
            ];
            for (leftover, what, count) in counts {
                if count > 0 && !self.witnessed.is_tolerated(leftover) {
                    lines.push(format!("{}: {count} {what} (Leftover::{leftover:?})", host.name()));
                }
            }
        }
        if !self.witnessed.is_tolerated(Leftover::UnhandledFailures) {
            for (host, text) in &self.witnessed.log.borrow().unhandled {
                lines.push(format!(
                    "{host}: nobody handled a failure: {text} (Leftover::UnhandledFailures)"
                ));
            }
        }
        lines
    }
}

/// Puts the watchers back that were there before.
pub(super) struct Watch {
    unhandled_before: Option<UnhandledWatcher>,
    panics_before: Option<PanicWatcher>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        ready::set_unhandled_watcher(self.unhandled_before.take());
        ready::set_panic_watcher(self.panics_before.take());
    }
}
