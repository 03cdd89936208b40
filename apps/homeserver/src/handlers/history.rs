//! Looking back: pages of a room's history, one event with what surrounds it, one event alone.
//!
//! Pages follow the event graph: by depth, and by arrival among events of one depth. A token is a
//! place between two events, so walking from any token in steps of any size meets each event once.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ropewalk::{Deferred, Failure, Reactor};
use ruma::api::Direction;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId};

use super::access::{self, Access};
use super::rendered::{Reading, RenderedEvent, Renderer, write_list};
use super::sync::filter::{EventFilter, EventForm, Members};
use super::sync::question::{ReadCaches, ignored_users};
use super::sync::timeline::{Lens, Placed};
use super::visibility::{Sight, Standing};
use super::{Refusal, wall_clock_ms};
use crate::storage::StorageError;
use crate::storage::databases::main::events::GraphPlace;
use crate::storage::databases::main::rooms::Room;
use crate::storage::databases::main::shown_events::{self, ShownRow};
use crate::storage::databases::main::{events, reader_rooms};
use crate::storage::databases::state::groups;
use crate::storage::engine::{Database, Txn};
use crate::storage::keys::{RoomKey, StateGroup};
use crate::streams::{RoomPlace, Stream};

#[cfg(test)]
mod tests;

/// The most events in one page; as in Synapse.
const PAGE_EVENTS_MAX: usize = 1_000;

/// The most events looked at for one page, when a filter or the room's visibility hides most of them.
/// The page's end is where the search stopped, so nothing is lost.
const LOOKED_AT_MAX: usize = 3_000;

/// The fewest events asked for at once.
const ROUND_EVENTS_MIN: usize = 10;

/// Reads rooms' histories. A cheap handle.
#[derive(Clone)]
pub struct History {
    reactor: Reactor,
    database: Database,
    caches: Arc<ReadCaches>,
}

/// Who asks, and about which room.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The user.
    pub user_id: OwnedUserId,
    /// His device.
    pub device_id: OwnedDeviceId,
    /// The room.
    pub room_id: OwnedRoomId,
}

/// A page that is asked for.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Which way to go.
    pub direction: Direction,
    /// Where to begin; `None`: at the end of the room that the direction comes from.
    pub from: Option<RoomPlace>,
    /// Where to stop.
    pub to: Option<RoomPlace>,
    /// The most events wanted.
    pub limit: usize,
    /// Which events are wanted.
    pub(crate) filter: EventFilter,
    /// Whether members come along who sent something in the page.
    pub(crate) members: Members,
}

impl History {
    /// Reads from `database`, sharing caches with other readers.
    pub(crate) fn new(reactor: &Reactor, database: Database, caches: Arc<ReadCaches>) -> Self {
        Self { reactor: reactor.clone(), database, caches }
    }

    /// Answers with a page of a room's history.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` if the reader may not look into the room.
    pub fn page(&self, reader: Reader, request: PageRequest) -> Deferred<Bytes> {
        self.read(reader, move |view| view.page(&request))
    }

    /// Answers with an event and what surrounds it: half of `limit` before it, half behind it.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` if the reader may not look into the room or see the event, `M_NOT_FOUND` if the
    /// room has no such event.
    pub(crate) fn context(
        &self,
        reader: Reader,
        event_id: OwnedEventId,
        limit: usize,
        filter: EventFilter,
        members: Members,
    ) -> Deferred<Bytes> {
        self.read(reader, move |view| view.context(&event_id, limit, &filter, members))
    }

    /// Answers with one event.
    ///
    /// # Errors
    ///
    /// `M_NOT_FOUND` if there is no such event in the room, or the reader may not see it.
    pub fn event(&self, reader: Reader, event_id: OwnedEventId) -> Deferred<Bytes> {
        let missing = Refusal::not_found("event not found");
        self.read(reader, move |view| view.event(&event_id)).add_errback(move |failure| {
            let refused = failure.is::<Refusal>();
            Err(if refused { missing.into() } else { failure })
        })
    }

    fn read(
        &self,
        reader: Reader,
        f: impl FnOnce(&View<'_, '_>) -> Result<Vec<u8>, Failure> + Send + 'static,
    ) -> Deferred<Bytes> {
        let caches = Arc::clone(&self.caches);
        let now_ms = wall_clock_ms(&self.reactor);
        self.database.read(move |txn| {
            let view = View::new(txn, &caches, &reader, now_ms)?;
            f(&view).map(Bytes::from)
        })
    }
}

/// One reader's view of one room, in one transaction.
struct View<'t, 'c> {
    txn: &'t Txn<'c>,
    caches: &'t ReadCaches,
    reader: &'t Reader,
    room: Room,
    access: Access,
    ignored: BTreeSet<OwnedUserId>,
    /// The last arrival that can concern him.
    upto: i64,
    reading: Reading<'t>,
}

/// A walk over a room's history.
struct Walk {
    events: Vec<Placed>,
    /// Where to go on; `None`: there is no more.
    end: Option<RoomPlace>,
}

impl<'t, 'c> View<'t, 'c> {
    fn new(
        txn: &'t Txn<'c>,
        caches: &'t ReadCaches,
        reader: &'t Reader,
        now_ms: i64,
    ) -> Result<Self, Failure> {
        let (room, access) = access::of_reader(txn, &reader.user_id, &reader.room_id)?;
        let positions = reader_rooms::positions(txn)?;
        let newest = positions.get(&Stream::Events).copied().unwrap_or_default();
        let reading = Reading {
            user_id: &reader.user_id,
            device_id: Some(&reader.device_id),
            now_ms,
            room_id: Some(&reader.room_id),
        };
        let ignored = ignored_users(txn, &reader.user_id)?;
        let upto = access.clamp(newest);
        Ok(Self { txn, caches, reader, room, access, ignored, upto, reading })
    }

    fn page(&self, request: &PageRequest) -> Result<Vec<u8>, Failure> {
        let start = request.from.unwrap_or(match request.direction {
            Direction::Backward => RoomPlace::Live { stream: self.upto },
            Direction::Forward => RoomPlace::Graph { depth: 0, stream: 0 },
        });
        let walk =
            self.walk(start, request.direction, request.to, request.limit, &request.filter)?;
        let state = self.senders(&walk.events, request.members)?;
        let mut out = Vec::with_capacity(walk.events.len() * 600 + 200);
        out.extend_from_slice(format!("{{\"start\":\"{start}\",").as_bytes());
        if let Some(end) = walk.end {
            out.extend_from_slice(format!("\"end\":\"{end}\",").as_bytes());
        }
        out.extend_from_slice(b"\"chunk\":");
        self.write_placed(&mut out, &walk.events);
        if request.members.is_lazy() {
            out.extend_from_slice(b",\"state\":");
            self.write_events(&mut out, &state);
        }
        out.push(b'}');
        Ok(out)
    }

    fn context(
        &self,
        event_id: &OwnedEventId,
        limit: usize,
        filter: &EventFilter,
        members: Members,
    ) -> Result<Vec<u8>, Failure> {
        let (event, state_after) = self.find(event_id)?;
        let limit = limit.min(PAGE_EVENTS_MAX);
        let before_limit = limit / 2;
        let before =
            self.walk(event.place_before(), Direction::Backward, None, before_limit, filter)?;
        let after_limit = limit - before_limit;
        let after =
            self.walk(event.place_after(), Direction::Forward, None, after_limit, filter)?;

        let place_of_last = |walk: &Walk, otherwise: RoomPlace, direction| match walk.events.last()
        {
            Some(last) if direction == Direction::Forward => last.place_after(),
            Some(last) => last.place_before(),
            None => walk.end.unwrap_or(otherwise),
        };
        let start = place_of_last(&before, event.place_before(), Direction::Backward);
        let end = place_of_last(&after, event.place_after(), Direction::Forward);
        let state_at_end = match after.events.last() {
            Some(last) => shown_events::by_key(self.txn, last.event.key, |row| row.state_after())?,
            None => state_after,
        };
        let mut senders: BTreeSet<&str> = BTreeSet::from([&*event.event.sender]);
        senders.extend(before.events.iter().map(|placed| &*placed.event.sender));
        senders.extend(after.events.iter().map(|placed| &*placed.event.sender));
        let state = match state_at_end {
            Some(state) if members.is_lazy() => self.state(state, Some(&senders))?,
            Some(state) => self.state(state, None)?,
            None => Vec::new(),
        };

        let mut out = format!("{{\"start\":\"{start}\",\"end\":\"{end}\",\"event\":").into_bytes();
        event.event.write(&mut out, self.reading);
        out.extend_from_slice(b",\"events_before\":");
        self.write_placed(&mut out, &before.events);
        out.extend_from_slice(b",\"events_after\":");
        self.write_placed(&mut out, &after.events);
        out.extend_from_slice(b",\"state\":");
        self.write_events(&mut out, &state);
        out.push(b'}');
        Ok(out)
    }

    fn event(&self, event_id: &OwnedEventId) -> Result<Vec<u8>, Failure> {
        let (event, _) = self.find(event_id)?;
        let mut out = Vec::new();
        event.event.write(&mut out, self.reading);
        Ok(out)
    }

    /// Finds an event of the room that the reader may see, and the state after it.
    fn find(&self, event_id: &OwnedEventId) -> Result<(Placed, Option<StateGroup>), Failure> {
        let missing =
            || Refusal::not_found(format!("room {} has no such event", self.room.room_id));
        let found = events::find(self.txn, event_id)?
            .filter(|event| event.room == self.room.key && event.is_shown())
            .ok_or_else(missing)?;
        let mut sight = self.sight()?;
        let sees = shown_events::by_key(self.txn, found.key, |row| {
            sight.sees(Standing::of(&row, &self.reader.user_id)?)
        })?;
        if !sees {
            return Err(Refusal::forbidden("you may not see that event").into());
        }
        let event = self.renderer().by_key(found.key)?.ok_or_else(missing)?;
        let placed = Placed { event, depth: found.depth, replaces: found.replaces };
        Ok((placed, found.state_after))
    }

    fn walk(
        &self,
        from: RoomPlace,
        direction: Direction,
        to: Option<RoomPlace>,
        limit: usize,
        filter: &EventFilter,
    ) -> Result<Walk, StorageError> {
        let limit = limit.min(PAGE_EVENTS_MAX);
        let lens = Lens {
            reader: &self.reader.user_id,
            ignored: &self.ignored,
            room_id: &self.reader.room_id,
            filter,
        };
        let (mut sight, renderer) = (self.sight()?, self.renderer());
        // One more than is wanted tells whether there is more.
        let round = (limit + 1).max(if filter.admits_all() { 1 } else { ROUND_EVENTS_MIN });
        let mut cursor = Cursor::new(from, direction, self.upto);
        let mut events: Vec<Placed> = Vec::new();
        let mut looked_at = 0;
        loop {
            let mut row_count = 0;
            let mut is_past_end = false;
            let mut is_full = false;
            let mut last_looked_at = None;
            cursor.read(self.txn, self.room.key, round, |row| {
                row_count += 1;
                let place = GraphPlace { depth: row.depth()?, stream: row.key()?.0 };
                is_past_end |= to.is_some_and(|to| is_past(to, place, direction));
                if is_past_end || is_full {
                    return Ok(());
                }
                if events.len() >= limit {
                    is_full = true;
                    return Ok(());
                }
                last_looked_at = Some(place);
                if let Some(placed) = lens.look(&row, &mut sight, &renderer)? {
                    events.push(placed);
                }
                Ok(())
            })?;
            looked_at += row_count;
            if let Some(place) = last_looked_at {
                cursor.go_on_behind(place);
            }
            if is_full {
                return Ok(Walk { events, end: Some(cursor.token()) });
            }
            if is_past_end || row_count < round {
                return Ok(Walk { events, end: None });
            }
            if looked_at >= LOOKED_AT_MAX {
                return Ok(Walk { events, end: Some(cursor.token()) });
            }
        }
    }

    fn sight(&self) -> Result<Sight<'t, 'c>, StorageError> {
        Sight::knowing(
            self.txn,
            &self.caches.visibility,
            &self.reader.user_id,
            self.room.key,
            self.access == Access::Joined,
        )
    }

    fn renderer(&self) -> Renderer<'t, 'c> {
        Renderer::new(self.txn, &self.caches.events, &EventForm::default())
    }

    /// Reads the members who sent something in a page, as they were at its first event.
    fn senders(
        &self,
        events: &[Placed],
        members: Members,
    ) -> Result<Vec<Arc<RenderedEvent>>, StorageError> {
        let Some(first) = events.first().filter(|_| members.is_lazy()) else {
            return Ok(Vec::new());
        };
        let state = shown_events::by_key(self.txn, first.event.key, |row| row.state_after())?;
        let Some(state) = state else { return Ok(Vec::new()) };
        let senders: BTreeSet<&str> = events.iter().map(|placed| &*placed.event.sender).collect();
        let mut found = Vec::new();
        for sender in senders {
            if let Some(event) = groups::entry(self.txn, state, "m.room.member", sender)? {
                found.extend(self.renderer().by_key(event)?);
            }
        }
        Ok(found)
    }

    /// Reads a state; of its members all, or only some.
    fn state(
        &self,
        state: StateGroup,
        members: Option<&BTreeSet<&str>>,
    ) -> Result<Vec<Arc<RenderedEvent>>, StorageError> {
        let mut found = Vec::new();
        for (event_type, state_key, &event) in groups::entries(self.txn, state)?.iter() {
            let wanted = event_type != "m.room.member"
                || members.is_none_or(|members| members.contains(state_key));
            if wanted {
                found.extend(self.renderer().by_key(event)?);
            }
        }
        Ok(found)
    }

    fn write_placed(&self, out: &mut Vec<u8>, events: &[Placed]) {
        write_list(out, events, |out, placed| placed.event.write(out, self.reading));
    }

    fn write_events(&self, out: &mut Vec<u8>, events: &[Arc<RenderedEvent>]) {
        write_list(out, events, |out, event| event.write(out, self.reading));
    }
}

/// Where a walk stands: everything up to `place`, in its direction, has been looked at.
struct Cursor {
    direction: Direction,
    place: GraphPlace,
    /// The oldest and newest arrivals that are looked at: `(after, upto]`.
    arrivals: (i64, i64),
}

impl Cursor {
    fn new(from: RoomPlace, direction: Direction, upto: i64) -> Self {
        let (place, arrivals) = match (from, direction) {
            (RoomPlace::Graph { depth, stream }, _) => {
                (GraphPlace { depth, stream }, (i64::MIN, upto))
            }
            (RoomPlace::Live { stream }, Direction::Backward) => {
                (GraphPlace { depth: i64::MAX, stream: i64::MAX }, (i64::MIN, upto.min(stream)))
            }
            (RoomPlace::Live { stream }, Direction::Forward) => {
                (GraphPlace { depth: i64::MIN, stream: i64::MIN }, (stream, upto))
            }
        };
        Self { direction, place, arrivals }
    }

    fn read(
        &self,
        txn: &Txn<'_>,
        room: RoomKey,
        limit: usize,
        f: impl FnMut(ShownRow<'_, '_>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        match self.direction {
            Direction::Backward => {
                shown_events::page_backwards(txn, room, self.place, self.arrivals.1, limit, f)
            }
            Direction::Forward => {
                shown_events::page_forwards(txn, room, self.place, self.arrivals, limit, f)
            }
        }
    }

    /// Goes on behind an event, as seen in the direction of the walk.
    fn go_on_behind(&mut self, event: GraphPlace) {
        let step = if self.direction == Direction::Backward { 1 } else { 0 };
        self.place = GraphPlace { depth: event.depth, stream: event.stream - step };
    }

    fn token(&self) -> RoomPlace {
        RoomPlace::Graph { depth: self.place.depth, stream: self.place.stream }
    }
}

/// Whether an event lies behind the place at which a walk is to stop.
fn is_past(to: RoomPlace, event: GraphPlace, direction: Direction) -> bool {
    let is_after = match to {
        RoomPlace::Graph { depth, stream } => event > GraphPlace { depth, stream },
        RoomPlace::Live { stream } => event.stream > stream,
    };
    match direction {
        Direction::Backward => !is_after,
        Direction::Forward => is_after,
    }
}
