//! Setting and reading the state of rooms.

use std::sync::Arc;

use bytes::Bytes;
use ropewalk::Failure;
use ruma::{OwnedEventId, OwnedRoomId, RoomId, UserId};

use super::Refusal;
use super::access::{self, Access};
use super::rate_limits::Action as Limited;
use super::rendered::{Reading, RenderedEvent, Renderer, write_list};
use super::room_work::RoomWork;
use super::sessions::Requester;
use super::sync::filter::EventForm;
use super::sync::question::ReadCaches;
use crate::model::EventDraft;
use crate::storage::StorageError;
use crate::storage::databases::main::current_state;
use crate::storage::databases::main::shown_events::{self, StatePart};
use crate::storage::databases::state::groups;
use crate::storage::engine::Txn;
use crate::storage::keys::StateGroup;

mod checks;
#[cfg(test)]
mod tests;

/// Sets and reads state.
#[derive(Clone)]
pub struct RoomState {
    work: RoomWork,
    caches: Arc<ReadCaches>,
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
    /// Works with `work`, sharing caches with other readers.
    pub(crate) fn new(work: RoomWork, caches: Arc<ReadCaches>) -> Self {
        Self { work, caches }
    }

    /// Sets an entry to the content that the client wrote; returns the id of the event that did it.
    pub(crate) async fn set(
        &self,
        who: &Requester,
        name: EntryName,
        content: &str,
    ) -> Result<OwnedEventId, Failure> {
        self.work.admit(Limited::Message, &who.user_id)?;
        let content = self.work.parse_content(content).await?;
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
        let (who, room_id, caches) = (who.to_owned(), room_id.to_owned(), self.caches.clone());
        let now_ms = self.work.now_ms();
        let look =
            move |txn: &Txn<'_>| all(txn, Look { who: &who, caches: &caches, now_ms }, &room_id);
        self.work.read(look).await
    }

    /// Returns one entry, as far as `who` may see it, as JSON.
    pub(crate) async fn entry(
        &self,
        who: &UserId,
        name: EntryName,
        shape: Shape,
    ) -> Result<Bytes, Failure> {
        let (who, caches, now_ms) = (who.to_owned(), self.caches.clone(), self.work.now_ms());
        let look = move |txn: &Txn<'_>| {
            entry(txn, Look { who: &who, caches: &caches, now_ms }, &name, shape)
        };
        self.work.read(look).await
    }
}

/// Who reads state, and when.
#[derive(Clone, Copy)]
struct Look<'a> {
    who: &'a UserId,
    caches: &'a ReadCaches,
    now_ms: i64,
}

impl Look<'_> {
    fn write(self, out: &mut Vec<u8>, event: &RenderedEvent, room_id: &RoomId) {
        let reading = Reading {
            user_id: self.who,
            device_id: None,
            now_ms: self.now_ms,
            room_id: Some(room_id),
        };
        event.write(out, reading);
    }
}

/// Returns the state that somebody sees if it is not the current one: that after he left.
fn past_state(txn: &Txn<'_>, access: Access) -> Result<Option<StateGroup>, StorageError> {
    match access {
        Access::Joined | Access::Peeking => Ok(None),
        Access::Left(event) => shown_events::by_key(txn, event, |row| row.state_after()),
    }
}

fn all(txn: &Txn<'_>, look: Look<'_>, room_id: &RoomId) -> Result<Bytes, Failure> {
    let (room, access) = access::of_reader(txn, look.who, room_id)?;
    let renderer = Renderer::new(txn, &look.caches.events, &EventForm::default());
    let mut events = Vec::new();
    match past_state(txn, access)? {
        Some(state) => {
            for &event in groups::entries(txn, state)?.values() {
                events.extend(renderer.by_key(event)?);
            }
        }
        None => shown_events::current_state(txn, room.key, StatePart::All, |row| {
            events.extend(renderer.render(&row)?);
            Ok(())
        })?,
    }
    let mut out = Vec::new();
    write_list(&mut out, &events, |out, event| look.write(out, event, room_id));
    Ok(out.into())
}

fn entry(txn: &Txn<'_>, look: Look<'_>, name: &EntryName, shape: Shape) -> Result<Bytes, Failure> {
    let EntryName { room_id, event_type, state_key } = name;
    let (room, access) = access::of_reader(txn, look.who, room_id)?;
    let event = match past_state(txn, access)? {
        Some(state) => groups::entry(txn, state, event_type, state_key)?,
        None => current_state::entry(txn, room.key, event_type, state_key)?,
    };
    let renderer = Renderer::new(txn, &look.caches.events, &EventForm::default());
    let event = match event {
        Some(event) => renderer.by_key(event)?,
        None => None,
    };
    let Some(event) = event else {
        let message = format!("the room has no state event {event_type:?} with key {state_key:?}");
        return Err(Refusal::not_found(message).into());
    };
    let mut out = Vec::new();
    match shape {
        Shape::Content => out.extend_from_slice(event.content().as_bytes()),
        Shape::Event => look.write(&mut out, &event, room_id),
    }
    Ok(out.into())
}
