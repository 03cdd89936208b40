//! `rooms/{roomId}/typing/{userId}`: saying that one types.

use ruma::api::client::typing::create_typing_event::v3::{self, Typing as State};

use super::mended::Mended;
use crate::api::router::{Call, Router};
use crate::handlers::sessions::Requester;
use crate::handlers::typing::Typing;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, typing: &Typing) {
    let typing = typing.clone();
    router.add(move |call: Call<Requester>, Mended(request): Mended<v3::Request>| {
        let typing = typing.clone();
        async move {
            let timeout = match request.state {
                State::No => None,
                State::Yes(info) => Some(info.timeout),
            };
            typing.set(&call.who.user_id, &request.user_id, &request.room_id, timeout).await?;
            Ok(v3::Response::new())
        }
    });
}
