//! `devices`: the user's devices, their names, and their removal.

use std::rc::Rc;

use ruma::api::client::device::{
    delete_device, delete_devices, get_device, get_devices, update_device,
};
use serde_json::{Value, json};

use super::account::ask_password;
use crate::api::router::Router;
use crate::handlers::accounts::Accounts;
use crate::handlers::devices::Devices;
use crate::storage::databases::main::devices::Device as StoredDevice;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, devices: &Devices, accounts: &Rc<Accounts>) {
    let handler = devices.clone();
    router.add_json::<get_devices::v3::Request, _, _>(move |call, _| {
        let handler = handler.clone();
        async move {
            let all = handler.all(&call.who.user_id).await?;
            let shown: Vec<Value> = all.iter().map(shown).collect();
            Ok(json!({ "devices": shown }).to_string().into())
        }
    });

    let handler = devices.clone();
    router.add_json::<get_device::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let device = handler.get(&call.who.user_id, &request.device_id).await?;
            Ok(shown(&device).to_string().into())
        }
    });

    let handler = devices.clone();
    router.add::<update_device::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            handler.rename(call.who.user_id, request.device_id, request.display_name).await?;
            Ok(update_device::v3::Response::new())
        }
    });

    let handler = Rc::clone(accounts);
    router.add::<delete_device::v3::Request, _, _>(move |call, request| {
        let handler = Rc::clone(&handler);
        async move {
            ask_password(&handler, &call.who, &call, request.auth.as_ref()).await?;
            handler.delete_devices(call.who.user_id, vec![request.device_id]).await?;
            Ok(delete_device::v3::Response::new())
        }
    });

    let handler = Rc::clone(accounts);
    router.add::<delete_devices::v3::Request, _, _>(move |call, request| {
        let handler = Rc::clone(&handler);
        async move {
            let first = ask_password(&handler, &call.who, &call, request.auth.as_ref()).await?;
            let request = match first {
                Some(body) => call.reparse(&body)?,
                None => request,
            };
            handler.delete_devices(call.who.user_id, request.devices).await?;
            Ok(delete_devices::v3::Response::new())
        }
    });
}

/// All keys are there, known or not: the specification lets unknown ones be left out, but matrix-nio
/// does not take such a list. (ruma's type leaves them out.)
fn shown(device: &StoredDevice) -> Value {
    json!({
        "device_id": device.device_id,
        "display_name": device.display_name,
        "last_seen_ip": null,
        "last_seen_ts": device.last_seen_ts,
    })
}
