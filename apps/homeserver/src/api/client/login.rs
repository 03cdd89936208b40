//! `login` and `logout`.

use std::rc::Rc;

use ruma::api::client::session::get_login_types::v3 as login_types;
use ruma::api::client::session::login::v3 as login;
use ruma::api::client::session::{logout, logout_all};
use ruma::api::error::DeserializationError;
use ruma::api::{IncomingRequest, Metadata};

use super::address::client_address;
use crate::api::router::Router;
use crate::handlers::logins::Logins;
use crate::handlers::sessions::Sessions;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, logins: &Rc<Logins>, sessions: &Rc<Sessions>) {
    router.add::<login_types::Request, _, _>(|_, _| async {
        let password = login_types::PasswordLoginType::new();
        Ok(login_types::Response::new(vec![login_types::LoginType::Password(password)]))
    });

    let handler = Rc::clone(logins);
    router.add::<LoginRequest, _, _>(move |call, LoginRequest(request)| {
        let handler = Rc::clone(&handler);
        async move {
            let name = request.initial_device_display_name;
            let address = client_address(&call);
            let login =
                handler.log_in(request.login_info, request.device_id, name, address).await?;
            let token = login.access_token.expose().to_owned();
            Ok(login::Response::new(login.user_id, token, login.device_id))
        }
    });

    let handler = Rc::clone(sessions);
    router.add::<logout::v3::Request, _, _>(move |call, _| {
        let handler = Rc::clone(&handler);
        async move {
            handler.log_out(call.who).await?;
            Ok(logout::v3::Response::new())
        }
    });

    let handler = Rc::clone(sessions);
    router.add::<logout_all::v3::Request, _, _>(move |call, _| {
        let handler = Rc::clone(&handler);
        async move {
            handler.delete_all_devices(call.who.user_id, None).await?;
            Ok(logout_all::v3::Response::new())
        }
    });
}

/// ruma's login request, but for one thing: its reader panics on a body without `type`.
struct LoginRequest(login::Request);

impl Metadata for LoginRequest {
    const METHOD: http::Method = login::Request::METHOD;
    const RATE_LIMITED: bool = login::Request::RATE_LIMITED;
    type Authentication = <login::Request as Metadata>::Authentication;
    type PathBuilder = <login::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = login::Request::PATH_BUILDER;
}

impl IncomingRequest for LoginRequest {
    type EndpointError = <login::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = login::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        arguments: &[&str],
    ) -> Result<Self, DeserializationError> {
        #[derive(serde::Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            _type: String,
        }
        serde_json::from_slice::<Typed>(request.body())?;
        login::Request::try_from_http_request_inner(request, arguments).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use ruma::api::IncomingRequestExt as _;

    use super::*;

    /// `data["type"]` in ruma 0.17 panics where there is no such key; whoever sent that made the
    /// server catch a panic.
    #[test]
    fn a_login_without_a_type_is_an_error_and_no_panic() {
        for (body, fine) in [
            ("{}", false),
            ("{\"type\":1}", false),
            ("[]", false),
            ("", false),
            ("{\"type\":\"m.login.password\"}", false),
            ("{\"type\":\"m.login.password\",\"password\":\"x\"}", true),
            ("{\"type\":\"org.example.unknown\"}", true),
        ] {
            let request = http::Request::post("/_matrix/client/v3/login").body(body.as_bytes());
            let read = LoginRequest::try_from_http_request(request.expect("a request"), &[]);
            assert_eq!(read.is_ok(), fine, "{body}");
        }
    }
}
