//! `publicRooms`.

use std::rc::Rc;

use ropewalk::Failure;
use ruma::api::auth_scheme::AccessToken;
use ruma::api::client::directory::{get_public_rooms, get_public_rooms_filtered};
use ruma::{OwnedServerName, ServerName};

use crate::api::auth::Authenticate as _;
use crate::api::router::{Call, Router};
use crate::handlers::Refusal;
use crate::handlers::directory::Directory;
use crate::handlers::directory::public_rooms::Query;
use crate::handlers::sessions::{Requester, Sessions};

/// Who may read the list with a plain GET.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Readers {
    /// Everybody, as the specification has it.
    Everybody,
    /// Users of this server only.
    Users,
}

/// Adds the routes.
pub(crate) fn routes(
    router: &mut Router,
    directory: &Directory,
    sessions: &Rc<Sessions>,
    readers: Readers,
) {
    let rooms = directory.clone();
    let sessions = Rc::clone(sessions);
    router.add(move |call: Call<()>, request: get_public_rooms::v3::Request| {
        let (rooms, sessions) = (rooms.clone(), Rc::clone(&sessions));
        async move {
            if readers == Readers::Users {
                AccessToken::authenticate(&sessions, &call.head).await?;
            }
            check_server(request.server, rooms.server_name())?;
            let query = Query { limit: request.limit, since: request.since, ..Query::default() };
            let page = rooms.public_rooms(query).await?;
            let mut response = get_public_rooms::v3::Response::new(page.chunk);
            response.next_batch = page.next_batch;
            response.prev_batch = page.prev_batch;
            response.total_room_count_estimate = Some(page.total);
            Ok(response)
        }
    });
    let rooms = directory.clone();
    router.add(move |_: Call<Requester>, request: get_public_rooms_filtered::v3::Request| {
        let rooms = rooms.clone();
        async move {
            check_server(request.server, rooms.server_name())?;
            let query = Query {
                limit: request.limit,
                since: request.since,
                search: request.filter.generic_search_term,
                room_types: request.filter.room_types,
            };
            let page = rooms.public_rooms(query).await?;
            let mut response = get_public_rooms_filtered::v3::Response::new();
            response.chunk = page.chunk;
            response.next_batch = page.next_batch;
            response.prev_batch = page.prev_batch;
            response.total_room_count_estimate = Some(page.total);
            Ok(response)
        }
    });
}

fn check_server(asked: Option<OwnedServerName>, here: &ServerName) -> Result<(), Failure> {
    match asked {
        Some(server) if server != here => Err(Refusal::not_found(format!(
            "the list is on {server}, and this server does not talk to others yet"
        ))
        .into()),
        _ => Ok(()),
    }
}
