//! Peers over real sockets that break off: what the system then reports reaches the protocol, whatever
//! the loop was at, and nobody else notices.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{Address, ConnectionLost, Deferred, Protocol, Reactor, Resolver, Transport};
use socket2::SockRef;

use crate::support::Echo;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Writes what it is told to when it hears from its peer, and tells how its connection ended.
struct Writer {
    bytes: usize,
    pauses: bool,
    ended: Option<Resolver<ConnectionLost>>,
}

impl Protocol for Writer {
    fn connection_made(&mut self, transport: &Transport) {
        if self.pauses {
            transport.pause_producing();
        }
        transport.write(&vec![b'x'; self.bytes]);
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) {}

    fn connection_lost(&mut self, reason: ConnectionLost) {
        if let Some(ended) = self.ended.take() {
            ended.callback(reason);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a peer that blocks, in no reactor")]
fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

fn serve(reactor: &Reactor, bytes: usize, pauses: bool) -> (SocketAddr, Deferred<ConnectionLost>) {
    let (ended, resolver) = Deferred::new();
    let resolver = RefCell::new(Some(resolver));
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> {
        Some(Box::new(Writer { bytes, pauses, ended: resolver.take() }))
    };
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(factory), Default::default()).unwrap();
    (port.local_address(), ended)
}

fn assert_still_serves(reactor: &Reactor) {
    let factory = |_: &Address| -> Option<Box<dyn Protocol>> { Some(Box::new(Echo)) };
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(factory), Default::default()).unwrap();
    let mut peer = connect(port.local_address());
    peer.write_all(b"still there?").unwrap();
    let (answered, resolver) = Deferred::new();
    let remote = reactor.remote();
    let reader = std::thread::spawn(move || {
        let mut answer = [0; 12];
        peer.read_exact(&mut answer).unwrap();
        remote.call_from_thread(|reactor| reactor.stop());
        answer
    });
    // The thread stops the reactor, which fails this.
    drop(reactor.run_until::<()>(answered));
    drop(resolver);
    assert_eq!(&reader.join().unwrap(), b"still there?");
}

#[test]
fn a_reset_reaches_the_protocol_whatever_the_loop_was_at() {
    for (why, bytes, pauses) in [
        ("idle", 0, false),
        ("not reading", 0, true),
        ("sent everything", 1_000, false),
        ("more to send than the system takes", 64 << 20, false),
        ("more to send, and not reading", 64 << 20, true),
    ] {
        let reactor = Reactor::new().unwrap();
        let (address, ended) = serve(&reactor, bytes, pauses);
        let peer = connect(address);
        let breaker = std::thread::spawn(move || {
            let mut peer = peer;
            if bytes > 0 {
                peer.read_exact(&mut [0; 100]).unwrap();
            }
            reset(peer);
        });
        let reason = reactor.run_until(ended).unwrap();
        breaker.join().unwrap();
        let kind = reason.io_error().map(std::io::Error::kind);
        let is_told = matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
        assert!(is_told, "{why}: {reason:?}");
        assert_still_serves(&reactor);
    }
}

#[test]
fn writing_to_a_peer_that_has_closed_ends_in_an_error_and_not_in_a_signal() {
    /// Goes on writing to a peer that has finished.
    struct Stubborn(Option<Resolver<ConnectionLost>>);
    impl Protocol for Stubborn {
        fn data_received(&mut self, _: &Transport, _: &[u8]) {}
        fn read_connection_lost(&mut self, transport: &Transport) {
            transport.write(&vec![b'x'; 64 << 20]);
        }
        fn connection_lost(&mut self, reason: ConnectionLost) {
            if let Some(ended) = self.0.take() {
                ended.callback(reason);
            }
        }
    }
    let reactor = Reactor::new().unwrap();
    let (ended, resolver) = Deferred::new();
    let resolver = RefCell::new(Some(resolver));
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> {
        Some(Box::new(Stubborn(resolver.take())))
    };
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(factory), Default::default()).unwrap();
    drop(connect(port.local_address()));
    let reason = reactor.run_until(ended).unwrap();
    let kind = reason.io_error().map(std::io::Error::kind);
    assert!(matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{reason:?}");
    assert_still_serves(&reactor);
}
