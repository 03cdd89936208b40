//! TLS: handshakes, bytes, and the ways in which it ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{AsyncReadExt, AsyncWriteExt};
use ropewalk::adapters::{self, AsyncTransport};
use ropewalk::endpoint::HostConnector;
use ropewalk::testing::{Clock, failure_result_of, success_result_of};
use ropewalk::tls::{ClientTls, SpkiPin, TlsError};
use ropewalk::{
    Address, ConnectError, ConnectionLost, ListeningPort, Protocol, Reactor, Transport,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::support::{Diary, Echo, OnData, Recorder, note, read};

/// What both ends are configured with: a certificate for `good.example`, and trust in it.
struct Certified {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    certificate: CertificateDer<'static>,
}

impl Certified {
    fn new() -> Certified {
        let names = vec!["good.example".to_owned()];
        Certified::with_parameters(rcgen::CertificateParams::new(names).unwrap())
    }

    fn with_parameters(parameters: rcgen::CertificateParams) -> Certified {
        let signing_key = rcgen::KeyPair::generate().unwrap();
        let cert = parameters.self_signed(&signing_key).unwrap();
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
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Certified { server: Arc::new(server), client: Arc::new(client), certificate }
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

/// What came of connecting to the server with this client's configuration.
fn connect_with(
    certified: &Certified,
    client: ClientTls,
    host: &'static str,
) -> Result<(), String> {
    let clock = Clock::new();
    let port = certified.listen(clock.reactor(), || Box::new(Echo));
    let config = client.config(clock.reactor()).unwrap();
    let connector = HostConnector::new("127.0.0.1", port.local_address().port())
        .tls(config)
        .server_name(name(host));
    let connected = connector.connect(clock.reactor(), Box::new(Echo));
    clock.pump();
    match connected.into_result().unwrap() {
        Ok(transport) => {
            assert!(transport.is_connected());
            Ok(())
        }
        Err(failure) => Err(failure.to_string()),
    }
}

#[test]
fn a_pinned_key_is_believed_whatever_the_certificate_says() {
    let certified = Certified::new();
    let pin = SpkiPin::of_certificate(&certified.certificate).unwrap();
    let other = SpkiPin::new([7; 32]);
    let root = || ClientTls::new().root(certified.certificate.clone()).unwrap();
    let stranger = || ClientTls::new().root(Certified::new().certificate).unwrap();
    for (why, client, host, expected) in [
        ("the key is pinned", ClientTls::new().pin(pin), "evil.example", None),
        ("so is another", ClientTls::new().pin(other).pin(pin), "evil.example", None),
        ("only another is", ClientTls::new().pin(other), "good.example", Some("is not pinned")),
        ("somebody vouches", root(), "good.example", None),
        ("but for another name", root(), "evil.example", Some("not valid for name")),
        ("nobody vouches", stranger(), "good.example", Some("invalid peer certificate")),
        ("pinned, vouched for", root().pin(pin), "good.example", None),
        ("only vouched for", root().pin(other), "good.example", Some("is not pinned")),
        ("only pinned", stranger().pin(pin), "good.example", Some("invalid peer certificate")),
        ("pinned, another name", root().pin(pin), "evil.example", Some("not valid for name")),
    ] {
        match (connect_with(&certified, client, host), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => assert!(error.contains(expected), "{why}: {error}"),
            (result, _) => panic!("{why}: {result:?}"),
        }
    }
    let clock = Clock::new();
    let nobody = ClientTls::new().config(clock.reactor()).unwrap_err();
    assert!(matches!(nobody, TlsError::NobodyIsTrusted), "{nobody}");
}

#[test]
fn somebody_elses_certificate_is_of_no_use_without_its_key() {
    // A server that shows a copy of the pinned certificate, but signs with a key of its own.
    let pinned = Certified::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let signing_key = provider.key_provider.load_private_key(key).unwrap();
    let thief = rustls::sign::CertifiedKey::new(vec![pinned.certificate.clone()], signing_key);
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(thief)));
    let pin = SpkiPin::of_certificate(&pinned.certificate).unwrap();
    let thief = Certified { server: Arc::new(server), ..pinned };
    let error = connect_with(&thief, ClientTls::new().pin(pin), "good.example").unwrap_err();
    assert!(error.contains("BadSignature"), "{error}");
}

#[test]
fn dates_are_checked_by_the_reactors_clock() {
    let mut parameters = rcgen::CertificateParams::new(vec!["good.example".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2025, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2025, 1, 3);
    let certified = Certified::with_parameters(parameters);
    let clock = Clock::new();
    let port = certified.listen(clock.reactor(), || Box::new(Echo));
    let client = ClientTls::new().root(certified.certificate.clone()).unwrap();
    for (day, expected) in [(0, Ok(())), (1, Ok(())), (2, Err("Expired"))] {
        let address = port.local_address();
        // A new one each day: a session that is resumed is believed for what it was.
        let config = client.config(clock.reactor()).unwrap();
        let connected =
            clock.reactor().connect_tls(address, name("good.example"), config, Box::new(Echo));
        clock.pump();
        match (connected.into_result().unwrap(), expected) {
            (Ok(transport), Ok(())) => transport.abort_connection(),
            (Err(failure), Err(expected)) => {
                let text = format!("{failure:#}").to_lowercase();
                assert!(text.contains(&expected.to_lowercase()), "day {day}: {text}");
            }
            (result, _) => panic!("day {day}: {result:?}"),
        }
        clock.advance(Duration::from_secs(25 * 60 * 60));
    }
}

#[test]
fn an_async_function_serves_tls_as_it_does_tcp() {
    let certified = Certified::new();
    let clock = Clock::new();
    let echo = adapters::factory(clock.reactor(), |stream| async move {
        let (reader, mut writer) = stream.split();
        futures_util::io::copy(reader, &mut writer).await?;
        Ok(writer.close().await?)
    });
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = Arc::clone(&certified.server);
    let port = clock.reactor().listen_tls(any, echo, config, Default::default()).unwrap();
    let (stream, protocol) = AsyncTransport::new();
    let config = Arc::clone(&certified.client);
    let protocol = Box::new(protocol);
    let connected =
        clock.reactor().connect_tls(port.local_address(), name("good.example"), config, protocol);
    let echoed = clock.reactor().spawn(async move {
        // Both wait for the handshake.
        let (mut reader, mut writer) = stream.split();
        let write = async {
            writer.write_all(&[b'x'; 1_000_000]).await?;
            writer.close().await
        };
        let mut echoed = Vec::new();
        let (wrote, read) =
            futures_util::future::join(write, reader.read_to_end(&mut echoed)).await;
        wrote?;
        read?;
        Ok(echoed)
    });
    clock.pump();
    success_result_of(connected);
    assert!(success_result_of(echoed) == [b'x'; 1_000_000], "unchanged");
}

#[test]
fn a_reader_that_pauses_after_every_piece_gets_all_bytes_in_order() {
    let certified = Certified::new();
    let clock = Clock::new();
    let received = Rc::new(std::cell::RefCell::new(Vec::new()));
    let sink = Rc::clone(&received);
    let reactor = clock.reactor().clone();
    let port = certified.listen(clock.reactor(), move || {
        let (sink, reactor) = (Rc::clone(&sink), reactor.clone());
        Box::new(OnData(move |transport: &Transport, data: &[u8]| {
            sink.borrow_mut().extend_from_slice(data);
            transport.pause_producing();
            let transport = transport.clone();
            reactor.call_later(Duration::from_millis(1), move || transport.resume_producing());
        }))
    });
    let config = Arc::clone(&certified.client);
    let address = port.local_address();
    let connected =
        clock.reactor().connect_tls(address, name("good.example"), config, Box::new(Echo));
    clock.pump();
    let transport = success_result_of(connected);
    let message: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
    let mut rest = &message[..];
    for length in [1, 16_384, 100, 16_385, 70_000, usize::MAX] {
        let (piece, left) = rest.split_at(length.min(rest.len()));
        transport.write(piece);
        clock.pump();
        rest = left;
    }
    transport.lose_connection();
    clock.advance(Duration::from_secs(10));
    assert!(*received.borrow() == message, "{} bytes", received.borrow().len());
    assert_eq!(clock.open_connections(), 1, "the port");
}
