//! What policies do to connections: limits in number, in time and in pace, and coming back.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::endpoint::ClientEndpoint;
use ropewalk::policy::{
    Backoff, Bandwidth, ClientState, ConnectionLimits, IdleFactory, LimitedFactory, ReconnectError,
    ReconnectOptions, ReconnectingClient, Throttle, ThrottledFactory,
};
use ropewalk::testing::{
    Clock, MemoryTransport, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{
    Address, ConnectOptions, ConnectionLost, Factory, ListenOptions, LogContext, Protocol, Service,
    Transport,
};

use crate::support::{Diary, Echo, OnData, Recorder, note, read};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn recorders(diary: &Diary) -> Rc<dyn Factory> {
    let diary = Rc::clone(diary);
    Rc::new(move |_: &Address| Some(Box::new(Recorder::new(&diary)) as Box<dyn Protocol>))
}

fn address(text: &str) -> Address {
    Address::Tcp(text.parse().unwrap())
}

// Limits in number.

#[test]
fn peers_are_told_apart_by_address_or_network() {
    let clock = Clock::new();
    let diary = Diary::default();
    let limits = ConnectionLimits::default().per_peer(1);
    for (why, first, second, is_let_in) in [
        ("the same address", "192.0.2.1:1", "192.0.2.1:2", false),
        ("another address", "192.0.2.1:1", "192.0.2.2:1", true),
        ("the same network", "[2001:db8::1]:1", "[2001:db8::ffff:2]:1", false),
        ("another network", "[2001:db8::1]:1", "[2001:db8:0:1::1]:1", true),
        ("the same address, mapped", "192.0.2.1:1", "[::ffff:192.0.2.1]:1", false),
        ("another address, mapped", "192.0.2.2:1", "[::ffff:192.0.2.1]:1", true),
    ] {
        let factory = LimitedFactory::new(clock.reactor(), recorders(&diary), limits);
        let held = factory.build_protocol(&address(first));
        assert!(held.is_some());
        assert_eq!(factory.build_protocol(&address(second)).is_some(), is_let_in, "{why}");
        assert_eq!(factory.refused_count(), u64::from(!is_let_in), "{why}");
        drop(held);
        assert!(factory.build_protocol(&address(second)).is_some(), "{why}: its place is free");
        let unix = Address::Unix("/run/chat".into());
        let local = [0, 1].map(|_| factory.build_protocol(&unix));
        assert!(local.iter().all(Option::is_some), "Unix sockets are nobody's");
        assert_eq!(factory.open_count(), 2, "{why}");
    }
    let narrow = limits.v6_prefix_bits(128);
    let factory = LimitedFactory::new(clock.reactor(), recorders(&diary), narrow);
    let held = ["[2001:db8::1]:1", "[2001:db8::2]:1"].map(|a| factory.build_protocol(&address(a)));
    assert!(held.iter().all(Option::is_some));
    let wide = limits.v6_prefix_bits(0);
    let factory = LimitedFactory::new(clock.reactor(), recorders(&diary), wide);
    let held = ["[2001:db8::1]:1", "[::1]:1"].map(|a| factory.build_protocol(&address(a)));
    assert_eq!(held.map(|it| it.is_some()), [true, false]);
}

#[test]
fn connections_beyond_the_limit_are_closed_or_wait_their_turn() {
    let clock = Clock::new();
    let diary = Diary::default();
    let limits = ConnectionLimits::default().total(1).waiting(1);
    let limited = Rc::new(LimitedFactory::new(clock.reactor(), recorders(&diary), limits));
    let factory = Rc::clone(&limited) as Rc<dyn Factory>;
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let port = clock.reactor().listen_tcp(any, factory, ListenOptions::default()).unwrap();
    let connect = || {
        let connected = clock.reactor().connect_tcp(port.local_address(), Box::new(Echo));
        clock.pump();
        success_result_of(connected)
    };
    let first = connect();
    assert_eq!(read(&diary), ["made"]);
    let second = connect();
    second.write(b"early");
    let third = connect();
    clock.pump();
    assert!(second.is_connected(), "it waits");
    assert!(!third.is_connected(), "it was refused");
    assert_eq!(read(&diary), [""; 0], "nobody has heard of either");
    let counts = || (limited.open_count(), limited.waiting_count(), limited.refused_count());
    assert_eq!(counts(), (1, 1, 1));
    first.lose_connection();
    clock.pump();
    assert_eq!(
        read(&diary),
        ["read lost", "lost: the connection was closed cleanly", "made", "data early"]
    );
    assert_eq!(counts(), (1, 0, 1));
    // One that goes while it waits leaves its place in the line.
    let fourth = connect();
    assert_eq!(counts(), (1, 1, 1));
    fourth.abort_connection();
    second.write(b"more");
    clock.pump();
    // It was not read, so that its end is noticed by the failure.
    assert_eq!(counts(), (1, 0, 1));
    second.abort_connection();
    clock.pump();
    assert_eq!(counts(), (0, 0, 1));
    assert_eq!(read(&diary), ["data more", "lost: the connection failed"]);
}

// Limits in time.

#[test]
fn a_connection_is_idle_when_no_byte_has_come_or_gone() {
    let clock = Clock::new();
    let diary = Diary::default();
    let protocol = Box::new(Recorder::new(&diary));
    let protocol = IdleFactory::wrap(clock.reactor(), protocol, SECOND * 10);
    let connection = MemoryTransport::connect(&clock, Boxed(protocol));
    clock.advance(SECOND * 9);
    connection.deliver(b"one");
    clock.advance(SECOND * 9);
    connection.transport().write(b"two");
    clock.advance(SECOND * 10 - MILLISECOND);
    assert!(!connection.is_closed());
    assert_eq!(read(&diary), ["made", "data one"]);
    clock.advance(MILLISECOND);
    assert!(connection.is_closed());
    assert_eq!(read(&diary), ["lost: nothing had come or gone for 10 s"]);
    assert_eq!(clock.pending_calls(), 0);
}

/// A protocol that is boxed already.
struct Boxed(Box<dyn Protocol>);

impl Protocol for Boxed {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.0.data_received(transport, data);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.0.read_connection_lost(transport);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.0.connection_lost(reason);
    }
}

#[test]
fn bytes_that_nobody_takes_do_not_count() {
    let clock = Clock::new();
    let diary = Diary::default();
    let factory = IdleFactory::new(clock.reactor(), recorders(&diary), SECOND * 10);
    let protocol = factory.build_protocol(&address("192.0.2.1:1")).unwrap();
    let connection = MemoryTransport::connect(&clock, Boxed(protocol));
    connection.transport().write(&[7; 100_000]);
    clock.advance(SECOND * 9);
    connection.transport().write(b"more into a full pipe");
    clock.advance(SECOND);
    assert!(connection.is_closed());
    assert_eq!(read(&diary), ["made", "lost: nothing had come or gone for 10 s"]);
    // A connection that ends by itself leaves no timer behind.
    let protocol = factory.build_protocol(&address("192.0.2.1:1")).unwrap();
    let connection = MemoryTransport::connect(&clock, Boxed(protocol));
    connection.reset();
    assert_eq!(clock.pending_calls(), 0);
}

// Limits in pace.

/// How many bytes have come by the end of each second.
fn bytes_by_second(clock: &Clock, seconds: usize, mut bytes: impl FnMut() -> usize) -> Vec<usize> {
    let mut total = 0;
    (0..seconds)
        .map(|_| {
            for _ in 0..100 {
                clock.advance(SECOND / 100);
                total += bytes();
            }
            total
        })
        .collect()
}

#[test]
fn what_is_sent_keeps_to_the_pace() {
    let clock = Clock::new();
    let diary = Diary::default();
    let pace = Bandwidth { bytes_per_second: 10_000, burst_bytes: 5_000 };
    let throttle = Throttle { send_per_connection: Some(pace), ..Throttle::default() };
    let factory = ThrottledFactory::new(clock.reactor(), recorders(&diary), throttle);
    let protocol = factory.build_protocol(&address("192.0.2.1:1")).unwrap();
    let connection = MemoryTransport::connect(&clock, Boxed(protocol));
    connection.transport().write(&[7; 30_000]);
    connection.transport().lose_connection();
    assert_eq!(connection.take_written().len(), 5_000, "the burst");
    let taken = bytes_by_second(&clock, 3, || connection.take_written().len());
    assert_eq!(taken, [10_000, 20_000, 25_000]);
    assert!(connection.has_finished(), "closing waited for everything");
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn what_is_received_keeps_to_the_pace_whatever_the_protocol_pauses() {
    let clock = Clock::new();
    let received = Rc::new(Cell::new(0));
    let counter = Rc::clone(&received);
    let factory: Rc<dyn Factory> = Rc::new(move |_: &Address| {
        let counter = Rc::clone(&counter);
        let protocol = OnData(move |transport: &Transport, data: &[u8]| {
            counter.set(counter.get() + data.len());
            // Its own pauses do not undo the policy's.
            transport.pause_producing();
            transport.resume_producing();
        });
        Some(Box::new(protocol) as Box<dyn Protocol>)
    });
    let pace = Bandwidth::new(10_000);
    let throttle = Throttle { receive_per_connection: Some(pace), ..Throttle::default() };
    let factory = ThrottledFactory::new(clock.reactor(), factory, throttle);
    let protocol = factory.build_protocol(&address("192.0.2.1:1")).unwrap();
    let connection = MemoryTransport::connect(&clock, Boxed(protocol));
    connection.deliver(&[7; 10_000]);
    assert_eq!(received.get(), 10_000, "the burst");
    connection.deliver(&[7; 25_000]);
    assert_eq!(received.get(), 35_000, "one read is delivered whole");
    connection.deliver(&[7; 1_000]);
    clock.advance(SECOND * 5 / 2 - MILLISECOND);
    assert_eq!(received.get(), 35_000, "and then nothing for as long as it should have taken");
    clock.advance(MILLISECOND);
    assert_eq!(received.get(), 36_000);
    connection.close();
    clock.advance(SECOND);
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn connections_share_what_they_may_send_together() {
    let clock = Clock::new();
    let diary = Diary::default();
    let pace = Bandwidth { bytes_per_second: 100_000, burst_bytes: 1_000 };
    let throttle = Throttle { send_in_all: Some(pace), ..Throttle::default() };
    let factory = ThrottledFactory::new(clock.reactor(), recorders(&diary), throttle);
    let connections = [0, 1, 2, 3].map(|_| {
        let protocol = factory.build_protocol(&address("192.0.2.1:1")).unwrap();
        MemoryTransport::connect(&clock, Boxed(protocol))
    });
    for connection in &connections {
        connection.transport().write(&[7; 1_000_000]);
    }
    let mut taken = [0; 4];
    let total = bytes_by_second(&clock, 4, || {
        let now = connections.each_ref().map(|connection| connection.take_written().len());
        taken.iter_mut().zip(now).for_each(|(total, now)| *total += now);
        now.iter().sum()
    });
    assert!((396_000..=404_000).contains(&total[3]), "the pace of all: {total:?}");
    assert!(
        taken.iter().all(|bytes| (60_000..140_000).contains(bytes)),
        "no one starves: {taken:?}"
    );
}

// Coming back.

/// A client of a server that the test can start and stop, and what it says it does.
struct Lab {
    clock: Clock,
    client: ReconnectingClient,
    states: Diary,
    heard: Diary,
    contexts: Diary,
}

impl Lab {
    fn new(options: ReconnectOptions) -> Lab {
        let clock = Clock::new();
        let (states, heard, contexts) = (Diary::default(), Diary::default(), Diary::default());
        let endpoint: ClientEndpoint = "tcp:localhost:8008".parse().unwrap();
        let (notes, places) = (Rc::clone(&heard), Rc::clone(&contexts));
        let build = move || {
            note(&places, LogContext::current().name());
            Box::new(Recorder::new(&notes)) as Box<dyn Protocol>
        };
        let client = ReconnectingClient::new("news", endpoint, build, options);
        let notes = Rc::clone(&states);
        client.observe(move |state| {
            let state = match state {
                ClientState::Connected(_) => "connected".to_owned(),
                ClientState::Connecting => "connecting".to_owned(),
                ClientState::GaveUp(_) => "gave up".to_owned(),
                ClientState::Waiting { delay, .. } => format!("waiting {} ms", delay.as_millis()),
                other => format!("{other:?}").to_lowercase(),
            };
            note(&notes, state);
        });
        Lab { clock, client, states, heard, contexts }
    }

    fn start(&self) {
        success_result_of(self.client.start(self.clock.reactor()));
        self.clock.pump();
    }

    /// A server, and the transports that it has accepted.
    fn listen(&self) -> (ropewalk::ListeningPort, Rc<RefCell<Vec<Transport>>>) {
        struct Keep(Rc<RefCell<Vec<Transport>>>);
        impl Protocol for Keep {
            fn connection_made(&mut self, transport: &Transport) {
                self.0.borrow_mut().push(transport.clone());
            }
            fn data_received(&mut self, _: &Transport, _: &[u8]) {}
        }
        let accepted = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&accepted);
        let factory =
            move |_: &Address| Some(Box::new(Keep(Rc::clone(&kept))) as Box<dyn Protocol>);
        let at: SocketAddr = (IpAddr::from([127, 0, 0, 1]), 8008).into();
        let port = self.clock.reactor().listen_tcp(at, Rc::new(factory), Default::default());
        (port.unwrap(), accepted)
    }

    fn states(&self) -> Vec<String> {
        self.clock.pump();
        read(&self.states)
    }
}

/// Waits without chance.
fn plain() -> ReconnectOptions {
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    ReconnectOptions { backoff, ..ReconnectOptions::default() }
}

#[test]
fn a_client_comes_back_after_growing_waits_and_after_a_loss() {
    let lab = Lab::new(plain());
    lab.start();
    assert_eq!(lab.states(), ["connecting", "waiting 1000 ms"]);
    let [first, second] = [0, 1].map(|_| lab.client.when_connected());
    second.cancel();
    lab.clock.advance(SECOND);
    assert_eq!(lab.states(), ["connecting", "waiting 1500 ms"]);
    let (_port, accepted) = lab.listen();
    assert_no_result(&first);
    lab.clock.advance(SECOND * 3 / 2);
    assert_eq!(lab.states(), ["connecting", "connected"]);
    let transport = success_result_of(first);
    assert!(failure_result_of(second).is::<ropewalk::CancelledError>());
    assert_eq!(success_result_of(lab.client.when_connected()), transport);
    // A connection that has stood for a while begins the waits anew; a short one does not.
    for (stood, expected) in [(SECOND * 9, "waiting 2250 ms"), (SECOND * 10, "waiting 1000 ms")] {
        lab.clock.advance(stood);
        accepted.borrow_mut().pop().unwrap().abort_connection();
        assert_eq!(lab.states(), [expected]);
        lab.clock.advance(SECOND * 9 / 4);
        assert_eq!(lab.states(), ["connecting", "connected"]);
    }
    assert_eq!(read(&lab.heard).iter().filter(|entry| *entry == "made").count(), 3);
    assert_eq!(read(&lab.contexts), ["news-1", "news-2", "news-3", "news-4", "news-5"]);
}

#[test]
fn a_client_that_stops_ends_what_it_is_doing() {
    for (why, has_server, wait, expected) in [
        ("while it waits", false, Duration::ZERO, &["stopped"][..]),
        ("while it is connected", true, Duration::ZERO, &["stopped"][..]),
    ] {
        let lab = Lab::new(plain());
        let server = has_server.then(|| lab.listen());
        lab.start();
        let waiting = (!has_server).then(|| lab.client.when_connected());
        lab.states();
        lab.clock.advance(wait);
        let stopped = lab.client.stop();
        lab.clock.pump();
        success_result_of(stopped);
        assert_eq!(lab.states(), expected, "{why}");
        if let Some(waiting) = waiting {
            let failure = failure_result_of(waiting);
            assert!(failure.is::<ReconnectError>(), "{why}: {failure}");
        }
        assert!(failure_result_of(lab.client.when_connected()).is::<ReconnectError>());
        success_result_of(lab.client.stop());
        lab.clock.pump();
        assert_eq!(lab.clock.pending_calls(), 0, "{why}");
        assert_eq!(lab.clock.open_connections(), usize::from(server.is_some()), "{why}");
        // It can be started again.
        lab.start();
        assert_eq!(lab.states()[0], "connecting", "{why}");
    }
}

#[test]
fn a_client_that_stops_while_it_connects_gives_that_up() {
    let lab = Lab::new(plain());
    lab.clock.silence([127, 0, 0, 1].into());
    lab.start();
    assert_eq!(lab.states(), ["connecting"]);
    success_result_of(lab.client.stop());
    assert_eq!(lab.states(), ["stopped"]);
    assert_eq!((lab.clock.pending_calls(), lab.clock.open_connections()), (0, 0));
    assert_eq!(read(&lab.heard), [""; 0]);
}

#[test]
fn a_connection_that_does_not_end_in_time_is_aborted() {
    let lab = Lab::new(plain());
    let (_port, accepted) = lab.listen();
    lab.start();
    let transport = success_result_of(lab.client.when_connected());
    accepted.borrow()[0].pause_producing();
    transport.write(&[7; 1_000_000]);
    lab.clock.pump();
    let stopped = lab.client.stop();
    let again = lab.client.stop();
    lab.clock.advance(SECOND * 5 - MILLISECOND);
    assert_no_result(&stopped);
    lab.clock.advance(MILLISECOND);
    success_result_of(stopped);
    success_result_of(again);
    assert_eq!(read(&lab.heard).last().unwrap(), "lost: the connection was aborted by this side");
}

#[test]
fn a_client_gives_up_where_it_may_and_tries_at_once_when_told() {
    let options = ReconnectOptions { failures_max: Some(3), ..plain() };
    let lab = Lab::new(options);
    lab.start();
    let connected = lab.client.when_connected();
    lab.client.retry_now();
    lab.clock.pump();
    assert_eq!(lab.states(), ["connecting", "waiting 1000 ms", "connecting", "waiting 1500 ms"]);
    lab.clock.advance(SECOND * 2);
    assert_eq!(lab.states(), ["connecting", "gave up"]);
    for failed in [connected, lab.client.when_connected()] {
        let failure = failure_result_of(failed);
        let error = failure.downcast_ref::<ReconnectError>();
        assert!(matches!(error, Some(ReconnectError::GaveUp { failures: 3, .. })), "{failure}");
        assert!(failure.to_string().contains("connection refused"), "{failure}");
    }
    assert_eq!(lab.clock.pending_calls(), 0);
    let (_port, _accepted) = lab.listen();
    lab.start();
    assert_eq!(lab.states(), ["connecting", "connected"], "it may be started again");
}

#[test]
fn policies_compose_in_any_order_over_real_sockets() {
    let reactor = ropewalk::Reactor::new().unwrap();
    let echo: Rc<dyn Factory> = Rc::new(|_: &Address| Some(Box::new(Echo) as Box<dyn Protocol>));
    let throttle = Throttle {
        send_per_connection: Some(Bandwidth::new(50_000_000)),
        receive_in_all: Some(Bandwidth::new(50_000_000)),
        ..Throttle::default()
    };
    let throttled = Rc::new(ThrottledFactory::new(&reactor, echo, throttle));
    let idle = Rc::new(IdleFactory::new(&reactor, throttled, SECOND * 60));
    let limits = ConnectionLimits::default().total(1).waiting(9);
    let limited = Rc::new(LimitedFactory::new(&reactor, idle, limits));
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let factory = Rc::clone(&limited) as Rc<dyn Factory>;
    let port = reactor.listen_tcp(any, factory, ListenOptions::default()).unwrap();
    // Three clients, one after the other by the server's choice.
    let answers: Vec<_> = (0..3)
        .map(|_| {
            let (answer, resolver) = ropewalk::Deferred::new();
            let mut resolver = Some(resolver);
            let mut count = 0;
            let protocol = OnData(move |transport: &Transport, data: &[u8]| {
                count += data.len();
                if count == 300_000
                    && let Some(resolver) = resolver.take()
                {
                    resolver.callback(());
                    transport.lose_connection();
                }
            });
            let options = ConnectOptions::default();
            reactor
                .connect_tcp_with(port.local_address(), &options, Box::new(protocol))
                .add_callback(|transport| {
                    transport.write(&[7; 300_000]);
                    Ok(())
                })
                .detach();
            answer
        })
        .collect();
    for answer in answers {
        reactor.run_until(answer).unwrap();
    }
    assert_eq!(limited.refused_count(), 0);
    reactor.stop();
    reactor.run().unwrap();
}
