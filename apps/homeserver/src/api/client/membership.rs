//! `join`, `leave`, `invite`, `kick`, `ban`, `unban`, `forget`, `joined_rooms`.

use ropewalk::Failure;
use ruma::api::client::membership::invite_user::v3::InvitationRecipient;
use ruma::api::client::membership::{
    ban_user, forget_room, invite_user, join_room_by_id, join_room_by_id_or_alias, joined_rooms,
    kick_user, leave_room, unban_user,
};
use ruma::{OwnedRoomId, OwnedUserId};

use crate::api::router::{Call, Router};
use crate::handlers::membership::{Change, Memberships, Step};
use crate::handlers::room_error::no_third_party_invites;
use crate::handlers::sessions::Requester;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, memberships: &Memberships) {
    add_joins(router, memberships);
    add_changes(router, memberships);
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, request: forget_room::v3::Request| {
        let rooms = rooms.clone();
        async move {
            rooms.forget(&call.who.user_id, &request.room_id).await?;
            Ok(forget_room::v3::Response::new())
        }
    });
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, _: joined_rooms::v3::Request| {
        let rooms = rooms.clone();
        async move {
            let joined = rooms.joined_rooms(&call.who.user_id).await?;
            Ok(joined_rooms::v3::Response::new(joined))
        }
    });
}

fn add_joins(router: &mut Router, memberships: &Memberships) {
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, request: join_room_by_id::v3::Request| {
        let rooms = rooms.clone();
        async move {
            let room = (&*request.room_id).into();
            let room_id = rooms.join(&call.who.user_id, room, request.reason).await?;
            Ok(join_room_by_id::v3::Response::new(room_id))
        }
    });
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, request: join_room_by_id_or_alias::v3::Request| {
        let rooms = rooms.clone();
        async move {
            let room = &request.room_id_or_alias;
            let room_id = rooms.join(&call.who.user_id, room, request.reason).await?;
            Ok(join_room_by_id_or_alias::v3::Response::new(room_id))
        }
    });
}

fn add_changes(router: &mut Router, memberships: &Memberships) {
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, request: leave_room::v3::Request| {
        let (rooms, who) = (rooms.clone(), call.who.user_id);
        async move {
            let leave = Target { room_id: request.room_id, user_id: who.clone() };
            change(&rooms, who, leave, Change::Leave, request.reason).await?;
            Ok(leave_room::v3::Response::new())
        }
    });
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, request: invite_user::v3::Request| {
        let (rooms, who) = (rooms.clone(), call.who.user_id);
        async move {
            let InvitationRecipient::UserId(invited) = request.recipient else {
                return Err(no_third_party_invites().into());
            };
            let target = Target { room_id: request.room_id, user_id: invited.user_id };
            change(&rooms, who, target, Change::Invite, invited.reason).await?;
            Ok(invite_user::v3::Response::new())
        }
    });
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, request: kick_user::v3::Request| {
        let (rooms, who) = (rooms.clone(), call.who.user_id);
        async move {
            let target = Target { room_id: request.room_id, user_id: request.user_id };
            change(&rooms, who, target, Change::Kick, request.reason).await?;
            Ok(kick_user::v3::Response::new())
        }
    });
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, request: ban_user::v3::Request| {
        let (rooms, who) = (rooms.clone(), call.who.user_id);
        async move {
            let target = Target { room_id: request.room_id, user_id: request.user_id };
            change(&rooms, who, target, Change::Ban, request.reason).await?;
            Ok(ban_user::v3::Response::new())
        }
    });
    let rooms = memberships.clone();
    router.add(move |call: Call<Requester>, request: unban_user::v3::Request| {
        let (rooms, who) = (rooms.clone(), call.who.user_id);
        async move {
            let target = Target { room_id: request.room_id, user_id: request.user_id };
            change(&rooms, who, target, Change::Unban, request.reason).await?;
            Ok(unban_user::v3::Response::new())
        }
    });
}

/// Whose membership of which room.
struct Target {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
}

async fn change(
    memberships: &Memberships,
    sender: OwnedUserId,
    target: Target,
    change: Change,
    reason: Option<String>,
) -> Result<(), Failure> {
    let Target { room_id, user_id } = target;
    memberships.change(Step { room_id, sender, target: user_id, change, reason }).await
}
