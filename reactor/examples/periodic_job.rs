//! A job that is done every few seconds, in small steps, until the program is told to stop.
//!
//! `cargo run --example periodic_job`, and Ctrl-C when you have seen enough: a round that is under way is
//! finished first, unless you press it twice.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{Deferred, Failure, MultiService, Reactor, TimerService, run_service};

/// How long a round that is under way may hold up the end of the program.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How many numbers are looked at in one step.
const NUMBERS_PER_STEP: u32 = 100;

/// Makes a program that counts primes each `interval`, a thousand numbers further each time.
pub(crate) fn program(
    reactor: &Reactor,
    interval: Duration,
    print: impl Fn(&str) + 'static,
) -> MultiService {
    let (reactor, print) = (reactor.clone(), Rc::new(print));
    let mut below = 0;
    let rounds = TimerService::new("count primes", interval, move || {
        below += 1000;
        let (below, print) = (below, Rc::clone(&print));
        // The next round is due when this deferred has its result, however long that takes.
        count_primes(&reactor, below).add_callback(move |count| {
            print(&format!("{count} primes below {below}"));
            Ok(())
        })
    });
    let program = MultiService::new("periodic job", STOP_LIMIT);
    program.add(rounds);
    program
}

/// Counts primes in steps, so that whatever else goes on has its turns in between.
fn count_primes(reactor: &Reactor, below: u32) -> Deferred<usize> {
    let count = Rc::new(Cell::new(0));
    let so_far = Rc::clone(&count);
    let steps = (0..below).step_by(NUMBERS_PER_STEP as usize).map(move |first| {
        let numbers = first..below.min(first + NUMBERS_PER_STEP);
        so_far.set(so_far.get() + numbers.filter(|&number| is_prime(number)).count());
    });
    reactor.cooperate(steps).when_done().add_callback(move |()| Ok(count.get()))
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..).take_while(|d| d * d <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn main() -> Result<(), Failure> {
    let reactor = Reactor::new()?;
    let every = Duration::from_secs(2);
    let program = program(&reactor, every, |line| println!("{line}"));
    run_service(&reactor, Rc::new(program))
}
