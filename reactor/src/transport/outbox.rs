//! What all connections have written in this turn and the end of the turn will send.

use std::cell::RefCell;
use std::mem;
use std::rc::{Rc, Weak};

use super::link::Link;
use super::outgoing::SEND_BYTES_PER_TURN;
use crate::agenda::{Agenda, item};
use crate::core::Core;

/// Small writes of all connections of a reactor, gathered.
///
/// A connection's first write of a turn puts it on the list of those to be flushed, with the bytes in
/// one buffer for all; further ones lengthen its piece of that, as long as no other connection has
/// written in between. Then they go to the connection's own backlog, as does whatever is large or
/// meets a stream that takes nothing.
///
/// It is also what a connection knows its reactor by.
pub(crate) struct Outbox {
    core: Weak<Core>,
    agenda: Rc<Agenda>,
    /// What this turn has written. Flushing takes it as a whole, so that what is written or left
    /// over meanwhile is the next turn's.
    batch: RefCell<Box<Batch>>,
}

/// The connections to be flushed at the end of one turn, and the bytes in their pieces.
#[derive(Default)]
pub(crate) struct Batch {
    pub(super) bytes: Vec<u8>,
    links: Vec<Rc<Link>>,
}

impl Outbox {
    pub(crate) fn new(core: Weak<Core>, agenda: Rc<Agenda>) -> Outbox {
        Outbox { core, agenda, batch: RefCell::default() }
    }

    #[inline]
    pub(super) fn core(&self) -> Option<Rc<Core>> {
        self.core.upgrade()
    }

    /// Adds the link to those to be flushed, with a piece that may be empty. Returns where the
    /// piece begins.
    #[inline(always)]
    pub(super) fn push(&self, link: &Rc<Link>, data: &[u8]) -> usize {
        self.agenda.add(item::UNSENT);
        let batch = &mut *self.batch.borrow_mut();
        batch.links.push(Rc::clone(link));
        let start = batch.bytes.len();
        batch.bytes.extend_from_slice(data);
        start
    }

    /// Lengthens the link's piece, if that is the last. Returns whether it is.
    #[inline]
    pub(super) fn extend(&self, link: &Rc<Link>, data: &[u8]) -> bool {
        let batch = &mut *self.batch.borrow_mut();
        let is_last = batch.links.last().is_some_and(|last| Rc::ptr_eq(last, link));
        if is_last {
            batch.bytes.extend_from_slice(data);
        }
        is_last
    }

    /// Returns a copy of the link's piece; `None` if that is being flushed already.
    pub(super) fn copy_piece(
        &self,
        link: &Rc<Link>,
        start: usize,
        length: usize,
    ) -> Option<Vec<u8>> {
        let batch = self.batch.borrow();
        let is_here = batch.links.iter().any(|other| Rc::ptr_eq(other, link));
        if is_here { batch.bytes.get(start..start + length).map(<[u8]>::to_vec) } else { None }
    }

    /// Flushes the only connection that has written in this turn, as is usual. Returns whether that is
    /// done: it was the only one, and the system took everything at once.
    #[inline(always)]
    pub(crate) fn flush_only_link(&self, core: &Core) -> bool {
        let mut batch = self.batch.borrow_mut();
        let [link] = &batch.links[..] else { return false };
        if !link.flush_whole(core, &batch.bytes) {
            return false;
        }
        self.agenda.remove(item::UNSENT);
        batch.bytes.clear();
        let link = batch.links.pop();
        drop(batch);
        // If nobody else holds it, its protocol goes with it, which may be anybody's.
        drop(link);
        true
    }

    /// Takes what was written, and leaves `empty` in its place.
    #[inline]
    pub(crate) fn take(&self, empty: Box<Batch>) -> Box<Batch> {
        self.agenda.remove(item::UNSENT);
        mem::replace(&mut *self.batch.borrow_mut(), empty)
    }
}

impl Batch {
    /// Flushes each connection, first written, first sent. Calls nobody but the system: what
    /// follows from it is queued.
    pub(crate) fn flush(&mut self, core: &Rc<Core>) {
        let share_bytes = SEND_BYTES_OF_ALL / self.links.len().max(1);
        let bytes_max = share_bytes.clamp(SHARE_BYTES_MIN, SEND_BYTES_PER_TURN);
        for link in &self.links {
            link.flush(core, &self.bytes, bytes_max);
        }
        self.bytes.clear();
        // Those that nobody else holds any more are dropped here, with their protocols: only now
        // that all is sent, as these may write again.
        self.links.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }
}

/// What all connections together may send in one flush, at some milliseconds' work for the system, if
/// each may send at least this much.
const SEND_BYTES_OF_ALL: usize = 16 * 1024 * 1024;
const SHARE_BYTES_MIN: usize = 64 * 1024;

/// A buffer that has grown beyond this is not kept: one burst must not cost memory for ever.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
