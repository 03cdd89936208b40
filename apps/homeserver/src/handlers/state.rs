//! Setting and reading the state of rooms.

use bytes::Bytes;
use ropewalk::Failure;
use ruma::{OwnedEventId, OwnedRoomId, RoomId, UserId};

use super::Refusal;
use super::rate_limits::Action as Limited;
use super::room_error::{RoomError, not_in_room, refuse_json};
use super::room_work::RoomWork;
use super::sessions::Requester;
use super::state_events;
use crate::model::canonical::parse_object;
use crate::model::{EventDraft, HistoryVisibility};
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::databases::main::{current_state, events, memberships};
use crate::storage::databases::state::groups;
use crate::storage::engine::Txn;
use crate::storage::keys::{EventKey, StateGroup};

mod checks;
#[cfg(test)]
mod tests;

/// Sets and reads state.
#[derive(Clone)]
pub struct RoomState {
    work: RoomWork,
}

/// Which entry of a room's state.
#[derive(Clone, Debug)]
pub(crate) struct EntryName {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) event_type: String,
    pub(crate) state_key: String,
}

/// What to return of a state event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// Its content only.
    Content,
    /// The event as clients see it.
    Event,
}

impl RoomState {
    /// Works with `work`.
    pub fn new(work: RoomWork) -> Self {
        Self { work }
    }

    /// Sets an entry to the content that the client wrote; returns the id of the event that did it.
    pub(crate) async fn set(
        &self,
        who: &Requester,
        name: EntryName,
        content: &str,
    ) -> Result<OwnedEventId, Failure> {
        self.work.admit(Limited::Message, &who.user_id)?;
        let content = parse_object(content).map_err(|error| refuse_json(&error))?;
        let EntryName { room_id, event_type, state_key } = name;
        let draft = EventDraft::state(who.user_id.clone(), event_type, state_key, content);
        self.work
            .write("set state", move |txn, tools| {
                checks::check(txn, tools.server_name(), &room_id, &draft)?;
                Ok(tools.writer.send(txn, &room_id, draft, None, tools.now)?.event_id)
            })
            .await
    }

    /// Returns the whole state that `who` may see, as a JSON list of events.
    pub(crate) async fn all(&self, who: &UserId, room_id: &RoomId) -> Result<Bytes, Failure> {
        let (who, room_id, now_ms) =
            (who.to_owned(), room_id.to_owned(), self.work.now().get().into());
        self.work.read(move |txn| all(txn, &who, &room_id, now_ms)).await
    }

    /// Returns one entry, as far as `who` may see it, as JSON.
    pub(crate) async fn entry(
        &self,
        who: &UserId,
        name: EntryName,
        shape: Shape,
    ) -> Result<Bytes, Failure> {
        let (who, now_ms) = (who.to_owned(), self.work.now().get().into());
        self.work.read(move |txn| entry(txn, &who, &name, shape, now_ms)).await
    }
}

/// Which of a room's states somebody sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    /// What it is now: members, and everybody where history is world-readable.
    Current,
    /// What it was when he left.
    Past(StateGroup),
}

/// Returns the room and what `who` sees of its state.
///
/// # Errors
///
/// `M_FORBIDDEN` if that is nothing, or if there is no such room: who asks is not to learn which.
pub(super) fn seen_by(
    txn: &Txn<'_>,
    who: &UserId,
    room_id: &RoomId,
) -> Result<(Room, Seen), RoomError> {
    let room = rooms::find(txn, room_id)?.ok_or_else(not_in_room)?;
    let local = memberships::local(txn, who, room.key)?.filter(|local| !local.forgotten);
    let membership = local.as_ref().map(|local| local.membership.as_str());
    if membership == Some("join") || is_world_readable(txn, &room)? {
        return Ok((room, Seen::Current));
    }
    if let Some(local) = &local
        && matches!(membership, Some("ban" | "leave"))
        && was_joined_before(txn, &room, who, local.event)?
        && let Some(state) = events::by_key(txn, local.event)?.state_after
    {
        return Ok((room, Seen::Past(state)));
    }
    Err(not_in_room().into())
}

/// Returns whether `who` was in the room before the event that put him out. Who has only declined an
/// invitation, or was banned in advance, has seen nothing.
fn was_joined_before(
    txn: &Txn<'_>,
    room: &Room,
    who: &UserId,
    left_by: EventKey,
) -> Result<bool, RoomError> {
    let Some(before) = events::by_key(txn, left_by)?.state_before else { return Ok(false) };
    let Some(member) = groups::entry(txn, before, "m.room.member", who.as_str())? else {
        return Ok(false);
    };
    let then = memberships::by_event(txn, member)?.map(|member| member.membership);
    // Banned after having left: what was seen before stays seen.
    Ok(match then.as_deref() {
        Some("join") => true,
        Some("leave") => memberships::joined_since(txn, room.key, who, EventKey(i64::MIN))?,
        _ => false,
    })
}

fn is_world_readable(txn: &Txn<'_>, room: &Room) -> Result<bool, RoomError> {
    let content = state_events::current_content(txn, room, "m.room.history_visibility")?;
    let visibility = content.map(|content| HistoryVisibility::of_content(&content));
    Ok(visibility == Some(HistoryVisibility::WorldReadable))
}

fn all(txn: &Txn<'_>, who: &UserId, room_id: &RoomId, now_ms: u64) -> Result<Bytes, RoomError> {
    let (room, seen) = seen_by(txn, who, room_id)?;
    let events: Vec<EventKey> = match seen {
        Seen::Current => current_state::entries(txn, room.key)?.values().copied().collect(),
        Seen::Past(state) => groups::entries(txn, state)?.values().copied().collect(),
    };
    let mut out = vec![b'['];
    for event in events {
        if out.len() > 1 {
            out.push(b',');
        }
        state_events::write_event(txn, &mut out, &room, event, now_ms)?;
    }
    out.push(b']');
    Ok(out.into())
}

fn entry(
    txn: &Txn<'_>,
    who: &UserId,
    name: &EntryName,
    shape: Shape,
    now_ms: u64,
) -> Result<Bytes, RoomError> {
    let EntryName { room_id, event_type, state_key } = name;
    let (room, seen) = seen_by(txn, who, room_id)?;
    let event = match seen {
        Seen::Current => current_state::entry(txn, room.key, event_type, state_key)?,
        Seen::Past(state) => groups::entry(txn, state, event_type, state_key)?,
    };
    let Some(event) = event else {
        let message = format!("the room has no state event {event_type:?} with key {state_key:?}");
        return Err(Refusal::not_found(message).into());
    };
    let mut out = Vec::new();
    match shape {
        Shape::Content => {
            out.extend_from_slice(state_events::content(txn, &room, event)?.get().as_bytes());
        }
        Shape::Event => state_events::write_event(txn, &mut out, &room, event, now_ms)?,
    }
    Ok(out.into())
}
