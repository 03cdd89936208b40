//! The periodic job, on the clock and then on the real loop.

#[path = "../../../examples/periodic_job.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{Clock, success_result_of};
use ropewalk::{Reactor, Signal, serve};

const EVERY: Duration = Duration::from_secs(2);

#[test]
fn a_round_is_made_each_interval_until_a_signal_comes() {
    let clock = Clock::new();
    let lines: Rc<RefCell<Vec<String>>> = Rc::default();
    let printed = lines.clone();
    let program = example::program(clock.reactor(), EVERY, move |line| {
        printed.borrow_mut().push(line.to_owned());
    });
    let served = serve(clock.reactor(), Rc::new(program));
    clock.advance(EVERY * 2);
    let expected = ["168 primes below 1000", "303 primes below 2000", "430 primes below 3000"];
    assert_eq!(*lines.borrow(), expected);
    clock.raise(Signal::Interrupt);
    success_result_of(served);
    clock.advance(EVERY * 2);
    assert_eq!(lines.borrow().len(), 3);
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn the_first_round_comes_at_once_on_the_real_loop() {
    let reactor = Reactor::new().unwrap();
    let handle = reactor.clone();
    let program = example::program(&reactor, Duration::from_secs(3600), move |line| {
        assert_eq!(line, "168 primes below 1000");
        handle.stop();
    });
    let served = serve(&reactor, Rc::new(program));
    reactor.run().unwrap();
    drop(served);
}
