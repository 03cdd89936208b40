//! Aliases of rooms, and which rooms the directory lists.

use std::sync::Arc;

use ropewalk::Failure;
use ruma::{OwnedRoomAliasId, OwnedRoomId, RoomAliasId, RoomId, ServerName, UserId};

use super::Refusal;
use super::access::{self, Access};
use super::room_error::{RoomError, not_in_room};
use super::room_work::{RoomWork, Tools};
use super::rooms::Publication;
use super::sync::question::ReadCaches;
use crate::events::WriteError;
use crate::model::{EventDraft, PowerLevels};
use crate::storage::controllers::load;
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::databases::main::{current_state, room_aliases};
use crate::storage::engine::{Txn, WriteTxn};

pub(crate) mod public_rooms;
#[cfg(test)]
mod tests;

/// Aliases and the directory's list.
#[derive(Clone)]
pub struct Directory {
    work: RoomWork,
    caches: Arc<ReadCaches>,
    publication: Publication,
}

impl Directory {
    /// Works with `work`, sharing caches with other readers.
    pub(crate) fn new(work: RoomWork, caches: Arc<ReadCaches>, publication: Publication) -> Self {
        Self { work, caches, publication }
    }

    /// Returns the room that an alias stands for.
    pub(crate) async fn find(&self, alias: &RoomAliasId) -> Result<OwnedRoomId, Failure> {
        let alias = alias.to_owned();
        self.work
            .read(move |txn| {
                let found = room_aliases::find(txn, &alias)?;
                Ok(found.ok_or_else(|| no_such_alias(&alias))?.room_id)
            })
            .await
    }

    /// Returns this server's name: where the rooms of its directory are.
    pub(crate) fn server_name(&self) -> &ServerName {
        self.work.server_name()
    }

    /// Makes an alias.
    pub(crate) async fn add(
        &self,
        who: &UserId,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), Failure> {
        let (who, alias, room_id) = (who.to_owned(), alias.to_owned(), room_id.to_owned());
        self.work
            .write("add an alias", move |txn, tools| add(txn, tools, &who, &alias, &room_id))
            .await
    }

    /// Removes an alias.
    pub(crate) async fn remove(&self, who: &UserId, alias: &RoomAliasId) -> Result<(), Failure> {
        let (who, alias) = (who.to_owned(), alias.to_owned());
        self.work.write("remove an alias", move |txn, tools| remove(txn, tools, &who, &alias)).await
    }

    /// Returns the aliases of a room on this server, in the order of the alphabet.
    pub(crate) async fn aliases_of(
        &self,
        who: &UserId,
        room_id: &RoomId,
    ) -> Result<Vec<OwnedRoomAliasId>, Failure> {
        let (who, room_id) = (who.to_owned(), room_id.to_owned());
        self.work
            .read(move |txn| match access::of_reader(txn, &who, &room_id)? {
                (_, Access::Left(_)) => Err(not_in_room().into()),
                (_, Access::Joined | Access::Peeking) => Ok(room_aliases::of_room(txn, &room_id)?),
            })
            .await
    }

    /// Returns whether the directory lists a room.
    pub(crate) async fn is_listed(&self, room_id: &RoomId) -> Result<bool, Failure> {
        let room_id = room_id.to_owned();
        self.work
            .read(move |txn| {
                let listed = room_aliases::is_public(txn, &room_id)?;
                Ok(listed.ok_or_else(|| no_such_room(&room_id))?)
            })
            .await
    }

    /// Puts a room on the directory's list, or takes it off.
    pub(crate) async fn list(
        &self,
        who: &UserId,
        room_id: &RoomId,
        is_listed: bool,
    ) -> Result<(), Failure> {
        if is_listed {
            self.publication.check()?;
        }
        let (who, room_id) = (who.to_owned(), room_id.to_owned());
        self.work
            .write("list a room", move |txn, _| {
                let room = rooms::find(txn, &room_id)?.ok_or_else(|| no_such_room(&room_id))?;
                if !may_change_aliases(txn, &room, &who)? {
                    return Err(Refusal::forbidden(
                        "listing a room in the directory needs the power to set its main alias",
                    )
                    .into());
                }
                rooms::set_public(txn, room.key, is_listed)?;
                Ok(())
            })
            .await
    }
}

fn add(
    txn: &mut WriteTxn<'_>,
    tools: &Tools,
    who: &UserId,
    alias: &RoomAliasId,
    room_id: &RoomId,
) -> Result<(), RoomError> {
    if alias.server_name() != tools.server_name() {
        return Err(Refusal::invalid_param(format!(
            "{alias} is not an alias of this server; they end in :{}",
            tools.server_name()
        ))
        .into());
    }
    let room = rooms::find(txn, room_id)?.ok_or_else(not_in_room)?;
    if !is_joined(txn, &room, who)? {
        return Err(not_in_room().into());
    }
    let now_ts = tools.now.get().into();
    if room_aliases::insert(txn, alias, room_id, who, now_ts)? {
        Ok(())
    } else {
        Err(Refusal::Taken { message: format!("there is an alias {alias} already") }.into())
    }
}

fn remove(
    txn: &mut WriteTxn<'_>,
    tools: &Tools,
    who: &UserId,
    alias: &RoomAliasId,
) -> Result<(), RoomError> {
    let found = room_aliases::find(txn, alias)?.ok_or_else(|| no_such_alias(alias))?;
    let room = rooms::find(txn, &found.room_id)?;
    let has_power = match &room {
        Some(room) => may_change_aliases(txn, room, who)?,
        None => false,
    };
    if found.creator != who && !has_power {
        return Err(Refusal::forbidden(
            "an alias can be removed by who made it, or with the power to set the room's main alias",
        )
        .into());
    }
    room_aliases::delete(txn, alias)?;
    match room {
        Some(room) if has_power => forget_in_state(txn, tools, &room, who, alias),
        _ => Ok(()),
    }
}

/// Takes the alias out of the room's own list of its aliases, where it would now lead nowhere.
fn forget_in_state(
    txn: &mut WriteTxn<'_>,
    tools: &Tools,
    room: &Room,
    who: &UserId,
    alias: &RoomAliasId,
) -> Result<(), RoomError> {
    use ruma::CanonicalJsonValue as Json;
    let Some(event) = current_state::entry(txn, room.key, "m.room.canonical_alias", "")? else {
        return Ok(());
    };
    let event = load::by_key(txn, event)?.pdu;
    let Ok(mut content) = event.content_as::<ruma::CanonicalJsonObject>() else { return Ok(()) };
    let is_alias = |value: &Json| value.as_str() == Some(alias.as_str());
    let mut has_changed = false;
    if content.get("alias").is_some_and(is_alias) {
        content.remove("alias");
        has_changed = true;
    }
    if let Some(Json::Array(others)) = content.get_mut("alt_aliases") {
        let count = others.len();
        others.retain(|value| !is_alias(value));
        has_changed |= others.len() != count;
    }
    if !has_changed {
        return Ok(());
    }
    let draft = EventDraft::state(who.to_owned(), "m.room.canonical_alias", "", content);
    match tools.writer.send(txn, &room.room_id, draft, None, tools.now) {
        // The alias is gone even if the room cannot be told.
        Ok(_) | Err(WriteError::Forbidden(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether somebody is in the room and could set its main alias.
fn may_change_aliases(txn: &Txn<'_>, room: &Room, who: &UserId) -> Result<bool, RoomError> {
    if !is_joined(txn, room, who)? {
        return Ok(false);
    }
    let event = |event_type: &str| {
        current_state::entry(txn, room.key, event_type, "")?
            .map(|key| load::by_key(txn, key))
            .transpose()
    };
    let Some(create) = event("m.room.create")? else { return Ok(false) };
    let power_levels = event("m.room.power_levels")?.map(|event| event.pdu);
    let levels = PowerLevels::new(room.version, &create.pdu, power_levels)?;
    Ok(levels.allow_event(who, "m.room.canonical_alias", Some(""))?)
}

fn is_joined(txn: &Txn<'_>, room: &Room, who: &UserId) -> Result<bool, RoomError> {
    Ok(current_state::membership(txn, room.key, who)?.as_deref() == Some("join"))
}

fn no_such_alias(alias: &RoomAliasId) -> Refusal {
    Refusal::not_found(format!("there is no alias {alias} here"))
}

fn no_such_room(room_id: &RoomId) -> Refusal {
    Refusal::not_found(format!("there is no room {room_id} here"))
}
