//! Whoever always has more to do leaves the others their turn: on a clock whose calls cost time, and
//! over real sockets.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::Clock;
use ropewalk::{Address, Deferred, Instant, Protocol, Reactor, ReactorRemote, Resolver, Transport};

use crate::support::Echo;

const MILLISECOND: Duration = Duration::from_millis(1);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How late a timer may be: each of five phases takes 10 ms, and looks at the clock after sixteen calls
/// of one millisecond each.
const LATE_MAX: Duration = Duration::from_millis(150);

/// Runs the loop until a timer at 50 ms has come, with calls of one millisecond each, and returns how
/// late it was.
fn lateness_of_a_timer(clock: &Clock) -> Duration {
    clock.set_cost_of_calls(MILLISECOND);
    let delay = 50 * MILLISECOND;
    let due = clock.now() + delay;
    let (fired, resolver) = Deferred::new();
    let reactor = clock.reactor().clone();
    clock.reactor().call_later(delay, move || resolver.callback(reactor.now()));
    let fired_at: Instant = clock.reactor().run_until(fired).unwrap();
    assert!(fired_at >= due);
    fired_at - due
}

#[track_caller]
fn assert_fair(clock: &Clock) {
    let late = lateness_of_a_timer(clock);
    assert!(late <= LATE_MAX, "{late:?}");
}

fn call_for_ever(reactor: &Reactor, count: &Rc<Cell<u32>>) {
    count.set(count.get() + 1);
    let (handle, count) = (reactor.clone(), Rc::clone(count));
    reactor.call_soon(move || call_for_ever(&handle, &count));
}

#[test]
fn callbacks_that_queue_callbacks_for_ever_leave_a_timer_its_turn() {
    let clock = Clock::new();
    let count = Rc::new(Cell::new(0));
    for _ in 0..10 {
        call_for_ever(clock.reactor(), &count);
    }
    assert_fair(&clock);
    assert!(count.get() > 20, "they had theirs, too: {}", count.get());
}

#[test]
fn tasks_that_wake_themselves_for_ever_leave_a_timer_its_turn() {
    let clock = Clock::new();
    clock
        .reactor()
        .spawn(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            std::task::Poll::<Result<(), _>>::Pending
        }))
        .detach();
    assert_fair(&clock);
}

#[test]
fn timers_that_are_always_due_leave_another_its_turn() {
    fn tick(reactor: &Reactor) {
        let handle = reactor.clone();
        reactor.call_later(Duration::ZERO, move || tick(&handle));
    }
    let clock = Clock::new();
    for _ in 0..100 {
        tick(clock.reactor());
    }
    // They are a hundred milliseconds' work, and were asked for earlier.
    let late = lateness_of_a_timer(&clock);
    assert!(late <= LATE_MAX + 100 * MILLISECOND, "{late:?}");
}

#[test]
fn jobs_from_other_threads_leave_a_timer_its_turn() {
    fn send_for_ever(remote: ReactorRemote) {
        let again = remote.clone();
        remote.call_from_thread(move |_| send_for_ever(again));
    }
    let clock = Clock::new();
    for _ in 0..1_000 {
        clock.reactor().remote().call_from_thread(|_| {});
    }
    send_for_ever(clock.reactor().remote());
    assert_fair(&clock);
}

/// Sends back twice what it gets, up to a bound: two of them keep each other busy for ever.
struct Babbler;

impl Protocol for Babbler {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(&[0; 20_000]);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
        if transport.buffered_bytes() < 60_000 {
            transport.write(data);
        }
    }
}

fn listen(reactor: &Reactor, make: fn() -> Box<dyn Protocol>) -> SocketAddr {
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> { Some(make()) };
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(factory), Default::default()).unwrap();
    port.local_address()
}

/// Sends a byte again each time it comes back, a number of times.
struct Pinger {
    left: u32,
    finished: Option<Resolver<()>>,
}

impl Pinger {
    fn new(rounds: u32) -> (Pinger, Deferred<()>) {
        let (deferred, resolver) = Deferred::new();
        (Pinger { left: rounds, finished: Some(resolver) }, deferred)
    }
}

impl Protocol for Pinger {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b"x");
    }

    fn data_received(&mut self, transport: &Transport, _: &[u8]) {
        self.left -= 1;
        if self.left > 0 {
            transport.write(b"x");
        } else if let Some(finished) = self.finished.take() {
            finished.callback(());
        }
    }
}

#[test]
fn connections_that_always_have_more_leave_others_and_timers_their_turn() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let address = listen(reactor, || Box::new(Babbler));
    for _ in 0..20 {
        reactor.connect_tcp(address, Box::new(Babbler)).detach();
    }
    let echo = listen(reactor, || Box::new(Echo));
    let (pinger, finished) = Pinger::new(10);
    reactor.connect_tcp(echo, Box::new(pinger)).detach();
    assert_fair(&clock);
    reactor.run_until(finished).unwrap();
    let took = clock.now() - Instant::START;
    assert!(took < Duration::from_secs(5), "ten round trips among twenty greedy pairs: {took:?}");
}

#[test]
fn a_flood_of_new_connections_leaves_a_timer_its_turn() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let address = listen(reactor, || Box::new(Echo));
    for _ in 0..1_000 {
        reactor.connect_tcp(address, Box::new(Echo)).detach();
    }
    assert_fair(&clock);
}

/// Connects without a reactor, as a program that is not ours.
#[expect(clippy::disallowed_methods, reason = "a peer that blocks, in no reactor")]
fn connect_blocking(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

/// A greedy peer in a thread of its own, as fast as the system lets it; it stops when the connection
/// does.
fn flood(address: SocketAddr) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = connect_blocking(address);
        let data = vec![0; 1 << 20];
        while stream.write_all(&data).is_ok() {}
    })
}

/// Counts what it gets, and keeps its transport where the test can end it.
struct Sink {
    bytes: Rc<Cell<usize>>,
    transports: Rc<RefCell<Vec<Transport>>>,
}

impl Protocol for Sink {
    fn connection_made(&mut self, transport: &Transport) {
        self.transports.borrow_mut().push(transport.clone());
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.bytes.set(self.bytes.get() + data.len());
    }
}

#[test]
fn over_real_sockets_floods_and_busy_callbacks_leave_an_echo_and_a_timer_their_turn() {
    let reactor = Reactor::new().unwrap();
    let bytes = Rc::new(Cell::new(0));
    let transports: Rc<RefCell<Vec<Transport>>> = Rc::default();
    let (count, kept) = (Rc::clone(&bytes), Rc::clone(&transports));
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> {
        Some(Box::new(Sink { bytes: Rc::clone(&count), transports: Rc::clone(&kept) }))
    };
    let port = reactor.listen_tcp(ANY_PORT, Rc::new(factory), Default::default()).unwrap();
    let floods: Vec<_> = (0..3).map(|_| flood(port.local_address())).collect();
    let calls = Rc::new(Cell::new(0));
    call_for_ever(&reactor, &calls);

    let echo = listen(&reactor, || Box::new(Echo));
    let (pinger, finished) = Pinger::new(100);
    reactor.connect_tcp(echo, Box::new(pinger)).detach();
    reactor.run_until(finished).unwrap();
    let (ticked, resolver) = Deferred::new();
    reactor.call_later(MILLISECOND, move || resolver.callback(()));
    reactor.run_until(ticked).unwrap();

    // The greedy ones are not starved either.
    while bytes.get() < 1 << 20 {
        let (soon, resolver) = Deferred::new();
        reactor.call_later(Duration::ZERO, move || resolver.callback(()));
        reactor.run_until(soon).unwrap();
    }
    for transport in transports.take() {
        transport.abort_connection();
    }
    port.stop_listening();
    reactor.stop();
    reactor.run().unwrap();
    for thread in floods {
        thread.join().unwrap();
    }
}

#[test]
fn a_peer_that_reads_nothing_holds_up_only_itself() {
    /// Writes much more than anybody takes at once.
    struct Torrent;
    impl Protocol for Torrent {
        fn connection_made(&mut self, transport: &Transport) {
            transport.write(&vec![0; 64 << 20]);
        }
        fn data_received(&mut self, _: &Transport, _: &[u8]) {}
    }
    let reactor = Reactor::new().unwrap();
    let address = listen(&reactor, || Box::new(Torrent));
    let mut silent = connect_blocking(address);
    let echo = listen(&reactor, || Box::new(Echo));
    let (pinger, finished) = Pinger::new(100);
    reactor.connect_tcp(echo, Box::new(pinger)).detach();
    reactor.run_until(finished).unwrap();
    let mut first = [1];
    assert_eq!(silent.read(&mut first).unwrap(), 1);
    drop(silent);
    reactor.stop();
    reactor.run().unwrap();
}
