//! `pushrules`: which events a user wants to be told of.

use ruma::api::client::push::{
    delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled, get_pushrules_all,
    get_pushrules_global_scope, set_pushrule, set_pushrule_actions, set_pushrule_enabled,
};

use crate::api::router::Router;
use crate::handlers::push_rules::PushRules;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, rules: &PushRules) {
    reading_routes(router, rules);
    writing_routes(router, rules);
}

fn reading_routes(router: &mut Router, rules: &PushRules) {
    let handler = rules.clone();
    router.add::<get_pushrules_all::v3::Request, _, _>(move |call, _| {
        let handler = handler.clone();
        async move {
            Ok(get_pushrules_all::v3::Response::new(handler.all(&call.who.user_id).await?))
        }
    });

    let handler = rules.clone();
    router.add::<get_pushrules_global_scope::v3::Request, _, _>(move |call, _| {
        let handler = handler.clone();
        async move {
            let all = handler.all(&call.who.user_id).await?;
            Ok(get_pushrules_global_scope::v3::Response::new(all))
        }
    });

    let handler = rules.clone();
    router.add::<get_pushrule::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let rule = handler.get(&call.who.user_id, request.kind, &request.rule_id).await?;
            Ok(get_pushrule::v3::Response::new(rule.into()))
        }
    });

    let handler = rules.clone();
    router.add::<get_pushrule_actions::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let rule = handler.get(&call.who.user_id, request.kind, &request.rule_id).await?;
            Ok(get_pushrule_actions::v3::Response::new(rule.as_ref().actions().to_vec()))
        }
    });

    let handler = rules.clone();
    router.add::<get_pushrule_enabled::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let rule = handler.get(&call.who.user_id, request.kind, &request.rule_id).await?;
            Ok(get_pushrule_enabled::v3::Response::new(rule.enabled()))
        }
    });
}

fn writing_routes(router: &mut Router, rules: &PushRules) {
    let handler = rules.clone();
    router.add::<set_pushrule::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let user_id = call.who.user_id;
            handler.put(user_id, request.rule, request.before, request.after).await?;
            Ok(set_pushrule::v3::Response::new())
        }
    });

    let handler = rules.clone();
    router.add::<delete_pushrule::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            handler.delete(call.who.user_id, request.kind, request.rule_id).await?;
            Ok(delete_pushrule::v3::Response::new())
        }
    });

    let handler = rules.clone();
    router.add::<set_pushrule_enabled::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let (user_id, enabled) = (call.who.user_id, request.enabled);
            handler.set_enabled(user_id, request.kind, request.rule_id, enabled).await?;
            Ok(set_pushrule_enabled::v3::Response::new())
        }
    });

    let handler = rules.clone();
    router.add::<set_pushrule_actions::v3::Request, _, _>(move |call, request| {
        let handler = handler.clone();
        async move {
            let (user_id, actions) = (call.who.user_id, request.actions);
            handler.set_actions(user_id, request.kind, request.rule_id, actions).await?;
            Ok(set_pushrule_actions::v3::Response::new())
        }
    });
}
