//! Bodies that clients in service send and that ruma's readers refuse, mended before they are read.

use ruma::api::error::DeserializationError;
use ruma::api::{IncomingRequest, Metadata};
use serde_json::{Map, Value, json};

/// How long somebody types who does not say how long, in milliseconds; the specification makes the
/// number optional and leaves the value to us, Synapse takes the same.
const TYPING_TIMEOUT_MS: u64 = 30_000;

/// A request whose body may need mending.
pub(crate) trait Mend: IncomingRequest {
    /// Mends the body and returns whether there was anything to mend.
    fn mend(body: &mut Map<String, Value>) -> bool;
}

/// A request, read from its mended body.
pub(crate) struct Mended<R: Mend>(pub(crate) R);

impl<R: Mend> Metadata for Mended<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

impl<R: Mend> IncomingRequest for Mended<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        arguments: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (parts, body) = request.into_parts();
        // What is no object is for the reader itself to refuse.
        let mended = match serde_json::from_slice(body) {
            Ok(Value::Object(mut object)) => {
                R::mend(&mut object).then(|| Value::Object(object).to_string())
            }
            _ => None,
        };
        let body = mended.as_ref().map_or(body, String::as_bytes);
        let request = http::Request::from_parts(parts, body);
        R::try_from_http_request_inner(request, arguments).map(Self)
    }
}

/// matrix-nio begins a registration with an `auth` that names neither a stage nor a session. That is
/// no attempt at a stage: it is the question which stages there are.
impl Mend for ruma::api::client::account::register::v3::Request {
    fn mend(body: &mut Map<String, Value>) -> bool {
        let says_nothing = |auth: &Value| {
            auth.as_object()
                .is_some_and(|auth| !auth.contains_key("type") && !auth.contains_key("session"))
        };
        body.get("auth").is_some_and(says_nothing) && body.remove("auth").is_some()
    }
}

impl Mend for ruma::api::client::typing::create_typing_event::v3::Request {
    fn mend(body: &mut Map<String, Value>) -> bool {
        let lacks = body.get("typing") == Some(&json!(true)) && !body.contains_key("timeout");
        lacks && body.insert("timeout".to_owned(), TYPING_TIMEOUT_MS.into()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use ruma::api::client::account::register::v3 as register;
    use ruma::api::client::typing::create_typing_event::v3 as typing;

    use super::*;

    fn mended<R: Mend>(body: Value) -> Option<Value> {
        let Value::Object(mut body) = body else { panic!("bodies are objects") };
        R::mend(&mut body).then_some(Value::Object(body))
    }

    #[test]
    fn only_what_is_broken_is_mended() {
        for (why, body, expected) in [
            ("nothing to do", json!({"username": "a"}), None),
            ("a stage", json!({"auth": {"type": "m.login.dummy"}}), None),
            ("a session", json!({"auth": {"session": "x"}}), None),
            ("no object", json!({"auth": 5}), None),
            ("nothing in it", json!({"a": 1, "auth": {}}), Some(json!({"a": 1}))),
            ("nothing of use", json!({"auth": {"device": "x"}}), Some(json!({}))),
        ] {
            assert_eq!(mended::<register::Request>(body), expected, "register, {why}");
        }
        for (why, body, expected) in [
            ("how long", json!({"typing": true, "timeout": 5}), None),
            ("not at all", json!({"typing": false}), None),
            ("no answer", json!({"typing": "yes"}), None),
            ("no time", json!({"typing": true}), Some(json!({"typing": true, "timeout": 30_000}))),
        ] {
            assert_eq!(mended::<typing::Request>(body), expected, "typing, {why}");
        }
    }
}
