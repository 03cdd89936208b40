//! What a redirect asks for (RFC 9110, section 15.4), decided without sending anything.

use http::{Method, StatusCode};
use url::Url;

use super::error::{AgentError, shortened, shown};
use super::request::check_url;
use crate::head::ResponseHead;

/// The next request that a redirect leads to.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Hop {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Whether the body goes along.
    pub(super) keeps_body: bool,
    /// Whether it is the same scheme, host and port, so that credentials may go along.
    pub(super) is_same_origin: bool,
}

/// Returns where the response says that the answer is, if it redirects.
pub(super) fn location(head: &ResponseHead) -> Option<&[u8]> {
    let redirects = matches!(
        head.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if redirects { head.header("location") } else { None }
}

/// Decides what is to be asked next.
pub(super) fn next_hop(
    method: &Method,
    url: &Url,
    status: StatusCode,
    location: &[u8],
) -> Result<Hop, AgentError> {
    let invalid = |source: Option<AgentError>| AgentError::RedirectInvalid {
        from: shown(url),
        location: shortened(&String::from_utf8_lossy(location)),
        source: source.map(Box::new),
    };
    let text = std::str::from_utf8(location).map_err(|_| invalid(None))?;
    let next = url.join(text).map_err(|source| {
        invalid(Some(AgentError::UrlInvalid { text: shortened(text), source }))
    })?;
    check_url(&next).map_err(|error| invalid(Some(error)))?;
    if url.scheme() == "https" && next.scheme() == "http" {
        return Err(AgentError::RedirectInsecure { from: shown(url), to: shown(&next) });
    }
    // Everybody makes a GET of a POST that is answered with 301 or 302, whatever that once meant.
    let becomes_get = match status {
        StatusCode::SEE_OTHER => *method != Method::HEAD,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *method == Method::POST,
        _ => false,
    };
    Ok(Hop {
        method: if becomes_get { Method::GET } else { method.clone() },
        is_same_origin: url.origin() == next.origin(),
        keeps_body: !becomes_get,
        url: next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_request_is_as_the_status_says() {
        for (method, status, next, keeps_body) in [
            (Method::GET, 301, Method::GET, true),
            (Method::POST, 301, Method::GET, false),
            (Method::PUT, 301, Method::PUT, true),
            (Method::POST, 302, Method::GET, false),
            (Method::DELETE, 302, Method::DELETE, true),
            (Method::PUT, 303, Method::GET, false),
            (Method::HEAD, 303, Method::HEAD, true),
            (Method::POST, 307, Method::POST, true),
            (Method::POST, 308, Method::POST, true),
        ] {
            let url = Url::parse("https://a.example/x").unwrap();
            let status = StatusCode::from_u16(status).unwrap();
            let hop = next_hop(&method, &url, status, b"/y").unwrap();
            assert_eq!((hop.method, hop.keeps_body), (next, keeps_body), "{method} {status}");
        }
    }

    #[test]
    fn locations_are_read_as_browsers_read_them() {
        let hop = |from: &str, location: &str| {
            next_hop(
                &Method::GET,
                &Url::parse(from).unwrap(),
                StatusCode::FOUND,
                location.as_bytes(),
            )
        };
        for (why, from, location, to, is_same_origin) in [
            ("a path", "http://a/x/y?q", "/z", "http://a/z", true),
            ("a relative path", "http://a/x/y?q", "z?r=1", "http://a/x/z?r=1", true),
            ("another port", "http://a/", "http://a:81/", "http://a:81/", false),
            ("the usual port", "http://a/", "http://a:80/b", "http://a/b", true),
            ("without scheme", "https://a/", "//b/c", "https://b/c", false),
            ("to HTTPS", "http://a/", "https://a/", "https://a/", false),
        ] {
            let hop = hop(from, location).unwrap();
            assert_eq!((hop.url.as_str(), hop.is_same_origin), (to, is_same_origin), "{why}");
        }
        for (why, location) in [
            ("a strange scheme", "file:///etc/passwd"),
            ("no host", "http://"),
            ("a user", "http://user@b/"),
        ] {
            let error = hop("http://a/", location).unwrap_err();
            assert!(matches!(error, AgentError::RedirectInvalid { .. }), "{why}: {error}");
        }
        let error = hop("https://a/", "http://a/?token=secret").unwrap_err();
        assert_eq!(
            error.to_string(),
            "https://a/ redirects to http://a/, which is not encrypted; ask there yourself if that is meant"
        );
    }
}
