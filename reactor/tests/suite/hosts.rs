//! Connecting to hosts by name: several addresses, one connection.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::endpoint::{AttemptFailure, ConnectHostError, HostConnector};
use ropewalk::resolver::ResolveError;
use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{
    Address, CancelledError, ConnectOptions, ListeningPort, Protocol, Reactor, Transport,
};

use crate::support::{Diary, Echo, Recorder, read};

const MILLISECOND: Duration = Duration::from_millis(1);
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn listen(clock: &Clock, at: &str, peers: &Diary) -> ListeningPort {
    let peers = Rc::clone(peers);
    let own = at.to_owned();
    let factory = move |_: &Address| {
        peers.borrow_mut().push(own.clone());
        Some(Box::new(Echo) as Box<dyn Protocol>)
    };
    let at: SocketAddr = SocketAddr::new(address(at), 8448);
    clock.reactor().listen_tcp(at, Rc::new(factory), Default::default()).unwrap()
}

/// The error of a connection that was not made.
fn error_of(failed: ropewalk::Deferred<Transport>) -> ConnectHostError {
    let failure = failure_result_of(failed);
    failure.downcast_ref::<ConnectHostError>().unwrap_or_else(|| panic!("{failure}")).clone()
}

#[test]
fn the_first_address_that_answers_gets_the_connection() {
    for (why, silent, listening, delays, expected) in [
        ("the first is fine", "", "::1 192.0.2.1", 0, Some("::1")),
        ("the first refuses", "", "192.0.2.1", 0, Some("192.0.2.1")),
        ("the first is silent", "::1", "192.0.2.1", 1, Some("192.0.2.1")),
        ("only the third answers", "::1 192.0.2.1", "::2", 2, Some("::2")),
        ("the first is silent, the second refuses", "::1", "::2", 1, Some("::2")),
    ] {
        let clock = Clock::new();
        let peers = Diary::default();
        clock.hosts().add("hs.example", ["::1", "::2", "192.0.2.1"].map(address));
        silent.split_whitespace().for_each(|host| clock.silence(address(host)));
        let ports: Vec<_> =
            listening.split_whitespace().map(|host| listen(&clock, host, &peers)).collect();
        let diary = Diary::default();
        let protocol = Box::new(Recorder::new(&diary));
        let connected = clock.reactor().connect_host("hs.example", 8448, protocol);
        clock.pump();
        if delays > 0 {
            clock.advance(ATTEMPT_DELAY * delays - MILLISECOND);
            assert_no_result(&connected);
            clock.advance(MILLISECOND);
        }
        let transport = success_result_of(connected);
        assert_eq!(read(&peers).last().map(String::as_str), expected, "{why}");
        assert_eq!(read(&diary), ["made"], "{why}");
        transport.write(b"hello");
        clock.pump();
        assert_eq!(read(&diary), ["data hello"], "{why}");
        let open = clock.open_connections() - ports.len();
        assert_eq!(open, 2, "{why}: both ends of one connection, and no other is left");
        assert_eq!(clock.pending_calls(), 0, "{why}");
    }
}

#[test]
fn when_all_fail_all_are_reported_with_their_addresses() {
    let clock = Clock::new();
    clock.hosts().add("hs.example", ["10.0.0.1", "192.0.2.1", "192.0.2.2"].map(address));
    clock.silence(address("192.0.2.2"));
    let dropped = Rc::new(());
    let diary = Diary::default();
    struct Owner(Recorder, #[expect(dead_code, reason = "its owners are counted")] Rc<()>);
    impl Protocol for Owner {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            self.0.data_received(transport, data);
        }
    }
    let protocol = Box::new(Owner(Recorder::new(&diary), Rc::clone(&dropped)));
    let seen = Rc::new(RefCell::new(Vec::new()));
    let asked = Rc::clone(&seen);
    let connector = HostConnector::new("hs.example", 8448).permit(move |address| {
        asked.borrow_mut().push(address.to_string());
        address.ip() != IpAddr::from([10, 0, 0, 1])
    });
    let connected = connector.connect(clock.reactor(), protocol);
    clock.advance(Duration::from_secs(30) - MILLISECOND);
    assert_no_result(&connected);
    clock.advance(MILLISECOND);
    let error = error_of(connected);
    assert_eq!(seen.take(), ["10.0.0.1:8448", "192.0.2.1:8448", "192.0.2.2:8448"]);
    assert_eq!(error.time_limit, Some(Duration::from_secs(30)));
    assert!(
        matches!(
            error.attempts[..],
            [
                (_, AttemptFailure::Forbidden),
                (_, AttemptFailure::Connection(_)),
                (_, AttemptFailure::NoAnswer)
            ]
        ),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "cannot connect to hs.example port 8448 within 30 s: \
         10.0.0.1:8448: this program's rules forbid this address; \
         192.0.2.1:8448: connection refused; 192.0.2.2:8448: no answer"
    );
    assert_eq!(Rc::strong_count(&dropped), 1, "the protocol is gone");
    assert_eq!(read(&diary), [""; 0], "and never heard of anything");
    assert_eq!((clock.open_connections(), clock.pending_calls()), (0, 0));
}

#[test]
fn a_forbidden_address_is_never_connected_to_even_if_the_name_is_an_address() {
    let clock = Clock::new();
    let peers = Diary::default();
    let port = listen(&clock, "127.0.0.1", &peers);
    let connector =
        HostConnector::new("127.0.0.1", 8448).permit(|address| !address.ip().is_loopback());
    let error = error_of(connector.connect(clock.reactor(), Box::new(Echo)));
    assert!(matches!(error.attempts[..], [(_, AttemptFailure::Forbidden)]), "{error:?}");
    clock.pump();
    assert_eq!(read(&peers), [""; 0]);
    assert!(port.is_listening());
}

#[test]
fn cancelling_gives_up_whatever_is_under_way() {
    for (why, wait) in [
        ("the look-up", Duration::ZERO),
        ("the first attempt", Duration::from_secs(1)),
        ("both attempts", Duration::from_secs(1) + ATTEMPT_DELAY),
    ] {
        let clock = Clock::new();
        let addresses = ["::1", "192.0.2.1"].map(address);
        addresses.iter().for_each(|&address| clock.silence(address));
        clock.hosts().add_slow("hs.example", Duration::from_secs(1), addresses);
        let connected = clock.reactor().connect_host("hs.example", 8448, Box::new(Echo));
        clock.advance(wait);
        connected.cancel();
        assert!(failure_result_of(connected).is::<CancelledError>(), "{why}");
        clock.pump();
        assert_eq!((clock.open_connections(), clock.pending_calls()), (0, 0), "{why}");
    }
}

#[test]
fn a_name_without_address_and_a_silent_resolver_end_it() {
    let clock = Clock::new();
    let connected = clock.reactor().connect_host("unknown.example", 8448, Box::new(Echo));
    clock.pump();
    assert!(failure_result_of(connected).is::<ResolveError>());

    clock.hosts().add_slow("slow.example", Duration::from_secs(9), [address("::1")]);
    let connector = HostConnector::new("slow.example", 8448).timeout(Duration::from_secs(5));
    let connected = connector.connect(clock.reactor(), Box::new(Echo));
    clock.advance(Duration::from_secs(5));
    let error = error_of(connected);
    assert_eq!(error.to_string(), "cannot connect to slow.example port 8448 within 5 s");
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn this_end_can_be_given_an_address() {
    let reactor = Reactor::new().unwrap();
    let (seen, resolver) = ropewalk::Deferred::new();
    let resolver = RefCell::new(Some(resolver));
    let factory = move |peer: &Address| {
        if let Some(resolver) = resolver.take() {
            resolver.callback(peer.socket_address());
        }
        Some(Box::new(Echo) as Box<dyn Protocol>)
    };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let port = reactor.listen_tcp(any, Rc::new(factory), Default::default()).unwrap();
    let bind_address = Some("127.0.0.2:0".parse().unwrap());
    let options = ConnectOptions { bind_address, ..ConnectOptions::default() };
    let connector = HostConnector::new("localhost", port.local_address().port())
        .options(options)
        .permit(|address| address.is_ipv4());
    let transport = reactor.run_until(connector.connect(&reactor, Box::new(Echo))).unwrap();
    let peer = reactor.run_until(seen).unwrap();
    assert_eq!(peer.map(|peer| peer.ip()), Some(address("127.0.0.2")));
    assert_eq!(transport.local().socket_address(), peer);
    reactor.stop();
    reactor.run().unwrap();
}
