//! The agent: names, redirects, refused addresses, TLS, and one bound for all hosts.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use ropewalk::endpoint::ConnectHostError;
use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::tls::rustls::ServerConfig;
use ropewalk::tls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use ropewalk::tls::{ClientTls, Identities, Identity, ServerTls, SpkiPin};
use ropewalk::{Deferred, ListenOptions, TimeoutError};
use ropewalk_http::{
    AddressGuard, Agent, AgentError, AgentOptions, AgentRequest, AgentResponse, BodyError,
    ClientError, ClientOptions, HttpFactory, Limits, Reply, Request, Response,
};

use crate::support::SECOND;

/// Hosts on a clock, and what they were asked.
struct Hosts {
    clock: Clock,
    asked: Rc<RefCell<Vec<String>>>,
    held: Rc<RefCell<Vec<ropewalk::Resolver<Response>>>>,
}

impl Hosts {
    fn new() -> Hosts {
        Hosts { clock: Clock::new(), asked: Rc::default(), held: Rc::default() }
    }

    /// Adds a host that answers as `answer` says, at an address of its own.
    fn add(
        &self,
        name: &str,
        address: &str,
        answer: impl Fn(&Request) -> Option<Response> + 'static,
    ) {
        self.listen(name, address, 80, None, answer);
    }

    fn listen(
        &self,
        name: &str,
        address: &str,
        port: u16,
        tls: Option<std::sync::Arc<ServerConfig>>,
        answer: impl Fn(&Request) -> Option<Response> + 'static,
    ) {
        let (asked, held) = (Rc::clone(&self.asked), Rc::clone(&self.held));
        let handler = move |request: Request| {
            let head = &request.head;
            asked.borrow_mut().push(format!(
                "{} {}{} auth={} body={}",
                head.method(),
                head.header_text("host").unwrap_or_default(),
                head.target(),
                head.header_text("authorization").unwrap_or("-"),
                head.header_text("content-length").unwrap_or("-"),
            ));
            match answer(&request) {
                Some(response) => Reply::Now(response),
                None => {
                    let (deferred, resolver) = Deferred::new();
                    held.borrow_mut().push(resolver);
                    Reply::Later(deferred)
                }
            }
        };
        let reactor = self.clock.reactor();
        let factory = Rc::new(HttpFactory::new(reactor, Rc::new(handler), Limits::default()));
        let ip: IpAddr = address.parse().unwrap();
        self.clock.hosts().add(name, [ip]);
        let at = SocketAddr::new(ip, port);
        match tls {
            None => reactor.listen_tcp(at, factory, ListenOptions::default()).unwrap(),
            Some(tls) => reactor.listen_tls(at, factory, tls, ListenOptions::default()).unwrap(),
        };
    }

    fn agent(&self, options: AgentOptions) -> Agent {
        Agent::new(self.clock.reactor(), options)
    }

    fn ask(&self, agent: &Agent, request: AgentRequest) -> Deferred<AgentResponse> {
        let response = agent.request(request);
        self.clock.pump();
        response
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }

    fn answer_oldest(&self) {
        let resolver = self.held.borrow_mut().remove(0);
        resolver.callback(Response::text(StatusCode::OK, "late"));
        self.clock.pump();
    }
}

fn get(url: &str) -> AgentRequest {
    AgentRequest::get(url).unwrap()
}

fn redirect(status: u16, location: &str) -> Option<Response> {
    let location = HeaderValue::from_str(location).unwrap();
    let status = StatusCode::from_u16(status).unwrap();
    Some(Response::new(status).header(header::LOCATION, location))
}

fn ok(_: &Request) -> Option<Response> {
    Some(Response::text(StatusCode::OK, "ok"))
}

fn following(count: usize) -> AgentOptions {
    AgentOptions { redirects_max: count, ..AgentOptions::default() }
}

#[test]
fn hosts_are_asked_by_name_and_connections_kept_for_each() {
    let hosts = Hosts::new();
    hosts.add("a.example", "192.0.2.1", ok);
    hosts.add("b.example", "192.0.2.2", ok);
    let agent = hosts.agent(AgentOptions::default());
    for url in ["http://a.example/1", "http://B.example/2?x=y#part", "http://a.example:80/3"] {
        let fetched = agent.fetch(get(url), 100);
        hosts.clock.pump();
        assert_eq!(success_result_of(fetched).body, "ok");
    }
    assert_eq!(
        hosts.asked(),
        [
            "GET a.example/1 auth=- body=-",
            "GET b.example/2?x=y auth=- body=-",
            "GET a.example/3 auth=- body=-",
        ]
    );
    assert_eq!(agent.connection_count(), 2);
}

#[test]
fn urls_that_cannot_be_asked_are_refused_before_anything_is_sent() {
    for (why, url, words) in [
        ("no scheme", "a.example/x?token=1", "\"a.example/x\" is no URL"),
        ("another scheme", "ftp://a.example/", "cannot ask \"ftp\" URLs"),
        ("a password", "http://u:p@a.example/?q", "http://a.example/ has a user name or password"),
        ("no host", "http:///", "is no URL"),
    ] {
        let error = AgentRequest::get(url).unwrap_err().to_string();
        assert!(error.contains(words), "{why}: {error}");
    }
    let hosts = Hosts::new();
    let agent = hosts.agent(AgentOptions::default());
    let response = hosts.ask(&agent, get("https://a.example/?secret"));
    let failure = failure_result_of(response);
    let expected = AgentError::TlsMissing { url: "https://a.example/".to_owned() };
    assert_eq!(failure.downcast_ref(), Some(&expected));
}

#[test]
fn redirects_are_followed_as_far_as_allowed() {
    let hosts = Hosts::new();
    hosts.add("a.example", "192.0.2.1", |request| match request.head.path() {
        "/1" => redirect(302, "/2"),
        "/2" => redirect(308, "http://b.example/3"),
        _ => redirect(301, "/round"),
    });
    hosts.add("b.example", "192.0.2.2", ok);
    let agent = hosts.agent(following(2));
    let put = AgentRequest::new(Method::PUT, "http://a.example/1")
        .unwrap()
        .header(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))
        .with_body("12345");
    let response = success_result_of(hosts.ask(&agent, put));
    assert_eq!(response.url.as_str(), "http://b.example/3");
    assert_eq!(
        hosts.asked(),
        [
            "PUT a.example/1 auth=Bearer x body=5",
            "PUT a.example/2 auth=Bearer x body=5",
            "PUT b.example/3 auth=- body=5",
        ],
        "the credentials stay where they belong"
    );

    let round = failure_result_of(hosts.ask(&agent, get("http://a.example/round")));
    let expected =
        AgentError::RedirectsTooMany { from: "http://a.example/round".to_owned(), limit: 2 };
    assert_eq!(round.downcast_ref(), Some(&expected));
    assert_eq!(hosts.asked().len(), 3, "the first one and two redirects");

    let as_it_is = hosts.ask(&agent, get("http://a.example/1").redirects_max(0));
    assert_eq!(success_result_of(as_it_is).head.status(), StatusCode::FOUND);
}

#[test]
fn a_stream_is_not_sent_twice() {
    let hosts = Hosts::new();
    hosts.add("a.example", "192.0.2.1", |_| redirect(307, "/again"));
    let agent = hosts.agent(following(5));
    let post = AgentRequest::new(Method::POST, "http://a.example/").unwrap();
    let post = post.with_stream(Some(0), |writer| writer.finish());
    let failure = failure_result_of(hosts.ask(&agent, post));
    let expected = AgentError::RedirectOfStream { from: "http://a.example/".to_owned() };
    assert_eq!(failure.downcast_ref(), Some(&expected));
}

#[test]
fn a_redirect_to_a_refused_address_is_not_followed() {
    let hosts = Hosts::new();
    hosts.add("inside.example", "127.0.0.1", ok);
    hosts.add("outside.example", "198.41.0.4", |request| {
        redirect(
            302,
            if request.head.path() == "/name" {
                "http://inside.example/"
            } else {
                "http://127.0.0.1/"
            },
        )
    });
    let guard = AddressGuard::public_only();
    let agent = hosts.agent(AgentOptions { guard, ..following(5) });
    for path in ["name", "address"] {
        let response = hosts.ask(&agent, get(&format!("http://outside.example/{path}")));
        let failure = failure_result_of(response);
        assert!(failure.is::<ConnectHostError>(), "{failure}");
        assert!(failure.to_string().contains("127.0.0.1:80: this program's rules forbid"));
        assert_eq!(hosts.asked().len(), 1, "the inner host hears nothing");
    }
}

#[test]
fn a_name_that_moves_to_a_refused_address_is_refused_at_its_next_connection() {
    let hosts = Hosts::new();
    hosts.add("inside.example", "127.0.0.1", ok);
    hosts.add("rebound.example", "198.41.0.4", |_| Some(Response::text(StatusCode::OK, "ok")));
    let guard = AddressGuard::public_only();
    let idle_timeout = SECOND;
    let limits = Limits { idle_timeout, ..Limits::default() };
    let client = ClientOptions { limits, ..ClientOptions::default() };
    let agent = hosts.agent(AgentOptions { guard, client, ..AgentOptions::default() });
    assert!(
        success_result_of(hosts.ask(&agent, get("http://rebound.example/")))
            .head
            .status()
            .is_success()
    );
    hosts.clock.hosts().add("rebound.example", ["127.0.0.1".parse().unwrap()]);
    hosts.clock.advance(2 * SECOND);
    assert_eq!(agent.connection_count(), 0, "the idle one has been closed");
    let failure = failure_result_of(hosts.ask(&agent, get("http://rebound.example/")));
    assert!(failure.is::<ConnectHostError>(), "{failure}");
}

#[test]
fn all_hosts_share_one_bound_and_are_served_in_order() {
    let hosts = Hosts::new();
    for (name, address) in [("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "192.0.2.3")] {
        hosts.add(name, address, |_| None);
    }
    let agent = hosts.agent(AgentOptions { connections_max: 2, ..AgentOptions::default() });
    let first = hosts.ask(&agent, get("http://a/1"));
    let second = hosts.ask(&agent, get("http://a/2"));
    let third = hosts.ask(&agent, get("http://b/3"));
    let fourth = hosts.ask(&agent, get("http://a/4"));
    let fifth = hosts.ask(&agent, get("http://c/5"));
    assert_eq!(hosts.asked().len(), 2, "two connections, two requests");
    // The connection to a is given up for b, whose request came before a's next one.
    hosts.answer_oldest();
    assert_eq!(hosts.asked(), ["GET b/3 auth=- body=-"]);
    hosts.answer_oldest();
    assert_eq!(hosts.asked(), ["GET a/4 auth=- body=-"], "over the connection that came free");
    assert_eq!(agent.connection_count(), 2);
    hosts.answer_oldest();
    assert_eq!(hosts.asked(), ["GET c/5 auth=- body=-"]);
    hosts.answer_oldest();
    hosts.answer_oldest();
    for answered in [first, second, third, fourth, fifth] {
        assert_eq!(success_result_of(answered).head.status(), StatusCode::OK);
    }
    assert_eq!(agent.connection_count(), 2);
    let sixth = hosts.ask(&agent, get("http://b/6"));
    assert_eq!(hosts.asked(), ["GET b/6 auth=- body=-"], "an idle one made room");
    assert_eq!(agent.connection_count(), 2);
    hosts.answer_oldest();
    success_result_of(sixth);
}

#[test]
fn waiting_for_a_connection_has_its_limit_and_can_be_cancelled() {
    let hosts = Hosts::new();
    hosts.add("a", "192.0.2.1", |_| None);
    hosts.add("b", "192.0.2.2", |_| None);
    let client = ClientOptions { waiting_timeout: 5 * SECOND, ..ClientOptions::default() };
    let agent = hosts.agent(AgentOptions { connections_max: 1, client, ..AgentOptions::default() });
    let served = hosts.ask(&agent, get("http://a/"));
    let late = hosts.ask(&agent, get("http://b/late"));
    let cancelled = hosts.ask(&agent, get("http://b/cancelled"));
    cancelled.cancel();
    hosts.clock.advance(5 * SECOND);
    let expected = ClientError::WaitingTimeout { limit: 5 * SECOND };
    assert_eq!(failure_result_of(late).downcast_ref(), Some(&expected));
    assert!(failure_result_of(cancelled).is::<ropewalk::CancelledError>());
    hosts.answer_oldest();
    success_result_of(served);
    assert_eq!(hosts.asked(), ["GET a/ auth=- body=-"]);
}

#[test]
fn each_phase_has_its_limit_and_so_has_the_whole() {
    let hosts = Hosts::new();
    hosts.add("silent", "192.0.2.1", |_| None);
    let slow = Duration::from_secs(40);
    hosts.clock.hosts().add_slow("slow", slow, ["192.0.2.1".parse().unwrap()]);
    let agent = hosts.agent(AgentOptions::default());

    let looked_up = hosts.ask(&agent, get("http://slow/"));
    hosts.clock.advance(ClientOptions::default().connect_timeout);
    failure_result_of(looked_up);

    let unanswered = hosts.ask(&agent, get("http://silent/"));
    let limit = ClientOptions::default().response_timeout;
    hosts.clock.advance(limit);
    let expected = ClientError::ResponseTimeout { limit };
    assert_eq!(failure_result_of(unanswered).downcast_ref(), Some(&expected));

    let whole = hosts.ask(&agent, get("http://silent/").timeout(3 * SECOND));
    hosts.clock.advance(2 * SECOND);
    assert_no_result(&whole);
    hosts.clock.advance(SECOND);
    assert!(failure_result_of(whole).is::<TimeoutError>());
    hosts.clock.pump();
    assert_eq!(agent.connection_count(), 0, "what is given up is closed");
}

#[test]
fn a_body_over_the_limit_is_not_gathered() {
    let hosts = Hosts::new();
    hosts.add("a", "192.0.2.1", |_| Some(Response::new(StatusCode::OK).with_body(vec![b'x'; 101])));
    let agent = hosts.agent(AgentOptions::default());
    let fetched = agent.fetch(get("http://a/"), 100);
    hosts.clock.pump();
    let expected = BodyError::TooLarge { limit: 100 };
    assert_eq!(failure_result_of(fetched).downcast_ref(), Some(&expected));
}

/// A certificate for these names, and the configuration of a server that shows it.
fn certificate(names: &[&str]) -> (CertificateDer<'static>, std::sync::Arc<ServerConfig>) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    (certificate, std::sync::Arc::new(config))
}

#[test]
fn over_tls_a_host_has_to_prove_its_name_or_its_key() {
    let hosts = Hosts::new();
    let (certificate, config) = certificate(&["a.example", "delegated.example"]);
    hosts.listen("a.example", "192.0.2.1", 443, Some(std::sync::Arc::clone(&config)), ok);
    hosts.listen("b.example", "192.0.2.2", 8448, Some(config), ok);
    let reactor = hosts.clock.reactor();
    let with = |tls: ClientTls| {
        let tls = Some(tls.alpn(["http/1.1"]).config(reactor).unwrap());
        hosts.agent(AgentOptions { tls, ..following(3) })
    };
    let root = || ClientTls::new().root(certificate.clone()).unwrap();

    let agent = with(root());
    assert_eq!(
        success_result_of(hosts.ask(&agent, get("https://a.example/"))).head.status(),
        StatusCode::OK
    );
    let wrong_name = failure_result_of(hosts.ask(&agent, get("https://b.example:8448/")));
    assert!(wrong_name.to_string().contains("TLS"), "{wrong_name}");
    let delegated = get("https://delegated.example/x").connect_to("b.example", 8448);
    assert_eq!(success_result_of(hosts.ask(&agent, delegated)).head.status(), StatusCode::OK);
    assert_eq!(
        hosts.asked(),
        ["GET a.example/ auth=- body=-", "GET delegated.example/x auth=- body=-"]
    );

    let agent = with(ClientTls::new().pin(SpkiPin::of_certificate(&certificate).unwrap()));
    let pinned = hosts.ask(&agent, get("https://b.example:8448/"));
    assert_eq!(success_result_of(pinned).head.status(), StatusCode::OK);
    let agent = with(ClientTls::new().pin(SpkiPin::new([7; 32])));
    let stranger = failure_result_of(hosts.ask(&agent, get("https://b.example:8448/")));
    assert!(stranger.to_string().contains("TLS"), "{stranger}");
    assert_eq!(hosts.asked().len(), 1, "a stranger is told nothing");
}

#[test]
fn a_host_that_asks_who_we_are_is_shown_our_certificate() {
    let hosts = Hosts::new();
    let reactor = hosts.clock.reactor();
    let server = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let client = rcgen::generate_simple_self_signed(["client.example".to_owned()]).unwrap();
    let identity = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
    };
    let tls = ServerTls::new(Identities::new([identity(&server)]).unwrap())
        .require_clients(client.cert.pem().as_bytes())
        .unwrap()
        .alpn(["http/1.1"]);
    hosts.listen("a.example", "192.0.2.1", 443, Some(tls.config(reactor).unwrap()), ok);
    let with = |tls: ClientTls| {
        let tls = tls.root(server.cert.der().clone()).unwrap().alpn(["http/1.1"]);
        let tls = Some(tls.config(reactor).unwrap());
        hosts.agent(AgentOptions { tls, ..AgentOptions::default() })
    };

    let known = with(ClientTls::new().identity(identity(&client)));
    let answered = hosts.ask(&known, get("https://a.example/"));
    assert_eq!(success_result_of(answered).head.status(), StatusCode::OK);
    let unknown = with(ClientTls::new());
    let refused = failure_result_of(hosts.ask(&unknown, get("https://a.example/")));
    assert!(!refused.is::<ropewalk::CancelledError>(), "{refused}");
    assert_eq!(hosts.asked().len(), 1, "who does not say who he is, is not served");
}
