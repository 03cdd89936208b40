//! The one place where failures become HTTP answers: status, `errcode`, `error`.
//!
//! A [`Refusal`] is told to the client as it is. Anything else is our own fault: the client gets
//! `M_UNKNOWN` with status 500 and nothing about our insides, the log gets the whole chain.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use ropewalk::Failure;
use ropewalk_http::{BodyError, Response};
use ruma::api::error::{
    DeserializationError, ErrorKind, FromHttpRequestError, LimitExceededErrorData, RetryAfter,
    StandardErrorBody,
};

use crate::handlers::Refusal;

/// Returns the answer that tells a client of `failure`.
pub(crate) fn response(failure: &Failure) -> Response {
    if let Some(refusal) = failure.downcast_ref::<Refusal>() {
        return refusal_response(refusal);
    }
    if let Some(error) = failure.downcast_ref::<BodyError>() {
        // The client's doing, and no reason for an operator to get up. The HTTP server answers by
        // itself where an answer can still be read.
        log::debug!("a body did not come to its end: {error}");
        return standard(StatusCode::BAD_REQUEST, &ErrorKind::Unknown, &error.to_string());
    }
    log::error!("a request failed: {failure:?}");
    standard(StatusCode::INTERNAL_SERVER_ERROR, &ErrorKind::Unknown, "internal server error")
}

/// Returns the answer for `refusal`, with the status that its errcode travels with.
pub(crate) fn refusal_response(refusal: &Refusal) -> Response {
    match refusal {
        Refusal::Standard { kind, message } => {
            let answer = standard(status_of(kind), kind, message);
            match kind {
                ErrorKind::LimitExceeded(LimitExceededErrorData {
                    retry_after: Some(RetryAfter::Delay(delay)),
                    ..
                }) => {
                    // Whole seconds, rounded up: a client that comes back too early is refused again.
                    let seconds = delay.as_millis().div_ceil(1000);
                    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
                    answer.header(header::RETRY_AFTER, HeaderValue::from(seconds))
                }
                _ => answer,
            }
        }
        Refusal::ServerControlled { message } => {
            standard(StatusCode::METHOD_NOT_ALLOWED, &ErrorKind::BadJson, message)
        }
        Refusal::Taken { message } => standard(StatusCode::CONFLICT, &ErrorKind::Unknown, message),
        Refusal::UserInteractive(info) => json(
            StatusCode::UNAUTHORIZED,
            serde_json::to_vec(info).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from),
        ),
    }
}

/// Returns a JSON answer with `body` as it is.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Response {
    Response::new(status)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .with_body(body)
}

/// Returns the refusal for a request that could not be read as its endpoint's type.
pub(crate) fn refuse_request(error: &FromHttpRequestError) -> Refusal {
    let FromHttpRequestError::Deserialization(error) = error else {
        return Refusal::unrecognized();
    };
    match error {
        DeserializationError::Json(error)
            if error.is_data() && error.to_string().starts_with("missing field") =>
        {
            Refusal::missing_param(error.to_string())
        }
        DeserializationError::Json(error) if error.is_data() => {
            Refusal::bad_json(error.to_string())
        }
        DeserializationError::Json(error) => {
            Refusal::not_json(format!("the body is not JSON: {error}"))
        }
        DeserializationError::Utf8(_) => Refusal::not_json("the request is not UTF-8"),
        DeserializationError::Query(error) if error.to_string().starts_with("missing field") => {
            Refusal::missing_param(format!("query: {error}"))
        }
        DeserializationError::Query(error) => Refusal::invalid_param(format!("query: {error}")),
        DeserializationError::Ident(error) => Refusal::invalid_param(format!("path: {error}")),
        other => Refusal::invalid_param(other.to_string()),
    }
}

/// Returns a standard error with a status of one's own.
pub(crate) fn standard(status: StatusCode, kind: &ErrorKind, message: &str) -> Response {
    let body = StandardErrorBody::new(kind.clone(), message.to_owned());
    let text = serde_json::to_vec(&body)
        .unwrap_or_else(|_| br#"{"errcode":"M_UNKNOWN","error":"unprintable error"}"#.to_vec());
    json(status, text.into())
}

/// Returns the status an errcode travels with (Client-Server API, "Standard error response" and the
/// endpoints' own tables).
fn status_of(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::CannotOverwriteMedia => StatusCode::CONFLICT,
        ErrorKind::ConnectionFailed => StatusCode::BAD_GATEWAY,
        ErrorKind::ConnectionTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Exclusive
        | ErrorKind::BadJson
        | ErrorKind::NotJson
        | ErrorKind::InvalidParam
        | ErrorKind::MissingParam => StatusCode::BAD_REQUEST,
        ErrorKind::BadState
        | ErrorKind::Forbidden
        | ErrorKind::GuestAccessForbidden
        | ErrorKind::ThreepidDenied
        | ErrorKind::UserDeactivated
        | ErrorKind::UserLocked
        | ErrorKind::UserSuspended
        | ErrorKind::CannotLeaveServerNoticeRoom
        | ErrorKind::WrongRoomKeysVersion(_) => StatusCode::FORBIDDEN,
        ErrorKind::LimitExceeded(_) => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::MissingToken | ErrorKind::UnknownToken(_) | ErrorKind::Unauthorized => {
            StatusCode::UNAUTHORIZED
        }
        ErrorKind::NotFound | ErrorKind::Unrecognized => StatusCode::NOT_FOUND,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnableToAuthorizeJoin | ErrorKind::UnableToGrantJoin => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_REQUEST,
    }
}
