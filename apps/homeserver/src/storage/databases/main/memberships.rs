//! Who is, was or is asked to be in which room.

use ruma::{OwnedUserId, UserId};

use crate::storage::engine::{Row, StorageError, Txn, WriteTxn, params};
use crate::storage::keys::{EventKey, RoomKey};

/// What a member event says.
#[derive(Clone, Copy, Debug)]
pub struct NewMembership<'a> {
    /// The member event.
    pub event: EventKey,
    /// The room.
    pub room: RoomKey,
    /// Whose membership it is.
    pub user_id: &'a str,
    /// Who made it so.
    pub sender: &'a UserId,
    /// The membership.
    pub membership: &'a str,
    /// The display name, if the event has one.
    pub displayname: Option<&'a str>,
    /// The avatar, if the event has one.
    pub avatar_url: Option<&'a str>,
}

/// Notes an accepted member event.
///
/// # Errors
///
/// If the database fails.
pub fn insert(txn: &WriteTxn<'_>, new: &NewMembership<'_>) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO room_memberships
             (event, room, user_id, sender, membership, displayname, avatar_url)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        params![
            new.event,
            new.room,
            new.user_id,
            new.sender,
            new.membership,
            new.displayname,
            new.avatar_url
        ],
    )
    .map(|_| ())
}

/// A member of a room with the profile that the room knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Who.
    pub user_id: OwnedUserId,
    /// The member event.
    pub event: EventKey,
    /// Who made it so.
    pub sender: OwnedUserId,
    /// The membership.
    pub membership: String,
    /// The display name in this room.
    pub displayname: Option<String>,
    /// The avatar in this room.
    pub avatar_url: Option<String>,
}

fn member_from_row(row: &Row<'_>) -> Result<Member, StorageError> {
    Ok(Member {
        user_id: row.parse(0)?,
        event: row.get(1)?,
        sender: row.parse(2)?,
        membership: row.get(3)?,
        displayname: row.get(4)?,
        avatar_url: row.get(5)?,
    })
}

/// Returns the members of a room that have `membership` now, with profiles, in order of their ids.
///
/// # Errors
///
/// If the database fails.
pub fn current_members(
    txn: &Txn<'_>,
    room: RoomKey,
    membership: &str,
) -> Result<Vec<Member>, StorageError> {
    txn.query(
        "SELECT m.user_id, m.event, m.sender, m.membership, m.displayname, m.avatar_url
         FROM current_state AS c JOIN room_memberships AS m ON m.event = c.event
         WHERE c.room = ?1 AND c.type = 'm.room.member' AND c.membership = ?2
         ORDER BY c.state_key",
        params![room, membership],
        member_from_row,
    )
}

/// Returns what a member event says, if it was accepted.
///
/// # Errors
///
/// If the database fails.
pub fn by_event(txn: &Txn<'_>, event: EventKey) -> Result<Option<Member>, StorageError> {
    txn.query_opt(
        "SELECT user_id, event, sender, membership, displayname, avatar_url
         FROM room_memberships WHERE event = ?1",
        params![event],
        member_from_row,
    )
}

/// Returns whether a user joined the room, or was joined and changed his profile in it, at or after the
/// arrival of `event`. Of somebody who was in the room already the state at the event tells.
///
/// # Errors
///
/// If the database fails.
pub fn joined_since(
    txn: &Txn<'_>,
    room: RoomKey,
    user_id: &UserId,
    event: EventKey,
) -> Result<bool, StorageError> {
    txn.exists(
        "SELECT 1 FROM room_memberships
         WHERE user_id = ?1 AND room = ?2 AND event >= ?3 AND membership = 'join' LIMIT 1",
        params![user_id, room, event],
    )
}

/// Returns the event by which a user last stopped being joined; `None` if he never was, or still is.
/// What happened to him since (an invitation that he declined, a ban) does not count.
///
/// # Errors
///
/// If the database fails.
pub fn left_by(
    txn: &Txn<'_>,
    room: RoomKey,
    user_id: &UserId,
) -> Result<Option<EventKey>, StorageError> {
    txn.query_one(
        "SELECT min(event) FROM room_memberships
         WHERE user_id = ?1 AND room = ?2 AND event > (
             SELECT max(event) FROM room_memberships
             WHERE user_id = ?1 AND room = ?2 AND membership = 'join'
         )",
        params![user_id, room],
        |row| row.get(0),
    )
}

/// The latest membership of one of our own users in one room.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalMembership {
    /// The user.
    pub user_id: OwnedUserId,
    /// The room.
    pub room: RoomKey,
    /// The member event.
    pub event: EventKey,
    /// The membership.
    pub membership: String,
    /// Position of the events stream at which it became so.
    pub stream_id: i64,
    /// Whether the user has left and does not want to see the room again.
    pub forgotten: bool,
}

fn local_from_row(row: &Row<'_>) -> Result<LocalMembership, StorageError> {
    Ok(LocalMembership {
        user_id: row.parse(0)?,
        room: row.get(1)?,
        event: row.get(2)?,
        membership: row.get(3)?,
        stream_id: row.get(4)?,
        forgotten: row.get(5)?,
    })
}

/// Notes the latest membership of one of our users; a room that was forgotten is remembered again.
///
/// # Errors
///
/// If the database fails.
pub fn put_local(
    txn: &WriteTxn<'_>,
    user_id: &str,
    room: RoomKey,
    event: EventKey,
    membership: &str,
    stream_id: i64,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO local_current_membership
             (user_id, room, event, membership, stream_id, forgotten)
         VALUES (?1, ?2, ?3, ?4, ?5, 0)
         ON CONFLICT (user_id, room) DO UPDATE SET event = excluded.event,
             membership = excluded.membership, stream_id = excluded.stream_id, forgotten = 0",
        params![user_id, room, event, membership, stream_id],
    )
    .map(|_| ())
}

/// Takes one of our users out of a room's list altogether.
///
/// # Errors
///
/// If the database fails.
pub fn remove_local(txn: &WriteTxn<'_>, user_id: &str, room: RoomKey) -> Result<(), StorageError> {
    txn.execute(
        "DELETE FROM local_current_membership WHERE user_id = ?1 AND room = ?2",
        params![user_id, room],
    )
    .map(|_| ())
}

/// Returns every room in which one of our users has or had a membership, in order of room keys;
/// forgotten ones too.
///
/// # Errors
///
/// If the database fails.
pub fn local_rooms(txn: &Txn<'_>, user_id: &UserId) -> Result<Vec<LocalMembership>, StorageError> {
    txn.query(
        "SELECT user_id, room, event, membership, stream_id, forgotten
         FROM local_current_membership WHERE user_id = ?1 ORDER BY room",
        params![user_id],
        local_from_row,
    )
}

/// Returns the latest membership of one of our users in a room.
///
/// # Errors
///
/// If the database fails.
pub fn local(
    txn: &Txn<'_>,
    user_id: &UserId,
    room: RoomKey,
) -> Result<Option<LocalMembership>, StorageError> {
    txn.query_opt(
        "SELECT user_id, room, event, membership, stream_id, forgotten
         FROM local_current_membership WHERE user_id = ?1 AND room = ?2",
        params![user_id, room],
        local_from_row,
    )
}

/// Returns our own users that have `membership` in a room now, in order of their ids.
///
/// # Errors
///
/// If the database fails.
pub fn local_members(
    txn: &Txn<'_>,
    room: RoomKey,
    membership: &str,
) -> Result<Vec<OwnedUserId>, StorageError> {
    txn.query(
        "SELECT user_id FROM local_current_membership
         WHERE room = ?1 AND membership = ?2 ORDER BY user_id",
        params![room, membership],
        |row| row.parse(0),
    )
}

/// Notes that one of our users does not want to see a room again; returns whether he had left it.
///
/// # Errors
///
/// If the database fails.
pub fn forget_local(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    room: RoomKey,
) -> Result<bool, StorageError> {
    let changed = txn.execute(
        "UPDATE local_current_membership SET forgotten = 1
         WHERE user_id = ?1 AND room = ?2 AND membership IN ('ban', 'leave')",
        params![user_id, room],
    )?;
    Ok(changed > 0)
}
