//! The timeline of one room in one response: its newest events that the reader may and wants to see.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::{OwnedUserId, RoomId, UserId};

use super::filter::{EventFacts, EventFilter};
use crate::handlers::rendered::{RenderedEvent, Renderer};
use crate::handlers::visibility::{Sight, Standing};
use crate::storage::StorageError;
use crate::storage::databases::main::events::GraphPlace;
use crate::storage::databases::main::shown_events::{self, ShownRow};
use crate::storage::engine::Txn;
use crate::storage::keys::{EventKey, RoomKey};
use crate::streams::RoomPlace;

/// How often the database is asked for more events because the filter or the room's visibility hid
/// those it gave. After that the client pages.
const ROUNDS_MAX: usize = 5;

/// The fewest events asked for in one round.
const ROUND_EVENTS_MIN: usize = 10;

/// The place after every event in graph order.
const END: GraphPlace = GraphPlace { depth: i64::MAX, stream: i64::MAX };

/// An event in a timeline, with what is needed to place it.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// The event.
    pub(crate) event: Arc<RenderedEvent>,
    /// Its depth.
    pub(crate) depth: i64,
    /// For a state event, what it replaced.
    pub(crate) replaces: Option<EventKey>,
}

impl Placed {
    /// Returns the place just before it in graph order.
    pub(crate) fn place_before(&self) -> RoomPlace {
        RoomPlace::Graph { depth: self.depth, stream: self.event.key.0 - 1 }
    }

    /// Returns the place just after it in graph order.
    pub(crate) fn place_after(&self) -> RoomPlace {
        RoomPlace::Graph { depth: self.depth, stream: self.event.key.0 }
    }
}

/// The timeline of one room in one response.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    /// Its events, oldest first.
    pub(super) events: Vec<Placed>,
    /// Whether there is more between `since` and the first event.
    pub(super) limited: bool,
    /// Where to page back from.
    pub(super) prev_batch: RoomPlace,
    /// Whether nothing at all has happened in the room, not even something hidden.
    pub(super) is_quiet: bool,
}

impl Timeline {
    /// Whether this event is in it.
    pub(super) fn contains(&self, event: EventKey) -> bool {
        self.events.iter().any(|placed| placed.event.key == event)
    }

    /// Returns the earliest event in it for an entry of the state.
    pub(super) fn first_of(&self, event_type: &str, state_key: &str) -> Option<&Placed> {
        self.events.iter().find(|placed| {
            placed.event.state_key.as_deref() == Some(state_key)
                && &*placed.event.event_type == event_type
        })
    }
}

/// Whose view of a room, and through which filter.
pub(crate) struct Lens<'t> {
    /// The reader.
    pub(crate) reader: &'t UserId,
    /// Whose messages he does not want to see.
    pub(crate) ignored: &'t BTreeSet<OwnedUserId>,
    /// The room's id.
    pub(crate) room_id: &'t RoomId,
    /// Which events he wants to see.
    pub(crate) filter: &'t EventFilter,
}

impl Lens<'_> {
    /// Whether the reader wants an event of a list, as far as the row says.
    fn wants(&self, row: &ShownRow<'_, '_>) -> Result<bool, StorageError> {
        let sender = row.sender()?;
        let is_ignored = !self.ignored.is_empty()
            && row.state_key()?.is_none()
            && self.ignored.iter().any(|ignored| ignored.as_str() == sender);
        if is_ignored {
            return Ok(false);
        }
        // Whether there is a url is known only when the event has been read.
        Ok(self.filter.asks_about_urls()
            || self.filter.admits(EventFacts {
                event_type: row.event_type()?,
                sender: Some(sender),
                room_id: Some(self.room_id),
                has_url: false,
            }))
    }

    /// Reads an event of a list, if the reader wants and may see it.
    pub(crate) fn look(
        &self,
        row: &ShownRow<'_, '_>,
        sight: &mut Sight<'_, '_>,
        renderer: &Renderer<'_, '_>,
    ) -> Result<Option<Placed>, StorageError> {
        if !self.wants(row)? || !sight.sees(Standing::of(row, self.reader)?)? {
            return Ok(None);
        }
        let Some(event) = renderer.render(row)? else { return Ok(None) };
        if self.filter.asks_about_urls() && !self.filter.admits(event.facts(self.room_id)) {
            return Ok(None);
        }
        Ok(Some(Placed { event, depth: row.depth()?, replaces: row.replaces()? }))
    }
}

/// Reads the newest events of a room that arrived after `since` (all, if there is none) and not after
/// `upto`.
pub(super) fn read(
    txn: &Txn<'_>,
    room: RoomKey,
    (since, upto): (Option<i64>, i64),
    limit: usize,
    lens: &Lens<'_>,
    sight: &mut Sight<'_, '_>,
    renderer: &Renderer<'_, '_>,
) -> Result<Timeline, StorageError> {
    let wanted = limit + 1;
    let round = wanted.max(if lens.filter.admits_all() { 1 } else { ROUND_EVENTS_MIN });
    let mut events: Vec<Placed> = Vec::new();
    // Where the next round goes on: behind an arrival, or at a place in the graph.
    let mut arrived = upto;
    let mut place = END;
    let mut more = true;
    let mut is_quiet = true;
    for _ in 0..ROUNDS_MAX {
        let (from_arrived, from_place) = (arrived, place);
        let mut row_count = 0;
        let mut each = |row: ShownRow<'_, '_>| {
            row_count += 1;
            let key = row.key()?.0;
            arrived = key - 1;
            place = GraphPlace { depth: row.depth()?, stream: key - 1 };
            if events.len() < wanted
                && let Some(placed) = lens.look(&row, sight, renderer)?
            {
                events.push(placed);
            }
            Ok(())
        };
        match since {
            // What is new comes in the order of arrival, so that nothing is missed or doubled.
            Some(since) => {
                shown_events::newest_by_arrival(txn, room, since, from_arrived, round, &mut each)?;
            }
            // From scratch the order is that of paging, which goes on from `prev_batch`.
            None => shown_events::page_backwards(txn, room, from_place, upto, round, &mut each)?,
        }
        is_quiet &= row_count == 0;
        if row_count < round {
            more = false;
            break;
        }
        if events.len() >= wanted {
            break;
        }
    }
    let limited = events.len() > limit || more;
    events.truncate(limit);
    events.reverse();
    let prev_batch = match events.first() {
        Some(first) => first.place_before(),
        None => RoomPlace::Live { stream: upto },
    };
    Ok(Timeline { events, limited, prev_batch, is_quiet })
}
