//! What policies do to a connection from beside it: hold back its reading, and bound and watch what it
//! sends. The protocol's own pausing and resuming is another matter, and neither undoes the other.

use std::rc::Rc;

use super::link::{Link, flag};
use crate::core::Core;
use crate::protocol::ConnectionLost;

/// Bounds and watches what a connection sends.
pub(crate) trait Meter {
    /// Returns how many bytes may be sent now. If none, it sees to it that
    /// [`send_again`](Link::send_again) is called once there may be some.
    fn room(&self, link: &Rc<Link>) -> usize;

    /// So many bytes were sent. With TLS these are the bytes before they were encrypted.
    fn sent(&self, bytes: usize);
}

impl Link {
    /// Stops reading until [`release_reading`](Link::release_reading) has been called as often as this.
    pub(crate) fn hold_reading(&self) {
        let holds = &self.extras().holds;
        holds.set(holds.get() + 1);
        self.state.set(flag::READ_HELD);
    }

    pub(crate) fn release_reading(&self) {
        let holds = &self.extras().holds;
        holds.set(holds.get().saturating_sub(1));
        if holds.get() == 0 && self.state.has(flag::READ_HELD) {
            self.state.clear(flag::READ_HELD);
            self.read_on();
        }
    }

    pub(crate) fn add_meter(&self, meter: Rc<dyn Meter>) {
        self.extras().meters.borrow_mut().push(meter);
        self.state.set(flag::METERED);
    }

    /// Asks all meters. Nothing is to be sent if one of them says so.
    pub(super) fn room(self: &Rc<Link>) -> usize {
        if !self.state.has(flag::METERED) {
            return usize::MAX;
        }
        let meters = self.extras().meters.borrow();
        meters.iter().map(|meter| meter.room(self)).min().unwrap_or(usize::MAX)
    }

    pub(super) fn tell_sent(&self, bytes: usize) {
        if self.state.has(flag::METERED) {
            self.extras().meters.borrow().iter().for_each(|meter| meter.sent(bytes));
        }
    }

    /// Goes on sending after a meter has said that there is no room.
    pub(crate) fn send_again(self: &Rc<Link>) {
        if self.state.has(flag::WRITE_BLOCKED)
            && !self.state.has(flag::CONNECTING | flag::LOST)
            && let Some(core) = self.core()
        {
            // Should it be the stream that is full, that will show again.
            self.state.clear(flag::WRITE_BLOCKED);
            self.flush_now(&core);
        }
    }

    /// Ends the connection now, for a reason of a policy's own.
    pub(crate) fn end_because(self: &Rc<Link>, core: &Core, reason: ConnectionLost) {
        self.reset_on_close();
        self.close(core, reason);
    }
}
