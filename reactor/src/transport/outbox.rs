//! What all connections have written in this turn and the end of the turn will send.

use std::mem;
use std::rc::Rc;

use super::link::Link;

/// Small writes of all connections, gathered in one buffer.
///
/// A connection's first write of a turn gives it an entry; further ones lengthen that, as long as no
/// other connection has written in between. Then they go to the connection's own backlog, as does
/// whatever is large or meets a stream that takes nothing.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The entries before this one have been flushed.
    next: usize,
    /// Those whose budget ran out while they were flushed; they have entries again in the next turn.
    left_over: Vec<Rc<Link>>,
}

/// A connection to be flushed, and its piece of the buffer.
struct Entry {
    link: Option<Rc<Link>>,
    piece: Piece,
}

/// Where a connection's bytes lie in the outbox.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    start: usize,
    end: usize,
}

/// A connection whose turn it is to be flushed. Its piece stays where it is.
pub(crate) struct Next {
    pub(crate) link: Rc<Link>,
    pub(crate) piece: Piece,
    pub(crate) is_last: bool,
}

impl Piece {
    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }

    #[inline]
    pub(super) fn advance(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }
}

impl Outbox {
    /// Adds to the last entry's piece, if that is this link's. Returns whether it is.
    #[inline]
    pub(super) fn extend_last(&mut self, link: &Rc<Link>, data: &[u8]) -> bool {
        match self.entries.last_mut() {
            Some(Entry { link: Some(last), piece }) if Rc::ptr_eq(last, link) => {
                self.bytes.extend_from_slice(data);
                piece.end = self.bytes.len();
                true
            }
            _ => false,
        }
    }

    /// Adds an entry, with a piece that may be empty. Returns its place.
    #[inline]
    pub(super) fn push(&mut self, link: &Rc<Link>, data: &[u8]) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(data);
        let end = self.bytes.len();
        self.entries.push(Entry { link: Some(Rc::clone(link)), piece: Piece { start, end } });
        self.entries.len() - 1
    }

    /// Gives the link an entry in the next turn.
    pub(super) fn leave_over(&mut self, link: &Rc<Link>) {
        self.left_over.push(Rc::clone(link));
    }

    #[inline]
    pub(super) fn bytes(&self, piece: Piece) -> &[u8] {
        &self.bytes[piece.start..piece.end]
    }

    /// Takes a copy of the piece of the entry at this place, and leaves the entry, empty.
    pub(super) fn take_piece(&mut self, place: usize) -> Vec<u8> {
        let Some(entry) = self.entries.get_mut(place) else { return Vec::new() };
        let piece = entry.piece;
        entry.piece.start = piece.end;
        self.bytes(piece).to_vec()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the next connection to be flushed.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Next> {
        if self.next + 1 == self.entries.len() {
            let Entry { link, piece } = self.entries.pop()?;
            return Some(Next { link: link?, piece, is_last: true });
        }
        let entry = self.entries.get_mut(self.next)?;
        self.next += 1;
        // Entries are emptied only here, as the cursor passes them.
        Some(Next { link: entry.link.take()?, piece: entry.piece, is_last: false })
    }

    /// Forgets the pieces, which have been flushed.
    #[inline]
    pub(crate) fn finish(&mut self) {
        self.bytes.clear();
        if self.next != 0 || !self.left_over.is_empty() || self.bytes.capacity() > KEPT_BYTES_MAX {
            self.start_over();
        }
    }

    #[cold]
    fn start_over(&mut self) {
        self.entries.clear();
        self.next = 0;
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        for link in mem::take(&mut self.left_over) {
            let place = self.push(&link, &[]);
            link.outbox_place.set(place);
        }
    }

    /// Empties it, and returns what was in it for the caller to drop.
    pub(crate) fn take(&mut self) -> Outbox {
        mem::take(self)
    }
}

/// A buffer that has grown beyond this is not kept: one burst must not cost memory for ever.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
