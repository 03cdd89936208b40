//! Datagrams: in memory, where each case is certain, and over the system's sockets.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use ropewalk::testing::Clock;
use ropewalk::udp::{
    DATAGRAM_BYTES_MAX, DatagramProtocol, Interface, SendDatagramError, UdpOptions, UdpPort,
};
use ropewalk::{Deferred, LogContext, Reactor, Resolver};

use crate::support::{Diary, note, read};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Notes what happens in which context; fires with the first datagram.
struct Recorder(Diary, Option<Resolver<String>>);

impl Recorder {
    fn new(diary: &Diary) -> Box<Recorder> {
        Box::new(Recorder(Rc::clone(diary), None))
    }
}

impl DatagramProtocol for Recorder {
    fn start_protocol(&mut self, _: &UdpPort) {
        note(&self.0, "start");
    }

    fn datagram_received(&mut self, _: &UdpPort, data: &[u8], _: SocketAddr) {
        let text = String::from_utf8_lossy(data).into_owned();
        note(&self.0, text.clone());
        if let Some(resolver) = self.1.take() {
            resolver.callback(text);
        }
    }

    fn connection_refused(&mut self, _: &UdpPort) {
        note(&self.0, "refused");
        if let Some(resolver) = self.1.take() {
            resolver.callback("refused".to_owned());
        }
    }

    fn stop_protocol(&mut self) {
        note(&self.0, "stop");
    }
}

struct Echo;

impl DatagramProtocol for Echo {
    fn datagram_received(&mut self, port: &UdpPort, data: &[u8], from: SocketAddr) {
        port.write(data, from).unwrap();
    }
}

fn open(reactor: &Reactor, protocol: Box<dyn DatagramProtocol>) -> UdpPort {
    reactor.listen_udp(ANY, protocol, &UdpOptions::default()).unwrap()
}

#[test]
fn datagrams_come_back_whole_and_apart() {
    let clock = Clock::new();
    let diary = Diary::default();
    let echo = open(clock.reactor(), Box::new(Echo));
    let asker = open(clock.reactor(), Recorder::new(&diary));
    for text in ["one", "", "three"] {
        asker.write(text.as_bytes(), echo.local_address()).unwrap();
    }
    clock.pump();
    assert_eq!(read(&diary), ["start", "one", "", "three"]);
    asker.stop_listening();
    assert!(!asker.is_listening());
    assert_eq!(read(&diary), [""; 0], "told after the caller has returned");
    clock.pump();
    assert_eq!(read(&diary), ["stop"]);
    assert!(matches!(asker.write(b"x", ANY), Err(SendDatagramError::Closed)));
    assert!(asker.connect(ANY).is_err());
    echo.stop_listening();
    clock.pump();
    assert_eq!(clock.open_connections(), 0);
}

#[test]
fn a_connected_port_hears_its_peer_only_and_of_its_absence() {
    let clock = Clock::new();
    let diary = Diary::default();
    let peer = open(clock.reactor(), Box::new(Echo));
    let stranger = open(clock.reactor(), Box::new(Echo));
    let port = open(clock.reactor(), Recorder::new(&diary));
    assert!(matches!(port.write_to_peer(b"whom?"), Err(SendDatagramError::Io(_))));
    port.connect(peer.local_address()).unwrap();
    stranger.write(b"psst", port.local_address()).unwrap();
    port.write_to_peer(b"hello").unwrap();
    clock.pump();
    assert_eq!(read(&diary), ["start", "hello"]);
    peer.stop_listening();
    port.write_to_peer(b"still there?").unwrap();
    clock.pump();
    assert_eq!(read(&diary), ["refused"]);
    assert!(port.is_listening());
}

#[test]
fn what_is_too_long_or_too_much_is_refused_or_lost() {
    let clock = Clock::new();
    let diary = Diary::default();
    let port = open(clock.reactor(), Recorder::new(&diary));
    let long = vec![0; DATAGRAM_BYTES_MAX + 1];
    let error = port.write(&long, port.local_address()).unwrap_err();
    assert!(error.to_string().contains("65508 bytes is too long; one of 65507"), "{error}");
    for _ in 0..10 {
        port.write(&long[1..], port.local_address()).unwrap();
    }
    clock.pump();
    assert_eq!(read(&diary).len(), 4, "a start, and what there is room for at a time");
}

#[test]
fn groups_reach_all_their_members() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let group: IpAddr = "239.1.2.3".parse().unwrap();
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9999));
    let options = UdpOptions { share_address: true, ..UdpOptions::default() };
    let diaries = [(); 3].map(|()| Diary::default());
    let ports: Vec<UdpPort> = diaries
        .iter()
        .map(|diary| reactor.listen_udp(at, Recorder::new(diary), &options).unwrap())
        .collect();
    for port in &ports[1..] {
        port.join_group(group, Interface::Any).unwrap();
    }
    let sender = open(reactor, Box::new(Echo));
    sender.write(b"all", SocketAddr::new(group, 9999)).unwrap();
    clock.pump();
    assert_eq!(diaries.each_ref().map(|diary| read(diary).len()), [1, 2, 2]);
    ports[1].leave_group(group, Interface::Any).unwrap();
    assert!(ports[1].leave_group(group, Interface::Any).is_err());
    ports[2].set_multicast_loopback(false).unwrap();
    ports[2].write(b"others", SocketAddr::new(group, 9999)).unwrap();
    clock.pump();
    assert_eq!(diaries.each_ref().map(|diary| read(diary).len()), [0, 0, 0]);
    assert!(ports[0].join_group("192.0.2.1".parse().unwrap(), Interface::Any).is_err());
    let by_address = Interface::Address(Ipv4Addr::LOCALHOST);
    assert!(ports[0].join_group("ff02::1".parse().unwrap(), by_address).is_err());
}

#[test]
fn a_protocol_that_panics_loses_its_port() {
    struct Fragile(Diary);

    impl DatagramProtocol for Fragile {
        fn datagram_received(&mut self, _: &UdpPort, _: &[u8], _: SocketAddr) {
            panic!("too much for me");
        }

        fn stop_protocol(&mut self) {
            note(&self.0, format!("stopped in {}", LogContext::current().name()));
        }
    }

    let clock = Clock::new();
    let diary = Diary::default();
    let port = open(clock.reactor(), Box::new(Fragile(Rc::clone(&diary))));
    port.write(b"boo", port.local_address()).unwrap();
    port.write(b"boo", port.local_address()).unwrap();
    clock.pump();
    assert!(!port.is_listening());
    let number = port.local_address().port();
    assert_eq!(read(&diary), [format!("stopped in udp-{number}")]);
    assert_eq!(clock.open_connections(), 0);
}

#[test]
fn the_reactors_end_is_told() {
    let diary = Diary::default();
    let clock = Clock::new();
    open(clock.reactor(), Recorder::new(&diary));
    drop(clock);
    assert_eq!(*diary.borrow().last().unwrap(), "stop");
}

type Action = fn(&UdpPort);

/// What is done with a port; all its methods are among these.
const ACTIONS: [(&str, Action); 9] = [
    ("write", |port| drop(port.write(b"x", port.local_address()))),
    ("write much", |port| {
        for _ in 0..100 {
            let _ = port.write(&[7; 60_000], port.local_address());
        }
    }),
    ("write_to_peer", |port| drop(port.write_to_peer(b"x"))),
    ("connect", |port| port.connect(([127, 0, 0, 1], 9).into()).unwrap()),
    ("connect and write", |port| {
        let _ = port.connect(([127, 0, 0, 1], 9).into());
        let _ = port.write_to_peer(b"x");
    }),
    ("groups", |port| {
        let group = "239.1.2.3".parse().unwrap();
        let _ = port.join_group(group, Interface::Any);
        let _ = port.leave_group(group, Interface::Any);
    }),
    ("multicast options", |port| {
        let _ = port.set_multicast_ttl(2);
        let _ = port.set_multicast_loopback(false);
        let _ = port.set_multicast_interface(Interface::Any);
    }),
    ("stop", UdpPort::stop_listening),
    ("ask", |port| {
        let _ = (port.is_listening(), port.queued_bytes(), format!("{port:?}"));
    }),
];

#[test]
fn every_method_works_from_inside_every_method() {
    struct Prodder {
        method: usize,
        action: Action,
        counts: Rc<RefCell<[usize; 4]>>,
        port: Option<UdpPort>,
    }

    impl Prodder {
        fn called(&mut self, method: usize) {
            let mut counts = self.counts.try_borrow_mut().expect("the reactor's calls do not nest");
            counts[method] += 1;
            // The first few times: what writes from inside its own receiving would go on for ever.
            if self.method == method
                && counts[method] <= 2
                && let Some(port) = &self.port
            {
                (self.action)(port);
            }
        }
    }

    impl DatagramProtocol for Prodder {
        fn start_protocol(&mut self, port: &UdpPort) {
            self.port = Some(port.clone());
            self.called(0);
        }

        fn datagram_received(&mut self, _: &UdpPort, _: &[u8], _: SocketAddr) {
            self.called(1);
        }

        fn connection_refused(&mut self, _: &UdpPort) {
            self.called(2);
        }

        fn stop_protocol(&mut self) {
            self.called(3);
        }
    }

    for method in 0..4 {
        for (name, action) in ACTIONS {
            let clock = Clock::new();
            let counts: Rc<RefCell<[usize; 4]>> = Rc::default();
            let prodder = Prodder { method, action, counts: Rc::clone(&counts), port: None };
            let port = open(clock.reactor(), Box::new(prodder));
            let other = open(clock.reactor(), Box::new(Echo));
            clock.pump();
            if port.is_listening() {
                let _ = port.write(b"hello", port.local_address());
                clock.pump();
                let _ = port.connect(([127, 0, 0, 1], 9).into());
                let _ = port.write_to_peer(b"anybody?");
            }
            clock.pump();
            port.stop_listening();
            other.stop_listening();
            clock.pump();
            let why = format!("{name} from inside method {method}");
            assert_eq!((counts.borrow()[0], counts.borrow()[3]), (1, 1), "{why}");
            assert_eq!(clock.open_connections(), 0, "{why}");
            assert!(LogContext::current().is_sentinel(), "{why}");
        }
    }
}

fn recorder_that_fires(diary: &Diary) -> (Box<Recorder>, Deferred<String>) {
    let (deferred, resolver) = Deferred::new();
    (Box::new(Recorder(Rc::clone(diary), Some(resolver))), deferred)
}

#[test]
fn real_datagrams_come_back_also_over_ipv6() {
    let reactor = Reactor::new().unwrap();
    for address in [ANY, "[::1]:0".parse().unwrap()] {
        let options = UdpOptions { v6_only: true, ..UdpOptions::default() };
        let Ok(echo) = reactor.listen_udp(address, Box::new(Echo), &options) else {
            eprintln!("skipped: this machine has no address {}", address.ip());
            continue;
        };
        let (recorder, received) = recorder_that_fires(&Diary::default());
        let port = reactor.listen_udp(address, recorder, &options).unwrap();
        port.write(b"hello", echo.local_address()).unwrap();
        assert_eq!(reactor.run_until(received).unwrap(), "hello");
        let error = port.write(&vec![0; 70_000], echo.local_address()).unwrap_err();
        assert!(matches!(error, SendDatagramError::TooLong { bytes: 70_000 }), "{error}");
    }
}

#[test]
fn a_real_peer_that_is_gone_is_noticed() {
    let reactor = Reactor::new().unwrap();
    let diary = Diary::default();
    let gone = open(&reactor, Box::new(Echo));
    let (recorder, refused) = recorder_that_fires(&diary);
    let port = open(&reactor, recorder);
    port.connect(gone.local_address()).unwrap();
    gone.stop_listening();
    port.write_to_peer(b"anybody?").unwrap();
    // The report of the first one may come as the answer to the second.
    port.write_to_peer(b"hello?").unwrap();
    assert_eq!(reactor.run_until(refused).unwrap(), "refused");
}

#[test]
fn a_real_group_is_heard() {
    let reactor = Reactor::new().unwrap();
    let group: IpAddr = "239.255.12.34".parse().unwrap();
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let options = UdpOptions { share_address: true, ..UdpOptions::default() };
    let (recorder, received) = recorder_that_fires(&Diary::default());
    let port = reactor.listen_udp(any, recorder, &options).unwrap();
    let loopback = Interface::Address(Ipv4Addr::LOCALHOST);
    let sender = open(&reactor, Box::new(Echo));
    let to = SocketAddr::new(group, port.local_address().port());
    let result = port
        .join_group(group, loopback)
        .and_then(|()| sender.set_multicast_interface(loopback))
        .and_then(|()| sender.set_multicast_ttl(1))
        .and_then(|()| sender.write(b"all", to).map_err(std::io::Error::other));
    if let Err(error) = result {
        return eprintln!("skipped: multicast does not work on this machine: {error}");
    }
    let received = received.with_timeout(&reactor, std::time::Duration::from_secs(10));
    assert_eq!(reactor.run_until(received).unwrap(), "all");
    port.leave_group(group, loopback).unwrap();
}
