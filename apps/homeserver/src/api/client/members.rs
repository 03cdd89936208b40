//! `members` and `joined_members`: who is in a room.

use ruma::api::client::membership::{get_member_events, joined_members};

use super::history::{place, reader};
use crate::api::router::{Call, Router};
use crate::handlers::Refusal;
use crate::handlers::members::{RoomMembers, Wanted};
use crate::handlers::sessions::Requester;
use crate::model::Membership;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, members: &RoomMembers) {
    let events = members.clone();
    router.add_json(move |call: Call<Requester>, request: get_member_events::v3::Request| {
        let members = events.clone();
        async move {
            let wanted = Wanted {
                at: place("at", request.at.as_deref())?,
                membership: membership(request.membership.as_ref().map(AsRef::as_ref))?,
                not_membership: membership(request.not_membership.as_ref().map(AsRef::as_ref))?,
            };
            members.events(reader(call, request.room_id), wanted).await
        }
    });

    let joined = members.clone();
    router.add_json(move |call: Call<Requester>, request: joined_members::v3::Request| {
        let members = joined.clone();
        async move { members.joined(call.who.user_id, request.room_id).await }
    });
}

fn membership(word: Option<&str>) -> Result<Option<Membership>, Refusal> {
    word.map(|word| {
        word.parse().map_err(|_| Refusal::invalid_param(format!("{word:?} is no membership")))
    })
    .transpose()
}
