//! Calls from other threads: order, bounds, and waiting for their results.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ropewalk::testing::Clock;
use ropewalk::{
    BlockingCallError, CallRefused, Deferred, Failure, LogContext, Panicked, Reactor, ReactorRemote,
};

fn reactor() -> Reactor {
    Reactor::new().expect("the system gives a poll")
}

/// Runs the loop while another thread does something, which stops it at its end.
fn beside<T: Send + 'static>(
    reactor: &Reactor,
    f: impl FnOnce(&ReactorRemote) -> T + Send + 'static,
) -> T {
    let remote = reactor.remote();
    let other = thread::spawn(move || {
        let result = f(&remote);
        remote.call_from_thread(Reactor::stop);
        result
    });
    reactor.run().unwrap();
    other.join().unwrap()
}

fn kind<T>(result: Result<T, Failure>) -> Option<BlockingCallError> {
    result.err().and_then(|failure| failure.downcast_ref().copied())
}

#[test]
fn another_thread_waits_for_a_value_a_failure_or_a_panic() {
    let (value, later, failure, panicked, context) = beside(&reactor(), |remote| {
        let value = remote.block_on_reactor_thread(|_| Ok(1));
        let later = remote.block_on_reactor_thread(|reactor| {
            let (deferred, resolver) = Deferred::new();
            reactor.call_later(Duration::from_millis(1), || resolver.callback(2));
            deferred
        });
        let failure: Result<(), _> =
            remote.block_on_reactor_thread(|_| Err(std::fmt::Error.into()));
        let panicked = remote.block_on_reactor_thread(|_| -> Result<(), _> { panic!("no") });
        let context = remote.block_on_reactor_thread(|_| Ok(LogContext::current().is_sentinel()));
        (value, later, failure, panicked, context)
    });
    assert_eq!((value.unwrap(), later.unwrap()), (1, 2));
    assert!(failure.unwrap_err().is::<std::fmt::Error>());
    assert!(panicked.unwrap_err().is::<Panicked>());
    assert!(context.unwrap());
}

#[test]
fn where_nobody_may_wait_that_is_refused_at_once() {
    let here = reactor();
    let on_the_loop = here.remote().block_on_reactor_thread(|_| Ok(1));
    assert_eq!(kind(on_the_loop), Some(BlockingCallError::OnReactorThread));
    let remote = here.remote();
    let job = here
        .defer_to_thread(move || Ok::<_, Failure>(kind(remote.block_on_reactor_thread(|_| Ok(1)))));
    assert_eq!(here.run_until(job).unwrap(), Some(BlockingCallError::InThreadJob));
    let remote = here.remote();
    let other_loop = thread::spawn(move || {
        let other = reactor();
        let (answer, answered) = Deferred::new();
        other.call_soon(move || answered.callback(kind(remote.block_on_reactor_thread(|_| Ok(1)))));
        other.run_until(answer).unwrap()
    });
    assert_eq!(other_loop.join().unwrap(), Some(BlockingCallError::OnReactorThread));
    let clock = Clock::new();
    let remote = clock.reactor().remote();
    let elsewhere = thread::spawn(move || kind(remote.block_on_reactor_thread(|_| Ok(1))));
    assert_eq!(elsewhere.join().unwrap(), Some(BlockingCallError::Simulated));
}

#[test]
fn who_waits_is_released_when_the_reactor_stops() {
    let reactor = reactor();
    let remote = reactor.remote();
    let (hold, held) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let never = remote.block_on_reactor_thread(move |reactor| {
            let (deferred, resolver) = Deferred::<()>::new();
            // Kept for ever, so that nobody is told by its being dropped.
            std::mem::forget(resolver);
            hold.send(()).unwrap();
            reactor.stop();
            deferred
        });
        (kind(never), kind(remote.block_on_reactor_thread(|_| Ok(1))))
    });
    reactor.run().unwrap();
    held.recv().unwrap();
    let stopped = Some(BlockingCallError::Stopped);
    assert_eq!(waiting.join().unwrap(), (stopped, stopped));
}

#[test]
fn calls_from_one_thread_are_made_in_order_however_many() {
    const COUNT: u32 = 5_000;
    let (sender, receiver) = mpsc::channel();
    beside(&reactor(), move |remote| {
        for n in 0..COUNT {
            let sender = sender.clone();
            remote.call_from_thread(move |_| sender.send(n).unwrap());
        }
    });
    assert!(receiver.iter().eq(0..COUNT));
}

#[test]
fn a_bounded_call_is_refused_when_too_many_wait_or_the_reactor_has_stopped() {
    let reactor = reactor();
    let remote = reactor.remote();
    let mut taken = 0;
    let refused = loop {
        match remote.try_call_from_thread(|_| ()) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, CallRefused::TooMany { calls_max: taken });
    remote.call_from_thread(Reactor::stop);
    reactor.run().unwrap();
    assert_eq!(remote.try_call_from_thread(|_| ()), Err(CallRefused::Stopped));
}

/// The loop rings nobody out of a sleep that is none, and sleeps through no call.
#[test]
fn calls_that_come_while_the_loop_goes_to_sleep_are_not_lost() {
    let reactor = reactor();
    let rounds = beside(&reactor, |remote| {
        (0..2_000u32).map(|n| remote.block_on_reactor_thread(move |_| Ok(n)).unwrap()).sum::<u32>()
    });
    assert_eq!(rounds, (0..2_000).sum::<u32>());
}
