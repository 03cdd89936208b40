//! What an agent is asked, and what it brings.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use url::{Host, Url};

use super::error::{AgentError, shortened, shown};
use super::redirect::Hop;
use crate::body::IncomingBody;
use crate::client::ClientRequest;
use crate::error::MessageError;
use crate::head::ResponseHead;
use crate::outgoing::{BodyWriter, OutgoingBody};

/// A request to whatever host its URL names.
///
/// `Host`, `Content-Length`, `Transfer-Encoding` and `Connection` are the agent's to say.
///
/// ```
/// use http::{HeaderValue, Method, header};
/// use ropewalk_http::AgentRequest;
///
/// let request = AgentRequest::new(Method::POST, "https://push.example/_matrix/push/v1/notify")?
///     .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
///     .with_body("{}");
/// # Ok::<(), ropewalk_http::AgentError>(())
/// ```
pub struct AgentRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: OutgoingBody,
    pub(super) connect_to: Option<(String, u16)>,
    pub(super) redirects_max: Option<usize>,
    pub(super) timeout: Option<Duration>,
}

impl AgentRequest {
    /// Makes a request without a body.
    ///
    /// # Errors
    ///
    /// [`AgentError::UrlInvalid`], [`AgentError::SchemeUnknown`], [`AgentError::UserInUrl`].
    pub fn new(method: Method, url: &str) -> Result<Self, AgentError> {
        let url = Url::parse(url)
            .map_err(|source| AgentError::UrlInvalid { text: shortened(url), source })?;
        check_url(&url)?;
        Ok(AgentRequest {
            method,
            url,
            fields: Vec::new(),
            body: OutgoingBody::Whole(Bytes::new()),
            connect_to: None,
            redirects_max: None,
            timeout: None,
        })
    }

    /// Makes a `GET` request.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn get(url: &str) -> Result<Self, AgentError> {
        AgentRequest::new(Method::GET, url)
    }

    /// Adds a header field, beside others of that name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = OutgoingBody::Whole(body.into());
        self
    }

    /// Makes the body a stream; see [`ClientRequest::with_stream`]. It is sent once: a redirect that wants
    /// it again is an error.
    #[must_use]
    pub fn with_stream(
        mut self,
        length: Option<u64>,
        start: impl FnOnce(BodyWriter) + 'static,
    ) -> Self {
        self.body = OutgoingBody::Stream { length, start: Box::new(start) };
        self
    }

    /// Connects to this host and port in place of the URL's, which still stands in the `Host` field
    /// and is whom the peer has to prove to be. For delegated names; a redirect ends it.
    #[must_use]
    pub fn connect_to(mut self, host: impl Into<String>, port: u16) -> Self {
        self.connect_to = Some((host.into(), port));
        self
    }

    /// Sets how many redirects are followed, in place of what the agent's options say. With none the
    /// response that redirects is the response.
    #[must_use]
    pub fn redirects_max(mut self, count: usize) -> Self {
        self.redirects_max = Some(count);
        self
    }

    /// Sets the time for the whole, in place of what the agent's options say.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Returns the URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the host as one connects to it: an IPv6 address is without brackets.
    pub(super) fn host(&self) -> String {
        host_of(&self.url)
    }

    /// Returns the request for the wire, and what is needed to go on after a redirect.
    pub(super) fn split(
        self,
        user_agent: Option<&HeaderValue>,
    ) -> Result<(ClientRequest, Replay), MessageError> {
        let AgentRequest { method, url, fields, body, .. } = self;
        let host = url.host_str().unwrap_or_default();
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = ClientRequest::new(method.clone(), &host, target)?;
        if let Some(value) = user_agent
            && !fields.iter().any(|(name, _)| *name == header::USER_AGENT)
        {
            request = request.header(header::USER_AGENT, value.clone());
        }
        for (name, value) in &fields {
            request = request.header(name.clone(), value.clone());
        }
        let kept_body = match &body {
            OutgoingBody::Whole(bytes) => Some(bytes.clone()),
            OutgoingBody::Stream { .. } => None,
        };
        request.body = body;
        Ok((request, Replay { method, url, fields, body: kept_body }))
    }
}

/// What is left of a request that has been sent.
pub(super) struct Replay {
    pub(super) method: Method,
    pub(super) url: Url,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// `None` if it was a stream.
    body: Option<Bytes>,
}

impl Replay {
    /// Returns the request that a redirect leads to.
    pub(super) fn redirected(self, hop: Hop) -> Result<AgentRequest, AgentError> {
        let body = match (hop.keeps_body, self.body) {
            (false, _) => Bytes::new(),
            (true, Some(bytes)) => bytes,
            (true, None) => return Err(AgentError::RedirectOfStream { from: shown(&self.url) }),
        };
        let mut fields = self.fields;
        if !hop.is_same_origin {
            fields.retain(|(name, _)| !CREDENTIALS.contains(name));
        }
        if !hop.keeps_body {
            fields.retain(|(name, _)| !ABOUT_THE_BODY.contains(name));
        }
        Ok(AgentRequest {
            method: hop.method,
            url: hop.url,
            fields,
            body: OutgoingBody::Whole(body),
            connect_to: None,
            redirects_max: None,
            timeout: None,
        })
    }
}

impl fmt::Debug for AgentRequest {
    /// Without the query and the values of fields, which may be secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AgentRequest")
            .field("method", &self.method)
            .field("url", &shown(&self.url))
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// Checks that a URL is one that an agent can ask.
pub(super) fn check_url(url: &Url) -> Result<(), AgentError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(AgentError::SchemeUnknown { scheme: url.scheme().to_owned() });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AgentError::UserInUrl { url: shown(url) });
    }
    Ok(())
}

/// Returns the host of a URL, an IPv6 address without brackets.
pub(super) fn host_of(url: &Url) -> String {
    match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
        None => String::new(),
    }
}

/// A response: its head is complete, its body may still be coming.
///
/// Ask for the body with [`IncomingBody::collect`] or [`IncomingBody::send_to`]; dropping it throws the rest
/// away, and with it the connection unless little is left.
#[derive(Debug)]
#[non_exhaustive]
pub struct AgentResponse {
    /// Where it came from in the end.
    pub url: Url,
    /// Status and header fields.
    pub head: ResponseHead,
    /// What comes after them, or nothing.
    pub body: IncomingBody,
}

/// A response with its whole body.
#[derive(Debug)]
#[non_exhaustive]
pub struct FetchedResponse {
    /// Where it came from in the end.
    pub url: Url,
    /// Status and header fields.
    pub head: ResponseHead,
    /// The body.
    pub body: Bytes,
}

/// What no other host than the one that was asked gets to see.
const CREDENTIALS: [HeaderName; 3] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// What says nothing without a body.
const ABOUT_THE_BODY: [HeaderName; 4] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_TYPE,
];
