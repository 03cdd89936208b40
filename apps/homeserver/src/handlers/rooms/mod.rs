//! Making rooms.

use ropewalk::Failure;
use ruma::api::client::room::create_room::v3::Request;
use ruma::api::error::ErrorKind;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, UInt, UserId};

use super::Refusal;
use super::member_events::Profile;
use super::rate_limits::Action as Limited;
use super::room_error::RoomError;
use super::room_work::{RoomWork, Tools};
use crate::events::{CreatedRoom, NewRoom, WriteError};
use crate::model::RoomVersion;
use crate::storage::databases::main::room_aliases;
use crate::storage::engine::WriteTxn;
use plan::Maker;

mod plan;
#[cfg(test)]
mod tests;

/// How often at most a room is begun a millisecond later because one with the same beginning exists.
const ATTEMPTS_MAX: u32 = 100;

/// Makes rooms.
#[derive(Clone)]
pub struct Rooms {
    work: RoomWork,
    default_version: RoomVersion,
    publication: Publication,
}

/// Whether users may put rooms into the directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Publication {
    /// They may.
    Allowed,
    /// They may not.
    Refused,
}

impl Publication {
    /// Refuses if the directory is closed.
    pub(crate) fn check(self) -> Result<(), Refusal> {
        match self {
            Self::Allowed => Ok(()),
            Self::Refused => Err(Refusal::forbidden(
                "this server does not let users put rooms into its directory",
            )),
        }
    }
}

impl Rooms {
    /// Works with `work`; rooms are of `default_version` unless the request says otherwise.
    pub fn new(work: RoomWork, default_version: RoomVersion, publication: Publication) -> Self {
        Self { work, default_version, publication }
    }

    /// Makes the room that `who` asks for; returns its id. All of it is written, or nothing.
    pub(crate) async fn create(
        &self,
        who: &UserId,
        request: Request,
    ) -> Result<OwnedRoomId, Failure> {
        self.work.admit(Limited::Message, who)?;
        for _ in 0..plan::invite_count(&request) {
            self.work.admit(Limited::Invite, who)?;
        }
        let order = Order {
            who: who.to_owned(),
            request,
            default_version: self.default_version,
            publication: self.publication,
            random: self.work.random(),
        };
        self.work.write("create a room", move |txn, tools| create(txn, tools, &order)).await
    }
}

/// Everything that a new room depends on.
pub(super) struct Order {
    pub(super) who: ruma::OwnedUserId,
    pub(super) request: Request,
    pub(super) default_version: RoomVersion,
    pub(super) publication: Publication,
    pub(super) random: [u8; 18],
}

pub(super) fn create(
    txn: &mut WriteTxn<'_>,
    tools: &Tools,
    order: &Order,
) -> Result<OwnedRoomId, RoomError> {
    let Order { who, request, .. } = order;
    let maker = Maker {
        user_id: who,
        server_name: tools.server_name(),
        default_version: order.default_version,
    };
    let plan = plan::plan(request, maker, &mut |user_id| Profile::of(txn, user_id))?;
    if plan.is_public {
        order.publication.check()?;
    }
    if let Some(alias) = &plan.alias
        && room_aliases::find(txn, alias)?.is_some()
    {
        let message = format!("the alias {alias} stands for another room");
        return Err(Refusal::new(ErrorKind::RoomInUse, message).into());
    }
    let new = NewRoom {
        version: plan.version,
        creator: who.clone(),
        creation_content: plan.creation_content,
        random: order.random,
        events: plan.events,
        is_public: plan.is_public,
    };
    let room_id = write_room(txn, tools, new).map_err(RoomError::in_new_room)?.room_id;
    if let Some(alias) = &plan.alias {
        let now_ts = tools.now.get().into();
        room_aliases::insert(txn, alias, &room_id, who, now_ts)?;
    }
    Ok(room_id)
}

fn write_room(
    txn: &mut WriteTxn<'_>,
    tools: &Tools,
    new: NewRoom,
) -> Result<CreatedRoom, RoomError> {
    for delay_ms in delays_ms(new.random) {
        let then = tools.now.get().saturating_add(UInt::from(delay_ms));
        let then = MilliSecondsSinceUnixEpoch(then);
        match tools.writer.create_room(txn, new.clone(), then) {
            Err(WriteError::RoomExists { .. }) => {}
            other => return Ok(other?),
        }
    }
    Ok(tools.writer.create_room(txn, new, tools.now)?)
}

/// When to begin a room: now, or a little later because one with the same beginning exists. In room
/// version 12 the id of a room is the hash of its create event, so who makes many rooms in one
/// millisecond makes the same one.
///
/// First anywhere in the next second, and then one after the other.
fn delays_ms(random: [u8; 18]) -> impl Iterator<Item = u32> {
    let (pairs, _) = random.as_chunks::<2>();
    let anywhere: Vec<u32> =
        pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)) % 1000).collect();
    std::iter::once(0).chain(anywhere).chain(1000..1000 + ATTEMPTS_MAX)
}
