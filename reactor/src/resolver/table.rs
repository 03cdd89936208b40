//! A table of names for tests and simulations.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{HostResolver, ResolveError};
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::reactor::Reactor;

/// Knows the names that it has been told. A cheap clone; clones share the table.
///
/// A test's [`Clock`](crate::testing::Clock) has one. `localhost` is in it from the start.
#[derive(Clone, Debug)]
pub struct HostTable {
    table: Rc<Table>,
}

#[derive(Debug, Default)]
struct Table {
    hosts: RefCell<BTreeMap<String, Answer>>,
    lookup_count: Cell<u64>,
}

#[derive(Clone, Debug)]
struct Answer {
    delay: Duration,
    outcome: Result<Vec<IpAddr>, Failure>,
}

impl HostTable {
    /// Makes a table in which only `localhost` stands.
    #[must_use]
    pub fn new() -> HostTable {
        let table = HostTable { table: Rc::default() };
        table.add("localhost", [[127, 0, 0, 1].into()]);
        table
    }

    /// Gives a host these addresses, in place of those that it had.
    pub fn add(&self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.add_slow(name, Duration::ZERO, addresses);
    }

    /// As [`add`](HostTable::add), and has the answer take this long.
    pub fn add_slow(
        &self,
        name: &str,
        delay: Duration,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) {
        self.insert(name, Answer { delay, outcome: Ok(addresses.into_iter().collect()) });
    }

    /// Has lookups of this name fail after a while.
    pub fn add_failing(&self, name: &str, delay: Duration, failure: impl Into<Failure>) {
        self.insert(name, Answer { delay, outcome: Err(failure.into()) });
    }

    /// Forgets a host.
    pub fn remove(&self, name: &str) {
        let answer = self.table.hosts.borrow_mut().remove(&name.to_ascii_lowercase());
        drop(answer);
    }

    /// Returns how many lookups there have been.
    #[must_use]
    pub fn lookup_count(&self) -> u64 {
        self.table.lookup_count.get()
    }

    fn insert(&self, name: &str, answer: Answer) {
        let before = self.table.hosts.borrow_mut().insert(name.to_ascii_lowercase(), answer);
        drop(before);
    }
}

impl Default for HostTable {
    fn default() -> HostTable {
        HostTable::new()
    }
}

impl HostResolver for HostTable {
    fn resolve_host(&self, reactor: &Reactor, name: &str) -> Deferred<Vec<IpAddr>> {
        self.table.lookup_count.set(self.table.lookup_count.get() + 1);
        let answer = self.table.hosts.borrow().get(name).cloned();
        let Answer { delay, outcome } = answer.unwrap_or_else(|| Answer {
            delay: Duration::ZERO,
            outcome: Err(Failure::plain(ResolveError::NotFound { name: name.to_owned() })),
        });
        let (deferred, resolver) = Deferred::new();
        // Never at once: code that only works with an answer at hand is to fail here, too.
        let resolver = Rc::new(Cell::new(Some(resolver)));
        let later = {
            let resolver = Rc::clone(&resolver);
            reactor.call_later(delay, move || {
                if let Some(resolver) = resolver.take() {
                    resolver.fire(outcome);
                }
            })
        };
        let pending = resolver.take();
        if let Some(pending) = &pending {
            pending.set_canceller(move || later.cancel());
        }
        resolver.set(pending);
        deferred
    }
}
