//! Why an agent has no response, beyond what a client of one host may say.

use url::Url;

/// Why a request was not sent, or not followed to its end.
///
/// What goes wrong between two hosts is a [`ClientError`](crate::ClientError) or an error of connecting.
/// URLs are shown without their query, which may hold secrets.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A redirect leads to what is no URL that this agent can ask.
    #[error("{from} redirects to {location:?}, which cannot be followed")]
    RedirectInvalid {
        /// Who said so.
        from: String,
        /// What was said, or its beginning.
        location: String,
        /// What is wrong with it, if it can be read.
        #[source]
        source: Option<Box<AgentError>>,
    },
    /// A redirect leads from HTTPS to HTTP, where everybody could read along.
    #[error(
        "{from} redirects to {to}, which is not encrypted; ask there yourself if that is meant"
    )]
    RedirectInsecure {
        /// Who said so.
        from: String,
        /// Where it leads.
        to: String,
    },
    /// A redirect wants the body sent again, and that was a stream.
    #[error("{from} redirects a request whose streamed body cannot be sent a second time")]
    RedirectOfStream {
        /// Who said so.
        from: String,
    },
    /// Redirects lead on and on.
    #[error(
        "{from} redirects once more after {limit} redirects; the hosts may go round in circles"
    )]
    RedirectsTooMany {
        /// Who said so last.
        from: String,
        /// How many are followed.
        limit: usize,
    },
    /// The scheme is neither `http` nor `https`.
    #[error("cannot ask {scheme:?} URLs, only \"http\" and \"https\"")]
    SchemeUnknown {
        /// The scheme.
        scheme: String,
    },
    /// An `https` URL, and the agent was not told whom to believe.
    #[error("no TLS configuration to ask {url} with; set AgentOptions::tls")]
    TlsMissing {
        /// The URL.
        url: String,
    },
    /// The text is no URL.
    #[error("{text:?} is no URL; it should look like \"https://hs.example/path\"")]
    UrlInvalid {
        /// What was to be read, without a query.
        text: String,
        /// What is wrong with it.
        #[source]
        source: url::ParseError,
    },
    /// The URL holds a user name or a password.
    #[error("{url} has a user name or password in it; send an Authorization field instead")]
    UserInUrl {
        /// The URL, without them.
        url: String,
    },
}

/// Returns a URL as it may stand in a log: without user, password, query and fragment.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // These fail for URLs that cannot have the part; then there is nothing to hide.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// Returns the beginning of a text, without what may be a query.
pub(super) fn shortened(text: &str) -> String {
    text.split(['?', '#']).next().unwrap_or_default().chars().take(SHOWN_CHARS_MAX).collect()
}

/// Enough to recognise a URL by; a hostile one may be kilobytes long.
const SHOWN_CHARS_MAX: usize = 200;
