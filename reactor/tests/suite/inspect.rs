//! What a reactor tells of itself: tables of what is pending, metrics, and warnings about what holds the loop.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::inspect::{ROWS_MAX, Table};
use ropewalk::logging;
use ropewalk::testing::Clock;
use ropewalk::{
    Address, Deferred, ListenOptions, LogContext, Protocol, Reactor, ThreadPoolOptions, Transport,
};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

fn table(reactor: &Reactor, title: &str) -> Table {
    let snapshot = reactor.inspect();
    let found = snapshot.tables.into_iter().find(|table| table.title == title);
    found.unwrap_or_else(|| panic!("no table {title}"))
}

fn listen(reactor: &Reactor) -> SocketAddr {
    let factory = |_: &Address| Some(Box::new(Echo) as Box<dyn Protocol>);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    reactor.listen_tcp(any, Rc::new(factory), ListenOptions::default()).unwrap().local_address()
}

#[test]
fn delayed_calls_are_listed_in_the_order_in_which_they_come() {
    let clock = Clock::new();
    let second = Duration::from_secs(1);
    LogContext::new("late").run(|| clock.reactor().call_later(second * 9, || ()));
    LogContext::new("soon").run(|| clock.reactor().call_later(second, || ()));
    clock.advance(second / 2);
    let calls = table(clock.reactor(), "Delayed calls");
    let rows: Vec<(&str, &str)> = calls.rows.iter().map(|row| (&*row[0], &*row[1])).collect();
    assert_eq!(rows, [("0.500 s", "soon"), ("8.500 s", "late")]);
    assert!(calls.rows[0][2].contains("inspect::delayed_calls_are_listed"), "{:?}", calls.rows[0]);
}

#[test]
fn a_thousand_calls_are_counted_and_some_of_them_listed() {
    let clock = Clock::new();
    for _ in 0..1000 {
        clock.reactor().call_later(Duration::from_secs(1), || ());
    }
    let calls = table(clock.reactor(), "Delayed calls");
    assert_eq!((calls.count, calls.rows.len()), (1000, ROWS_MAX));
    let text = clock.reactor().inspect().to_string();
    assert!(text.contains("and 500 more"), "{text}");
}

#[test]
fn tasks_and_deferreds_are_listed_by_where_they_were_made() {
    let clock = Clock::new();
    let (awaited, resolver) = Deferred::<()>::new();
    let context = LogContext::new("PUT-17");
    let task = context.run(|| clock.reactor().spawn(awaited));
    clock.pump();
    let tasks = table(clock.reactor(), "Tasks");
    assert_eq!(tasks.rows.len(), 1);
    assert!(tasks.rows[0][0].contains("inspect.rs:"), "{:?}", tasks.rows);
    assert_eq!(tasks.rows[0][1..], ["PUT-17", "awaits a deferred"]);
    let deferreds = table(clock.reactor(), "Deferreds");
    assert_eq!(deferreds.count, 2, "{deferreds}");
    resolver.callback(());
    clock.pump();
    drop(task);
    assert_eq!(table(clock.reactor(), "Tasks").count, 0);
    assert_eq!(table(clock.reactor(), "Deferreds").count, 0);
}

#[test]
fn deferreds_are_not_counted_if_nobody_wants_it() {
    let clock = Clock::new();
    clock.reactor().track_deferreds(false);
    let (_deferred, _resolver) = Deferred::<()>::new();
    assert_eq!(table(clock.reactor(), "Deferreds (not tracked)").count, 0);
    clock.reactor().track_deferreds(true);
    let (_second, _resolver) = Deferred::<()>::new();
    assert_eq!(table(clock.reactor(), "Deferreds").count, 1);
}

#[test]
fn connections_and_ports_are_listed() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let address = listen(reactor);
    let connected = reactor.connect_tcp(address, Box::new(Echo));
    clock.pump();
    let transport = ropewalk::testing::success_result_of(connected);
    transport.pause_producing();
    let connections = table(reactor, "Connections");
    assert_eq!(connections.count, 2);
    let ours = connections.rows.iter().find(|row| row[0] == address.to_string()).unwrap();
    assert_eq!(ours[2..], ["reading is paused", "0"]);
    let ports = table(reactor, "Ports");
    assert_eq!(ports.rows, [[format!("tcp-{}", address.port()), "1".to_owned()]]);
}

#[test]
fn thread_jobs_are_listed_until_they_come_back() {
    let clock = Clock::new();
    let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("digests"));
    let job = LogContext::new("upload").run(|| pool.defer(|| Ok::<(), ropewalk::Failure>(())));
    let jobs = table(clock.reactor(), "Thread jobs");
    assert_eq!(jobs.rows.len(), 1);
    assert_eq!((&*jobs.rows[0][0], &*jobs.rows[0][2]), ("digests", "upload"));
    clock.pump();
    assert_eq!(table(clock.reactor(), "Thread jobs").count, 0);
    drop(job);
}

#[test]
fn what_a_peer_has_sent_is_harmless_in_the_page() {
    let clock = Clock::new();
    let context = LogContext::new("<script>alert(\"&\")</script>");
    context.run(|| clock.reactor().call_later(Duration::from_secs(1), || ()));
    let page = clock.reactor().inspect().to_html();
    assert!(page.contains("&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;"));
    assert!(!page.contains("<script"));
}

#[test]
fn metrics_count_what_happens() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let address = listen(reactor);
    let connected = reactor.connect_tcp(address, Box::new(Echo));
    clock.pump();
    ropewalk::testing::success_result_of(connected).abort_connection();
    reactor.call_later(Duration::from_secs(1), || ());
    clock.pump();
    let contexts_before = reactor.metrics().contexts;
    let context = LogContext::new("tea");
    assert_eq!(reactor.metrics().contexts, contexts_before + 1);
    drop(context);
    let metrics = reactor.metrics();
    assert_eq!(metrics.contexts, contexts_before);
    assert_eq!((metrics.accepts, metrics.connections_opened, metrics.connections), (1, 2, 0));
    assert_eq!(metrics.pending_calls, 1);
    assert!(metrics.turns > 0);
}

#[test]
fn late_calls_show_in_the_lag() {
    let clock = Clock::new();
    clock.set_cost_of_calls(Duration::from_secs(1));
    let millisecond = Duration::from_millis(1);
    clock.reactor().call_later(millisecond, || ());
    let reactor = clock.reactor().clone();
    clock.reactor().call_soon(move || {
        reactor.call_later(millisecond, || ());
    });
    clock.advance(Duration::from_secs(5));
    let lag = clock.reactor().metrics().lag_seconds;
    let late: u64 = lag.buckets.iter().filter(|(bound, _)| *bound > 0.5).map(|(_, n)| n).sum();
    assert!(late >= 1, "{lag:?}");
}

#[test]
fn the_page_of_metrics_is_what_prometheus_reads() {
    let clock = Clock::new();
    let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("digests"));
    let mut page = String::new();
    clock.reactor().metrics().write(&mut page).unwrap();
    drop(pool);
    for line in [
        "# HELP ropewalk_turns Turns of the loop",
        "# TYPE ropewalk_turns counter",
        "ropewalk_turns_total 0",
        "ropewalk_received_bytes_total 0",
        "ropewalk_pending_calls 0",
        "ropewalk_turn_duration_seconds_bucket{le=\"+Inf\"} 0",
        "ropewalk_threads{pool=\"digests\"} 0.0",
        "ropewalk_thread_jobs_completed_total{pool=\"digests\"} 0.0",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
    }
}

#[test]
fn what_holds_the_loop_too_long_is_named_with_its_context() {
    let clock = Clock::new();
    clock.set_cost_of_calls(Duration::from_millis(30));
    clock.reactor().set_hold_limit(Duration::from_millis(20));
    let captured = logging::capture(100);
    LogContext::new("GET-5").run(|| clock.reactor().call_soon(|| ()));
    clock.pump();
    let lines = captured.take().join("\n");
    assert!(lines.contains("what_holds_the_loop_too_long_is_named"), "{lines}");
    assert!(lines.contains("context=GET-5 held_ms=30"), "{lines}");
    let count = clock.reactor().metrics().overlong_calls;
    assert!(count >= 1);
    clock.reactor().set_hold_limit(Duration::from_millis(40));
    clock.reactor().call_soon(|| ());
    clock.pump();
    assert_eq!(clock.reactor().metrics().overlong_calls, count);
}
