//! `user/{user}/account_data`, `tags` and `filter`: what clients keep on the server for themselves.

use ruma::api::client::config::{
    get_global_account_data, get_room_account_data, set_global_account_data, set_room_account_data,
};
use ruma::api::client::filter::{create_filter, get_filter};
use ruma::api::client::tag::{create_tag, delete_tag, get_tags};

use crate::api::router::Router;
use crate::handlers::account_data::AccountData;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, data: &AccountData) {
    account_data_routes(router, data);
    tag_routes(router, data);
    filter_routes(router, data);
}

fn account_data_routes(router: &mut Router, data: &AccountData) {
    let handler = data.clone();
    router.add::<set_global_account_data::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let event_type = request.event_type.to_string();
            let content = request.data.json().get().to_owned();
            handler.set(&call.who, request.user_id, None, event_type, content).await?;
            Ok(set_global_account_data::v3::Response::new())
        }
    });

    let handler = data.clone();
    router.add_json::<get_global_account_data::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let event_type = request.event_type.to_string();
            Ok(handler.get(&call.who, request.user_id, None, event_type).await?.into())
        }
    });

    let handler = data.clone();
    router.add::<set_room_account_data::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let event_type = request.event_type.to_string();
            let content = request.data.json().get().to_owned();
            let room_id = Some(request.room_id);
            handler.set(&call.who, request.user_id, room_id, event_type, content).await?;
            Ok(set_room_account_data::v3::Response::new())
        }
    });

    let handler = data.clone();
    router.add_json::<get_room_account_data::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let event_type = request.event_type.to_string();
            let room_id = Some(request.room_id);
            Ok(handler.get(&call.who, request.user_id, room_id, event_type).await?.into())
        }
    });
}

fn tag_routes(router: &mut Router, data: &AccountData) {
    let handler = data.clone();
    router.add_json::<get_tags::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let tags = handler.tags(&call.who, request.user_id, request.room_id).await?;
            Ok(serde_json::json!({ "tags": tags }).to_string().into())
        }
    });

    let handler = data.clone();
    router.add::<create_tag::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            // As it came: the type knows `order` only, clients may attach more.
            let info = serde_json::from_slice(&call.body)?;
            let (user_id, room_id) = (request.user_id, request.room_id);
            handler.set_tag(&call.who, user_id, room_id, request.tag, info).await?;
            Ok(create_tag::v3::Response::new())
        }
    });

    let handler = data.clone();
    router.add::<delete_tag::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let (user_id, room_id) = (request.user_id, request.room_id);
            handler.delete_tag(&call.who, user_id, room_id, request.tag).await?;
            Ok(delete_tag::v3::Response::new())
        }
    });
}

fn filter_routes(router: &mut Router, data: &AccountData) {
    let handler = data.clone();
    router.add::<create_filter::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let kept = handler.keep_filter(&call.who, request.user_id, &request.filter).await?;
            Ok(create_filter::v3::Response::new(kept))
        }
    });

    let handler = data.clone();
    router.add_json::<get_filter::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            Ok(handler.filter(&call.who, request.user_id, &request.filter_id).await?.into())
        }
    });
}
