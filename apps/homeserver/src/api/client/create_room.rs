//! `createRoom`.

use ruma::api::client::room::create_room::v3::{Request, Response};

use crate::api::router::{Call, Router};
use crate::handlers::rooms::Rooms;
use crate::handlers::sessions::Requester;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, rooms: &Rooms) {
    let rooms = rooms.clone();
    router.add(move |call: Call<Requester>, request: Request| {
        let rooms = rooms.clone();
        async move { Ok(Response::new(rooms.create(&call.who.user_id, request).await?)) }
    });
}
