//! Why a request is refused, in the Matrix vocabulary (errcode and text) and without HTTP status.
//!
//! Handlers return a [`Refusal`] inside a `Failure`; `api::errors` alone knows which status each
//! errcode travels with. Everything that is not a `Refusal` there is our own fault and answers
//! `M_UNKNOWN` with status 500.

use std::time::Duration;

use ruma::api::client::uiaa::UiaaInfo;
use ruma::api::error::{ErrorKind, LimitExceededErrorData, RetryAfter, UnknownTokenErrorData};

/// Why a request is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// A Matrix standard error: `errcode` and `error`.
    #[error("{}: {message}", kind.errcode())]
    Standard {
        /// The errcode with the fields that belong to it.
        kind: ErrorKind,
        /// The text for people: what went wrong and, where it helps, what to do.
        message: String,
    },
    /// What the server writes itself, a client cannot write: `M_BAD_JSON`, with a status of its own.
    #[error("{message}")]
    ServerControlled {
        /// The text for people.
        message: String,
    },
    /// Something of that name exists already: `M_UNKNOWN`, told apart by its status.
    #[error("{message}")]
    Taken {
        /// The text for people.
        message: String,
    },
    /// More user-interactive authentication is needed (or its last stage failed).
    #[error("user-interactive authentication is not complete")]
    UserInteractive(Box<UiaaInfo>),
}

impl Refusal {
    /// Refuses with `kind` and a text for people.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Standard { kind, message: message.into() }
    }

    /// `M_BAD_JSON`: well-formed JSON of the wrong shape.
    pub fn bad_json(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadJson, message)
    }

    /// `M_FORBIDDEN`: understood, and not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// `M_INVALID_PARAM`: a parameter has a value that it cannot have.
    pub fn invalid_param(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParam, message)
    }

    /// `M_LIMIT_EXCEEDED`: too many requests; come back after `retry_after`.
    pub fn limit_exceeded(retry_after: Duration) -> Self {
        let mut data = LimitExceededErrorData::new();
        data.retry_after = Some(RetryAfter::Delay(retry_after));
        Self::new(ErrorKind::LimitExceeded(data), "too many requests")
    }

    /// `M_MISSING_PARAM`: a required parameter is absent.
    pub fn missing_param(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::MissingParam, message)
    }

    /// `M_MISSING_TOKEN`: the endpoint needs an access token and none came.
    pub fn missing_token() -> Self {
        Self::new(ErrorKind::MissingToken, "missing access token")
    }

    /// `M_NOT_FOUND`: the named thing does not exist, or may not be seen.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// `M_NOT_JSON`: the body is not JSON at all.
    pub fn not_json(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotJson, message)
    }

    /// `M_BAD_JSON`: this account data is written by the server itself.
    pub fn server_controlled(event_type: &str) -> Self {
        let message = format!("{event_type} is set by the server, not through this endpoint");
        Self::ServerControlled { message }
    }

    /// `M_TOO_LARGE`: the request, or the event it makes, is over a limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    /// `M_UNKNOWN_TOKEN`: an access token that was never given out or has been logged out.
    pub fn unknown_token(soft_logout: bool) -> Self {
        let mut data = UnknownTokenErrorData::new();
        data.soft_logout = soft_logout;
        Self::new(ErrorKind::UnknownToken(data), "unknown or logged-out access token")
    }

    /// `M_UNRECOGNIZED`: no such endpoint, or no such method on it.
    pub fn unrecognized() -> Self {
        Self::new(ErrorKind::Unrecognized, "unrecognized request")
    }
}
