//! The newest events and receipts of busy rooms, in memory, for everybody who waits in them.
//!
//! When a message comes to a room of fifty long-polling members, what is new for each is nearly the
//! same. A [`Tail`] holds it: it is read from the database once, and the answers are put together from
//! it on the loop.
//!
//! A tail takes in only the simple case: events that follow one another in a line, each leading from
//! the state before it to the state after it. Then whoever has been in the room all the time may see
//! all of them, and there is no state to tell beside the timeline. Anything else (forks, redactions,
//! more news than fits) empties the tail, and members ask the database each for himself.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use ropewalk::cache::LruCache;
use ropewalk::{Failure, ObservableDeferred};
use ruma::{OwnedRoomId, RoomId};

use super::filter::EventForm;
use super::question::ReadCaches;
use super::timeline::Placed;
use crate::handlers::rendered::Renderer;
use crate::storage::StorageError;
use crate::storage::databases::main::receipts::{self, Receipt};
use crate::storage::databases::main::{current_state, reader_rooms, rooms, shown_events};
use crate::storage::engine::{Database, Txn};
use crate::storage::keys::{RoomKey, StateGroup};
use crate::streams::{Stream, StreamToken};

/// The most rooms with a tail. Those used least go first; their members ask the database.
const ROOMS_MAX: usize = 1_000;

/// The most events, and the most receipts, in one tail. Who is farther behind has a gap anyway.
const TAIL_EVENTS_MAX: usize = 50;
const TAIL_RECEIPTS_MAX: usize = 500;

/// What has lately happened in one room: everything in `(from, upto]` of both streams.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) room: RoomKey,
    events: Span<Placed>,
    receipts: Span<Receipt>,
    /// The state after the last event.
    state: Option<StateGroup>,
}

/// A part of a stream that is known completely.
#[derive(Clone, Debug)]
struct Span<T> {
    from: i64,
    upto: i64,
    /// With their positions, oldest first.
    items: VecDeque<(i64, T)>,
}

impl<T> Span<T> {
    fn empty_at(position: i64) -> Self {
        Self { from: position, upto: position, items: VecDeque::new() }
    }

    fn covers(&self, since: i64, news: i64) -> bool {
        self.from <= since && news <= self.upto
    }

    fn extend(&mut self, upto: i64, items: Vec<(i64, T)>, items_max: usize) {
        self.items.extend(items);
        self.upto = upto;
        while self.items.len() > items_max {
            if let Some((position, _)) = self.items.pop_front() {
                self.from = position;
            }
        }
    }

    fn between(&self, since: i64, upto: i64) -> impl Iterator<Item = &T> {
        let from = self.items.partition_point(|(position, _)| *position <= since);
        self.items
            .range(from..)
            .take_while(move |(position, _)| *position <= upto)
            .map(|(_, item)| item)
    }
}

impl Tail {
    /// Returns the tail of a room in which neither events nor receipts are news.
    pub(super) fn of_silence(upto: &StreamToken) -> Self {
        // No event, so nobody asks which room it is.
        let room = RoomKey(0);
        Self::empty(room, upto.position(Stream::Events), upto.position(Stream::Receipts))
    }

    /// Whether it holds all of a room's news after `since`, given where the last news stands.
    pub(super) fn covers(&self, since: &StreamToken, news: &StreamToken) -> bool {
        let within = |stream, covers: &dyn Fn(i64, i64) -> bool| {
            covers(since.position(stream), news.position(stream))
        };
        within(Stream::Events, &|since, news| self.events.covers(since, news))
            && within(Stream::Receipts, &|since, news| self.receipts.covers(since, news))
    }

    /// Whether it lacks only what has come after it was read.
    fn reaches_back_to(&self, since: &StreamToken) -> bool {
        self.events.from <= since.position(Stream::Events)
            && self.receipts.from <= since.position(Stream::Receipts)
    }

    /// Returns the events in `(since, upto]`, oldest first.
    pub(super) fn events(
        &self,
        since: &StreamToken,
        upto: &StreamToken,
    ) -> impl Iterator<Item = &Placed> {
        self.events.between(since.position(Stream::Events), upto.position(Stream::Events))
    }

    /// Returns behind which position its events are complete.
    pub(super) fn complete_from(&self) -> i64 {
        self.events.from
    }

    /// Returns all events up to `upto`, oldest first.
    pub(super) fn events_upto(&self, upto: &StreamToken) -> impl Iterator<Item = &Placed> {
        self.events.between(i64::MIN, upto.position(Stream::Events))
    }

    /// Returns the receipts in `(since, upto]`, oldest first; private ones among them.
    pub(super) fn receipts(
        &self,
        since: &StreamToken,
        upto: &StreamToken,
    ) -> impl Iterator<Item = &Receipt> {
        self.receipts.between(since.position(Stream::Receipts), upto.position(Stream::Receipts))
    }

    /// Takes in what was read behind it.
    fn append(&mut self, more: More) {
        let More { room, events_upto, receipts_upto, events, receipts } = more;
        self.room = room;
        let Some(events) = events else {
            *self = Self::empty(room, events_upto, receipts_upto);
            return;
        };
        let items = events.placed.into_iter().map(|placed| (placed.event.key.0, placed)).collect();
        self.events.extend(events_upto, items, TAIL_EVENTS_MAX);
        self.state = events.state;
        let items = receipts.into_iter().map(|receipt| (receipt.stream_id, receipt)).collect();
        self.receipts.extend(receipts_upto, items, TAIL_RECEIPTS_MAX);
    }

    fn empty(room: RoomKey, events_upto: i64, receipts_upto: i64) -> Self {
        Self {
            room,
            events: Span::empty_at(events_upto),
            receipts: Span::empty_at(receipts_upto),
            state: None,
        }
    }
}

/// What came behind a tail.
#[derive(Clone, Debug)]
struct More {
    room: RoomKey,
    events_upto: i64,
    receipts_upto: i64,
    /// `None`: not the simple case.
    events: Option<Line>,
    receipts: Vec<Receipt>,
}

/// Events in a line.
#[derive(Clone, Debug)]
struct Line {
    placed: Vec<Placed>,
    /// The state after the last one.
    state: Option<StateGroup>,
}

/// Reads what came in a room after some positions.
fn read_more(
    txn: &Txn<'_>,
    caches: &ReadCaches,
    room_id: &RoomId,
    (events_after, receipts_after): (i64, i64),
    state: Option<StateGroup>,
) -> Result<Option<More>, StorageError> {
    let Some(room) = rooms::find(txn, room_id)? else { return Ok(None) };
    let positions = reader_rooms::positions(txn)?;
    let position = |stream| positions.get(&stream).copied().unwrap_or_default();
    let (events_upto, receipts_upto) = (position(Stream::Events), position(Stream::Receipts));
    let events = read_line(txn, caches, room.key, (events_after, events_upto), state)?;
    let receipts = receipts::of_room_for_all(txn, room_id, receipts_after, receipts_upto)?;
    Ok(Some(More { room: room.key, events_upto, receipts_upto, events, receipts }))
}

fn read_line(
    txn: &Txn<'_>,
    caches: &ReadCaches,
    room: RoomKey,
    (after, upto): (i64, i64),
    mut state: Option<StateGroup>,
) -> Result<Option<Line>, StorageError> {
    if state.is_none() {
        shown_events::newest_by_arrival(txn, room, i64::MIN, after, 1, |row| {
            state = row.state_after()?;
            Ok(())
        })?;
    }
    let form = EventForm::default();
    let renderer = Renderer::new(txn, &caches.events, &form);
    let mut placed: Vec<Placed> = Vec::new();
    let mut is_line = true;
    let limit = TAIL_EVENTS_MAX + 1;
    shown_events::oldest_by_arrival(txn, room, after, upto, limit, |row| {
        // A redaction changes events that may be in the tail already.
        is_line = is_line
            && state.is_some()
            && row.state_before()? == state
            && row.event_type()? != "m.room.redaction";
        if is_line && let Some(event) = renderer.render(&row)? {
            placed.push(Placed { event, depth: row.depth()?, replaces: row.replaces()? });
        }
        state = row.state_after()?;
        Ok(())
    })?;
    if !is_line || placed.len() >= limit {
        return Ok(None);
    }
    // Where the current state was changed by something else, that has to be told outright.
    let deltas = current_state::deltas(txn, room, after, upto)?;
    let is_told = deltas.iter().all(|delta| {
        delta.event.is_some_and(|event| {
            event.0 == delta.stream_id && placed.iter().any(|placed| placed.event.key == event)
        })
    });
    Ok(is_told.then_some(Line { placed, state }))
}

/// The tails of all rooms that somebody waits in.
pub(super) struct Tails {
    database: Database,
    caches: Arc<ReadCaches>,
    rooms: LruCache<OwnedRoomId, Rc<Tail>>,
    /// Reads that are under way.
    reads: RefCell<BTreeMap<OwnedRoomId, ObservableDeferred<()>>>,
}

impl Tails {
    pub(super) fn new(database: Database, caches: Arc<ReadCaches>) -> Self {
        Self { database, caches, rooms: LruCache::new(ROOMS_MAX), reads: RefCell::default() }
    }

    /// Returns the tail of a room if it holds everything after `since`.
    pub(super) fn find(
        &self,
        room_id: &OwnedRoomId,
        since: &StreamToken,
        news: &StreamToken,
    ) -> Option<Rc<Tail>> {
        let is_silent = [Stream::Events, Stream::Receipts]
            .iter()
            .all(|&stream| news.position(stream) <= since.position(stream));
        if is_silent {
            return Some(Rc::new(Tail::of_silence(since)));
        }
        self.rooms.get(room_id).filter(|tail| tail.covers(since, news))
    }

    /// Reads on in a room, together with everybody else who wants it. Says whether there is any use:
    /// `false` if the tail will not reach back to `since`.
    pub(super) async fn read_on(
        self: &Rc<Self>,
        room_id: &OwnedRoomId,
        since: &StreamToken,
    ) -> Result<bool, Failure> {
        let known = self.rooms.get(room_id);
        if known.as_ref().is_some_and(|tail| !tail.reaches_back_to(since)) {
            return Ok(false);
        }
        let under_way = self.reads.borrow().get(room_id).cloned();
        let read = match under_way {
            Some(read) => read,
            None => self.start_read(room_id, since, known),
        };
        read.observe().await?;
        Ok(true)
    }

    fn start_read(
        self: &Rc<Self>,
        room_id: &OwnedRoomId,
        since: &StreamToken,
        known: Option<Rc<Tail>>,
    ) -> ObservableDeferred<()> {
        let (after, state) = match &known {
            Some(tail) => ((tail.events.upto, tail.receipts.upto), tail.state),
            None => ((since.position(Stream::Events), since.position(Stream::Receipts)), None),
        };
        let (caches, of) = (Arc::clone(&self.caches), room_id.clone());
        let (tails, room) = (Rc::clone(self), room_id.clone());
        let read = self
            .database
            .read(move |txn| read_more(txn, &caches, &of, after, state))
            .add_both(move |more| {
                tails.reads.borrow_mut().remove(&room);
                let more = match more {
                    Ok(Some(more)) => more,
                    Ok(None) => return Ok(()),
                    Err(failure) => return Err(failure),
                };
                let mut tail = match known {
                    Some(tail) => Rc::unwrap_or_clone(tail),
                    None => Tail::empty(more.room, after.0, after.1),
                };
                tail.append(more);
                tails.rooms.insert(room, Rc::new(tail));
                Ok(())
            });
        let read = ObservableDeferred::new(read);
        if !read.is_fired() {
            self.reads.borrow_mut().insert(room_id.clone(), read.clone());
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::forks;
    use crate::events::tests::rooms::{Server, user};
    use crate::model::{EventDraft, RoomVersion};

    fn line(server: &Server, room_id: &RoomId, after: i64) -> Option<usize> {
        let room = server.find_room(room_id).key;
        let caches = ReadCaches::default();
        let line = server.read(|txn| read_line(txn, &caches, room, (after, i64::MAX), None));
        line.map(|line| line.placed.len())
    }

    #[test]
    fn only_events_in_a_line_are_taken_in() {
        let mut server = Server::new();
        let room = forks::shared_room(&mut server, RoomVersion::V11);
        let start = server.row(&server.tip(&room)).key.0;
        let said = server.say(&room, "alice", "1").unwrap().event_id;
        server.state(&room, "alice", "m.room.name", serde_json::json!({"name": "n"})).unwrap();
        assert_eq!(line(&server, &room, start), Some(2));
        let fork = server.tip(&room);
        server.accept(&room, forks::message("alice"), &[&fork]);
        let before_fork = server.row(&fork).key.0;
        assert_eq!(line(&server, &room, before_fork), Some(1));
        server.accept(&room, forks::topic("bob:other", "late"), &[&said]);
        assert_eq!(line(&server, &room, before_fork), None, "a branch from the past");
        let joined = server.say(&room, "alice", "joins the branches").unwrap();
        assert_eq!(line(&server, &room, before_fork), None);
        server.say(&room, "alice", "2").unwrap();
        assert_eq!(line(&server, &room, joined.key.0), Some(1), "and on from there");
        let redaction = EventDraft::redaction(user("alice"), said, None);
        server.send(&room, redaction).unwrap();
        assert_eq!(line(&server, &room, joined.key.0), None, "a redaction changes what was read");
    }

    #[test]
    fn more_than_a_tail_holds_is_not_taken_in() {
        let mut server = Server::new();
        let room = server.room(RoomVersion::DEFAULT);
        let start = server.say(&room, "alice", "start").unwrap().key.0;
        for number in 0..TAIL_EVENTS_MAX {
            server.say(&room, "alice", &number.to_string()).unwrap();
        }
        assert_eq!(line(&server, &room, start), Some(TAIL_EVENTS_MAX));
        server.say(&room, "alice", "one more").unwrap();
        assert_eq!(line(&server, &room, start), None);
    }

    #[test]
    fn a_span_forgets_its_oldest_items_and_says_so() {
        let mut span = Span::empty_at(10);
        assert!(span.covers(10, 10) && !span.covers(9, 10) && !span.covers(10, 11));
        span.extend(14, vec![(11, 'a'), (13, 'b')], 2);
        assert_eq!(span.between(10, 14).collect::<String>(), "ab");
        assert_eq!(span.between(11, 14).collect::<String>(), "b");
        assert_eq!(span.between(10, 12).collect::<String>(), "a");
        span.extend(15, vec![(15, 'c')], 2);
        assert!(!span.covers(10, 15), "it no longer has all of it");
        assert!(span.covers(11, 15));
        assert_eq!(span.between(11, 15).collect::<String>(), "bc");
    }
}
