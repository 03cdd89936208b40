//! `messages`, `context` and `event`: looking back.

use ruma::api::client::context::get_context;
use ruma::api::client::filter::RoomEventFilter;
use ruma::api::client::message::get_message_events;
use ruma::api::client::room::get_room_event;
use ruma::{OwnedRoomId, UInt};

use crate::api::router::{Call, Router};
use crate::handlers::Refusal;
use crate::handlers::history::{History, PageRequest, Reader};
use crate::handlers::sessions::Requester;
use crate::streams::RoomPlace;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, history: &History) {
    let pages = history.clone();
    router.add_json(move |call: Call<Requester>, request: get_message_events::v3::Request| {
        let history = pages.clone();
        async move {
            let page = PageRequest {
                direction: request.dir,
                from: place("from", request.from.as_deref())?,
                to: place("to", request.to.as_deref())?,
                limit: count(request.limit),
                filter: (&request.filter).into(),
                members: request.filter.lazy_load_options.into(),
            };
            history.page(reader(call, request.room_id), page).await
        }
    });

    let contexts = history.clone();
    router.add_json(move |call: Call<Requester>, request: get_context::v3::Request| {
        let history = contexts.clone();
        async move {
            let filter: &RoomEventFilter = &request.filter;
            let members = filter.lazy_load_options.into();
            let (limit, filter) = (count(request.limit), filter.into());
            let reader = reader(call, request.room_id);
            history.context(reader, request.event_id, limit, filter, members).await
        }
    });

    let events = history.clone();
    router.add_json(move |call: Call<Requester>, request: get_room_event::v3::Request| {
        let history = events.clone();
        async move { history.event(reader(call, request.room_id), request.event_id).await }
    });
}

/// Reads a pagination token.
pub(super) fn place(name: &str, token: Option<&str>) -> Result<Option<RoomPlace>, Refusal> {
    match token {
        None | Some("") => Ok(None),
        Some(token) => token
            .parse()
            .map(Some)
            .map_err(|error| Refusal::invalid_param(format!("{name}: {error}"))),
    }
}

pub(super) fn reader(call: Call<Requester>, room_id: OwnedRoomId) -> Reader {
    let Requester { user_id, device_id, .. } = call.who;
    Reader { user_id, device_id, room_id }
}

fn count(limit: UInt) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
