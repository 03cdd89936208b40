//! Services: order, failures, deadlines, children that come and go, signals.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::endpoint::ClientEndpoint;
use ropewalk::policy::{ReconnectOptions, ReconnectingClient};
use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{
    Address, AlreadyStarted, CancelledError, Deferred, Failure, MultiService, NoSuchService,
    Protocol, Reactor, ServerService, Service, Signal, StartError, TimerService, Transport,
    logging, run_service, serve,
};

use crate::support::{Echo, OnData};

const STOP_LIMIT: Duration = Duration::from_secs(8);

type Diary = Rc<RefCell<Vec<String>>>;

/// Writes down what happens to it.
struct Recorded {
    name: &'static str,
    diary: Diary,
    start: fn() -> Deferred<()>,
    stop: fn() -> Deferred<()>,
    stop_limit: Option<Duration>,
}

impl Recorded {
    fn new(name: &'static str, diary: &Diary) -> Self {
        Self { name, diary: diary.clone(), start: done, stop: done, stop_limit: None }
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

    fn stop_limit(&self) -> Option<Duration> {
        self.stop_limit
    }
}

/// Makes a running server of these services.
fn running(clock: &Clock, services: impl IntoIterator<Item = Recorded>) -> MultiService {
    let server = MultiService::new("server", STOP_LIMIT);
    services.into_iter().for_each(|service| server.add(service));
    let started = server.start(clock.reactor());
    clock.pump();
    success_result_of(started);
    server
}

fn entries(diary: &Diary) -> String {
    diary.take().join(", ")
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
    assert!(
        lines.take().iter().any(|line| line.starts_with("ERROR") && line.contains("\"server/b\""))
    );
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

#[test]
fn each_service_may_have_a_limit_of_its_own_and_the_others_still_have_time() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let lines = logging::capture(100);
    let limited = |name| Recorded {
        stop: never,
        stop_limit: Some(Duration::from_secs(1)),
        ..Recorded::new(name, &diary)
    };
    let server = running(&clock, [limited("a"), limited("b"), Recorded::new("c", &diary)]);
    diary.take();
    let stopped = server.stop();
    clock.advance(Duration::from_secs(1));
    assert_eq!(entries(&diary), "stop c, stop b, stop a");
    assert_no_result(&stopped);
    clock.advance(Duration::from_secs(1));
    success_result_of(stopped);
    let lines = lines.take();
    let late = |name| lines.iter().filter(|line| line.contains(name)).count();
    assert_eq!((late("\"server/a\" has not"), late("\"server/b\" has not")), (1, 1), "{lines:?}");
}

#[test]
fn what_hangs_deep_inside_is_named() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let lines = logging::capture(100);
    let server = MultiService::new("server", STOP_LIMIT);
    let inner = MultiService::new("inner", STOP_LIMIT * 9);
    inner.add(Recorded { stop: never, ..Recorded::new("culprit", &diary) });
    server.add(inner);
    let started = server.start(clock.reactor());
    clock.pump();
    success_result_of(started);
    let stopped = server.stop();
    clock.advance(STOP_LIMIT);
    success_result_of(stopped);
    let lines = lines.take();
    assert!(lines.iter().any(|line| line.contains("\"server/inner/culprit\" has not stopped")));
}

#[test]
fn stopping_in_the_middle_of_a_start_cancels_it_and_stops_what_has_started() {
    for stop_after_turn in [false, true] {
        let (clock, diary) = (Clock::new(), Diary::default());
        let server = MultiService::new("server", STOP_LIMIT);
        server.add(Recorded::new("a", &diary));
        server.add(Recorded { start: never, ..Recorded::new("b", &diary) });
        server.add(Recorded::new("c", &diary));
        let started = server.start(clock.reactor());
        if stop_after_turn {
            clock.pump();
        }
        let (stopped, again) = (server.stop(), server.stop());
        assert_no_result(&stopped);
        clock.pump();
        success_result_of(stopped);
        success_result_of(again);
        assert!(failure_result_of(started).is::<CancelledError>());
        let expected = if stop_after_turn { "start a, start b, stop a" } else { "" };
        assert_eq!(entries(&diary), expected);
        assert_eq!((server.started_count(), clock.pending_tasks()), (0, 0));
    }
}

#[test]
fn cancelling_a_start_fails_it_when_all_has_stopped_again() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded { stop: never, ..Recorded::new("a", &diary) });
    server.add(Recorded { start: never, ..Recorded::new("b", &diary) });
    let started = server.start(clock.reactor());
    clock.pump();
    started.cancel();
    clock.pump();
    assert_no_result(&started);
    assert_eq!(entries(&diary), "start a, start b, stop a");
    clock.advance(STOP_LIMIT);
    assert!(failure_result_of(started).is::<CancelledError>());
}

#[test]
fn a_server_may_be_started_again_after_it_has_stopped_but_not_before() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let server = running(&clock, [Recorded::new("a", &diary)]);
    assert!(failure_result_of(server.start(clock.reactor())).is::<AlreadyStarted>());
    let stopped = server.stop();
    assert!(failure_result_of(server.start(clock.reactor())).is::<AlreadyStarted>());
    clock.pump();
    success_result_of(stopped);
    assert!(!server.is_running());
    let started = server.start(clock.reactor());
    clock.pump();
    success_result_of(started);
    assert_eq!(entries(&diary), "start a, stop a, start a");
}

#[test]
fn services_that_are_added_to_running_ones_are_started_and_stopped_first() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let lines = logging::capture(100);
    let server = running(&clock, [Recorded::new("a", &diary)]);
    server.add(Recorded::new("b", &diary));
    success_result_of(server.start_child(Rc::new(Recorded::new("c", &diary))));
    let broken = Recorded { start: failing, ..Recorded::new("d", &diary) };
    let failure = failure_result_of(server.start_child(Rc::new(broken)));
    assert_eq!(failure.downcast_ref::<StartError>().unwrap().name, "d");
    server.add(Recorded { start: failing, ..Recorded::new("e", &diary) });
    assert!(lines.take().iter().any(|line| line.contains("\"e\" failed to start")));
    assert_eq!(server.service_names(), ["a", "b", "c"], "who has failed is taken out");
    let pending =
        server.start_child(Rc::new(Recorded { start: never, ..Recorded::new("f", &diary) }));
    diary.take();
    let stopped = server.stop();
    clock.pump();
    success_result_of(stopped);
    assert!(failure_result_of(pending).is::<CancelledError>());
    assert_eq!(entries(&diary), "stop c, stop b, stop a");
}

#[test]
fn a_service_that_is_removed_is_stopped_and_the_others_go_on() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let lines = logging::capture(100);
    let hanging = Recorded { stop: never, ..Recorded::new("c", &diary) };
    let broken = Recorded { stop: failing, ..Recorded::new("d", &diary) };
    let services = [Recorded::new("a", &diary), Recorded::new("b", &diary), hanging, broken];
    let server = running(&clock, services);
    diary.take();
    success_result_of(server.remove("a"));
    assert_eq!(entries(&diary), "stop a");
    let failure = failure_result_of(server.remove("a"));
    assert_eq!(failure.downcast_ref(), Some(&NoSuchService { name: "a".to_owned() }));
    assert!(failure_result_of(server.remove("d")).is::<std::fmt::Error>());
    let hanging = server.remove("c");
    clock.advance(STOP_LIMIT);
    success_result_of(hanging);
    assert!(lines.take().iter().any(|line| line.contains("\"server/c\" has not stopped")));
    assert_eq!((server.service_names(), server.started_count()), (vec!["b".to_owned()], 1));
}

#[test]
fn services_are_found_by_name_at_any_depth() {
    let diary = Diary::default();
    let server = MultiService::new("server", STOP_LIMIT);
    let inner = MultiService::new("inner", STOP_LIMIT);
    inner.add(Recorded::new("deep", &diary));
    inner.add(Recorded::new("own", &diary));
    server.add(inner.clone());
    let own: Rc<dyn Service> = Rc::new(Recorded::new("own", &diary));
    server.add_shared(own.clone());
    assert_eq!(server.service_named("deep").unwrap().name(), "deep");
    assert!(Rc::ptr_eq(&server.service_named("own").unwrap(), &own), "its own come first");
    assert!(server.service_named("nobody").is_none());
    assert_eq!(
        server.service_named("inner").unwrap().as_multi_service().unwrap().service_names(),
        ["deep", "own"]
    );
}

#[test]
fn a_start_that_takes_very_long_is_noted() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let lines = logging::capture(100);
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded { start: never, ..Recorded::new("slow", &diary) });
    let started = server.start(clock.reactor());
    clock.advance(Duration::from_secs(10));
    assert!(lines.take().iter().any(|line| line.contains("\"server/slow\" is still starting")));
    started.cancel();
    clock.pump();
    failure_result_of(started);
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn the_first_signal_stops_in_order_and_the_second_one_at_once() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let lines = logging::capture(100);
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded::new("a", &diary));
    server.add(Recorded { stop: never, ..Recorded::new("b", &diary) });
    let served = serve(clock.reactor(), Rc::new(server));
    clock.pump();
    assert_eq!(entries(&diary), "start a, start b");
    clock.advance(Duration::from_secs(1000));
    assert_no_result(&served);
    clock.raise(Signal::Terminate);
    assert_eq!(entries(&diary), "stop b");
    assert_eq!(clock.exit_status(), None);
    clock.raise(Signal::Interrupt);
    assert_eq!(clock.exit_status(), Some(130));
    let lines = lines.take();
    assert!(lines.iter().any(|line| line.contains("without service \"server/b\"")), "{lines:?}");
    // On a manual clock the process lives on.
    clock.advance(STOP_LIMIT);
    success_result_of(served);
    assert_eq!(entries(&diary), "stop a");
}

#[test]
fn a_signal_during_the_start_ends_the_program_in_order() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded::new("a", &diary));
    server.add(Recorded { start: never, ..Recorded::new("b", &diary) });
    let served = serve(clock.reactor(), Rc::new(server));
    clock.pump();
    clock.raise(Signal::Interrupt);
    success_result_of(served);
    assert_eq!(entries(&diary), "start a, start b, stop a");
}

#[test]
fn a_program_that_does_not_start_says_why() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let service = Rc::new(Recorded { start: failing, ..Recorded::new("a", &diary) });
    let served = serve(clock.reactor(), service);
    clock.pump();
    assert!(failure_result_of(served).is::<std::fmt::Error>());
    assert_eq!(entries(&diary), "start a");
}

#[test]
fn a_single_service_has_its_own_limit_too_and_cancelling_is_as_good_as_a_signal() {
    let (clock, diary) = (Clock::new(), Diary::default());
    let lines = logging::capture(100);
    let service = Recorded {
        stop: never,
        stop_limit: Some(Duration::from_secs(3)),
        ..Recorded::new("a", &diary)
    };
    let served = serve(clock.reactor(), Rc::new(service));
    clock.pump();
    served.cancel();
    clock.advance(Duration::from_secs(2));
    assert_no_result(&served);
    clock.advance(Duration::from_secs(1));
    success_result_of(served);
    assert_eq!(entries(&diary), "start a, stop a");
    assert!(lines.take().iter().any(|line| line.contains("\"a\" has not stopped within 3s")));
}

#[test]
fn a_service_around_many_is_given_up_even_if_it_hangs_itself() {
    struct Wrapper(MultiService);
    impl Service for Wrapper {
        fn name(&self) -> &str {
            "wrapper"
        }

        fn start(&self, reactor: &Reactor) -> Deferred<()> {
            self.0.start(reactor)
        }

        fn stop(&self) -> Deferred<()> {
            self.0.stop().add_callback(|()| never())
        }

        fn as_multi_service(&self) -> Option<&MultiService> {
            Some(&self.0)
        }
    }
    let clock = Clock::new();
    let lines = logging::capture(100);
    let served = serve(clock.reactor(), Rc::new(Wrapper(MultiService::new("inner", STOP_LIMIT))));
    clock.pump();
    clock.raise(Signal::Terminate);
    clock.advance(STOP_LIMIT);
    assert_no_result(&served);
    clock.advance(Duration::from_secs(1));
    success_result_of(served);
    assert!(lines.take().iter().any(|line| line.contains("\"wrapper\" has not stopped")));
}

#[test]
fn a_program_runs_on_the_real_loop_until_it_is_told_to_stop() {
    let reactor = Reactor::new().unwrap();
    let diary = Diary::default();
    let server = MultiService::new("server", STOP_LIMIT);
    server.add(Recorded::new("a", &diary));
    let failing_one = Recorded { start: failing, ..Recorded::new("b", &diary) };
    server.add(failing_one);
    let failure = run_service(&reactor, Rc::new(server)).unwrap_err();
    assert!(failure.is::<StartError>());
    assert_eq!(entries(&diary), "start a, start b, stop a");
    assert!(reactor.run().is_err(), "the reactor has come to its end");
}

#[test]
fn a_timer_service_goes_on_after_failures_and_waits_for_its_last_call() {
    let clock = Clock::new();
    let lines = logging::capture(100);
    let count = Rc::new(Cell::new(0));
    let (counted, reactor) = (count.clone(), clock.reactor().clone());
    let timer = TimerService::new("tick", Duration::from_secs(10), move || {
        counted.set(counted.get() + 1);
        match counted.get() {
            1 => Deferred::fail(std::fmt::Error),
            2 => panic!("on purpose"),
            _ => reactor.defer_later(Duration::from_secs(5), || Ok(())),
        }
    });
    success_result_of(timer.start(clock.reactor()));
    clock.advance(Duration::from_secs(20));
    assert_eq!(count.get(), 3);
    let stopped = timer.stop();
    clock.advance(Duration::from_secs(4));
    assert_no_result(&stopped);
    clock.advance(Duration::from_secs(100));
    success_result_of(stopped);
    assert_eq!(count.get(), 3);
    let errors = lines.take().iter().filter(|line| line.contains("\"tick\" failed")).count();
    assert_eq!(errors, 2);
    success_result_of(timer.start(clock.reactor()));
    clock.pump();
    assert_eq!(count.get(), 4, "it can be started again");
}

#[test]
fn a_timer_service_may_begin_after_an_interval() {
    let clock = Clock::new();
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    let timer = TimerService::new("tick", Duration::from_secs(10), move || {
        counted.set(counted.get() + 1);
        Ok(())
    })
    .after_interval();
    success_result_of(timer.start(clock.reactor()));
    clock.advance(Duration::from_secs(9));
    assert_eq!(count.get(), 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(count.get(), 1);
    success_result_of(timer.stop());
    success_result_of(timer.stop());
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn a_server_service_listens_until_it_stops_and_then_waits_for_what_is_left() {
    let clock = Clock::new();
    let factory = |_: &Address| Some(Box::new(Echo) as Box<dyn Protocol>);
    let (drained, resolver) = Deferred::new();
    let drained = RefCell::new(Some(drained));
    let endpoint = "tcp:7:interface=127.0.0.1".parse().unwrap();
    let echo = ServerService::at("echo", endpoint, Rc::new(factory))
        .on_stop(move || drained.take().unwrap());
    success_result_of(echo.start(clock.reactor()));
    let taken = ServerService::new("another", move |reactor| -> Result<_, Failure> {
        let options = ropewalk::ListenOptions::default();
        let address = "127.0.0.1:7".parse()?;
        Ok(reactor.listen_tcp(address, Rc::new(factory), options)?)
    });
    let failure = failure_result_of(taken.start(clock.reactor()));
    assert!(failure.is::<std::io::Error>());
    assert_eq!(taken.address(), None);
    assert_eq!(clock.open_connections(), 1);
    let stopped = echo.stop();
    assert_eq!((clock.open_connections(), echo.address()), (0, None));
    assert_no_result(&stopped);
    resolver.callback(());
    success_result_of(stopped);
    success_result_of(taken.start(clock.reactor()));
    assert_eq!(taken.address().unwrap().to_string(), "127.0.0.1:7");
    success_result_of(taken.stop());
}

#[test]
fn a_program_of_a_server_a_client_and_a_timer_runs_and_ends_in_order() {
    let clock = Clock::new();
    let lines = logging::capture(1000);
    let factory = |_: &Address| Some(Box::new(Echo) as Box<dyn Protocol>);
    let server = ServerService::at("echo", "tcp:7".parse().unwrap(), Rc::new(factory));
    let received: Rc<RefCell<Vec<u8>>> = Rc::default();
    let heard = received.clone();
    let endpoint: ClientEndpoint = "tcp:127.0.0.1:7".parse().unwrap();
    let build = move || {
        let heard = heard.clone();
        let on_data = OnData(move |_: &Transport, data: &[u8]| heard.borrow_mut().extend(data));
        Box::new(on_data) as Box<dyn Protocol>
    };
    let client = ReconnectingClient::new("asker", endpoint, build, ReconnectOptions::default());
    let connected = client.clone();
    let timer = TimerService::new("ask", Duration::from_secs(10), move || {
        connected.when_connected().add_callback(|transport| {
            transport.write(b"?");
            Ok(())
        })
    });
    let program = MultiService::new("program", STOP_LIMIT);
    program.add(server);
    program.add(client);
    program.add(timer);
    let served = serve(clock.reactor(), Rc::new(program.clone()));
    clock.advance(Duration::from_secs(20));
    assert_eq!(*received.borrow(), b"???");
    clock.raise(Signal::Terminate);
    clock.advance(STOP_LIMIT);
    success_result_of(served);
    assert_eq!((program.started_count(), clock.open_connections()), (0, 2), "the two signals");
    let stopped: Vec<String> =
        lines.take().into_iter().filter(|line| line.contains("has not stopped")).collect();
    assert_eq!(stopped, [""; 0]);
}

/// Set in the process that is the program under test.
const PROGRAM: &str = "ROPEWALK_TEST_PROGRAM";

/// In that process a program that says what it does; otherwise nothing.
#[test]
fn the_program_that_is_signalled() {
    struct Talkative {
        stop: fn() -> Deferred<()>,
    }
    impl Service for Talkative {
        fn name(&self) -> &str {
            "talkative"
        }

        fn start(&self, _: &Reactor) -> Deferred<()> {
            println!("started");
            done()
        }

        fn stop(&self) -> Deferred<()> {
            println!("stopping");
            (self.stop)()
        }
    }
    let stop = match std::env::var(PROGRAM).as_deref() {
        Ok("hangs") => never,
        Ok(_) => done,
        Err(_) => return,
    };
    run_service(&Reactor::new().unwrap(), Rc::new(Talkative { stop })).unwrap();
}

#[test]
fn a_real_process_ends_at_a_signal_in_order_or_at_a_second_one_at_once() {
    use std::io::{BufRead, BufReader};

    use rustix::process::{Pid, Signal, kill_process};

    for (how, expected) in [("stops", 0), ("hangs", 143)] {
        let mut program = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "services::the_program_that_is_signalled", "--nocapture"])
            .env(PROGRAM, how)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = Pid::from_child(&program);
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            // The first one stands behind what the test harness says about the test.
            let is_told = line.ends_with("started") || (line == "stopping" && how == "hangs");
            if is_told {
                kill_process(process, Signal::TERM).unwrap();
            }
        }
        assert_eq!(program.wait().unwrap().code(), Some(expected), "one that {how}");
    }
}
