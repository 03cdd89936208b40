//! `account`: who am I, a new password, the end of the account.

use std::rc::Rc;

use ropewalk::Failure;
use ruma::api::client::account::change_password::v3 as change_password;
use ruma::api::client::account::deactivate::v3 as deactivate;
use ruma::api::client::account::{ThirdPartyIdRemovalStatus, whoami};
use ruma::api::client::uiaa::AuthData;

use crate::api::router::{Call, Router};
use crate::handlers::Refusal;
use crate::handlers::accounts::{Accounts, Erase, OtherDevices, PasswordProtected};
use crate::handlers::sessions::Requester;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, accounts: &Rc<Accounts>) {
    router.add::<whoami::v3::Request, _, _>(|call, _| async move {
        let mut response = whoami::v3::Response::new(call.who.user_id, false);
        response.device_id = Some(call.who.device_id);
        Ok(response)
    });

    let handler = Rc::clone(accounts);
    router.add::<change_password::Request, _, _>(move |call, request| {
        let handler = Rc::clone(&handler);
        async move {
            let requester = call.who.clone().ok_or_else(Refusal::missing_token)?;
            let first = ask_password(&handler, &requester, &call, request.auth.as_ref()).await?;
            let request = match first {
                Some(body) => call.reparse(&body)?,
                None => request,
            };
            let others = match request.logout_devices {
                true => OtherDevices::LogOut,
                false => OtherDevices::Keep,
            };
            handler.change_password(&requester, request.new_password.into(), others).await?;
            Ok(change_password::Response::new())
        }
    });

    let handler = Rc::clone(accounts);
    router.add::<deactivate::Request, _, _>(move |call, request| {
        let handler = Rc::clone(&handler);
        async move {
            let requester = call.who.clone().ok_or_else(Refusal::missing_token)?;
            let first = ask_password(&handler, &requester, &call, request.auth.as_ref()).await?;
            let request: deactivate::Request = match first {
                Some(body) => call.reparse(&body)?,
                None => request,
            };
            let erase = if request.erase { Erase::Yes } else { Erase::No };
            handler.deactivate(requester.user_id, erase).await?;
            // No identity server knows the account, so there is nothing to unbind.
            Ok(deactivate::Response::new(ThirdPartyIdRemovalStatus::Success))
        }
    });
}

/// Has the sender give his password; returns the first body of the dialogue if it counts.
pub(super) async fn ask_password<W>(
    accounts: &Accounts,
    requester: &Requester,
    call: &Call<W>,
    auth: Option<&AuthData>,
) -> Result<Option<bytes::Bytes>, Failure> {
    let request = PasswordProtected {
        requester,
        method: call.head.method().as_str(),
        path: call.head.path(),
        body: &call.body,
        auth,
    };
    accounts.ask_password(request).await
}
