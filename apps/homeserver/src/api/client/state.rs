//! `state`: all of it, and single entries with and without a state key.

use ruma::api::client::state::get_state_event_for_key::v3::StateEventFormat;
use ruma::api::client::state::{get_state_event_for_key, get_state_events, send_state_event};

use super::send::check_content;
use crate::api::router::{Call, Router};
use crate::handlers::sessions::Requester;
use crate::handlers::state::{EntryName, RoomState, Shape};

/// Where the state key is empty the path may end before it, with or without the slash. ruma reads such
/// paths but does not name them.
const PATHS_WITHOUT_KEY: [&str; 4] = [
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}/",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
];

/// The place of the event's type among the arguments of the paths.
const EVENT_TYPE: usize = 1;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, state: &RoomState) {
    let setter = state.clone();
    router.add_also_at(
        &PATHS_WITHOUT_KEY,
        move |call: Call<Requester>, request: send_state_event::v3::Request| {
            let state = setter.clone();
            async move {
                check_content(&call.body)?;
                let name = EntryName {
                    room_id: request.room_id,
                    event_type: call.argument(EVENT_TYPE).to_owned(),
                    state_key: request.state_key,
                };
                let event_id = state.set(&call.who, name, request.body.json().get()).await?;
                Ok(send_state_event::v3::Response::new(event_id))
            }
        },
    );
    let getter = state.clone();
    router.add_json_also_at(
        &PATHS_WITHOUT_KEY,
        move |call: Call<Requester>, request: get_state_event_for_key::v3::Request| {
            let state = getter.clone();
            async move {
                let name = EntryName {
                    room_id: request.room_id,
                    event_type: call.argument(EVENT_TYPE).to_owned(),
                    state_key: request.state_key,
                };
                let shape = match request.format {
                    StateEventFormat::Event => Shape::Event,
                    _ => Shape::Content,
                };
                state.entry(&call.who.user_id, name, shape).await
            }
        },
    );
    let getter = state.clone();
    router.add_json(move |call: Call<Requester>, request: get_state_events::v3::Request| {
        let state = getter.clone();
        async move { state.all(&call.who.user_id, &request.room_id).await }
    });
}
