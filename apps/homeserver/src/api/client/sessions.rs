//! `account/whoami`: what an access token stands for.

use ruma::api::client::account::whoami;

use crate::api::router::{Call, Router};
use crate::handlers::sessions::Requester;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router) {
    router.add(|call: Call<Requester>, _: whoami::v3::Request| async move {
        let mut response = whoami::v3::Response::new(call.who.user_id, false);
        response.device_id = Some(call.who.device_id);
        Ok(response)
    });
}
