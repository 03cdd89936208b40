//! What the test kit's clock does with time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::Clock;

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn calls_that_cost_time_make_timers_late_but_never_unfair() {
    let clock = Clock::new();
    clock.set_cost_of_calls(MILLISECOND);
    let is_over = Rc::new(Cell::new(false));
    let over = Rc::clone(&is_over);
    let reactor = clock.reactor().clone();
    let fired_at = Rc::new(Cell::new(None));
    let fired = Rc::clone(&fired_at);
    clock.reactor().call_later(10 * MILLISECOND, move || {
        fired.set(Some(reactor.now()));
        over.set(true);
    });
    spin(clock.reactor(), &is_over);
    clock.pump();
    let late = fired_at.get().expect("the timer came").since(ropewalk::Instant::START);
    assert!(late >= 10 * MILLISECOND, "{late:?}");
    assert!(late <= Duration::from_secs(2), "a turn's budget later at most, {late:?}");
}

/// Calls itself again and again.
fn spin(reactor: &ropewalk::Reactor, is_over: &Rc<Cell<bool>>) {
    let (again, over) = (reactor.clone(), Rc::clone(is_over));
    reactor.call_soon(move || {
        if !over.get() {
            spin(&again, &over);
        }
    });
}

#[test]
fn time_spent_inside_a_callback_is_charged_to_its_context_and_seen_by_all() {
    let clock = Rc::new(Clock::new());
    let context = ropewalk::LogContext::new("slow");
    let spender = Rc::downgrade(&clock);
    let stopwatch = clock.reactor().stopwatch();
    let began = stopwatch();
    context.run(|| {
        clock.reactor().call_soon(move || {
            if let Some(clock) = spender.upgrade() {
                clock.spend(7 * MILLISECOND);
            }
        });
    });
    clock.pump();
    assert_eq!(context.usage().loop_time, 7 * MILLISECOND);
    assert_eq!(stopwatch() - began, 7 * MILLISECOND);
}
