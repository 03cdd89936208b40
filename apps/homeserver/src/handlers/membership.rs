//! Joining, leaving, inviting, kicking, banning, forgetting.
//!
//! The room's rules decide; what is looked at here before them are states of affairs that the rules
//! would misread (kicking somebody who is banned would be an unban) or that have answers of their own.

use ropewalk::{Deferred, Failure};
use ruma::api::error::ErrorKind;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, RoomOrAliasId, UserId};

use super::Refusal;
use super::accounts::LeaveRooms;
use super::member_events::{MemberDraft, Profile};
use super::profiles::ProfileInRooms;
use super::rate_limits::Action as Limited;
use super::room_error::{self, RoomError, not_in_room};
use super::room_work::{RoomWork, Tools};
use crate::events::WriteError;
use crate::model::Membership;
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::databases::main::{current_state, memberships, reader_rooms, room_aliases};
use crate::storage::engine::{Txn, WriteTxn};

mod restricted;
#[cfg(test)]
mod tests;

/// Profile changes of a user reach so many rooms in one write; further ones go in writes of their own.
const ROOMS_PER_WRITE: usize = 50;

/// Who is in which room, and how that changes.
#[derive(Clone)]
pub struct Memberships {
    work: RoomWork,
}

/// What is to happen to somebody's membership.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// Ban the target.
    Ban,
    /// Invite the target; whether it is for talking to one person.
    Invite,
    /// The sender joins.
    Join,
    /// Throw the target out, or take an invitation back.
    Kick,
    /// The sender leaves, or declines an invitation.
    Leave,
    /// Let the target come again.
    Unban,
}

impl Change {
    fn membership(self) -> Membership {
        match self {
            Self::Ban => Membership::Ban,
            Self::Invite => Membership::Invite,
            Self::Join => Membership::Join,
            Self::Kick | Self::Leave | Self::Unban => Membership::Leave,
        }
    }
}

/// One change of one membership.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    pub(crate) target: OwnedUserId,
    pub(crate) change: Change,
    pub(crate) reason: Option<String>,
}

impl Memberships {
    /// Works with `work`.
    pub fn new(work: RoomWork) -> Self {
        Self { work }
    }

    /// Joins `who` to a room named by id or alias; returns its id.
    pub(crate) async fn join(
        &self,
        who: &UserId,
        room: &RoomOrAliasId,
        reason: Option<String>,
    ) -> Result<OwnedRoomId, Failure> {
        self.work.admit(Limited::Join, who)?;
        let (room, who) = (room.to_owned(), who.to_owned());
        self.work
            .write("join", move |txn, tools| {
                let room_id = resolve(txn, &room, tools)?;
                let step = Step {
                    room_id: room_id.clone(),
                    sender: who.clone(),
                    target: who,
                    change: Change::Join,
                    reason,
                };
                apply(txn, tools, step)?;
                Ok(room_id)
            })
            .await
    }

    /// Makes one change that is not a join.
    pub(crate) async fn change(&self, step: Step) -> Result<(), Failure> {
        if step.change == Change::Invite {
            self.work.admit(Limited::Invite, &step.sender)?;
        }
        self.work.write("membership", move |txn, tools| apply(txn, tools, step)).await
    }

    /// Makes a room that `who` has left disappear from his lists.
    pub(crate) async fn forget(&self, who: &UserId, room_id: &RoomId) -> Result<(), Failure> {
        let (who, room_id) = (who.to_owned(), room_id.to_owned());
        self.work.write("forget a room", move |txn, _| forget(txn, &who, &room_id)).await
    }

    /// Returns the rooms that `who` is in, in order of their ids.
    pub(crate) async fn joined_rooms(&self, who: &UserId) -> Result<Vec<OwnedRoomId>, Failure> {
        let who = who.to_owned();
        self.work.read(move |txn| Ok(joined_rooms(txn, &who)?)).await
    }

    /// Makes a change of his own in each room that `who` is in; if it is leaving, in those that he is
    /// invited to as well.
    ///
    /// Rooms that cannot be told are left out: what has led here has happened all the same.
    async fn in_all_rooms(&self, who: &UserId, change: Change) -> Result<(), Failure> {
        let user_id = who.to_owned();
        let rooms = self
            .work
            .read(move |txn| {
                let mut found = joined_rooms(txn, &user_id)?;
                if change == Change::Leave {
                    found.extend(rooms_with(txn, &user_id, Membership::Invite)?);
                }
                Ok(found)
            })
            .await?;
        for some in rooms.chunks(ROOMS_PER_WRITE) {
            let (some, who) = (some.to_vec(), who.to_owned());
            self.work
                .write("membership in all rooms", move |txn, tools| {
                    for room_id in some {
                        change_in_one(txn, tools, &who, room_id, change)?;
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }
}

impl LeaveRooms for Memberships {
    fn leave_all_rooms(&self, user_id: &UserId) -> Deferred<()> {
        let (rooms, who) = (self.clone(), user_id.to_owned());
        self.work.spawn(async move { rooms.in_all_rooms(&who, Change::Leave).await })
    }
}

impl ProfileInRooms for Memberships {
    fn profile_changed(&self, user_id: &UserId) -> Deferred<()> {
        let (rooms, who) = (self.clone(), user_id.to_owned());
        // Joining a room that one is in shows one's profile there as it is now.
        self.work.spawn(async move { rooms.in_all_rooms(&who, Change::Join).await })
    }
}

fn change_in_one(
    txn: &mut WriteTxn<'_>,
    tools: &Tools,
    who: &UserId,
    room_id: OwnedRoomId,
    change: Change,
) -> Result<(), RoomError> {
    let (sender, target) = (who.to_owned(), who.to_owned());
    let step = Step { room_id: room_id.clone(), sender, target, change, reason: None };
    match apply(txn, tools, step) {
        Err(RoomError::Refused(refusal)) => {
            log::info!("{who} stays as he is in {room_id}: {refusal}");
            Ok(())
        }
        Err(RoomError::Write(WriteError::Forbidden(forbidden))) => {
            log::info!("{who} stays as he is in {room_id}: {forbidden}");
            Ok(())
        }
        other => other,
    }
}

/// Finds the room that an id or alias of this server names.
fn resolve(txn: &Txn<'_>, room: &RoomOrAliasId, tools: &Tools) -> Result<OwnedRoomId, RoomError> {
    let room_id = match <&ruma::RoomAliasId>::try_from(room.as_str()) {
        Ok(alias) => {
            if alias.server_name() != tools.server_name() {
                return Err(Refusal::not_found(format!(
                    "{alias} is on another server, and this one does not talk to others yet"
                ))
                .into());
            }
            room_aliases::find(txn, alias)?.map(|alias| alias.room_id)
        }
        Err(_) => RoomId::parse(room.as_str()).ok(),
    };
    let not_found = || Refusal::not_found(format!("there is no room {room} here"));
    Ok(room_id.ok_or_else(not_found)?)
}

/// Makes one change.
pub(crate) fn apply(txn: &mut WriteTxn<'_>, tools: &Tools, step: Step) -> Result<(), RoomError> {
    let Some(room) = rooms::find(txn, &step.room_id)? else {
        return Err(match step.change {
            Change::Join => Refusal::not_found(format!("there is no room {} here", step.room_id)),
            _ => not_in_room(),
        }
        .into());
    };
    let before = membership_of(txn, &room, &step.target)?;
    match check(&step, before, tools)? {
        Outlook::Done => return Ok(()),
        Outlook::Try => {}
    }
    let Step { room_id, sender, target, change, reason } = step;
    let mut draft = MemberDraft::new(&sender, &target, change.membership()).reason(reason);
    if matches!(change, Change::Join | Change::Invite) {
        draft = draft.profile(Profile::of(txn, &target)?);
    }
    if change == Change::Join && !matches!(before, Some(Membership::Join | Membership::Invite)) {
        draft = draft.authorised_by(restricted::authorising_user(txn, &room, &sender)?);
    }
    tools.writer.send(txn, &room_id, draft.finish(), None, tools.now)?;
    Ok(())
}

/// Whether there is anything to do.
enum Outlook {
    Done,
    Try,
}

/// Looks at what the rules of the room would misread, or would not say as clearly.
fn check(step: &Step, before: Option<Membership>, tools: &Tools) -> Result<Outlook, Refusal> {
    let Step { target, change, .. } = step;
    let bad_state = |message: String| Err(Refusal::new(ErrorKind::BadState, message));
    match (change, before) {
        (Change::Join, Some(Membership::Ban)) => {
            Err(Refusal::forbidden("you are banned from this room"))
        }
        (Change::Leave, Some(Membership::Leave)) => Ok(Outlook::Done),
        (Change::Leave, None) => Err(not_in_room()),
        (Change::Leave, Some(Membership::Ban)) => {
            Err(Refusal::forbidden("you are banned from this room; only others can change that"))
        }
        (Change::Invite, Some(Membership::Ban)) => {
            Err(Refusal::forbidden(format!("{target} is banned from this room; unban first")))
        }
        (Change::Invite, Some(Membership::Join)) => {
            Err(Refusal::forbidden(format!("{target} is in this room already")))
        }
        (Change::Kick, Some(Membership::Ban)) => {
            bad_state(format!("{target} is banned from this room and so not in it"))
        }
        (Change::Kick, None | Some(Membership::Leave)) => {
            Err(Refusal::forbidden(format!("{target} is not in this room")))
        }
        (Change::Unban, before) if before != Some(Membership::Ban) => {
            bad_state(format!("{target} is not banned from this room"))
        }
        (Change::Invite, _) => {
            room_error::check_local(target, tools.server_name())?;
            Ok(Outlook::Try)
        }
        _ => Ok(Outlook::Try),
    }
}

fn membership_of(
    txn: &Txn<'_>,
    room: &Room,
    user_id: &UserId,
) -> Result<Option<Membership>, RoomError> {
    let current = current_state::membership(txn, room.key, user_id)?;
    Ok(current.and_then(|word| word.parse().ok()))
}

fn forget(txn: &mut WriteTxn<'_>, who: &UserId, room_id: &RoomId) -> Result<(), RoomError> {
    let Some(room) = rooms::find(txn, room_id)? else {
        return Err(Refusal::not_found(format!("there is no room {room_id} here")).into());
    };
    match memberships::local(txn, who, room.key)?.map(|local| local.membership) {
        Some(word) if word != "leave" && word != "ban" => Err(Refusal::new(
            ErrorKind::Unknown,
            format!("your membership in {room_id} is {word:?}; leave the room first"),
        )
        .into()),
        // Whoever never had to do with the room has nothing to forget.
        None => Ok(()),
        Some(_) => {
            memberships::forget_local(txn, who, room.key)?;
            txn.invalidate(crate::storage::controllers::persist::USER_ROOMS_CACHE, who.as_str());
            Ok(())
        }
    }
}

fn joined_rooms(txn: &Txn<'_>, who: &UserId) -> Result<Vec<OwnedRoomId>, RoomError> {
    rooms_with(txn, who, Membership::Join)
}

fn rooms_with(
    txn: &Txn<'_>,
    who: &UserId,
    membership: Membership,
) -> Result<Vec<OwnedRoomId>, RoomError> {
    let rooms = reader_rooms::all(txn, who)?;
    let wanted = rooms.into_iter().filter(|room| room.membership == membership);
    Ok(wanted.map(|room| room.room_id).collect())
}
