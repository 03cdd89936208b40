//! `capabilities`: what this server lets its users do.

use bytes::Bytes;
use ruma::RoomVersionId;
use ruma::api::client::discovery::get_capabilities::v3 as capabilities;

use crate::api::router::Router;
use crate::model::RoomVersion;

/// Adds the route.
pub(crate) fn routes(router: &mut Router, default_room_version: &RoomVersionId) {
    // Made once: it is the same for everybody.
    let body = Bytes::from(body(default_room_version));
    router.add_json::<capabilities::Request, _, _>(move |_, _| {
        let body = body.clone();
        async move { Ok(body) }
    });
}

fn body(default_room_version: &RoomVersionId) -> String {
    let available: serde_json::Map<String, serde_json::Value> = RoomVersion::ALL
        .map(|version| (version.as_str().to_owned(), "stable".into()))
        .into_iter()
        .collect();
    serde_json::json!({
        "capabilities": {
            "m.3pid_changes": { "enabled": false },
            "m.change_password": { "enabled": true },
            "m.get_login_token": { "enabled": false },
            "m.profile_fields": { "enabled": true },
            "m.room_versions": { "available": available, "default": default_room_version },
            "m.set_avatar_url": { "enabled": true },
            "m.set_displayname": { "enabled": true },
        }
    })
    .to_string()
}
