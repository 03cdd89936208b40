//! Letting an allowed event into its room: rows, ends of the graph, current state.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::{MilliSecondsSinceUnixEpoch, UserId};

use crate::model::{Action, Membership, Pdu, RoomVersion, StateMap};
use crate::storage::controllers::load::{self, StoredEvent};
use crate::storage::controllers::persist::{
    Arrival, Origin, PersistEventsStore, Prev, StateUpdate, States, Verdict,
};
use crate::storage::databases::main::rooms::Room;
use crate::storage::databases::main::{current_state, memberships};
use crate::storage::databases::state::groups;
use crate::storage::engine::{StorageError, Txn, WriteTxn};
use crate::storage::keys::{EventKey, StateGroup};
use crate::streams::Stream;

use super::head::{self, RoomHead, resolved_group};
use super::view::{StateSource, StateView, standings};
use super::{RoomWriter, WriteError};

/// The client's name for a request, unique for its device and room.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientTransaction {
    /// The device that made the request.
    pub device_id: String,
    /// Its id for the request.
    pub txn_id: String,
}

/// An event that has passed all checks.
pub(super) struct Candidate<'a> {
    pub(super) pdu: Arc<Pdu>,
    pub(super) auth_events: &'a [StoredEvent],
    pub(super) transaction: Option<&'a ClientTransaction>,
    pub(super) now: MilliSecondsSinceUnixEpoch,
}

impl RoomWriter {
    /// Lets in an event that follows all tips of the head, and moves the head onto it.
    pub(super) fn admit(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &mut RoomHead,
        candidate: &Candidate<'_>,
    ) -> Result<EventKey, WriteError> {
        let (key, after, replaces) = self.insert(txn, head, candidate)?;
        let pdu = &candidate.pdu;
        let mut have_left = false;
        if let Some(state_key) = pdu.state_key() {
            let update = StateUpdate {
                event_type: pdu.event_type(),
                state_key,
                event: Some((key, membership_of(pdu).map(Membership::as_str))),
                previous: replaces,
            };
            have_left = self.update_current_state(txn, &head.room, key.0, &[update])?;
        }
        let auth_events = standings(candidate.auth_events);
        let auth_height = auth_events.iter().map(|&(_, height)| height + 1).max().unwrap_or(0);
        head.advance(StoredEvent { key, auth_height, pdu: pdu.clone() }, after);
        if have_left {
            head.view = StateView::new(StateSource::Current(head.room.key));
        }
        Ok(key)
    }

    /// Lets in an event that follows the tips of `side` while the room has others, and works out the
    /// current state anew.
    pub(super) fn admit_beside(
        &self,
        txn: &mut WriteTxn<'_>,
        side: &mut RoomHead,
        candidate: &Candidate<'_>,
    ) -> Result<EventKey, WriteError> {
        let (key, ..) = self.insert(txn, side, candidate)?;
        self.settle(txn, &side.room, key.0)?;
        Ok(key)
    }

    /// Writes the event's rows and makes it an end of the graph instead of those it follows.
    fn insert(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &mut RoomHead,
        candidate: &Candidate<'_>,
    ) -> Result<(EventKey, StateGroup, Option<EventKey>), WriteError> {
        let pdu = &candidate.pdu;
        let replaces = match pdu.state_key() {
            Some(state_key) => {
                head.view.entry(txn, pdu.event_type(), state_key)?.map(|entry| entry.key)
            }
            None => None,
        };
        let may_redact_others = may_redact_others(txn, head.room.version, &mut head.view, pdu)?;
        let room = &head.room;
        let mut store = PersistEventsStore::new(txn, self.server_name());
        let key = store.next_key(Origin::Live);
        let after = store.state_after(room.key, head.state, key, pdu)?;
        let prev_events: Vec<Prev<'_>> = head.tips.iter().map(|tip| Prev::Known(tip.key)).collect();
        let arrival = Arrival {
            pdu,
            room: room.key,
            version: room.version,
            verdict: Verdict::Accepted(States { before: head.state, after }),
            prev_events: &prev_events,
            auth_events: &standings(candidate.auth_events),
            replaces,
            may_redact_others,
            received_ts: candidate.now.get().into(),
            transaction: candidate
                .transaction
                .map(|transaction| (&*transaction.device_id, &*transaction.txn_id)),
        };
        store.insert(key, &arrival)?;
        store.move_extremities(room.key, key.0, head.tips.iter().map(|tip| tip.key), [key])?;
        txn.wake_room(Stream::Events, &room.room_id);
        Ok((key, after, replaces))
    }

    /// Works out the room's current state from the ends of its graph, and notes what changed.
    pub(super) fn settle(
        &self,
        txn: &mut WriteTxn<'_>,
        room: &Room,
        position: i64,
    ) -> Result<(), WriteError> {
        let states: BTreeSet<StateGroup> =
            head::tips(txn, room)?.iter().map(|tip| tip.state).collect();
        let Some(state) = resolved_group(txn, room, &states)? else { return Ok(()) };
        let new = groups::entries(txn, state)?;
        let old: StateMap<EventKey> = current_state::entries(txn, room.key)?;
        let gone = old
            .iter()
            .filter(|(event_type, state_key, _)| new.get(event_type, state_key).is_none())
            .map(|(event_type, state_key, &previous)| StateUpdate {
                event_type,
                state_key,
                event: None,
                previous: Some(previous),
            });
        let mut updates: Vec<StateUpdate<'_>> = gone.collect();
        for (event_type, state_key, &event) in new.iter() {
            let previous = old.get(event_type, state_key).copied();
            if previous != Some(event) {
                let membership = match event_type {
                    "m.room.member" => membership_of(&load::by_key(txn, event)?.pdu),
                    _ => None,
                };
                let event = Some((event, membership.map(Membership::as_str)));
                updates.push(StateUpdate { event_type, state_key, event, previous });
            }
        }
        self.update_current_state(txn, room, position, &updates)?;
        Ok(())
    }

    /// Returns whether we have left the room with that, so that its state is no longer known.
    fn update_current_state(
        &self,
        txn: &mut WriteTxn<'_>,
        room: &Room,
        position: i64,
        updates: &[StateUpdate<'_>],
    ) -> Result<bool, StorageError> {
        let mut store = PersistEventsStore::new(txn, self.server_name());
        store.update_current_state(room.key, &room.room_id, position, updates)?;
        let one_of_us_may_have_left = updates.iter().any(|update| {
            update.event_type == "m.room.member"
                && !matches!(update.event, Some((_, Some("join"))))
                && <&UserId>::try_from(update.state_key)
                    .is_ok_and(|user_id| user_id.server_name() == self.server_name())
        });
        let have_left = one_of_us_may_have_left && have_left(txn, room)?;
        if have_left {
            let mut store = PersistEventsStore::new(txn, self.server_name());
            store.leave_room(room.key, &room.room_id, position)?;
        }
        Ok(have_left)
    }
}

/// Returns whether an event is a redaction whose sender may redact whatever is in the room.
pub(super) fn may_redact_others(
    txn: &Txn<'_>,
    version: RoomVersion,
    state: &mut StateView,
    pdu: &Pdu,
) -> Result<bool, WriteError> {
    if pdu.event_type() != "m.room.redaction" {
        return Ok(false);
    }
    let Some(levels) = state.power_levels(txn, version)? else { return Ok(false) };
    Ok(levels.allow(pdu.sender(), Action::Redact).unwrap_or(false))
}

/// Returns whether others go on in the room without us, so that its state will be news to us. A room
/// that nobody is in stays as it is.
fn have_left(txn: &Txn<'_>, room: &Room) -> Result<bool, StorageError> {
    Ok(memberships::local_members(txn, room.key, "join")?.is_empty()
        && current_state::member_count(txn, room.key, "join")? > 0)
}

/// Returns what a member event makes of its user; nothing for other events.
fn membership_of(pdu: &Pdu) -> Option<Membership> {
    (pdu.event_type() == "m.room.member").then(|| Membership::of_content(pdu.content())).flatten()
}
