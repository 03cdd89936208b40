//! The loop over the operating system: timers, threads, TCP, signals, stopping.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{
    Address, ConnectError, ConnectionLost, Deferred, LogContext, Protocol, Reactor, Resolver,
    Transport,
};

use crate::support::{Diary, Echo, Recorder, note};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Sends a message and resolves with as many bytes that come back.
struct Asker {
    message: Vec<u8>,
    answer: Vec<u8>,
    resolver: Option<Resolver<Vec<u8>>>,
}

impl Asker {
    fn new(message: Vec<u8>) -> (Asker, Deferred<Vec<u8>>) {
        let (deferred, resolver) = Deferred::new();
        (Asker { message, answer: Vec::new(), resolver: Some(resolver) }, deferred)
    }
}

impl Protocol for Asker {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(&self.message);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.answer.extend_from_slice(data);
        if self.answer.len() == self.message.len() {
            transport.lose_connection();
            if let Some(resolver) = self.resolver.take() {
                resolver.callback(std::mem::take(&mut self.answer));
            }
        }
    }
}

fn echo_factory(_: &Address) -> Option<Box<dyn Protocol>> {
    Some(Box::new(Echo))
}

#[test]
fn bytes_come_back_from_an_echo_server_over_tcp() {
    let reactor = Reactor::new().unwrap();
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(echo_factory), Default::default()).unwrap();
    for length in [1, 64, 1_000_000, 5_000_000] {
        let message: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let (asker, answer) = Asker::new(message.clone());
        let connected = reactor.connect_tcp(port.local_address(), Box::new(asker));
        let transport = reactor.run_until(connected).unwrap();
        assert_eq!(transport.peer().socket_address(), Some(port.local_address()));
        assert!(reactor.run_until(answer).unwrap() == message, "{length} bytes, unchanged");
    }
    reactor.stop();
    reactor.run().unwrap();
    assert!(!port.is_listening());
}

#[test]
fn connecting_where_nobody_listens_fails_with_the_systems_error() {
    let reactor = Reactor::new().unwrap();
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(echo_factory), Default::default()).unwrap();
    port.stop_listening();
    let (asker, _answer) = Asker::new(b"hello".to_vec());
    let connected = reactor.connect_tcp(port.local_address(), Box::new(asker));
    let failure = reactor.run_until(connected).unwrap_err();
    let error = failure.downcast_ref::<ConnectError>().unwrap();
    assert_eq!(error.address, port.local_address());
    let kind = error.source.io_error().map(std::io::Error::kind);
    assert_eq!(kind, Some(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn timers_run_in_order_and_the_loop_waits_for_them() {
    let reactor = Reactor::new().unwrap();
    let diary = Diary::default();
    for (delay_ms, name) in [(2, "third"), (1, "first"), (1, "second")] {
        let diary = Rc::clone(&diary);
        reactor.call_later(Duration::from_millis(delay_ms), move || note(&diary, name));
    }
    let started = reactor.now();
    let stopper = reactor.clone();
    reactor.call_later(Duration::from_millis(3), move || stopper.stop());
    reactor.run().unwrap();
    assert!(reactor.now() - started >= Duration::from_millis(3));
    assert_eq!(*diary.borrow(), ["first", "second", "third"]);
}

#[test]
fn a_call_from_a_thread_wakes_a_loop_that_waits() {
    let reactor = Reactor::new().unwrap();
    let remote = reactor.remote();
    let thread = std::thread::spawn(move || {
        remote.call_from_thread(|reactor| {
            assert!(LogContext::current().is_sentinel());
            reactor.stop();
        });
    });
    reactor.run().unwrap();
    thread.join().unwrap();
}

#[test]
fn calls_after_the_end_are_dropped_not_kept() {
    let reactor = Reactor::new().unwrap();
    let remote = reactor.remote();
    reactor.stop();
    reactor.run().unwrap();
    let witness = std::sync::Arc::new(());
    let held = std::sync::Arc::clone(&witness);
    remote.call_from_thread(move |_| drop(held));
    assert_eq!(std::sync::Arc::strong_count(&witness), 1);
    let witness = Rc::new(());
    let held = Rc::clone(&witness);
    let call = reactor.call_later(Duration::ZERO, move || drop(held));
    assert!(!call.is_active());
    assert_eq!(Rc::strong_count(&witness), 1);
    assert!(reactor.run().is_err(), "a reactor runs once");
}

#[test]
fn stopping_ends_timers_tasks_and_connections() {
    let reactor = Reactor::new().unwrap();
    let diary = Diary::default();
    let server_diary = Rc::clone(&diary);
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> {
        Some(Box::new(Recorder::new(&server_diary)))
    };
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(factory), Default::default()).unwrap();
    let connected = reactor.connect_tcp(port.local_address(), Box::new(Echo));
    let transport = reactor.run_until(connected).unwrap();
    transport.write(b"x");
    let witness = Rc::new(());
    let (held_by_timer, held_by_task) = (Rc::clone(&witness), Rc::clone(&witness));
    // Each owns the reactor that owns it.
    let handle = reactor.clone();
    reactor.call_later(Duration::from_secs(3600), move || drop((held_by_timer, handle)));
    let handle = reactor.clone();
    let (never, _resolver) = Deferred::<()>::new();
    let task = reactor.spawn(async move {
        let _held = (held_by_task, handle);
        never.await
    });
    let remote = reactor.remote();
    fn poll_until_data(reactor: &Reactor, diary: &Diary) {
        if diary.borrow().iter().any(|entry| entry == "data x") {
            return reactor.stop();
        }
        let (reactor, diary) = (reactor.clone(), Rc::clone(diary));
        let handle = reactor.clone();
        handle.call_later(Duration::from_millis(1), move || poll_until_data(&reactor, &diary));
    }
    poll_until_data(&reactor, &diary);
    reactor.run().unwrap();
    assert_eq!(*diary.borrow(), ["made", "data x", "lost: the reactor stopped"]);
    assert_eq!(Rc::strong_count(&witness), 1, "timer and task are gone");
    assert!(!transport.is_connected());
    assert!(remote.is_stopped());
    task.detach();
}

#[test]
fn a_callback_cannot_run_the_loop_it_is_called_by() {
    let reactor = Reactor::new().unwrap();
    let handle = reactor.clone();
    reactor.call_soon(move || {
        assert!(handle.run().is_err());
        assert!(handle.run_until(Deferred::succeed(())).is_err());
        handle.stop();
    });
    reactor.run().unwrap();
}

#[test]
fn a_connection_that_is_aborted_tells_the_peer_by_a_reset() {
    let reactor = Reactor::new().unwrap();
    let diary = Diary::default();
    let server_diary = Rc::clone(&diary);
    let stopper = reactor.clone();
    struct StopsAtTheEnd(Recorder, Reactor);
    impl Protocol for StopsAtTheEnd {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            self.0.data_received(transport, data);
        }
        fn connection_lost(&mut self, reason: ConnectionLost) {
            assert!(matches!(reason, ConnectionLost::Failed(_)));
            self.0.connection_lost(reason);
            self.1.stop();
        }
    }
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> {
        Some(Box::new(StopsAtTheEnd(Recorder::new(&server_diary), stopper.clone())))
    };
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(factory), Default::default()).unwrap();
    let connected = reactor.connect_tcp(port.local_address(), Box::new(Echo));
    let transport = reactor.run_until(connected).unwrap();
    transport.abort_connection();
    reactor.run().unwrap();
    assert_eq!(*diary.borrow(), ["lost: the connection failed"]);
}
