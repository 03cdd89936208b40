//! The one endpoint of Synapse's admin API that tools for setting up servers rely on: accounts made
//! with the shared secret.

use std::rc::Rc;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::router::Router;
use crate::handlers::Refusal;
use crate::handlers::admin_registration::AdminRegistration;

/// Where it is.
pub(crate) const REGISTER_PATH: &str = "/_synapse/admin/v1/register";

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, registration: &Rc<AdminRegistration>) {
    let handler = Rc::clone(registration);
    router.add_raw(Method::GET, REGISTER_PATH, move |_| {
        let nonce = handler.nonce();
        async move { Ok(Bytes::from(json!({ "nonce": nonce }).to_string())) }
    });

    let handler = Rc::clone(registration);
    router.add_raw(Method::POST, REGISTER_PATH, move |call| {
        let handler = Rc::clone(&handler);
        async move {
            let request = serde_json::from_slice(&call.body).map_err(|error| {
                if error.is_data() {
                    Refusal::bad_json(error.to_string())
                } else {
                    Refusal::not_json(format!("the body is not JSON: {error}"))
                }
            })?;
            let registered = handler.register(request).await?;
            let mut answer = json!({
                "user_id": registered.user_id,
                "home_server": registered.user_id.server_name(),
            });
            if let Some((device_id, token)) = registered.session {
                answer["device_id"] = json!(device_id);
                answer["access_token"] = json!(token.expose());
            }
            Ok(Bytes::from(answer.to_string()))
        }
    });
}
