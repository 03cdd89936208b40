//! TLS: handshakes, bytes, and the ways in which it ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ropewalk::testing::{Clock, failure_result_of, success_result_of};
use ropewalk::{
    Address, ConnectError, ConnectionLost, ListeningPort, Protocol, Reactor, Transport,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::support::{Diary, Echo, OnData, Recorder, note, read};

/// What both ends are configured with: a certificate for `good.example`, and trust in it.
struct Certified {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Certified {
    fn new() -> Certified {
        let names = vec!["good.example".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let certificate = cert.der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Certified { server: Arc::new(server), client: Arc::new(client) }
    }

    fn listen(
        &self,
        reactor: &Reactor,
        build: impl Fn() -> Box<dyn Protocol> + 'static,
    ) -> ListeningPort {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let factory = move |_: &Address| Some(build());
        let config = Arc::clone(&self.server);
        reactor.listen_tls(any, Rc::new(factory), config, Default::default()).unwrap()
    }
}

fn name(name: &'static str) -> ServerName<'static> {
    ServerName::try_from(name).unwrap()
}

/// Collects what comes back, and says so when it is all there.
fn collector(total: usize) -> (Box<dyn Protocol>, ropewalk::Deferred<Vec<u8>>) {
    let (deferred, resolver) = ropewalk::Deferred::new();
    let mut resolver = Some(resolver);
    let mut collected = Vec::new();
    let protocol = OnData(move |transport: &Transport, data: &[u8]| {
        collected.extend_from_slice(data);
        if collected.len() >= total
            && let Some(resolver) = resolver.take()
        {
            transport.lose_connection();
            resolver.callback(std::mem::take(&mut collected));
        }
    });
    (Box::new(protocol), deferred)
}

#[test]
fn bytes_come_back_from_an_echo_server_over_tls_and_tcp() {
    let certified = Certified::new();
    let reactor = Reactor::new().unwrap();
    let port = certified.listen(&reactor, || Box::new(Echo));
    for length in [1, 16_384, 3_000_000] {
        let message: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let (protocol, answer) = collector(length);
        let config = Arc::clone(&certified.client);
        let address = port.local_address();
        let connected = reactor.connect_tls(address, name("good.example"), config, protocol);
        let transport = reactor.run_until(connected).unwrap();
        transport.write(&message);
        assert!(reactor.run_until(answer).unwrap() == message, "{length} bytes, unchanged");
    }
    reactor.stop();
    reactor.run().unwrap();
}

#[test]
fn closing_in_order_is_told_apart_from_being_cut_off() {
    for (is_cut_off, expected) in [
        (
            false,
            ["made", "data last words", "read lost", "lost: the connection was closed cleanly"],
        ),
        (true, ["made", "data last words", "lost: the connection failed", ""]),
    ] {
        let certified = Certified::new();
        let clock = Clock::new();
        let diary = Diary::default();
        let notes = Rc::clone(&diary);
        let port = certified.listen(clock.reactor(), move || Box::new(Recorder::new(&notes)));
        let config = Arc::clone(&certified.client);
        let address = port.local_address();
        let connected =
            clock.reactor().connect_tls(address, name("good.example"), config, Box::new(Echo));
        clock.pump();
        let transport = success_result_of(connected);
        transport.write(b"last words");
        clock.pump();
        if is_cut_off {
            transport.abort_connection();
        } else {
            transport.lose_connection();
        }
        clock.pump();
        let expected: Vec<_> = expected.into_iter().filter(|entry| !entry.is_empty()).collect();
        assert_eq!(read(&diary), expected);
        assert_eq!(clock.open_connections(), 1, "the port");
        assert_eq!(clock.pending_calls(), 0);
    }
}

#[test]
fn half_a_close_leaves_the_other_direction_open() {
    let certified = Certified::new();
    let clock = Clock::new();
    let port = certified.listen(clock.reactor(), || {
        Box::new(OnData(|transport: &Transport, data: &[u8]| {
            transport.write(data);
            transport.write(&[b'.'; 100_000]);
        }))
    });
    let config = Arc::clone(&certified.client);
    let (protocol, answer) = collector(100_004);
    let address = port.local_address();
    let connected = clock.reactor().connect_tls(address, name("good.example"), config, protocol);
    clock.pump();
    let transport = success_result_of(connected);
    transport.write(b"data");
    transport.lose_write_connection();
    clock.pump();
    assert_eq!(success_result_of(answer).len(), 100_004);
    assert_eq!(clock.open_connections(), 1, "the port");
}

#[test]
fn pausing_keeps_decrypted_bytes_back_until_reading_is_resumed() {
    let certified = Certified::new();
    let clock = Clock::new();
    let diary = Diary::default();
    let notes = Rc::clone(&diary);
    let server = Rc::new(std::cell::RefCell::new(None::<Transport>));
    let slot = Rc::clone(&server);
    let port = certified.listen(clock.reactor(), move || {
        let (notes, slot) = (Rc::clone(&notes), Rc::clone(&slot));
        Box::new(OnData(move |transport: &Transport, data: &[u8]| {
            note(&notes, data.len().to_string());
            transport.pause_producing();
            slot.replace(Some(transport.clone()));
        }))
    });
    let config = Arc::clone(&certified.client);
    let address = port.local_address();
    let connected =
        clock.reactor().connect_tls(address, name("good.example"), config, Box::new(Echo));
    clock.pump();
    let transport = success_result_of(connected);
    for _ in 0..3 {
        transport.write(&[1; 16_384]);
        clock.pump();
    }
    assert_eq!(read(&diary), ["16384"]);
    for _ in 0..2 {
        let transport = server.borrow().clone().unwrap();
        transport.resume_producing();
        clock.pump();
    }
    assert_eq!(read(&diary), ["16384", "16384"]);
}

#[test]
fn a_server_with_another_name_is_refused() {
    let certified = Certified::new();
    let clock = Clock::new();
    let diary = Diary::default();
    let notes = Rc::clone(&diary);
    let port = certified.listen(clock.reactor(), move || Box::new(Recorder::new(&notes)));
    let config = Arc::clone(&certified.client);
    let protocol = Box::new(Recorder::new(&diary));
    let address = port.local_address();
    let connected = clock.reactor().connect_tls(address, name("evil.example"), config, protocol);
    clock.pump();
    let failure = failure_result_of(connected);
    let source = &failure.downcast_ref::<ConnectError>().unwrap().source;
    assert!(matches!(source, ConnectionLost::Tls(_)), "{source:?}");
    let heard = read(&diary);
    assert!(heard.iter().all(|entry| !entry.starts_with("data")), "{heard:?}");
    assert_eq!(clock.open_connections(), 1, "the port");
}

#[test]
fn a_peer_that_speaks_no_tls_or_nothing_at_all_is_cut_off() {
    for opening in [&b"GET / HTTP/1.1\r\n\r\n"[..], b""] {
        let certified = Certified::new();
        let clock = Clock::new();
        let diary = Diary::default();
        let notes = Rc::clone(&diary);
        let port = certified.listen(clock.reactor(), move || Box::new(Recorder::new(&notes)));
        let connected = clock.reactor().connect_tcp(port.local_address(), Box::new(Echo));
        clock.pump();
        let transport = success_result_of(connected);
        transport.write(opening);
        clock.pump();
        if opening.is_empty() {
            clock.advance(Duration::from_secs(9));
            assert!(transport.is_connected());
            clock.advance(Duration::from_secs(1));
        }
        assert!(!transport.is_connected());
        assert_eq!(read(&diary), [""; 0], "the protocol has never heard of it");
        assert_eq!(clock.open_connections(), 1, "the port");
    }
}
