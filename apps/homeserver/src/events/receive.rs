//! Events from other servers: checked three times, placed in the graph, persisted with the verdict.
//!
//! Signatures and content hash have been checked before (and the event replaced by its redacted copy if
//! the hash does not match): that is work for the crypto threads, not for the writer.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId};

use crate::model::auth::check_against_auth_events;
use crate::model::{Forbidden, Pdu};
use crate::storage::controllers::load::{self, StoredEvent};
use crate::storage::controllers::persist::{
    Arrival, Origin, PersistEventsStore, Prev, States, Verdict,
};
use crate::storage::databases::main::events::{self, EventRow};
use crate::storage::databases::main::graph;
use crate::storage::engine::{Txn, WriteTxn};
use crate::storage::keys::{EventKey, StateGroup};
use crate::streams::Stream;

use super::admit::{Candidate, may_redact_others};
use super::head::{self, RoomHead, resolved_group};
use super::view::{StateSource, StateView, check_auth_event_list, standings};
use super::{RoomWriter, WriteError};

/// What became of a received event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Received {
    /// It is part of the room.
    Accepted(EventKey),
    /// We had it already.
    Known(EventKey),
    /// It breaks the rules. It is kept so that events on top of it can be judged.
    Rejected(EventKey, Forbidden),
    /// It would have been fine in the past but is not by the current state. Clients do not see it.
    SoftFailed(EventKey, Forbidden),
}

impl RoomWriter {
    /// Takes in an event from another server, whose signatures have been checked.
    ///
    /// # Errors
    ///
    /// [`WriteError::MissingEvents`] if auth or prev events are not known here: fetch them, or the state
    /// at the event, and try again. [`WriteError::UnknownRoom`] if we are not in the room;
    /// [`WriteError::Forbidden`] if the event has no place in any room, so that it is not even kept.
    pub fn receive(
        &self,
        txn: &mut WriteTxn<'_>,
        pdu: Arc<Pdu>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Received, WriteError> {
        let known = events::find(txn, pdu.event_id())?;
        if let Some(row) = known.as_ref().filter(|row| !row.outlier) {
            return Ok(Received::Known(row.key));
        }
        let mut head = head::take(txn, pdu.room_id())?;
        let received = self.receive_on(txn, &mut head, pdu, known.as_ref(), now)?;
        // Unless it was simply the next event, the head is another: it is loaded when it is needed.
        if head.tips.iter().any(|tip| Received::Accepted(tip.key) == received) {
            head::put_back(txn, head);
        }
        Ok(received)
    }

    fn receive_on(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &mut RoomHead,
        pdu: Arc<Pdu>,
        outlier: Option<&EventRow>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Received, WriteError> {
        let version = head.room.version;
        let Some(create) = head.view.event(txn, "m.room.create", "")? else {
            return Err(WriteError::UnknownRoom { room_id: head.room.room_id.clone() });
        };
        if pdu.prev_events().is_empty() {
            let reason = "an event without prev events cannot follow in a room".to_owned();
            return Err(Forbidden { reason }.into());
        }
        let (auth_events, prev_events) = find_references(txn, head, &pdu)?;
        let states: BTreeSet<StateGroup> = prev_events.iter().map(|prev| prev.state).collect();
        let Some(before) = resolved_group(txn, &head.room, &states)? else {
            return Err(WriteError::UnknownRoom { room_id: head.room.room_id.clone() });
        };
        let mut state_before = StateView::new(StateSource::Group(before));
        let pdus: Vec<Arc<Pdu>> = auth_events.iter().map(|auth| auth.pdu.clone()).collect();
        let mut checked = check_auth_event_list(version, &pdu, Some(&create), &auth_events)
            .and_then(|()| check_against_auth_events(version, &pdu, &create, &pdus));
        if checked.is_ok() {
            checked = state_before.check(txn, version, &pdu)?;
        }
        let placed = Placed {
            pdu,
            auth_events,
            prev_events,
            before,
            outlier: outlier.map(|row| row.key),
            now,
        };
        if let Err(forbidden) = checked {
            let verdict = Verdict::Rejected(&forbidden.reason, before);
            let key = self.keep(txn, head, &mut state_before, &placed, verdict)?;
            return Ok(Received::Rejected(key, forbidden));
        }
        let follows_all_tips = placed.prev_events.len() == head.tips.len()
            && head
                .tips
                .iter()
                .all(|tip| placed.prev_events.iter().any(|prev| prev.key == tip.key));
        if follows_all_tips && placed.outlier.is_none() {
            let Placed { pdu, auth_events, now, .. } = placed;
            let candidate = Candidate { pdu, auth_events: &auth_events, transaction: None, now };
            return Ok(Received::Accepted(self.admit(txn, head, &candidate)?));
        }
        if !follows_all_tips && let Err(forbidden) = head.view.check(txn, version, &placed.pdu)? {
            let key =
                self.keep_in_graph(txn, head, &mut state_before, &placed, Verdict::SoftFailed)?;
            return Ok(Received::SoftFailed(key, forbidden));
        }
        let key = self.keep_in_graph(txn, head, &mut state_before, &placed, Verdict::Accepted)?;
        self.extend_graph(txn, head, &placed, key)?;
        Ok(Received::Accepted(key))
    }

    /// Persists an event that has a state of its own after it.
    fn keep_in_graph(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &mut RoomHead,
        state_before: &mut StateView,
        placed: &Placed,
        verdict: impl Fn(States) -> Verdict<'static>,
    ) -> Result<EventKey, WriteError> {
        let mut store = PersistEventsStore::new(txn, self.server_name());
        let key = placed.outlier.unwrap_or_else(|| store.next_key(Origin::Live));
        let after = store.state_after(head.room.key, Some(placed.before), key, &placed.pdu)?;
        let verdict = verdict(States { before: Some(placed.before), after });
        self.write(txn, head, state_before, placed, key, verdict)
    }

    /// Persists an event that leaves the state as it was.
    fn keep(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &mut RoomHead,
        state_before: &mut StateView,
        placed: &Placed,
        verdict: Verdict<'_>,
    ) -> Result<EventKey, WriteError> {
        if let Some(key) = placed.outlier {
            // Rejected copies do not change what we have.
            return Ok(key);
        }
        let key = PersistEventsStore::new(txn, self.server_name()).next_key(Origin::Live);
        self.write(txn, head, state_before, placed, key, verdict)
    }

    fn write(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &mut RoomHead,
        state_before: &mut StateView,
        placed: &Placed,
        key: EventKey,
        verdict: Verdict<'_>,
    ) -> Result<EventKey, WriteError> {
        let pdu = &placed.pdu;
        let replaces = match pdu.state_key() {
            Some(state_key) => {
                state_before.entry(txn, pdu.event_type(), state_key)?.map(|entry| entry.key)
            }
            None => None,
        };
        let may_redact_others = may_redact_others(txn, head.room.version, state_before, pdu)?;
        let prev_events: Vec<Prev<'_>> =
            placed.prev_events.iter().map(|prev| Prev::Known(prev.key)).collect();
        let arrival = Arrival {
            pdu,
            room: head.room.key,
            version: head.room.version,
            verdict,
            prev_events: &prev_events,
            auth_events: &standings(&placed.auth_events),
            replaces,
            may_redact_others,
            received_ts: placed.now.get().into(),
            transaction: None,
        };
        let mut store = PersistEventsStore::new(txn, self.server_name());
        if placed.outlier.is_some() {
            store.complete_outlier(key, &arrival)?;
        } else {
            store.insert(key, &arrival)?;
        }
        store.arrived(key, &arrival)?;
        Ok(key)
    }

    /// Makes an accepted event an end of the graph, unless something follows it already, and works out the
    /// current state anew.
    fn extend_graph(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &RoomHead,
        placed: &Placed,
        key: EventKey,
    ) -> Result<(), WriteError> {
        let room = &head.room;
        let passed = passed_by(txn, placed)?;
        let removed: Vec<EventKey> =
            head.tips.iter().map(|tip| tip.key).filter(|tip| passed.contains(tip)).collect();
        let added = (!graph::has_accepted_follower(txn, key)?).then_some(key);
        let mut store = PersistEventsStore::new(txn, self.server_name());
        let position = match placed.outlier {
            // The event keeps its old position, the change is made now.
            Some(_) => store.next_key(Origin::Live).0,
            None => key.0,
        };
        store.move_extremities(room.key, position, removed, added)?;
        self.settle(txn, room, position)?;
        txn.wake_room(Stream::Events, &room.room_id);
        Ok(())
    }
}

/// A received event with what it refers to.
struct Placed {
    pdu: Arc<Pdu>,
    auth_events: Vec<StoredEvent>,
    prev_events: Vec<PrevEvent>,
    /// The state before it.
    before: StateGroup,
    /// Its key, if we have it as an outlier.
    outlier: Option<EventKey>,
    now: MilliSecondsSinceUnixEpoch,
}

#[derive(Clone, Debug)]
struct PrevEvent {
    key: EventKey,
    state: StateGroup,
    /// Whether it is an end of the graph or an inner event, and not one that was refused.
    is_accepted: bool,
    event_id: OwnedEventId,
}

/// Finds the auth and prev events, or tells which are missing.
fn find_references(
    txn: &Txn<'_>,
    head: &RoomHead,
    pdu: &Pdu,
) -> Result<(Vec<StoredEvent>, Vec<PrevEvent>), WriteError> {
    let mut missing = BTreeSet::new();
    let mut auth_events = Vec::new();
    for event_id in pdu.auth_events() {
        match load::find(txn, event_id)? {
            Some(auth) => auth_events.push(auth),
            None => {
                missing.insert(event_id.clone());
            }
        }
    }
    let mut prev_events: Vec<PrevEvent> = Vec::new();
    for event_id in pdu.prev_events() {
        let found = events::find(txn, event_id)?.filter(|row| row.room == head.room.key);
        match found.and_then(|row| Some((row.state_after?, row))) {
            Some((state, row)) if prev_events.iter().all(|prev| prev.key != row.key) => {
                prev_events.push(PrevEvent {
                    key: row.key,
                    state,
                    is_accepted: row.is_shown(),
                    event_id: row.event_id,
                });
            }
            Some(_) => {}
            None => {
                missing.insert(event_id.clone());
            }
        }
    }
    if missing.is_empty() {
        Ok((auth_events, prev_events))
    } else {
        Err(WriteError::MissingEvents { event_ids: missing.into_iter().collect() })
    }
}

/// Returns the events that an event follows, also through rejected and soft-failed ones, which are never
/// ends of the graph themselves.
fn passed_by(txn: &Txn<'_>, placed: &Placed) -> Result<BTreeSet<EventKey>, WriteError> {
    let mut passed: BTreeSet<EventKey> = placed.prev_events.iter().map(|prev| prev.key).collect();
    let mut refused: Vec<OwnedEventId> = placed
        .prev_events
        .iter()
        .filter(|prev| !prev.is_accepted)
        .map(|prev| prev.event_id.clone())
        .collect();
    while let Some(event_id) = refused.pop() {
        let Some(event) = load::find(txn, &event_id)? else { continue };
        for event_id in event.pdu.prev_events() {
            let Some(row) = events::find(txn, event_id)? else { continue };
            if passed.insert(row.key) && !row.is_shown() {
                refused.push(row.event_id);
            }
        }
    }
    Ok(passed)
}
