//! Events of our own users: built on the room's head, signed, checked and persisted.

use std::sync::Arc;

use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId};

use crate::model::build::DEPTH_MAX;
use crate::model::{Action, EventDraft, Forbidden, Pdu, Place};
use crate::storage::controllers::load::StoredEvent;
use crate::storage::databases::main::events;
use crate::storage::engine::{Txn, WriteTxn};
use crate::storage::keys::EventKey;

use super::admit::{Candidate, ClientTransaction};
use super::head::{self, RoomHead};
use super::view::check_auth_event_list;
use super::{RoomWriter, WriteError};

/// Prev events of one event of ours. The specification allows 20; ten join any fork in a few events and
/// leave the others something to do.
const PREV_EVENTS_MAX: usize = 10;

/// An event that is in its room.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SentEvent {
    /// Its id.
    pub event_id: OwnedEventId,
    /// Its position in the events stream.
    pub key: EventKey,
    /// Whether it was there before: the same transaction, or state that is set already.
    pub is_repeated: bool,
}

impl RoomWriter {
    /// Writes an event of one of our users into a room.
    ///
    /// A transaction that has been here before gets what it got then. State that is set to what it is
    /// already makes no event. `now` becomes the event's timestamp.
    ///
    /// # Errors
    ///
    /// [`WriteError::UnknownRoom`], [`WriteError::Forbidden`], [`WriteError::Build`], for redactions
    /// [`WriteError::UnknownEvent`]; else if the database fails.
    pub fn send(
        &self,
        txn: &mut WriteTxn<'_>,
        room_id: &RoomId,
        draft: EventDraft,
        transaction: Option<&ClientTransaction>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<SentEvent, WriteError> {
        let mut head = head::take(txn, room_id)?;
        if let Some(sent) = sent_before(txn, &mut head, &draft, transaction)? {
            head::put_back(txn, head);
            return Ok(sent);
        }
        if let Some(target) = &draft.redacts {
            check_redaction(txn, &mut head, &draft.sender, target)?;
        }
        if head.tips.len() > PREV_EVENTS_MAX {
            return self.join_some_tips(txn, &head, draft, transaction, now);
        }
        let sent = self.append(txn, &mut head, draft, transaction, now)?;
        head::put_back(txn, head);
        Ok(sent)
    }

    /// Builds an event on the head, checks and persists it, and moves the head onto it.
    pub(super) fn append(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &mut RoomHead,
        draft: EventDraft,
        transaction: Option<&ClientTransaction>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<SentEvent, WriteError> {
        let (pdu, auth_events) = self.build(txn, head, draft, now)?;
        let candidate = Candidate { pdu, auth_events: &auth_events, transaction, now };
        let key = self.admit(txn, head, &candidate)?;
        let event_id = candidate.pdu.event_id().to_owned();
        Ok(SentEvent { event_id, key, is_repeated: false })
    }

    /// A room with very many ends: the newest of them are joined, the others by the events to come.
    fn join_some_tips(
        &self,
        txn: &mut WriteTxn<'_>,
        head: &RoomHead,
        draft: EventDraft,
        transaction: Option<&ClientTransaction>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<SentEvent, WriteError> {
        let mut tips = head.tips.clone();
        tips.sort_by_key(|tip| (std::cmp::Reverse(tip.depth), tip.key));
        tips.truncate(PREV_EVENTS_MAX);
        tips.sort_by_key(|tip| tip.key);
        let mut narrow = head.narrowed(txn, tips)?;
        let (pdu, auth_events) = self.build(txn, &mut narrow, draft, now)?;
        let candidate = Candidate { pdu, auth_events: &auth_events, transaction, now };
        let key = self.admit_beside(txn, &mut narrow, &candidate)?;
        let event_id = candidate.pdu.event_id().to_owned();
        Ok(SentEvent { event_id, key, is_repeated: false })
    }

    fn build(
        &self,
        txn: &Txn<'_>,
        head: &mut RoomHead,
        draft: EventDraft,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<(Arc<Pdu>, Vec<StoredEvent>), WriteError> {
        let version = head.room.version;
        let create = head.view.event(txn, "m.room.create", "")?;
        let Some(create) = create else {
            // We have left it, and with that we no longer know its state.
            return Err(WriteError::UnknownRoom { room_id: head.room.room_id.clone() });
        };
        let auth_events = head.view.select_auth_events(txn, version, &draft)?;
        let depth = head.tips.iter().map(|tip| tip.depth).max().unwrap_or(0);
        let place = Place {
            room_id: head.room.room_id.clone(),
            prev_events: head.tips.iter().map(|tip| tip.event_id.clone()).collect(),
            auth_events: auth_events.iter().map(|auth| auth.pdu.event_id().to_owned()).collect(),
            depth: depth.saturating_add(1).min(DEPTH_MAX),
            origin_server_ts: now,
        };
        let pdu = Arc::new(self.signer.sign(version, draft, place)?);
        check_auth_event_list(version, &pdu, Some(&create), &auth_events)?;
        head.view.check(txn, version, &pdu)??;
        Ok((pdu, auth_events))
    }
}

/// Returns what a repeated request got the first time.
fn sent_before(
    txn: &Txn<'_>,
    head: &mut RoomHead,
    draft: &EventDraft,
    transaction: Option<&ClientTransaction>,
) -> Result<Option<SentEvent>, WriteError> {
    if let Some(ClientTransaction { device_id, txn_id }) = transaction {
        let room = head.room.key;
        let (sender, event_type) = (&draft.sender, &draft.event_type);
        let found = events::find_by_transaction(txn, room, sender, device_id, txn_id, event_type)?;
        if let Some((key, event_id)) = found {
            return Ok(Some(SentEvent { event_id, key, is_repeated: true }));
        }
    }
    let Some(state_key) = &draft.state_key else { return Ok(None) };
    let Some(current) = head.view.entry(txn, &draft.event_type, state_key)? else {
        return Ok(None);
    };
    // Both are canonical, so equal values are equal texts.
    let is_same = *current.pdu.sender() == *draft.sender
        && draft.raw_content().is_ok_and(|content| content.get() == current.pdu.content().get());
    let event_id = current.pdu.event_id().to_owned();
    Ok(is_same.then_some(SentEvent { event_id, key: current.key, is_repeated: true }))
}

/// Redactions pass authorisation whoever sends them and are ignored by others if they should not have
/// been sent. Our own users are told at once.
fn check_redaction(
    txn: &Txn<'_>,
    head: &mut RoomHead,
    sender: &UserId,
    target: &EventId,
) -> Result<(), WriteError> {
    let found = events::find(txn, target)?.filter(|row| row.room == head.room.key);
    let Some(found) = found else {
        return Err(WriteError::UnknownEvent { event_id: target.to_owned() });
    };
    let forbidden = |reason: &str| Forbidden { reason: reason.to_owned() }.into();
    if found.event_type == "m.room.create" {
        return Err(forbidden("the create event of a room cannot be redacted"));
    }
    let version = head.room.version;
    let has_power = match head.view.power_levels(txn, version)? {
        Some(levels) => levels.allow(sender, Action::Redact)?,
        None => false,
    };
    if has_power || *found.sender == *sender {
        Ok(())
    } else {
        Err(forbidden("your power level does not suffice for redacting what others wrote"))
    }
}
