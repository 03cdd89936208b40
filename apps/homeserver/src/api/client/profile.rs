//! `profile`: what users show of themselves.

use std::rc::Rc;

use ruma::api::client::profile::{
    delete_profile_field, get_profile, get_profile_field, set_profile_field,
};

use crate::api::router::Router;
use crate::handlers::profiles::Profiles;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, profiles: &Rc<Profiles>) {
    let handler = Rc::clone(profiles);
    router.add_json::<get_profile::v3::Request, _, _>(move |_, request| {
        let handler = Rc::clone(&handler);
        async move {
            let all = handler.all(request.user_id).await?;
            Ok(serde_json::to_vec(&all)?.into())
        }
    });

    let handler = Rc::clone(profiles);
    router.add_json::<get_profile_field::v3::Request, _, _>(move |_, request| {
        let handler = Rc::clone(&handler);
        async move {
            let name = request.field.as_str();
            let value = handler.field(request.user_id, name).await?;
            Ok(serde_json::json!({ name: value }).to_string().into())
        }
    });

    let handler = Rc::clone(profiles);
    router.add::<set_profile_field::v3::Request, _, _>(move |call, request| {
        let handler = Rc::clone(&handler);
        async move {
            let name = request.value.field_name().as_str().to_owned();
            let value = request.value.value().into_owned();
            handler.set(&call.who, request.user_id, name, value).await?;
            Ok(set_profile_field::v3::Response::new())
        }
    });

    let handler = Rc::clone(profiles);
    router.add::<delete_profile_field::v3::Request, _, _>(move |call, request| {
        let handler = Rc::clone(&handler);
        async move {
            let name = request.field.as_str().to_owned();
            handler.delete(&call.who, request.user_id, name).await?;
            Ok(delete_profile_field::v3::Response::new())
        }
    });
}
