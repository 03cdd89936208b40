//! The pages that a reactor has about itself.

use std::rc::Rc;
use std::time::Duration;

use http::{Method, StatusCode};
use ropewalk::testing::{Clock, success_result_of};
use ropewalk::{ListenOptions, LogContext};
use ropewalk_http::{ClientRequest, HttpFactory, Limits, StatusPages, request};

/// Asks for a page; returns its status, type and text.
fn ask(
    clock: &Clock,
    mounted_at: &str,
    method: Method,
    path: &str,
) -> (StatusCode, String, String) {
    let reactor = clock.reactor();
    let pages = Rc::new(StatusPages::new(reactor, mounted_at));
    let factory = Rc::new(HttpFactory::new(reactor, pages, Limits::default()));
    let any = "127.0.0.1:0".parse().unwrap();
    let port = reactor.listen_tcp(any, factory, ListenOptions::default()).unwrap();
    let asked = ClientRequest::new(method, "h", path).unwrap();
    let answered = request(reactor, port.local_address(), asked);
    clock.pump();
    let response = success_result_of(answered);
    let kind = response.head.header_text("content-type").unwrap_or_default().to_owned();
    let status = response.head.status();
    let body = response.body.collect(1 << 20);
    clock.pump();
    (status, kind, String::from_utf8(success_result_of(body).to_vec()).unwrap())
}

#[test]
fn each_page_is_where_it_is_mounted() {
    let clock = Clock::new();
    LogContext::new("tea").run(|| clock.reactor().call_later(Duration::from_secs(180), || ()));
    for (mounted_at, path, status, kind, words) in [
        ("/status", "/status", 200, "text/html; charset=utf-8", "<td>tea</td>"),
        ("/status", "/status/", 200, "text/html; charset=utf-8", "<td>tea</td>"),
        ("", "/", 200, "text/html; charset=utf-8", "<td>tea</td>"),
        ("/status", "/status/text", 200, "text/plain; charset=utf-8", "Delayed calls ("),
        (
            "/status",
            "/status/metrics",
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "ropewalk_connections 2\n",
        ),
        ("/status", "/statusx", 404, "text/plain; charset=utf-8", "no such page"),
        ("/status", "/status/secret", 404, "text/plain; charset=utf-8", "no such page"),
    ] {
        let (found_status, found_kind, text) = ask(&clock, mounted_at, Method::GET, path);
        assert_eq!((found_status.as_u16(), &*found_kind), (status, kind), "{path}");
        assert!(text.contains(words), "{path}: {text}");
        clock.advance(Duration::from_millis(1));
    }
}

#[test]
fn the_pages_are_only_read() {
    let clock = Clock::new();
    let (status, _, _) = ask(&clock, "/status", Method::POST, "/status/metrics");
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}
