//! Services: order, failures and the deadline.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{Deferred, MultiService, Reactor, Service, StartError, logging};

const STOP_LIMIT: Duration = Duration::from_secs(8);

type Diary = Rc<RefCell<Vec<String>>>;

/// Writes down what happens to it.
struct Recorded {
    name: &'static str,
    diary: Diary,
    start: fn() -> Deferred<()>,
    stop: fn() -> Deferred<()>,
}

impl Recorded {
    fn new(name: &'static str, diary: &Diary) -> Self {
        Self { name, diary: diary.clone(), start: done, stop: done }
    }

    fn note(&self, what: &str) {
        self.diary.borrow_mut().push(format!("{what} {}", self.name));
    }
}

impl Service for Recorded {
    fn name(&self) -> &str {
        self.name
    }

    fn start(&self, _reactor: &Reactor) -> Deferred<()> {
        self.note("start");
        (self.start)()
    }

    fn stop(&self) -> Deferred<()> {
        self.note("stop");
        (self.stop)()
    }
}

fn done() -> Deferred<()> {
    Deferred::succeed(())
}

fn failing() -> Deferred<()> {
    Deferred::fail(std::fmt::Error)
}

/// Never has a result, and ignores being cancelled as far as it can.
fn never() -> Deferred<()> {
    let (deferred, resolver) = Deferred::new();
    std::mem::forget(resolver);
    deferred
}

#[test]
fn services_start_in_order_and_stop_in_reverse() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let inner = MultiService::new("inner", STOP_LIMIT);
    inner.add(Recorded::new("b", &diary));
    inner.add(Recorded::new("c", &diary));
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded::new("a", &diary));
    server.add(inner);
    server.add(Recorded::new("d", &diary));
    let started = server.start(clock.reactor());
    clock.pump();
    success_result_of(started);
    let stopped = server.stop();
    clock.pump();
    success_result_of(stopped);
    let expected = "start a, start b, start c, start d, stop d, stop c, stop b, stop a";
    assert_eq!(diary.borrow().join(", "), expected);
    success_result_of(server.stop());
    assert_eq!(diary.borrow().len(), 8, "stopping twice does nothing");
}

#[test]
fn a_service_that_fails_to_start_stops_those_before_it() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded::new("a", &diary));
    server.add(Recorded { start: failing, ..Recorded::new("b", &diary) });
    server.add(Recorded::new("c", &diary));
    let started = server.start(clock.reactor());
    clock.pump();
    let failure = failure_result_of(started);
    let error = failure.downcast_ref::<StartError>().unwrap();
    assert_eq!(error.name, "b");
    assert!(error.cause.is::<std::fmt::Error>());
    assert_eq!(diary.borrow().join(", "), "start a, start b, stop a");
}

#[test]
fn a_service_that_fails_to_stop_is_logged_and_the_others_stop() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let lines = logging::capture(100);
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded::new("a", &diary));
    server.add(Recorded { stop: failing, ..Recorded::new("b", &diary) });
    let started = server.start(clock.reactor());
    clock.pump();
    success_result_of(started);
    let stopped = server.stop();
    clock.pump();
    success_result_of(stopped);
    assert_eq!(diary.borrow().join(", "), "start a, start b, stop b, stop a");
    assert!(lines.take().iter().any(|line| line.starts_with("ERROR") && line.contains("\"b\"")));
}

#[test]
fn a_service_that_does_not_stop_uses_up_the_time_and_the_others_are_still_told() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded::new("a", &diary));
    server.add(Recorded { stop: never, ..Recorded::new("b", &diary) });
    let started = server.start(clock.reactor());
    clock.pump();
    success_result_of(started);
    let stopped = server.stop();
    clock.pump();
    assert_no_result(&stopped);
    assert_eq!(diary.borrow().join(", "), "start a, start b, stop b");
    clock.advance(STOP_LIMIT);
    success_result_of(stopped);
    assert_eq!(diary.borrow().join(", "), "start a, start b, stop b, stop a");
}
