//! What a turn of the loop has left to do, at one look.

use std::cell::Cell;

/// One bit for each queue of a reactor that holds something; see [`item`].
///
/// Whoever fills a queue sets its bit, whoever empties it clears that, so that a turn with nothing
/// in its queues, as most are on a busy server, looks at one number instead of each of them.
#[derive(Default)]
pub(crate) struct Agenda(Cell<u32>);

/// The queues.
pub(crate) mod item {
    /// Jobs from other threads that were collected and not run.
    pub(crate) const FOREIGN: u32 = 1;
    /// Events that were taken from the system and not served.
    pub(crate) const EVENTS: u32 = 1 << 5;
    /// Callbacks and tasks that are ready.
    pub(crate) const READY: u32 = 1 << 1;
    /// Sources that were not read to the end.
    pub(crate) const UNREAD: u32 = 1 << 2;
    /// Connections that have something to send.
    pub(crate) const UNSENT: u32 = 1 << 3;
    /// Timers, due or not.
    pub(crate) const TIMERS: u32 = 1 << 4;

    /// Those that a turn does not wait for.
    pub(crate) const AT_ONCE: u32 = EVENTS | FOREIGN | READY | UNREAD | UNSENT;
}

impl Agenda {
    /// Whether any of these queues holds something.
    #[inline]
    pub(crate) fn has(&self, items: u32) -> bool {
        self.0.get() & items != 0
    }

    #[inline]
    pub(crate) fn add(&self, items: u32) {
        self.0.set(self.0.get() | items);
    }

    #[inline]
    pub(crate) fn remove(&self, items: u32) {
        self.0.set(self.0.get() & !items);
    }
}
