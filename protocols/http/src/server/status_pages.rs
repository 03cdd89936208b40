//! [`StatusPages`]: what a reactor tells of itself, as web pages.

use http::{HeaderValue, Method, StatusCode, header};
use ropewalk::Reactor;

use super::reply::{Reply, Response};
use super::{Handler, Request};

/// Pages about a reactor, for those who run the program: they name log contexts and addresses, so keep them from
/// everybody else, for instance on a port of their own that listens on loopback.
///
/// Below the path that they are mounted at there are
///
/// | page | what |
/// |---|---|
/// | nothing or `/` | everything that is pending ([`Reactor::inspect`]), for a browser |
/// | `/text` | the same as text, for `curl` |
/// | `/metrics` | numbers ([`Reactor::metrics`]), for Prometheus |
///
/// ```
/// use ropewalk::Reactor;
/// use ropewalk_http::{Reply, Request, Response, StatusPages};
///
/// # fn main() -> std::io::Result<()> {
/// let reactor = Reactor::new()?;
/// let status = StatusPages::new(&reactor, "/status");
/// let handler = move |request: Request| -> Reply {
///     if let Some(page) = status.page(&request) {
///         return page.into();
///     }
///     Response::text(http::StatusCode::NOT_FOUND, "no such page\n").into()
/// };
/// # let _: &dyn ropewalk_http::Handler = &handler;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StatusPages {
    reactor: Reactor,
    mounted_at: Box<str>,
}

impl StatusPages {
    /// Makes the pages, below a path such as `/status`; an empty one makes them a whole site.
    pub fn new(reactor: &Reactor, mounted_at: &str) -> Self {
        let mounted_at = mounted_at.trim_end_matches('/').into();
        StatusPages { reactor: reactor.clone(), mounted_at }
    }

    /// Returns the page that a request asks for, `None` if its path is none of these.
    pub fn page(&self, request: &Request) -> Option<Response> {
        let page = request.head.path().strip_prefix(&*self.mounted_at)?;
        let (kind, body) = match page {
            "" | "/" => ("text/html; charset=utf-8", self.reactor.inspect().to_html()),
            "/text" => ("text/plain; charset=utf-8", self.reactor.inspect().to_string()),
            "/metrics" => (METRICS_TYPE, self.metrics()),
            _ => return None,
        };
        if !matches!(*request.head.method(), Method::GET | Method::HEAD) {
            let refusal =
                Response::text(StatusCode::METHOD_NOT_ALLOWED, "these pages are only read\n");
            return Some(refusal.header(header::ALLOW, HeaderValue::from_static("GET, HEAD")));
        }
        let response = Response::new(StatusCode::OK)
            .header(header::CONTENT_TYPE, HeaderValue::from_static(kind))
            .header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .with_body(body);
        Some(response)
    }

    fn metrics(&self) -> String {
        let mut page = String::new();
        // Strings take everything.
        let _ = self.reactor.metrics().write(&mut page);
        page.push_str("# EOF\n");
        page
    }
}

impl Handler for StatusPages {
    fn handle(&self, request: Request) -> Reply {
        let missing = || Response::text(StatusCode::NOT_FOUND, "no such page\n");
        self.page(&request).unwrap_or_else(missing).into()
    }
}

/// The OpenMetrics format, which Prometheus asks for first.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
