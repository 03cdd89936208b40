//! `directory/room`, `directory/list/room` and a room's `aliases`.

use ruma::api::client::alias::{create_alias, delete_alias, get_alias};
use ruma::api::client::directory::{get_room_visibility, set_room_visibility};
use ruma::api::client::room::{Visibility, aliases};

use crate::api::router::{Call, Router};
use crate::handlers::Refusal;
use crate::handlers::directory::Directory;
use crate::handlers::sessions::Requester;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, directory: &Directory) {
    add_aliases(router, directory);
    let rooms = directory.clone();
    router.add(move |_: Call<()>, request: get_room_visibility::v3::Request| {
        let rooms = rooms.clone();
        async move {
            let visibility = match rooms.is_listed(&request.room_id).await? {
                true => Visibility::Public,
                false => Visibility::Private,
            };
            Ok(get_room_visibility::v3::Response::new(visibility))
        }
    });
    let rooms = directory.clone();
    router.add(move |call: Call<Requester>, request: set_room_visibility::v3::Request| {
        let rooms = rooms.clone();
        async move {
            let is_listed = match request.visibility {
                Visibility::Private => false,
                Visibility::Public => true,
                other => {
                    let message = format!("{other} is no visibility; there are private and public");
                    return Err(Refusal::invalid_param(message).into());
                }
            };
            rooms.list(&call.who.user_id, &request.room_id, is_listed).await?;
            Ok(set_room_visibility::v3::Response::new())
        }
    });
}

fn add_aliases(router: &mut Router, directory: &Directory) {
    let rooms = directory.clone();
    router.add(move |_: Call<()>, request: get_alias::v3::Request| {
        let rooms = rooms.clone();
        async move {
            let room_id = rooms.find(&request.room_alias).await?;
            Ok(get_alias::v3::Response::new(room_id, vec![rooms.server_name().to_owned()]))
        }
    });
    let rooms = directory.clone();
    router.add(move |call: Call<Requester>, request: create_alias::v3::Request| {
        let rooms = rooms.clone();
        async move {
            rooms.add(&call.who.user_id, &request.room_alias, &request.room_id).await?;
            Ok(create_alias::v3::Response::new())
        }
    });
    let rooms = directory.clone();
    router.add(move |call: Call<Requester>, request: delete_alias::v3::Request| {
        let rooms = rooms.clone();
        async move {
            rooms.remove(&call.who.user_id, &request.room_alias).await?;
            Ok(delete_alias::v3::Response::new())
        }
    });
    let rooms = directory.clone();
    router.add(move |call: Call<Requester>, request: aliases::v3::Request| {
        let rooms = rooms.clone();
        async move {
            let found = rooms.aliases_of(&call.who.user_id, &request.room_id).await?;
            Ok(aliases::v3::Response::new(found))
        }
    });
}
