//! Who may look into a room at all, and how far: members, those who have left, and everybody where the
//! room's history is world-readable.
//!
//! As in Synapse, a room that one may not look into and a room that does not exist are answered alike,
//! so that nobody learns of rooms by asking.

use ropewalk::Failure;
use ruma::{RoomId, UserId};

use super::Refusal;
use super::rendered::content_of;
use crate::model::{HistoryVisibility, Membership};
use crate::storage::StorageError;
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::databases::main::{current_state, memberships, reader_rooms, shown_events};
use crate::storage::engine::Txn;
use crate::storage::keys::EventKey;

/// How somebody may look into a room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// He is in it.
    Joined,
    /// He was in it until this event.
    Left(EventKey),
    /// He is not in it, but everybody may read it.
    Peeking,
}

impl Access {
    /// The last event that can concern him, of those up to `upto`.
    pub(crate) fn clamp(self, upto: i64) -> i64 {
        match self {
            Self::Left(event) => upto.min(event.0),
            Self::Joined | Self::Peeking => upto,
        }
    }
}

/// Returns the room and how the reader may look into it.
///
/// # Errors
///
/// `M_FORBIDDEN` if he may not, or if there is no such room.
pub(crate) fn of_reader(
    txn: &Txn<'_>,
    reader: &UserId,
    room_id: &RoomId,
) -> Result<(Room, Access), Failure> {
    let forbidden = || {
        Refusal::forbidden(format!(
            "{reader} is not in room {room_id}, which is not open to others"
        ))
    };
    let room = rooms::find(txn, room_id)?.ok_or_else(forbidden)?;
    let mut left_by = None;
    if let Some(standing) = reader_rooms::one(txn, reader, room.key)? {
        match standing.membership {
            Membership::Join => return Ok((room, Access::Joined)),
            // Who has only declined an invitation, or was banned in advance, has never been in it.
            Membership::Ban | Membership::Leave if !standing.forgotten => {
                left_by = memberships::left_by(txn, room.key, reader)?;
            }
            _ => {}
        }
    }
    if is_world_readable(txn, &room)? {
        return Ok((room, Access::Peeking));
    }
    match left_by {
        Some(event) => Ok((room, Access::Left(event))),
        None => Err(forbidden().into()),
    }
}

fn is_world_readable(txn: &Txn<'_>, room: &Room) -> Result<bool, StorageError> {
    let setting = current_state::entry(txn, room.key, "m.room.history_visibility", "")?;
    let Some(setting) = setting else { return Ok(false) };
    shown_events::by_key(txn, setting, |row| {
        let visibility = HistoryVisibility::of_content(content_of(row.json()?)?);
        Ok(visibility == HistoryVisibility::WorldReadable)
    })
}
