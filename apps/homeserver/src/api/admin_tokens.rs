//! Synapse's admin API for registration tokens, which its tools know: make, list, show, remove.

use std::rc::Rc;

use bytes::Bytes;
use http::Method;
use ropewalk::Failure;
use ruma::api::auth_scheme::AccessToken;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Authenticate as _;
use super::router::{Call, Router};
use crate::handlers::Refusal;
use crate::handlers::registration_tokens::{NewToken, RegistrationTokens, Which};
use crate::handlers::sessions::{Requester, Sessions};
use crate::storage::databases::main::registration_tokens::RegistrationToken;

const LIST_PATH: &str = "/_synapse/admin/v1/registration_tokens";
const NEW_PATH: &str = "/_synapse/admin/v1/registration_tokens/new";
const ONE_PATH: &str = "/_synapse/admin/v1/registration_tokens/{token}";

#[derive(Deserialize)]
struct New {
    token: Option<String>,
    uses_allowed: Option<u32>,
    expiry_time: Option<i64>,
}

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, tokens: &RegistrationTokens, sessions: &Rc<Sessions>) {
    let parts = (tokens.clone(), Rc::clone(sessions));
    router.add_raw(Method::GET, LIST_PATH, move |call| {
        let (tokens, sessions) = parts.clone();
        async move {
            let who = requester(&sessions, &call).await?;
            let all = tokens.list(&who.user_id, which(call.head.query())?).await?;
            let shown: Vec<Value> = all.iter().map(shown).collect();
            Ok(bytes(&json!({ "registration_tokens": shown })))
        }
    });

    let parts = (tokens.clone(), Rc::clone(sessions));
    router.add_raw(Method::POST, NEW_PATH, move |call| {
        let (tokens, sessions) = parts.clone();
        async move {
            let who = requester(&sessions, &call).await?;
            let new: New = serde_json::from_slice(&call.body).map_err(|error| {
                if error.is_data() {
                    Refusal::bad_json(error.to_string())
                } else {
                    Refusal::not_json(format!("the body is not JSON: {error}"))
                }
            })?;
            let New { token, uses_allowed, expiry_time } = new;
            let new = NewToken { token, uses_allowed, expiry_ts: expiry_time };
            Ok(bytes(&shown(&tokens.make(&who.user_id, new).await?)))
        }
    });

    let parts = (tokens.clone(), Rc::clone(sessions));
    router.add_raw(Method::GET, ONE_PATH, move |call| {
        let (tokens, sessions) = parts.clone();
        async move {
            let who = requester(&sessions, &call).await?;
            let token = tokens.get(&who.user_id, call.argument(0).to_owned()).await?;
            Ok(bytes(&shown(&token)))
        }
    });

    let parts = (tokens.clone(), Rc::clone(sessions));
    router.add_raw(Method::DELETE, ONE_PATH, move |call| {
        let (tokens, sessions) = parts.clone();
        async move {
            let who = requester(&sessions, &call).await?;
            tokens.delete(&who.user_id, call.argument(0).to_owned()).await?;
            Ok(bytes(&json!({})))
        }
    });
}

async fn requester(sessions: &Sessions, call: &Call<()>) -> Result<Requester, Failure> {
    AccessToken::authenticate(sessions, &call.head).await
}

fn which(query: Option<&str>) -> Result<Which, Refusal> {
    let valid = query.and_then(|query| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == "valid")
    });
    match valid {
        None => Ok(Which::All),
        Some((_, "true")) => Ok(Which::Usable),
        Some((_, "false")) => Ok(Which::Useless),
        Some(_) => Err(Refusal::invalid_param("`valid` is true or false")),
    }
}

fn shown(token: &RegistrationToken) -> Value {
    json!({
        "token": token.token,
        "uses_allowed": token.uses_allowed,
        // Nothing is reserved: a token is used up when the account is made.
        "pending": 0,
        "completed": token.used,
        "expiry_time": token.expiry_ts,
    })
}

fn bytes(body: &Value) -> Bytes {
    body.to_string().into()
}
