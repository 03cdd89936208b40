//! Who is calling: access tokens out of requests, by the authentication that each endpoint's ruma
//! type declares.

use ropewalk::Failure;
use ropewalk_http::RequestHead;
use ruma::api::auth_scheme::{
    AccessToken, AccessTokenOptional, AppserviceTokenOptional, NoAccessToken, NoAuthentication,
};

use crate::handlers::Refusal;
use crate::handlers::sessions::{Requester, Sessions};

/// How an endpoint's declared authentication turns a request into a caller.
pub(crate) trait Authenticate {
    /// What the endpoint learns about its caller.
    type Caller;

    /// Finds the caller, or refuses with `M_MISSING_TOKEN` or `M_UNKNOWN_TOKEN`.
    async fn authenticate(sessions: &Sessions, head: &RequestHead)
    -> Result<Self::Caller, Failure>;
}

impl Authenticate for NoAuthentication {
    type Caller = ();

    async fn authenticate(_: &Sessions, _: &RequestHead) -> Result<(), Failure> {
        Ok(())
    }
}

impl Authenticate for NoAccessToken {
    type Caller = ();

    async fn authenticate(_: &Sessions, _: &RequestHead) -> Result<(), Failure> {
        Ok(())
    }
}

impl Authenticate for AccessToken {
    type Caller = Requester;

    async fn authenticate(sessions: &Sessions, head: &RequestHead) -> Result<Requester, Failure> {
        let token = token_of(head)?.ok_or_else(Refusal::missing_token)?;
        sessions.requester(&token).await
    }
}

impl Authenticate for AccessTokenOptional {
    type Caller = Option<Requester>;

    async fn authenticate(
        sessions: &Sessions,
        head: &RequestHead,
    ) -> Result<Option<Requester>, Failure> {
        match token_of(head)? {
            Some(token) => sessions.requester(&token).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Application services are not served yet, so their token is never known: a user's token counts.
impl Authenticate for AppserviceTokenOptional {
    type Caller = Option<Requester>;

    async fn authenticate(
        sessions: &Sessions,
        head: &RequestHead,
    ) -> Result<Option<Requester>, Failure> {
        AccessTokenOptional::authenticate(sessions, head).await
    }
}

/// Returns the access token of a request: from `Authorization: Bearer`, or from the deprecated query
/// parameter that clients still use. Both at once is refused, as Synapse does.
fn token_of(head: &RequestHead) -> Result<Option<String>, Refusal> {
    let header = match head.header("authorization") {
        None => None,
        Some(value) => {
            let token = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim().to_owned());
            Some(token.ok_or_else(Refusal::missing_token)?)
        }
    };
    let query = head.query().and_then(token_in_query);
    match (header, query) {
        (Some(_), Some(_)) => Err(Refusal::new(
            ruma::api::error::ErrorKind::MissingToken,
            "an access token came both in the header and in the query; send one",
        )),
        (header, query) => Ok(header.or(query)),
    }
}

fn token_in_query(query: &str) -> Option<String> {
    let (_, value) = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == "access_token")?;
    percent_encoding::percent_decode_str(value).decode_utf8().ok().map(|token| token.into_owned())
}
