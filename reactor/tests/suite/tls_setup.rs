//! Configurations of TLS: who is shown what, who is let in, what is agreed on.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{Clock, success_result_of};
use ropewalk::tls::{Identities, Identity, ServerTls, TlsError, TlsInfo};
use ropewalk::{Address, Deferred, ListenOptions, ListeningPort, Protocol, Reactor, Transport};
use rustls::pki_types::ServerName;

use crate::certificates::Authority;
use crate::support::{Diary, Echo, Recorder, note, read};

/// What the server's protocols saw of TLS when their connections were made.
type Seen = Rc<RefCell<Vec<TlsInfo>>>;

struct Witness(Seen);

impl Protocol for Witness {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.borrow_mut().push(transport.tls().expect("TLS is spoken"));
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

fn listen(reactor: &Reactor, server: &ServerTls) -> (ListeningPort, Seen) {
    let seen = Seen::default();
    let witnessed = Rc::clone(&seen);
    let factory =
        move |_: &Address| Some(Box::new(Witness(Rc::clone(&witnessed))) as Box<dyn Protocol>);
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = server.config(reactor).unwrap();
    let port = reactor.listen_tls(any, Rc::new(factory), config, Default::default()).unwrap();
    (port, seen)
}

/// Connects, and says whom the client met, or why it did not.
fn meet(
    clock: &Clock,
    port: &ListeningPort,
    client: &ropewalk::tls::ClientTls,
    name: &'static str,
) -> Result<(Transport, TlsInfo), String> {
    let config = client.config(clock.reactor()).unwrap();
    let diary = Diary::default();
    let connected = clock.reactor().connect_tls(
        port.local_address(),
        ServerName::try_from(name).unwrap(),
        config,
        Box::new(Recorder::new(&diary)),
    );
    clock.pump();
    match connected.into_result().unwrap() {
        Err(failure) => Err(format!("{failure:#}")),
        Ok(transport) => {
            // In TLS 1.3 the server's verdict on the client comes after the handshake.
            transport.write(b"?");
            clock.pump();
            let heard = read(&diary);
            match transport.tls() {
                Some(info) if heard == ["made", "data ?"] => Ok((transport, info)),
                _ => Err(heard.last().cloned().unwrap_or_default()),
            }
        }
    }
}

#[test]
fn each_name_gets_its_certificate_and_others_the_first() {
    let authority = Authority::new("authority");
    let [one, two, many] = [
        &["one.example"][..],
        &["two.example", "zwei.example"][..],
        &["*.many.example", "two.example"][..],
    ]
    .map(|names| authority.certify(names));
    let identities = Identities::new([one.clone(), two.clone(), many.clone()]).unwrap();
    for (name, expected) in [
        ("one.example", &one),
        ("two.example", &two),
        ("ZWEI.example", &two),
        ("a.many.example", &many),
        ("many.example", &one),
        ("a.b.many.example", &one),
        ("unknown.example", &one),
    ] {
        let found = identities.identity_for(Some(name)).unwrap();
        assert_eq!(found.pin().unwrap(), expected.pin().unwrap(), "{name}");
    }
    let clock = Clock::new();
    let (port, seen) = listen(clock.reactor(), &ServerTls::new(identities));
    for (name, expected) in
        [("two.example", Ok(&two)), ("x.many.example", Ok(&many)), ("no.example", Err("not valid"))]
    {
        match (meet(&clock, &port, &authority.client(), name), expected) {
            (Ok((_, info)), Ok(expected)) => {
                assert_eq!(info.peer_pin().unwrap(), Some(expected.pin().unwrap()));
                assert_eq!(info.server_name.as_deref(), Some(name));
                let seen = seen.borrow_mut().pop().unwrap();
                assert_eq!(seen.server_name.as_deref(), Some(name), "the server knows, too");
            }
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{name}: {error}"),
            (result, _) => panic!("{name}: {:?}", result.map(|(_, info)| info)),
        }
    }
    assert!(matches!(Identities::new([]), Err(TlsError::NoIdentity)));
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_open_ones_go_on() {
    let authority = Authority::new("authority");
    let (old, new) = (authority.certify(&["hs.example"]), authority.certify(&["hs.example"]));
    let identities = Identities::new([old.clone()]).unwrap();
    let clock = Clock::new();
    let (port, seen) = listen(clock.reactor(), &ServerTls::new(identities.clone()));
    let (open, info) = meet(&clock, &port, &authority.client(), "hs.example").unwrap();
    assert_eq!(info.peer_pin().unwrap(), Some(old.pin().unwrap()));
    identities.replace([new.clone()]).unwrap();
    let (_, info) = meet(&clock, &port, &authority.client(), "hs.example").unwrap();
    assert_eq!(info.peer_pin().unwrap(), Some(new.pin().unwrap()));
    assert!(identities.replace([]).is_err(), "nothing is no replacement");
    meet(&clock, &port, &authority.client(), "hs.example").unwrap();
    open.write(b"still there?");
    clock.pump();
    assert!(open.is_connected());
    assert_eq!(seen.borrow().len(), 3);
}

#[test]
fn clients_show_certificates_where_they_have_to_and_may() {
    let servers = Authority::new("servers");
    let clients = Authority::new("clients");
    let server = || servers.server("hs.example");
    let roots = clients.pem.as_bytes();
    let known = servers.client().identity(clients.certify(&["client.example"]));
    let stranger = servers.client().identity(servers.certify(&["client.example"]));
    for (why, server, client, expected) in [
        ("nobody asks", server(), known.clone(), Ok(0)),
        ("required and shown", server().require_clients(roots).unwrap(), known.clone(), Ok(1)),
        ("required, none", server().require_clients(roots).unwrap(), servers.client(), Err("TLS")),
        ("required, another's", server().require_clients(roots).unwrap(), stranger, Err("TLS")),
        ("asked for and shown", server().ask_clients(roots).unwrap(), known, Ok(1)),
        ("asked for, none", server().ask_clients(roots).unwrap(), servers.client(), Ok(0)),
    ] {
        let clock = Clock::new();
        let (port, seen) = listen(clock.reactor(), &server);
        match (meet(&clock, &port, &client, "hs.example"), expected) {
            (Ok(_), Ok(count)) => {
                assert_eq!(seen.borrow()[0].peer_certificates.len(), count, "{why}");
            }
            (Err(error), Err(expected)) => {
                assert!(error.contains(expected), "{why}: {error}");
                assert_eq!(seen.borrow().len(), 0, "{why}: no protocol has heard of it");
            }
            (result, _) => panic!("{why}: {:?}", result.map(|(_, info)| info)),
        }
        assert!(clock.open_connections() <= 3, "{why}");
    }
}

#[test]
fn both_ends_agree_on_a_protocol_or_part() {
    let authority = Authority::new("authority");
    for (why, offered, known, expected) in [
        ("the server prefers", "a b", "b a", Ok(Some("b"))),
        ("one in common", "x b", "a b", Ok(Some("b"))),
        ("the client says nothing", "", "a", Ok(None)),
        ("the server says nothing", "a", "", Ok(None)),
        ("nothing in common", "x", "a", Err("no")),
    ] {
        let clock = Clock::new();
        let server = authority.server("hs.example").alpn(known.split_whitespace());
        let client = authority.client().alpn(offered.split_whitespace());
        let (port, seen) = listen(clock.reactor(), &server);
        match (meet(&clock, &port, &client, "hs.example"), expected) {
            (Ok((_, info)), Ok(expected)) => {
                assert_eq!(info.alpn.as_deref(), expected.map(str::as_bytes), "{why}");
                assert_eq!(seen.borrow()[0].alpn, info.alpn, "{why}");
            }
            (Err(error), Err(_)) => assert!(error.contains("NoApplicationProtocol"), "{error}"),
            (result, _) => panic!("{why}: {:?}", result.map(|(_, info)| info)),
        }
    }
}

#[test]
fn sessions_are_resumed_unless_the_server_says_otherwise() {
    let authority = Authority::new("authority");
    for (server, expected) in [
        (authority.server("hs.example"), [false, true]),
        (authority.server("hs.example").without_resumption(), [false, false]),
    ] {
        let clock = Clock::new();
        let (port, seen) = listen(clock.reactor(), &server);
        let config = authority.client().config(clock.reactor()).unwrap();
        for _ in 0..2 {
            let name = ServerName::try_from("hs.example").unwrap();
            let connected = clock.reactor().connect_tls(
                port.local_address(),
                name,
                std::sync::Arc::clone(&config),
                Box::new(Echo),
            );
            clock.pump();
            success_result_of(connected).lose_connection();
            clock.pump();
        }
        let resumed: Vec<_> = seen.borrow().iter().map(|info| info.is_resumed).collect();
        assert_eq!(resumed, expected);
    }
}

#[test]
fn what_is_no_certificate_or_key_says_so() {
    let authority = Authority::new("authority");
    let (certificate, key) = authority.certify_pem(&["hs.example"]);
    let (_, others_key) = authority.certify_pem(&["hs.example"]);
    for (why, certificate, key, expected) in [
        ("nothing", "", key.as_str(), "there is no certificate in it"),
        ("no key", &certificate, "", "there is no private key in it"),
        ("the key where the certificate is", &key, &key, "there is no certificate in it"),
        ("another's key", &certificate, &others_key, "cannot use the certificate with the key"),
        ("half a certificate", &certificate[..99], &key, "cannot read PEM"),
    ] {
        let error = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect_err(why);
        assert!(error.to_string().contains(expected), "{why}: {error}");
    }
    let both = format!("{certificate}{key}");
    Identity::from_pem(both.as_bytes(), both.as_bytes()).expect("both in one text");
    let printed = format!("{:?}", authority.certify(&["hs.example"]));
    assert!(printed.starts_with("Identity { pin: Some(SpkiPin("), "{printed}");
}

#[test]
fn a_port_gives_its_clients_the_time_that_it_says_for_their_handshakes() {
    let authority = Authority::new("authority");
    let clock = Clock::new();
    let config = authority.server("hs.example").config(clock.reactor()).unwrap();
    let factory = |_: &Address| Some(Box::new(Echo) as Box<dyn Protocol>);
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let options =
        ListenOptions { handshake_limit: Duration::from_secs(3), ..ListenOptions::default() };
    let port = clock.reactor().listen_tls(any, Rc::new(factory), config, options).unwrap();
    let connected = clock.reactor().connect_tcp(port.local_address(), Box::new(Echo));
    clock.pump();
    let transport = success_result_of(connected);
    clock.advance(Duration::from_millis(2_999));
    assert!(transport.is_connected());
    clock.advance(Duration::from_millis(1));
    assert!(!transport.is_connected());
}

/// Asks for TLS, begins it, and says what it was told then. The server's end.
struct Submission {
    config: std::sync::Arc<rustls::ServerConfig>,
    diary: Diary,
}

impl Protocol for Submission {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b"220 hello\r\n");
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        note(&self.diary, String::from_utf8_lossy(data));
        if data == b"STARTTLS\r\n" {
            transport.write(&[b'.'; 200_000]);
            transport.write(b"220 go ahead\r\n");
            let diary = Rc::clone(&self.diary);
            let secured = transport.clone();
            transport
                .start_tls_server(std::sync::Arc::clone(&self.config))
                .add_both(move |result| {
                    let state = if secured.tls().is_some() { "secured" } else { "not secured" };
                    note(&diary, format!("{state}: {:?}", result.map_err(|f| f.to_string())));
                    Ok(())
                })
                .detach();
            // Encrypted, although the handshake has not begun.
            transport.write(b"250 welcome\r\n");
        }
    }

    fn connection_lost(&mut self, reason: ropewalk::ConnectionLost) {
        note(&self.diary, format!("lost: {reason}"));
    }
}

/// The client's end: begins TLS when it is told to.
struct Submitter {
    config: std::sync::Arc<rustls::ClientConfig>,
    received: Vec<u8>,
    started: Option<ropewalk::Resolver<Deferred<()>>>,
    done: Option<ropewalk::Resolver<usize>>,
}

impl Protocol for Submitter {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let was_greeted = !self.received.is_empty();
        self.received.extend_from_slice(data);
        if !was_greeted {
            transport.write(b"STARTTLS\r\n");
        } else if self.received.ends_with(b"220 go ahead\r\n")
            && let Some(started) = self.started.take()
        {
            let name = ServerName::try_from("hs.example").unwrap();
            let config = std::sync::Arc::clone(&self.config);
            started.callback(transport.start_tls_client(name, config));
            transport.write(b"QUIT\r\n");
        } else if self.received.ends_with(b"250 welcome\r\n")
            && let Some(done) = self.done.take()
        {
            done.callback(self.received.len());
        }
    }
}

fn submit(reactor: &Reactor, names: [&str; 1]) -> (Deferred<usize>, Deferred<Deferred<()>>, Diary) {
    let authority = Authority::new("authority");
    let server = authority.server(names[0]).config(reactor).unwrap();
    let diary = Diary::default();
    let notes = Rc::clone(&diary);
    let factory = move |_: &Address| {
        let config = std::sync::Arc::clone(&server);
        Some(Box::new(Submission { config, diary: Rc::clone(&notes) }) as Box<dyn Protocol>)
    };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let port = reactor.listen_tcp(any, Rc::new(factory), Default::default()).unwrap();
    let (done, done_resolver) = Deferred::new();
    let (started, started_resolver) = Deferred::new();
    let protocol = Submitter {
        config: authority.client().config(reactor).unwrap(),
        received: Vec::new(),
        started: Some(started_resolver),
        done: Some(done_resolver),
    };
    reactor.connect_tcp(port.local_address(), Box::new(protocol)).detach();
    (done, started, diary)
}

/// Both ends' bytes: the greeting, the filling, the word to go ahead, the welcome.
const ALL_BYTES: usize = 11 + 200_000 + 14 + 13;

#[test]
fn tls_can_begin_in_mid_connection() {
    let clock = Clock::new();
    let (done, started, diary) = submit(clock.reactor(), ["hs.example"]);
    clock.pump();
    success_result_of(success_result_of(started));
    assert_eq!(success_result_of(done), ALL_BYTES);
    assert_eq!(read(&diary), ["STARTTLS\r\n", "secured: Ok(())", "QUIT\r\n"]);

    let reactor = Reactor::new().unwrap();
    let (done, started, _) = submit(&reactor, ["hs.example"]);
    let started = reactor.run_until(started).unwrap();
    reactor.run_until(started).unwrap();
    assert_eq!(reactor.run_until(done).unwrap(), ALL_BYTES);
    reactor.stop();
    reactor.run().unwrap();
}

#[test]
fn tls_that_cannot_begin_says_so_to_both() {
    let clock = Clock::new();
    let (_done, started, diary) = submit(clock.reactor(), ["evil.example"]);
    clock.pump();
    let failure = ropewalk::testing::failure_result_of(success_result_of(started));
    assert!(format!("{failure:#}").contains("not valid for name"), "{failure:#}");
    let heard = read(&diary);
    assert!(heard[1].starts_with("not secured: Err(\"TLS failed\")"), "{heard:?}");
    assert_eq!(heard[2], "lost: TLS failed");
}

#[test]
fn tls_begins_once_and_only_on_a_connection_that_stands() {
    let authority = Authority::new("authority");
    let clock = Clock::new();
    let config = authority.server("hs.example").config(clock.reactor()).unwrap();
    let diary = Diary::default();
    let protocol = Recorder::new(&diary);
    let connection = ropewalk::testing::MemoryTransport::connect(&clock, protocol);
    let transport = connection.transport();
    let first = transport.start_tls_server(std::sync::Arc::clone(&config));
    let second = transport.start_tls_server(std::sync::Arc::clone(&config));
    let failure = ropewalk::testing::failure_result_of(second);
    assert_eq!(failure.to_string(), "TLS is spoken on this connection already");
    clock.advance(Duration::from_secs(10));
    let failure = ropewalk::testing::failure_result_of(first);
    assert!(failure.is::<ropewalk::ConnectionLost>(), "a peer that says nothing: {failure}");
    let third = transport.start_tls_server(config);
    let failure = ropewalk::testing::failure_result_of(third);
    assert!(failure.to_string().contains("does not stand"), "{failure}");
    assert_eq!(read(&diary), ["made", "lost: the connection failed"]);
    assert_eq!(transport.tls(), None);
}

#[test]
fn bytes_that_end_before_tls_does_are_told_from_bytes_that_are_complete() {
    // The far end speaks TLS by hand, and may leave out its last word.
    let authority = Authority::new("authority");
    for (says_so, expected) in
        [(true, "read lost"), (false, "lost: the peer ended the connection, but not its TLS")]
    {
        let clock = Clock::new();
        let diary = Diary::default();
        let protocol = Recorder::new(&diary);
        let connection = ropewalk::testing::MemoryTransport::connect(&clock, protocol);
        let server = authority.server("hs.example").config(clock.reactor()).unwrap();
        let started = connection.transport().start_tls_server(server);
        let name = ServerName::try_from("hs.example").unwrap();
        let config = authority.client().config(clock.reactor()).unwrap();
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        for _ in 0..3 {
            let mut sent = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            connection.deliver(&sent);
            let received = connection.take_written();
            client.read_tls(&mut &received[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        success_result_of(started);
        std::io::Write::write_all(&mut client.writer(), b"first half").unwrap();
        if says_so {
            client.send_close_notify();
        }
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent).unwrap();
        }
        connection.deliver(&sent);
        connection.finish();
        let heard = read(&diary);
        assert_eq!(heard[..2], ["made", "data first half"]);
        assert!(heard[2].starts_with(expected), "{heard:?}");
    }
}
