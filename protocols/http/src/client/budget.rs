//! [`Budget`]: how many connections several clients may have open among them.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::pool::Pool;

/// Bounds the connections of several pools together. Requests that have to wait for one are served in the order
/// in which they came, whatever pool they wait in.
pub(crate) struct Budget {
    connections_max: usize,
    open_count: Cell<usize>,
    /// Counts requests that had to wait.
    ticket: Cell<u64>,
    pools: RefCell<Vec<Weak<Pool>>>,
    prune_at: Cell<usize>,
}

impl Budget {
    pub(crate) fn new(connections_max: usize) -> Rc<Self> {
        Rc::new(Budget {
            connections_max: connections_max.max(1),
            open_count: Cell::new(0),
            ticket: Cell::new(0),
            pools: RefCell::default(),
            prune_at: Cell::new(PRUNE_AT_MIN),
        })
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open_count.get()
    }

    pub(super) fn join(&self, pool: &Rc<Pool>) {
        let mut pools = self.pools.borrow_mut();
        if pools.len() >= self.prune_at.get() {
            pools.retain(|pool| pool.strong_count() > 0);
            self.prune_at.set((pools.len() * 2).max(PRUNE_AT_MIN));
        }
        pools.push(Rc::downgrade(pool));
    }

    pub(super) fn has_room(&self) -> bool {
        self.open_count.get() < self.connections_max
    }

    pub(super) fn next_ticket(&self) -> u64 {
        let ticket = self.ticket.get();
        self.ticket.set(ticket + 1);
        ticket
    }

    pub(super) fn opened(&self) {
        self.open_count.set(self.open_count.get() + 1);
    }

    /// A connection is gone: whoever has waited longest gets a new one.
    pub(super) fn closed(&self) {
        self.open_count.set(self.open_count.get().saturating_sub(1));
        while self.has_room() {
            let Some(pool) = self.longest_waiting() else { return };
            pool.connect_next();
        }
    }

    /// Whether somebody has been waiting for a connection longer than the holder of this ticket.
    pub(super) fn is_wanted_by_others(&self, ticket: Option<u64>) -> bool {
        let ticket = ticket.unwrap_or(u64::MAX);
        !self.has_room()
            && self
                .longest_waiting()
                .and_then(|pool| pool.first_ticket())
                .is_some_and(|first| first < ticket)
    }

    /// Closes the connection that has been idle longest, in whatever pool.
    pub(super) fn make_room(&self) {
        let pools = self.pools.borrow();
        let pools = pools.iter().filter_map(Weak::upgrade);
        let idle = pools.filter_map(|pool| Some((pool.idle_since()?, pool)));
        let longest = idle.min_by_key(|(since, _)| *since).map(|(_, pool)| pool);
        if let Some(pool) = longest {
            pool.close_longest_idle();
        }
    }

    /// The pool whose first request has waited longest, among those that may have one connection more.
    fn longest_waiting(&self) -> Option<Rc<Pool>> {
        let pools = self.pools.borrow();
        let waiting = pools.iter().filter_map(Weak::upgrade).filter(|pool| pool.may_grow());
        waiting
            .filter_map(|pool| Some((pool.first_ticket()?, pool)))
            .min_by_key(|(ticket, _)| *ticket)
            .map(|(_, pool)| pool)
    }
}

/// With fewer pools than this it does not matter whether some are gone.
const PRUNE_AT_MIN: usize = 64;
