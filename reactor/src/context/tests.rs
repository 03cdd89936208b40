//! What is charged to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::logging;

const STEP: Duration = Duration::from_millis(7);

/// Time that passes when told so, for as long as this lives.
struct Passing {
    nanos: Arc<AtomicU64>,
    cpu_nanos: Rc<Cell<u64>>,
    before: Option<AccountingClock>,
}

impl Passing {
    fn install() -> Self {
        Self::with_cpu_clock(|_| CpuClock::None)
    }

    fn with_cpu_clock(clock: impl FnOnce(Rc<Cell<u64>>) -> CpuClock) -> Self {
        let nanos = Arc::new(AtomicU64::new(1_000));
        let shared = Arc::clone(&nanos);
        let stopwatch: Stopwatch =
            Arc::new(move || Duration::from_nanos(shared.load(Ordering::Relaxed)));
        let cpu_nanos = Rc::new(Cell::new(7_000));
        let clock = AccountingClock::Thread(stopwatch, clock(Rc::clone(&cpu_nanos)));
        Self { nanos, cpu_nanos, before: install_clock(Some(clock)) }
    }

    /// Time that passes while this thread has the processor.
    fn compute(&self, time: Duration) {
        self.pass(time);
        self.cpu_nanos.set(self.cpu_nanos.get() + time.as_nanos() as u64);
    }

    fn pass(&self, time: Duration) {
        self.nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        install_clock(self.before.take());
    }
}

#[test]
fn parents_get_their_childrens_costs() {
    let parent = LogContext::new("GET-1");
    let child = parent.child("fetch");
    assert_eq!(child.name(), "GET-1-fetch");
    assert!(child.parent().is_same(&parent));
    child.record_database_transaction(STEP);
    child.record_database_transaction(STEP);
    child.record_events_fetched(5);
    parent.record_events_fetched(1);
    let (child, parent) = (child.usage(), parent.usage());
    assert_eq!((child.db_transactions, child.db_time, child.events_fetched), (2, STEP * 2, 5));
    assert_eq!((parent.db_transactions, parent.db_time, parent.events_fetched), (2, STEP * 2, 6));
}

#[test]
fn time_is_charged_to_whoever_is_in_force_and_to_the_parents() {
    let time = Passing::install();
    let (one, two) = (LogContext::new("one"), LogContext::new("two"));
    let inner = one.child("inner");
    time.pass(STEP * 100);
    one.run(|| {
        time.pass(STEP);
        inner.run(|| time.pass(STEP * 2));
        time.pass(STEP * 4);
    });
    two.run(|| time.pass(STEP * 8));
    settle();
    time.pass(STEP * 100);
    assert_eq!(inner.usage().loop_time, STEP * 2);
    assert_eq!(one.usage().loop_time, STEP * 7);
    assert_eq!(two.usage().loop_time, STEP * 8);
}

#[test]
fn nobody_is_charged_for_the_time_after_the_loop_has_settled() {
    let time = Passing::install();
    let request = LogContext::new("GET-1");
    for _ in 0..3 {
        request.run(|| time.pass(STEP));
        settle();
        time.pass(STEP * 100);
    }
    assert_eq!(request.usage().loop_time, STEP * 3);
}

#[test]
fn the_slice_that_is_running_can_be_read_and_is_not_counted_twice() {
    let time = Passing::install();
    let request = LogContext::new("GET-1");
    request.run(|| {
        time.pass(STEP);
        assert_eq!(request.usage().loop_time, STEP);
        time.pass(STEP);
    });
    assert_eq!(request.usage().loop_time, STEP * 2);
}

#[test]
fn a_chain_charges_each_step_to_the_context_that_added_it() {
    let time = Rc::new(Passing::install());
    let (one, two) = (LogContext::new("one"), LogContext::new("two"));
    let (mut deferred, resolver) = crate::Deferred::new();
    for (context, steps) in [(&one, 1), (&two, 2), (&one, 4)] {
        let time = Rc::clone(&time);
        deferred = context.run(|| {
            deferred.add_callback(move |()| {
                time.pass(STEP * steps);
                Ok(())
            })
        });
    }
    resolver.callback(());
    drop(deferred);
    assert_eq!((one.usage().loop_time, two.usage().loop_time), (STEP * 5, STEP * 2));
}

#[test]
fn a_finished_context_still_names_lines_and_charges_late() {
    let time = Passing::install();
    let lines = logging::capture(10);
    let parent = LogContext::new("GET-1");
    let request = parent.child("work");
    request.run(|| {
        time.pass(STEP);
        request.finish();
        time.pass(STEP * 2);
        log::info!(target: "test", "still here");
    });
    assert!(request.is_finished());
    assert_eq!(lines.take(), ["INFO GET-1-work test: still here"]);
    assert_eq!((request.usage().loop_time, request.usage().late), (STEP, STEP * 2));
    assert_eq!(parent.usage().loop_time, STEP * 3, "the parent is not finished");
    assert_eq!(parent.usage().late, Duration::ZERO);
}

#[test]
fn a_finished_context_can_be_entered_again() {
    let time = Passing::install();
    let request = LogContext::new("GET-1");
    request.finish();
    request.run(|| {
        assert!(LogContext::current().is_same(&request));
        time.pass(STEP);
    });
    assert_eq!((request.usage().loop_time, request.usage().late), (Duration::ZERO, STEP));
}

#[test]
fn without_a_clock_no_time_is_counted() {
    let request = LogContext::new("GET-1");
    request.run(|| ());
    assert_eq!(request.usage(), Usage::default());
}

#[test]
fn the_sentinel_counts_nothing_and_warns_when_it_is_made_a_parent() {
    let lines = logging::capture(10);
    let sentinel = LogContext::sentinel();
    sentinel.record_database_transaction(STEP);
    sentinel.finish();
    assert_eq!(sentinel.usage(), Usage::default());
    assert!(!sentinel.is_finished());
    let child = sentinel.child("lost");
    assert_eq!(child.name(), "sentinel-lost");
    assert!(child.parent().is_sentinel());
    let lines = lines.take();
    assert!(lines.len() == 1 && lines[0].starts_with("WARN"), "{lines:?}");
}

#[test]
fn a_numbered_context_spells_its_name_when_asked() {
    let first = LogContext::numbered("GET", 17);
    assert_eq!(first.name(), "GET-17");
    first.record_events_fetched(3);
    first.finish();
    let second = first.renew("PUT", 18);
    assert_eq!(second.name(), "PUT-18");
    assert!(!second.is_finished());
    assert_eq!(second.usage().events_fetched, 0);
}

#[test]
fn a_context_that_somebody_holds_is_left_alone_when_it_is_renewed() {
    let held = LogContext::numbered("GET", 1);
    let renewed = held.clone().renew("GET", 2);
    assert_eq!((held.name(), renewed.name()), ("GET-1", "GET-2"));
    assert!(!held.is_same(&renewed));
}

/// Long jobs are what threads are for: the loop's watchdog once complained about them.
#[test]
fn a_long_slice_on_a_pool_s_thread_holds_nobody_up() {
    let (lines, time) = (logging::capture(10), Passing::install());
    let context = LogContext::new("job");
    context.run(|| time.pass(Duration::from_secs(3600)));
    assert_eq!(context.usage().loop_time, Duration::from_secs(3600));
    assert_eq!(lines.take(), Vec::<String>::new());
}

const MICROSECOND: Duration = Duration::from_micros(1);

fn preemptible() -> Passing {
    Passing::with_cpu_clock(|nanos| CpuClock::Test(Rc::new(move || nanos.get())))
}

#[test]
fn what_the_system_gives_to_others_meanwhile_costs_nobody() {
    let time = preemptible();
    let (short, long) = (LogContext::new("short"), LogContext::new("long"));
    for _ in 0..3 {
        short.run(|| time.compute(MICROSECOND * 50));
        long.run(|| {
            time.compute(STEP);
            time.pass(STEP * 10);
            time.compute(STEP * 2);
        });
    }
    assert_eq!(short.usage().loop_time, MICROSECOND * 150);
    assert_eq!(long.usage().loop_time, STEP * 9);
}

#[test]
fn what_the_loop_itself_takes_is_learnt_and_not_charged_to_a_long_slice() {
    let time = preemptible();
    let request = LogContext::new("GET-1");
    let turn = |time: &Passing| {
        request.run(|| time.compute(MICROSECOND * 10));
        settle_before_waiting();
        // Waits, and then sees to what has come.
        time.pass(STEP);
        time.compute(MICROSECOND * 6);
    };
    for _ in 0..20_000 {
        turn(&time);
    }
    assert_eq!(
        request.usage().loop_time,
        MICROSECOND * 200_000,
        "short slices are as long as they last"
    );
    let long = LogContext::new("GET-2");
    for _ in 0..100 {
        turn(&time);
    }
    long.run(|| {
        time.compute(STEP);
        time.pass(STEP * 3);
    });
    let charged = long.usage().loop_time;
    assert!(charged.abs_diff(STEP) < STEP / 50, "{charged:?}");
}

#[test]
fn no_slice_costs_more_than_it_lasted() {
    let time = preemptible();
    let request = LogContext::new("GET-1");
    // Of some time before, which no slice has told of.
    time.compute(STEP * 100);
    request.run(|| time.compute(STEP));
    assert_eq!(request.usage().loop_time, STEP);
}
