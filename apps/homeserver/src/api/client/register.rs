//! `register`: making an account, and asking whether one could be made.

use std::rc::Rc;

use ruma::api::client::account::check_registration_token_validity::v1 as token_validity;
use ruma::api::client::account::get_username_availability::v3 as availability;
use ruma::api::client::account::register::v3 as register;

use super::address::client_address;
use super::mended::Mended;
use crate::api::router::Router;
use crate::handlers::registration::Registration;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, registration: &Rc<Registration>) {
    let handler = Rc::clone(registration);
    router.add::<Mended<register::Request>, _, _>(move |call, Mended(request)| {
        let handler = Rc::clone(&handler);
        async move {
            let address = client_address(&call);
            let path = call.head.path();
            let registered = handler
                .register(request, path, &call.body, address, |body| {
                    call.reparse::<Mended<register::Request>>(body).map(|Mended(request)| request)
                })
                .await?;
            let mut response = register::Response::new(registered.user_id);
            if let Some((device_id, token)) = registered.session {
                response.device_id = Some(device_id);
                response.access_token = Some(token.expose().to_owned());
            }
            Ok(response)
        }
    });

    let handler = Rc::clone(registration);
    router.add::<availability::Request, _, _>(move |call, request| {
        let handler = Rc::clone(&handler);
        async move {
            handler.check_available(&request.username, client_address(&call)).await?;
            Ok(availability::Response::new(true))
        }
    });

    let handler = Rc::clone(registration);
    router.add::<token_validity::Request, _, _>(move |call, request| {
        let handler = Rc::clone(&handler);
        async move {
            let valid = handler.is_token_usable(request.token, client_address(&call)).await?;
            Ok(token_validity::Response::new(valid))
        }
    });
}
