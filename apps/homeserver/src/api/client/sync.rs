//! `sync`: what is new for a device.

use ruma::api::client::sync::sync_events::v3;

use crate::api::router::{Call, Router};
use crate::handlers::Refusal;
use crate::handlers::sessions::Requester;
use crate::handlers::sync::{ClientSync, StateBlock, SyncRequest};

/// Adds the routes. `set_presence` is read and has no effect: there is no presence yet.
pub(crate) fn routes(router: &mut Router, sync: &ClientSync) {
    let sync = sync.clone();
    router.add_json(move |call: Call<Requester>, request: v3::Request| {
        let sync = sync.clone();
        async move {
            let since = match request.since.as_deref() {
                None | Some("") => None,
                Some(token) => Some(
                    token
                        .parse()
                        .map_err(|error| Refusal::invalid_param(format!("since: {error}")))?,
                ),
            };
            let Requester { user_id, device_id, .. } = call.who;
            let filter = sync.filter(&user_id, request.filter).await?;
            let block = if request.use_state_after {
                StateBlock::AfterTimeline
            } else {
                StateBlock::BeforeTimeline
            };
            let request = SyncRequest {
                user_id,
                device_id: Some(device_id),
                since,
                filter,
                full_state: request.full_state,
                block,
                timeout: request.timeout.unwrap_or_default(),
            };
            sync.sync(request).await
        }
    });
}
