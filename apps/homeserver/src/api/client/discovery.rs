//! `versions` and `.well-known`: what a client learns before it has an account.

use bytes::Bytes;

use crate::api::router::Router;
use crate::config::Config;

/// The releases of the specification that this server speaks. Clients choose endpoints by them.
const VERSIONS: &[u8] = br#"{"versions":["r0.5.0","r0.6.0","r0.6.1","v1.1","v1.2","v1.3","v1.4","v1.5","v1.6","v1.7","v1.8","v1.9","v1.10","v1.11"],"unstable_features":{}}"#;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, config: &Config) {
    router.add_fixed("/_matrix/client/versions", Bytes::from_static(VERSIONS));
    if let Some(base_url) = &config.public_base_url {
        let body = serde_json::json!({ "m.homeserver": { "base_url": base_url.as_str() } });
        router.add_fixed("/.well-known/matrix/client", body.to_string().into());
    }
}
