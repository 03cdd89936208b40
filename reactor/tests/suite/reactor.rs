//! The loop over the operating system: timers, threads, TCP, signals, stopping.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{Clock, NoDeferredLeaks};
use ropewalk::{
    Address, ConnectError, ConnectionLost, Deferred, LogContext, Protocol, Reactor, Resolver,
    Signal, Transport, logging,
};

use crate::support::{Diary, Echo, Recorder, note, read};

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
    assert_eq!(error.address, *port.local());
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

#[test]
fn a_signal_is_delivered_on_the_loop_and_stopping_ends_its_watch() {
    let reactor = Reactor::new().unwrap();
    let diary = Diary::default();
    let (notes, stopper) = (Rc::clone(&diary), reactor.clone());
    let request = LogContext::new("main");
    request
        .run(|| {
            reactor.on_signal(Signal::Hangup, move || {
                note(&notes, LogContext::current().name());
                if notes.borrow().len() == 2 {
                    stopper.stop();
                } else {
                    signal_hook::low_level::raise(Signal::Hangup.number()).unwrap();
                }
            })
        })
        .unwrap();
    reactor.call_soon(|| signal_hook::low_level::raise(Signal::Hangup.number()).unwrap());
    reactor.run().unwrap();
    assert_eq!(*diary.borrow(), ["main", "main"]);
}

#[test]
fn cancelling_resetting_and_delaying_move_a_call() {
    let clock = Clock::new();
    let diary = Diary::default();
    let call = |name: &'static str, seconds| {
        let diary = Rc::clone(&diary);
        clock.reactor().call_later(Duration::from_secs(seconds), move || note(&diary, name))
    };
    let cancelled = call("cancelled", 1);
    let reset = call("reset", 1);
    let delayed = call("delayed", 1);
    call("kept", 2);
    cancelled.cancel();
    cancelled.cancel();
    cancelled.reset(Duration::ZERO);
    reset.reset(Duration::from_secs(2));
    delayed.delay(Duration::from_secs(3));
    assert!(!cancelled.is_active());
    assert_eq!(delayed.deadline(), Some(clock.now() + Duration::from_secs(4)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(read(&diary), [""; 0]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(read(&diary), ["kept", "reset"], "put off, it stands behind older calls");
    clock.advance(Duration::from_secs(2));
    assert_eq!(read(&diary), ["delayed"]);
    assert!(!delayed.is_active());
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn a_call_may_cancel_itself_and_others_and_what_they_own_may_call_back() {
    struct CallsWhenDropped(Reactor, Diary);
    impl Drop for CallsWhenDropped {
        fn drop(&mut self) {
            let diary = Rc::clone(&self.1);
            self.0.call_later(Duration::ZERO, move || note(&diary, "from a drop"));
        }
    }
    let clock = Clock::new();
    let diary = Diary::default();
    let owned = CallsWhenDropped(clock.reactor().clone(), Rc::clone(&diary));
    let victim = clock.reactor().call_later(Duration::from_secs(2), move || drop(owned));
    let own = Rc::new(RefCell::new(None));
    let handle = Rc::clone(&own);
    own.replace(Some(clock.reactor().call_later(Duration::from_secs(1), move || {
        handle.take().inspect(ropewalk::DelayedCall::cancel);
        victim.cancel();
    })));
    clock.advance(Duration::from_secs(1));
    assert_eq!(read(&diary), ["from a drop"]);
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn timers_and_calls_run_in_the_context_that_asked_for_them() {
    let clock = Clock::new();
    let names = Diary::default();
    let see = |names: &Diary| {
        let names = Rc::clone(names);
        move || note(&names, LogContext::current().name())
    };
    LogContext::new("request").run(|| {
        clock.reactor().call_later(Duration::from_secs(1), see(&names));
        clock.reactor().call_soon(see(&names));
    });
    clock.reactor().call_soon(see(&names));
    clock.advance(Duration::from_secs(1));
    assert_eq!(read(&names), ["request", "sentinel", "request"]);
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn the_time_without_a_reading_is_that_of_the_callback_of_the_reactor_that_turns() {
    let clock = Clock::new();
    let reactor = clock.reactor().clone();
    clock.advance(Duration::from_secs(1));
    assert_eq!(reactor.now_or_just_before(), reactor.now(), "outside of callbacks");
    for context in [LogContext::sentinel(), LogContext::new("a request")] {
        let (told, times) = (reactor.clone(), Rc::new(RefCell::new(Vec::new())));
        let seen = Rc::clone(&times);
        let other = Clock::new();
        context.run(|| {
            reactor.call_later(Duration::from_secs(5), move || {
                seen.borrow_mut().push((told.now_or_just_before(), told.now()));
                let other = other.reactor();
                seen.borrow_mut().push((other.now_or_just_before(), other.now()));
            })
        });
        clock.advance(Duration::from_secs(5));
        let times = times.borrow();
        assert_eq!(times.len(), 2);
        assert!(times.iter().all(|(recent, now)| recent == now), "{times:?}");
    }
}

#[test]
fn a_panicking_timer_is_logged_and_the_loop_goes_on() {
    let clock = Clock::new();
    let lines = logging::capture(10);
    let diary = Diary::default();
    let notes = Rc::clone(&diary);
    LogContext::new("request").run(|| {
        clock.reactor().call_later(Duration::from_secs(1), || panic!("on purpose"));
    });
    clock.reactor().call_later(Duration::from_secs(1), move || note(&notes, "after"));
    clock.advance(Duration::from_secs(1));
    assert_eq!(read(&diary), ["after"]);
    let lines = lines.take();
    assert!(lines[0].starts_with("ERROR request "), "{lines:?}");
    assert!(lines[0].contains("reactor::a_panicking_timer_is_logged"), "{lines:?}");
    assert!(lines[0].contains("panicked") && lines[0].contains("on purpose"), "{lines:?}");
}

#[test]
fn who_holds_the_loop_is_charged_and_reported() {
    let reactor = Reactor::new().unwrap();
    let lines = logging::capture(10);
    let request = LogContext::new("request");
    let stopper = reactor.clone();
    let clock = reactor.clone();
    let hold = move || {
        let started = clock.now();
        while clock.now() - started < Duration::from_millis(120) {
            std::hint::spin_loop();
        }
    };
    request.run(|| reactor.call_soon(hold.clone()));
    reactor.call_soon(hold);
    reactor.call_soon(move || stopper.stop());
    reactor.run().unwrap();
    let charged = request.usage().loop_time;
    // Processor time: on a busy machine it is a part of what the clock says.
    assert!(charged > Duration::ZERO);
    let lines = lines.take();
    let held: Vec<_> = lines.iter().filter(|line| line.contains("held the loop")).collect();
    assert!(held.iter().any(|line| line.contains("context=request")), "{lines:?}");
    assert!(held.iter().any(|line| line.contains("context=sentinel")), "{lines:?}");
}

#[test]
#[cfg(debug_assertions)]
fn the_leak_check_finds_a_deferred_that_nobody_will_fire() {
    let check = NoDeferredLeaks::watch();
    let clock = Clock::new();
    let (never, resolver) = Deferred::<()>::new();
    let task = clock.reactor().spawn(never);
    clock.pump();
    assert!(check.living() > 0);
    drop((resolver, task));
    drop(clock);
    assert_eq!(check.living(), 0);
}

#[test]
fn a_clock_can_receive_signals_too() {
    let clock = Clock::new();
    let diary = Diary::default();
    for name in ["one", "other"] {
        let notes = Rc::clone(&diary);
        clock.reactor().on_signal(Signal::Terminate, move || note(&notes, name)).unwrap();
    }
    clock.raise(Signal::Hangup);
    assert_eq!(read(&diary), [""; 0]);
    clock.raise(Signal::Terminate);
    clock.raise(Signal::Terminate);
    assert_eq!(read(&diary), ["one", "other", "one", "other"]);
}

#[test]
fn a_panicking_call_from_a_thread_hurts_nobody_else() {
    let reactor = Reactor::new().unwrap();
    let remote = reactor.remote();
    std::thread::spawn(move || {
        remote.call_from_thread(|_| panic!("on purpose"));
        remote.call_from_thread(Reactor::stop);
    })
    .join()
    .unwrap();
    reactor.run().unwrap();
}
