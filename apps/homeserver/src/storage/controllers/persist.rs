//! Persisting events: the write side, which only a process with the writer can have.
//!
//! [`PersistEventsStore`] is made from a [`WriteTxn`], and nothing else makes one: a process that may
//! not write events does not have the code at hand. It notes what it is told; whether an event is
//! allowed, and what the state at it is, has been decided above.

use std::ops::Deref;

use ruma::{EventId, RoomId, ServerName, UserId};
use serde_json::Value;

use crate::model::{MemberContent, Pdu, RoomVersion};
use crate::storage::databases::main::current_state::{self, StateDelta};
use crate::storage::databases::main::events::{self, NewEvent};
use crate::storage::databases::main::memberships::{self, NewMembership};
use crate::storage::databases::main::{extremities, graph, redactions, relations, rooms};
use crate::storage::databases::state::groups;
use crate::storage::engine::{StorageError, WriteTxn};
use crate::storage::keys::{EventKey, RoomKey, StateGroup};
use crate::streams::Stream;

use super::auth_chain::Standing;

/// Whether an event is news or comes from the past.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Fetched to fill in history: never in anybody's incremental sync.
    Backfilled,
    /// It has just been sent or received.
    Live,
}

/// The state before and after an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct States {
    /// None before a create event.
    pub before: Option<StateGroup>,
    /// The state with it, if it is a state event.
    pub after: StateGroup,
}

/// What has been decided about an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict<'a> {
    /// Part of the room.
    Accepted(States),
    /// Known without the state at it; with the reason if it is rejected all the same.
    Outlier(Option<&'a str>),
    /// Against the rules, for this reason; the state is after it as before it.
    Rejected(&'a str, StateGroup),
    /// By the rules on its own ground, but not by the current state.
    SoftFailed(States),
}

impl<'a> Verdict<'a> {
    fn rejected(self) -> Option<&'a str> {
        match self {
            Self::Rejected(reason, _) => Some(reason),
            Self::Outlier(rejected) => rejected,
            Self::Accepted(_) | Self::SoftFailed(_) => None,
        }
    }

    fn states(self) -> Option<States> {
        match self {
            Self::Accepted(states) | Self::SoftFailed(states) => Some(states),
            Self::Rejected(_, state) => Some(States { before: Some(state), after: state }),
            Self::Outlier(_) => None,
        }
    }
}

/// An event that one event follows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prev<'a> {
    /// We have it in full.
    Known(EventKey),
    /// We lack it, or have it as an outlier only.
    Missing(&'a EventId),
}

/// An event with everything that was decided and found out about it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The event.
    pub pdu: &'a Pdu,
    /// The room it is in.
    pub room: RoomKey,
    /// The room's version.
    pub version: RoomVersion,
    /// What has been decided.
    pub verdict: Verdict<'a>,
    /// What it follows.
    pub prev_events: &'a [Prev<'a>],
    /// What authorises it, with auth heights.
    pub auth_events: &'a [Standing],
    /// For a state event, what it replaces in the state before it.
    pub replaces: Option<EventKey>,
    /// For a redaction, whether its sender's power suffices for any target.
    pub may_redact_others: bool,
    /// Now, in ms since 1970.
    pub received_ts: i64,
    /// The client's device and transaction.
    pub transaction: Option<(&'a str, &'a str)>,
}

/// A change of a room's current state.
#[derive(Clone, Copy, Debug)]
pub struct StateUpdate<'a> {
    /// The entry's type.
    pub event_type: &'a str,
    /// The entry's state key.
    pub state_key: &'a str,
    /// What it is from now on: the event, and its membership if it is a member event.
    pub event: Option<(EventKey, Option<&'a str>)>,
    /// What it was.
    pub previous: Option<EventKey>,
}

/// The write side of events; see the module's documentation.
pub struct PersistEventsStore<'t, 'c> {
    txn: &'t mut WriteTxn<'c>,
    server_name: &'t ServerName,
}

impl<'c> Deref for PersistEventsStore<'_, 'c> {
    type Target = WriteTxn<'c>;

    fn deref(&self) -> &WriteTxn<'c> {
        self.txn
    }
}

impl<'t, 'c> PersistEventsStore<'t, 'c> {
    /// Takes hold of a write transaction. `server_name` tells our own users from others.
    pub fn new(txn: &'t mut WriteTxn<'c>, server_name: &'t ServerName) -> Self {
        Self { txn, server_name }
    }

    /// Returns the key for a new event. State groups name events by key, so it is needed first.
    pub fn next_key(&mut self, origin: Origin) -> EventKey {
        match origin {
            Origin::Backfilled => EventKey(-self.txn.next_stream_id(Stream::EventsBackfilled)),
            Origin::Live => EventKey(self.txn.next_stream_id(Stream::Events)),
        }
    }

    /// Writes an event and all that follows from itself: its edges, membership, redaction, relation.
    ///
    /// # Errors
    ///
    /// A unique violation if we have the event already; else if the database fails.
    pub fn insert(&mut self, key: EventKey, arrival: &Arrival<'_>) -> Result<(), StorageError> {
        let Arrival { pdu, room, .. } = *arrival;
        let rejected = arrival.verdict.rejected();
        let states = arrival.verdict.states();
        let auth_height = pdu
            .state_key()
            .map(|_| arrival.auth_events.iter().map(|&(_, height)| height + 1).max().unwrap_or(0));
        events::insert(
            self.txn,
            key,
            &NewEvent {
                event_id: pdu.event_id(),
                room,
                depth: depth(pdu),
                event_type: pdu.event_type(),
                state_key: pdu.state_key(),
                sender: pdu.sender(),
                origin_server_ts: pdu.origin_server_ts().get().into(),
                received_ts: arrival.received_ts,
                rejected,
                soft_failed: matches!(arrival.verdict, Verdict::SoftFailed(_)),
                outlier: states.is_none(),
                state_before: states.and_then(|states| states.before),
                state_after: states.map(|states| states.after),
                replaces: arrival.replaces,
                auth_height,
                transaction: arrival.transaction,
                json: pdu.json(),
            },
        )?;
        if pdu.state_key().is_some() {
            // For rejected events, too: state resolution walks them.
            for &(auth, _) in arrival.auth_events {
                graph::insert_auth_edge(self.txn, key, auth)?;
            }
        }
        if !matches!(arrival.verdict, Verdict::Outlier(_)) {
            self.insert_edges(key, arrival)?;
        }
        if rejected.is_none() {
            self.insert_meaning(key, arrival)?;
        }
        Ok(())
    }

    /// Turns an outlier that has come again in full into a normal event. It keeps its key.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub fn complete_outlier(
        &mut self,
        key: EventKey,
        arrival: &Arrival<'_>,
    ) -> Result<(), StorageError> {
        let Some(states) = arrival.verdict.states() else { return Ok(()) };
        let soft_failed = matches!(arrival.verdict, Verdict::SoftFailed(_));
        events::clear_outlier(self.txn, key, states.before, states.after, soft_failed)?;
        self.insert_edges(key, arrival)
    }

    fn insert_edges(&mut self, key: EventKey, arrival: &Arrival<'_>) -> Result<(), StorageError> {
        for &prev in arrival.prev_events {
            match prev {
                Prev::Known(prev) => graph::insert_edge(self.txn, prev, key)?,
                Prev::Missing(prev) => {
                    graph::insert_missing_edge(self.txn, arrival.room, prev, key)?;
                }
            }
        }
        Ok(())
    }

    fn insert_meaning(&mut self, key: EventKey, arrival: &Arrival<'_>) -> Result<(), StorageError> {
        let Arrival { pdu, room, .. } = *arrival;
        match (pdu.event_type(), pdu.state_key()) {
            ("m.room.member", Some(user_id)) => {
                let content = MemberContent::read(pdu.content());
                if let Some(membership) = content.membership {
                    let new = NewMembership {
                        event: key,
                        room,
                        user_id,
                        sender: pdu.sender(),
                        membership: membership.as_str(),
                        displayname: content.displayname.as_deref(),
                        avatar_url: content.avatar_url.as_deref(),
                    };
                    memberships::insert(self.txn, &new)?;
                }
            }
            ("m.room.redaction", None) => {
                if let Some(target) = pdu.redacts(arrival.version) {
                    let has_power = arrival.may_redact_others;
                    redactions::insert(self.txn, key, room, target, has_power)?;
                }
            }
            _ => {}
        }
        // Most events relate to nothing; a search in the text is cheaper than reading it.
        if pdu.content().get().contains("\"m.relates_to\"") {
            let content = pdu.content_as::<Value>().unwrap_or_default();
            let text = |field: &str| content["m.relates_to"].get(field).and_then(Value::as_str);
            if let (Some(target), Some(kind)) = (text("event_id"), text("rel_type")) {
                relations::insert(self.txn, key, room, target, kind, text("key"))?;
            }
        }
        Ok(())
    }

    /// Notes that an event from elsewhere is here in full: others may have named it before.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub fn arrived(&mut self, key: EventKey, arrival: &Arrival<'_>) -> Result<(), StorageError> {
        graph::prev_event_arrived(self.txn, arrival.pdu.event_id(), key)?;
        if arrival.verdict.rejected().is_none() {
            rooms::lower_min_depth(self.txn, arrival.room, depth(arrival.pdu))?;
        }
        Ok(())
    }

    /// Makes the state that `before` becomes by one event.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub fn state_after(
        &mut self,
        room: RoomKey,
        before: Option<StateGroup>,
        key: EventKey,
        pdu: &Pdu,
    ) -> Result<StateGroup, StorageError> {
        match (pdu.state_key(), before) {
            (Some(state_key), before) => {
                groups::create(self.txn, room, before, &[(pdu.event_type(), state_key, key)])
            }
            (None, Some(before)) => Ok(before),
            (None, None) => groups::create(self.txn, room, None, &[]),
        }
    }

    /// Changes the ends of the room's graph, as of `position`.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub fn move_extremities(
        &mut self,
        room: RoomKey,
        position: i64,
        removed: impl IntoIterator<Item = EventKey>,
        added: impl IntoIterator<Item = EventKey>,
    ) -> Result<(), StorageError> {
        for event in removed {
            extremities::remove(self.txn, room, event, position)?;
        }
        for event in added {
            extremities::add(self.txn, room, event, position)?;
        }
        Ok(())
    }

    /// Changes the room's current state, as of `position`: last, because it needs the memberships.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub fn update_current_state(
        &mut self,
        room: RoomKey,
        room_id: &RoomId,
        position: i64,
        updates: &[StateUpdate<'_>],
    ) -> Result<(), StorageError> {
        for update in updates {
            let StateUpdate { event_type, state_key, .. } = *update;
            match update.event {
                Some((event, membership)) => {
                    current_state::put(self.txn, room, event_type, state_key, event, membership)?;
                }
                None => current_state::remove(self.txn, room, event_type, state_key)?,
            }
            current_state::insert_delta(
                self.txn,
                &StateDelta {
                    stream_id: position,
                    room,
                    event_type: event_type.to_owned(),
                    state_key: state_key.to_owned(),
                    event: update.event.map(|(event, _)| event),
                    previous: update.previous,
                },
            )?;
            if event_type == "m.room.member"
                && let Ok(user_id) = <&UserId>::try_from(state_key)
                && user_id.server_name() == self.server_name
            {
                self.update_local_membership(room, position, user_id, update)?;
            }
        }
        if !updates.is_empty() {
            self.txn.invalidate(ROOM_STATE_CACHE, room_id.as_str());
        }
        Ok(())
    }

    /// Forgets the current state of a room in which nobody of ours is any more while others go on. The
    /// latest memberships of our users stay.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub fn leave_room(
        &mut self,
        room: RoomKey,
        room_id: &RoomId,
        position: i64,
    ) -> Result<(), StorageError> {
        for (event_type, state_key, &previous) in current_state::entries(self.txn, room)?.iter() {
            current_state::insert_delta(
                self.txn,
                &StateDelta {
                    stream_id: position,
                    room,
                    event_type: event_type.to_owned(),
                    state_key: state_key.to_owned(),
                    event: None,
                    previous: Some(previous),
                },
            )?;
        }
        current_state::remove_all(self.txn, room)?;
        self.txn.invalidate(ROOM_STATE_CACHE, room_id.as_str());
        Ok(())
    }

    fn update_local_membership(
        &mut self,
        room: RoomKey,
        position: i64,
        user_id: &UserId,
        update: &StateUpdate<'_>,
    ) -> Result<(), StorageError> {
        match update.event {
            Some((event, Some(membership))) => {
                let user_id = user_id.as_str();
                memberships::put_local(self.txn, user_id, room, event, membership, position)?;
            }
            _ => memberships::remove_local(self.txn, user_id.as_str(), room)?,
        }
        self.txn.invalidate(USER_ROOMS_CACHE, user_id.as_str());
        self.txn.wake_rooms_of(user_id);
        Ok(())
    }
}

/// Name of the caches that hold current state by room id.
pub const ROOM_STATE_CACHE: &str = "room_state";

/// Name of the caches that hold the rooms of our users by user id.
pub const USER_ROOMS_CACHE: &str = "user_rooms";

/// Returns the event's depth as a column holds it; greater ones are refused when events are read.
pub fn depth(pdu: &Pdu) -> i64 {
    i64::try_from(pdu.depth()).unwrap_or(i64::MAX)
}
