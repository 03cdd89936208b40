//! Looping calls: when they are made, what is skipped, how they end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{
    Clock, NoDeferredLeaks, UnhandledErrors, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{
    CancelledError, Deferred, FirstCall, LogContext, LoopingCall, Panicked, Resolver, logging,
};

const INTERVAL: Duration = Duration::from_secs(10);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Notes when it is called, in seconds, and with which count; waits when it is told to.
#[derive(Clone, Default)]
struct Calls {
    made: Rc<RefCell<Vec<(u64, u64)>>>,
    waits: Rc<Cell<bool>>,
    under_way: Rc<RefCell<Option<Resolver<()>>>>,
}

impl Calls {
    fn start(&self, clock: &Clock, first: FirstCall) -> LoopingCall {
        let this = self.clone();
        let reactor = clock.reactor().clone();
        LoopingCall::start_with_count(clock.reactor(), "call", first, INTERVAL, move |count| {
            let seconds = reactor.now().as_nanos() / 1_000_000_000;
            this.made.borrow_mut().push((seconds, count));
            if !this.waits.get() {
                return Deferred::succeed(());
            }
            let (deferred, resolver) = Deferred::new();
            this.under_way.replace(Some(resolver));
            deferred
        })
    }

    fn made(&self) -> Vec<(u64, u64)> {
        self.made.take()
    }

    fn finish(&self) {
        self.under_way.take().expect("a call is under way").callback(());
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn the_first_call_comes_now_or_after_one_interval() {
    let clock = Clock::new();
    let (now, later) = (Calls::default(), Calls::default());
    clock.advance(seconds(3));
    now.start(&clock, FirstCall::Now);
    later.start(&clock, FirstCall::AfterInterval);
    assert_eq!(now.made(), [], "it does not call back before it returns");
    clock.advance(seconds(25));
    assert_eq!(now.made(), [(3, 1), (13, 1), (23, 1)]);
    assert_eq!(later.made(), [(13, 1), (23, 1)]);
}

#[test]
fn a_call_that_takes_too_long_skips_and_says_how_many() {
    let clock = Clock::new();
    let calls = Calls::default();
    let call = calls.start(&clock, FirstCall::Now);
    clock.advance(seconds(10));
    calls.waits.set(true);
    clock.advance(seconds(37));
    assert_eq!(calls.made(), [(0, 1), (10, 1), (20, 1)], "the third is not finished");
    calls.waits.set(false);
    calls.finish();
    clock.advance(seconds(20));
    assert_eq!(calls.made(), [(50, 3), (60, 1)], "30 and 40 were skipped");
    assert_eq!(call.call_count(), 5);
}

#[test]
fn calls_do_not_drift_however_late_they_are_made() {
    let clock = Clock::new();
    let times: Rc<RefCell<Vec<Duration>>> = Rc::default();
    let (reactor, noted) = (clock.reactor().clone(), times.clone());
    let sleeper = reactor.clone();
    LoopingCall::start(clock.reactor(), "slow", seconds(1), move || {
        noted.borrow_mut().push(reactor.now() - ropewalk::Instant::START);
        sleeper.defer_later(Duration::from_millis(999), || Ok(()))
    });
    clock.advance(seconds(1000));
    assert_eq!(times.borrow().len(), 1000);
    assert!(times.borrow().iter().enumerate().all(|(at, time)| *time == seconds(at as u64 + 1)));
}

#[test]
fn a_clock_that_jumps_ahead_makes_one_call_and_keeps_the_beat() {
    let clock = Clock::new();
    let calls = Calls::default();
    calls.start(&clock, FirstCall::AfterInterval);
    clock.advance(seconds(12));
    // The machine sleeps: the loop finds that much more time has passed than it wanted to wait.
    clock.spend(seconds(100));
    clock.pump();
    assert_eq!(calls.made(), [(10, 1), (112, 10)]);
    clock.advance(seconds(8));
    assert_eq!(calls.made(), [(120, 1)]);
}

#[test]
fn stopping_between_calls_is_done_at_once() {
    let leaks = NoDeferredLeaks::watch();
    let clock = Clock::new();
    let calls = Calls::default();
    let call = calls.start(&clock, FirstCall::AfterInterval);
    let ended = call.ended();
    clock.advance(seconds(10));
    assert_no_result(&ended);
    success_result_of(call.stop());
    success_result_of(ended);
    success_result_of(call.stop());
    success_result_of(call.ended());
    clock.advance(seconds(100));
    assert_eq!(calls.made(), [(10, 1)]);
    assert_eq!(clock.pending_calls(), 0);
    assert!(!call.is_running());
    drop((call, calls, clock));
    assert_eq!(leaks.living(), 0);
}

#[test]
fn stopping_during_a_call_waits_for_its_result() {
    let clock = Clock::new();
    let calls = Calls::default();
    calls.waits.set(true);
    let call = calls.start(&clock, FirstCall::Now);
    clock.pump();
    let (stopped, again) = (call.stop(), call.stop());
    assert!(!call.is_running());
    clock.advance(seconds(100));
    assert_no_result(&stopped);
    calls.finish();
    success_result_of(stopped);
    success_result_of(again);
    assert_eq!((calls.made(), clock.pending_calls()), (vec![(0, 1)], 0));
}

#[test]
fn cancelling_a_stop_ends_the_waiting_only() {
    let clock = Clock::new();
    let calls = Calls::default();
    calls.waits.set(true);
    let call = calls.start(&clock, FirstCall::Now);
    clock.pump();
    let stopped = call.stop();
    stopped.cancel();
    assert!(failure_result_of(stopped).is::<CancelledError>());
    let ended = call.ended();
    calls.finish();
    success_result_of(ended);
}

#[test]
fn a_call_may_stop_its_loop_itself() {
    let clock = Clock::new();
    let slot: Rc<RefCell<Option<LoopingCall>>> = Rc::default();
    let inside = slot.clone();
    let call = LoopingCall::start_now(clock.reactor(), "once", INTERVAL, move || {
        inside.borrow().as_ref().unwrap().stop().detach();
        Ok(())
    });
    slot.replace(Some(call.clone()));
    clock.pump();
    success_result_of(call.ended());
    assert_eq!(call.call_count(), 1);
    assert_eq!(Rc::strong_count(&slot), 1, "the function and what it owns is gone");
}

#[test]
fn a_failure_ends_it_and_is_given_to_whoever_waits() {
    let unhandled = UnhandledErrors::trap();
    let lines = logging::capture(100);
    let clock = Clock::new();
    let failing = LoopingCall::start(clock.reactor(), "failing", INTERVAL, || {
        Deferred::fail(std::fmt::Error)
    });
    let panicking = LoopingCall::start(clock.reactor(), "panicking", INTERVAL, || {
        if true {
            panic!("on purpose");
        }
        Ok(())
    });
    let (ended, stopped) = (failing.ended(), panicking.ended());
    clock.advance(seconds(100));
    assert!(failure_result_of(ended).is::<std::fmt::Error>());
    assert!(failure_result_of(stopped).is::<Panicked>());
    assert_eq!((failing.call_count(), panicking.call_count()), (1, 1));
    assert!(failure_result_of(failing.stop()).is::<std::fmt::Error>(), "later ones hear it, too");
    assert_eq!(unhandled.take().len(), 0);
    assert!(!lines.take().iter().any(|line| line.contains("looping call")));
}

#[test]
fn a_failure_that_nobody_waits_for_is_logged_once() {
    let unhandled = UnhandledErrors::trap();
    let lines = logging::capture(100);
    let clock = Clock::new();
    let call =
        LoopingCall::start(clock.reactor(), "prune", INTERVAL, || Deferred::fail(std::fmt::Error));
    clock.advance(seconds(100));
    drop(call);
    let lines = lines.take();
    let failed: Vec<_> = lines.iter().filter(|line| line.contains("\"prune\" failed")).collect();
    assert_eq!(failed.len(), 1, "{lines:?}");
    assert!(failed[0].starts_with("ERROR"), "{failed:?}");
    assert_eq!(unhandled.take().len(), 0);
}

#[test]
fn resetting_puts_the_next_call_one_interval_ahead() {
    let clock = Clock::new();
    let calls = Calls::default();
    let call = calls.start(&clock, FirstCall::AfterInterval);
    for _ in 0..3 {
        clock.advance(seconds(9));
        call.reset();
    }
    assert_eq!(calls.made(), []);
    clock.advance(seconds(20));
    assert_eq!(calls.made(), [(37, 1), (47, 1)]);
    calls.waits.set(true);
    clock.advance(seconds(12));
    call.reset();
    clock.advance(seconds(15));
    calls.waits.set(false);
    calls.finish();
    clock.advance(seconds(10));
    assert_eq!(calls.made(), [(57, 1), (79, 2)], "multiples of ten from 59 on");
    let early = calls.start(&clock, FirstCall::Now);
    early.reset();
    clock.advance(seconds(10) - MILLISECOND);
    assert_eq!(early.call_count(), 0, "the call that was about to be made is skipped");
}

#[test]
fn an_interval_of_zero_is_a_call_each_turn_and_lets_others_have_theirs() {
    let clock = Clock::new();
    let slot: Rc<RefCell<Option<LoopingCall>>> = Rc::default();
    let (inside, others) = (slot.clone(), Rc::new(Cell::new(0)));
    let (reactor, counted) = (clock.reactor().clone(), others.clone());
    let first = FirstCall::AfterInterval;
    let call = LoopingCall::start_with_count(
        clock.reactor(),
        "busy",
        first,
        Duration::ZERO,
        move |count| {
            assert_eq!(count, 1);
            let counted = counted.clone();
            reactor.call_later(Duration::ZERO, move || counted.set(counted.get() + 1));
            let call = inside.borrow().clone().unwrap();
            if call.call_count() == 5000 {
                assert!(others_had_their_turns(&call));
                call.stop().detach();
            }
            Ok(())
        },
    );
    slot.replace(Some(call.clone()));
    clock.pump();
    assert_eq!((call.call_count(), others.get()), (5000, 5000));

    fn others_had_their_turns(call: &LoopingCall) -> bool {
        call.is_running()
    }
}

#[test]
fn each_call_has_a_context_of_its_own_and_observers_keep_theirs() {
    let clock = Clock::new();
    let names: Rc<RefCell<Vec<String>>> = Rc::default();
    let noted = names.clone();
    let call = LogContext::new("request").run(|| {
        LoopingCall::start_now(clock.reactor(), "tick", INTERVAL, move || {
            noted.borrow_mut().push(LogContext::current().name().to_owned());
            Ok(())
        })
    });
    clock.advance(INTERVAL);
    assert_eq!(*names.borrow(), ["tick-1", "tick-2"]);
    let ended = LogContext::new("observer")
        .run(|| call.ended().add_callback(|()| Ok(LogContext::current().name().to_owned())));
    call.stop().detach();
    assert_eq!(success_result_of(ended), "observer");
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn when_the_reactor_stops_its_loops_are_cancelled() {
    let unhandled = UnhandledErrors::trap();
    let clock = Clock::new();
    let (waiting, soon) = (Calls::default(), Calls::default());
    let calls =
        [waiting.start(&clock, FirstCall::AfterInterval), soon.start(&clock, FirstCall::Now)];
    let ended = calls.each_ref().map(LoopingCall::ended);
    let reactor = clock.reactor().clone();
    drop(clock);
    for ended in ended {
        assert!(failure_result_of(ended).is::<CancelledError>());
    }
    let late = LoopingCall::start(&reactor, "late", INTERVAL, || Ok(()));
    assert!(failure_result_of(late.ended()).is::<CancelledError>());
    assert!(!late.is_running());
    assert_eq!(unhandled.take().len(), 0);
}

#[test]
fn a_time_of_day_that_is_set_moves_no_call() {
    let clock = Clock::new();
    let calls = Calls::default();
    calls.start(&clock, FirstCall::AfterInterval);
    let later = Rc::new(Cell::new(false));
    let fired = later.clone();
    clock.reactor().call_later(seconds(25), move || fired.set(true));
    let day = seconds(86_400);
    for time in [clock.reactor().wall_clock() + day, clock.reactor().wall_clock() - day] {
        clock.set_wall_clock(time);
        assert_eq!(clock.reactor().wall_clock(), time);
        clock.advance(seconds(12));
        assert_eq!(clock.reactor().wall_clock(), time + seconds(12));
    }
    assert_eq!(calls.made(), [(10, 1), (20, 1)]);
    assert!(!later.get());
    clock.advance(seconds(1));
    assert!(later.get());
}

#[test]
fn calls_and_loops_that_are_due_at_the_same_instant_come_in_the_order_of_their_scheduling() {
    let clock = Clock::new();
    let order: Rc<RefCell<Vec<&str>>> = Rc::default();
    let noted = |name| {
        let order = order.clone();
        move || order.borrow_mut().push(name)
    };
    clock.reactor().call_later(INTERVAL, noted("first"));
    let looped = noted("loop");
    LoopingCall::start(clock.reactor(), "loop", INTERVAL, move || {
        looped();
        Ok(())
    });
    let last = noted("defer_later");
    let deferred = clock.reactor().defer_later(INTERVAL, move || {
        last();
        Ok(())
    });
    deferred.detach();
    clock.reactor().call_later(INTERVAL, noted("last"));
    clock.advance(INTERVAL);
    assert_eq!(*order.borrow(), ["first", "loop", "defer_later", "last"]);
}

#[test]
fn a_call_whose_deferred_is_never_fired_ends_with_the_reactor_and_without_noise() {
    let unhandled = UnhandledErrors::trap();
    let clock = Clock::new();
    let reactor = clock.reactor().clone();
    let call = LoopingCall::start_now(clock.reactor(), "task", INTERVAL, move || {
        reactor.spawn(std::future::pending())
    });
    let (never, resolver) = Deferred::<()>::new();
    let mut never = Some(never);
    LoopingCall::start_now(clock.reactor(), "deferred", INTERVAL, move || never.take().unwrap());
    clock.pump();
    let ended = call.ended();
    drop(clock);
    assert!(failure_result_of(ended).is::<CancelledError>());
    drop((call, resolver));
    assert!(unhandled.take().iter().all(|one| one.failure.is::<ropewalk::ResolverDropped>()));
}
