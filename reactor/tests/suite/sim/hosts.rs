//! Crashes, restarts, freezes, signals, and the clocks of hosts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::sim::{Leftover, World, WorldOptions};
use ropewalk::testing::UnhandledErrors;
use ropewalk::{Deferred, DeferredLock, Failure, LogContext, Signal, Transport};

use super::support::{Accepted, Kept, MILLISECOND, SECOND, connect, even_world, serve};
use crate::support::{Diary, Echo, OnData, Recorder, note, read};

#[test]
fn a_crash_resets_connections_and_a_restart_runs_the_same_code() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let starts = Diary::default();
    let noted = Rc::clone(&starts);
    bob.run(move |reactor, host| {
        note(&noted, format!("{} {}", host.name(), host.incarnation()));
        serve(reactor, || Echo);
    });
    let diary = Diary::default();
    let transport = connect(&alice, &bob, &diary);
    world.run_until_result(transport, SECOND).unwrap();
    bob.crash();
    assert!(!bob.is_running());
    world.run_for(SECOND);
    assert_eq!(read(&diary), ["made", "lost: the connection failed"]);
    let refused = connect(&alice, &bob, &diary);
    assert!(world.run_until_result(refused, SECOND).is_err());
    bob.restart();
    let transport = connect(&alice, &bob, &diary);
    world.run_until_result(transport, SECOND).unwrap();
    assert_eq!(read(&starts), ["bob 1", "bob 2"]);
}

#[test]
fn a_machine_without_power_is_silent_and_resets_what_it_does_not_know_later() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    bob.run(|reactor, _| serve(reactor, || Echo));
    let diary = Diary::default();
    let transport = connect(&alice, &bob, &diary);
    let transport = world.run_until_result(transport, SECOND).unwrap();
    bob.power_off();
    transport.write(b"are you there?");
    world.run_for(60 * SECOND);
    assert_eq!(read(&diary), ["made"]);
    bob.restart();
    world.run_for(5 * SECOND);
    assert_eq!(read(&diary), ["lost: the connection failed"]);
}

/// Notes when it is dropped, as what a process owns.
struct Owned(Diary);

impl Drop for Owned {
    fn drop(&mut self) {
        note(&self.0, "dropped");
    }
}

#[test]
fn nothing_of_a_dead_process_runs_but_all_of_its_memory_goes() {
    let trap = UnhandledErrors::trap();
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let diary = Diary::default();
    let reactor = alice.reactor();
    let owned = || Owned(Rc::clone(&diary));
    // In a timer.
    let (timer, noted) = (owned(), Rc::clone(&diary));
    reactor.call_later(SECOND, move || {
        let _timer = timer;
        note(&noted, "timer");
    });
    // In a task, which waits for a deferred whose resolver a timer owns.
    let (answer, resolver) = Deferred::<()>::new();
    reactor.call_later(SECOND, move || resolver.callback(()));
    let (task, noted) = (owned(), Rc::clone(&diary));
    drop(reactor.spawn(async move {
        let _task = task;
        let result = answer.await;
        note(&noted, format!("task {result:?}"));
        result
    }));
    // In a chain whose resolver a timer owns, and in one that waits for a thread.
    let (answer, resolver) = Deferred::<()>::new();
    reactor.call_later(SECOND, move || resolver.callback(()));
    let (errback, noted) = (owned(), Rc::clone(&diary));
    drop(answer.add_both(move |_| {
        let _errback = errback;
        note(&noted, "errback");
        Ok(())
    }));
    // In the line for a lock, whose holder is a task: thousands of them, each waiting for the one before.
    let lock = DeferredLock::new();
    let guard = lock.acquire();
    drop(reactor.spawn(async move {
        let _guard = guard.await?;
        std::future::pending::<()>().await;
        Ok::<(), Failure>(())
    }));
    for _ in 0..10_000 {
        let noted = Rc::clone(&diary);
        drop(lock.acquire().add_both(move |guard| {
            note(&noted, "locked");
            guard
        }));
    }
    // In a queue that fails what is left in it, and behind a pipe whose writer goes.
    let noted = Rc::clone(&diary);
    let (limited, resolver) = Deferred::<()>::new();
    reactor.call_later(SECOND, move || drop(resolver));
    drop(limited.with_timeout(&reactor, SECOND).add_both(move |result| {
        note(&noted, "limited");
        result
    }));
    let (writer, reader) = ropewalk::flow::pipe(1_000, 100);
    let noted = Rc::clone(&diary);
    drop(reader.read().add_both(move |_| {
        note(&noted, "read");
        Ok(())
    }));
    reactor.call_later(SECOND, move || drop((writer, reader)));
    // In a protocol, a producer, a factory, a signal's callback.
    serve(&bob.reactor(), || Echo);
    let protocol = Recorder::new(&diary);
    drop(reactor.connect_tcp(bob.at(80), Box::new(protocol)));
    let signal = owned();
    reactor.on_signal(Signal::Hangup, move || note(&signal.0, "signal")).unwrap();
    world.run_for(100 * MILLISECOND);
    assert_eq!(read(&diary), ["made"]);
    alice.crash();
    assert_eq!(read(&diary), ["dropped"; 4]);
    world.run_for(10 * SECOND);
    assert_eq!(read(&diary), [""; 0]);
    assert!(trap.take().is_empty());
    // A handle that somebody has kept does nothing, and does no harm.
    reactor.call_soon(|| unreachable!("the process is dead"));
    reactor.call_later(SECOND, || unreachable!("the process is dead"));
    assert!(reactor.connect_tcp(bob.at(80), Box::new(Echo)).into_result().unwrap().is_err());
    world.run_for(10 * SECOND);
}

#[test]
fn a_process_may_crash_in_the_middle_of_its_own_callback() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let (accepted, diary) = (Accepted::default(), Diary::default());
    let kept = (Rc::clone(&accepted), Rc::clone(&diary));
    serve(&bob.reactor(), move || Kept::new(&kept.0, &kept.1));
    let own = Diary::default();
    let transport = connect(&alice, &bob, &own);
    let transport = world.run_until_result(transport, SECOND).unwrap();
    let (victim, noted) = (alice.clone(), Rc::clone(&own));
    let (answer, resolver) = Deferred::<()>::new();
    let errback = Rc::clone(&own);
    drop(answer.add_both(move |_| {
        note(&errback, "errback");
        Ok(())
    }));
    alice.reactor().call_soon(move || {
        transport.write(b"half of ");
        let reactor = victim.reactor();
        victim.crash();
        note(&noted, "the rest of the callback");
        transport.write(b"it");
        reactor.call_soon(|| unreachable!("the process is dead"));
        drop(reactor.spawn(async { unreachable!("the process is dead") }) as Deferred<()>);
        drop(resolver);
    });
    world.run_for(SECOND);
    assert_eq!(read(&own), ["made", "the rest of the callback"]);
    assert_eq!(read(&diary), ["made", "lost: the connection failed"]);
    alice.restart();
    assert!(alice.is_running());
}

#[test]
fn a_host_stops_in_order_when_it_is_told_to() {
    let world = even_world(1);
    let host = world.host("alice");
    let diary = Diary::default();
    let noted = Rc::clone(&diary);
    host.run(move |reactor, _| {
        reactor.install_signals().unwrap();
        let owned = Owned(Rc::clone(&noted));
        reactor.call_later(SECOND, move || note(&owned.0, "timer"));
    });
    host.signal(Signal::Terminate);
    assert!(host.is_running());
    world.run_for(MILLISECOND);
    assert!(!host.is_running());
    assert_eq!(read(&diary), ["dropped"]);
    host.restart();
    host.stop();
    world.run_for(MILLISECOND);
    assert!(!host.is_running());
    assert_eq!(host.incarnation(), 2);
}

#[test]
fn a_frozen_host_finds_everything_late() {
    let world = even_world(1);
    let host = world.host("alice");
    let reactor = host.reactor();
    let fired_at = Rc::new(Cell::new(None));
    let (fired, clock) = (Rc::clone(&fired_at), reactor.clone());
    reactor.call_later(SECOND, move || fired.set(Some(clock.now())));
    host.freeze(10 * SECOND);
    world.run_for(9 * SECOND);
    assert_eq!(fired_at.get(), None);
    world.run_for(2 * SECOND);
    assert_eq!(fired_at.get().unwrap().as_nanos(), 10_000_000_000);
}

#[test]
fn clocks_of_hosts_differ_and_timers_follow_their_own() {
    let options = WorldOptions {
        clock_offset_max: Duration::from_secs(3600),
        clock_gain_ppm_max: 1_000,
        ..WorldOptions::default()
    };
    let world = World::with_options(5, options);
    let hosts: Vec<_> = ["a", "b", "c"].map(|name| world.host(name)).into();
    let walls = |hosts: &[ropewalk::sim::Host]| -> Vec<_> {
        hosts.iter().map(|host| host.reactor().wall_clock()).collect()
    };
    let first = walls(&hosts);
    assert!(first[0] != first[1] && first[1] != first[2], "{first:?}");
    world.run_for(Duration::from_secs(1_000_000));
    for (host, first) in hosts.iter().zip(first) {
        let shown = host.reactor().now().as_nanos().abs_diff(1_000_000_000_000_000);
        assert!((1..=1_000_000_000_000).contains(&shown), "{shown}");
        let passed = host.reactor().wall_clock().duration_since(first).unwrap();
        assert_eq!(passed.as_nanos(), u128::from(host.reactor().now().as_nanos()));
    }
}

#[test]
fn a_clock_that_runs_fast_has_its_timers_early_and_one_that_jumps_does_no_harm() {
    let world = even_world(1);
    let host = world.host("alice");
    host.set_clock_gain(500_000);
    let reactor = host.reactor();
    let fired = Rc::new(Cell::new(false));
    let sink = Rc::clone(&fired);
    reactor.call_later(15 * SECOND, move || sink.set(true));
    let before = reactor.wall_clock();
    host.step_wall_clock_back(3_600 * SECOND);
    world.run_for(10 * SECOND - MILLISECOND);
    assert!(!fired.get());
    world.run_for(MILLISECOND);
    assert!(fired.get());
    assert_eq!(before.duration_since(reactor.wall_clock()).unwrap(), (3_600 - 15) * SECOND);
    host.step_wall_clock_forward(3_600 * SECOND);
    assert_eq!(reactor.wall_clock().duration_since(before).unwrap(), 15 * SECOND);
}

#[test]
fn a_panic_in_a_callback_fails_the_test_unless_it_is_tolerated() {
    let world = World::new(1);
    let host = world.host("alice");
    host.reactor().call_soon(|| panic!("by design"));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run_for(SECOND)));
    let payload = result.unwrap_err();
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.contains("alice panicked") && text.contains("by design"), "{text}");
    world.tolerate(Leftover::Panics);
    host.reactor().call_soon(|| panic!("by design"));
    world.run_for(SECOND);
    assert!(world.trace_tail().contains("by design"), "{}", world.trace_tail());
}

#[test]
fn what_is_left_at_the_end_is_listed() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    serve(&bob.reactor(), || Echo);
    let transport = connect(&alice, &bob, &Diary::default());
    world.run_until_result(transport, SECOND).unwrap();
    alice.reactor().call_later(SECOND, || {});
    let (pending, _resolver) = Deferred::<()>::new();
    drop(bob.reactor().spawn(pending));
    bob.reactor().call_soon(|| drop(Deferred::<()>::fail(std::fmt::Error)));
    world.run_for(MILLISECOND);
    let text = message(|| world.assert_nothing_left());
    for part in [
        "alice: 1 connections",
        "alice: 1 calls to be made later",
        "bob: 1 connections",
        "bob: 1 tasks",
        "bob: nobody handled a failure",
    ] {
        assert!(text.contains(part), "{part} is missing from {text}");
    }
    for leftover in
        [Leftover::Connections, Leftover::Timers, Leftover::Tasks, Leftover::UnhandledFailures]
    {
        world.tolerate(leftover);
    }
    world.assert_nothing_left();
}

fn message(f: impl FnOnce()) -> String {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    *result.unwrap_err().downcast::<String>().unwrap()
}

#[test]
fn a_million_seconds_of_nothing_cost_nothing() {
    let world = World::new(1);
    let started = RefCell::new(Vec::new());
    for number in 0..100 {
        let host = world.host(&format!("host-{number}"));
        host.run(|reactor, _| serve(reactor, || Echo));
        started.borrow_mut().push(host);
    }
    let hash = world.trace_hash();
    world.run_for(Duration::from_secs(1_000_000));
    assert_eq!(world.now().as_nanos(), 1_000_000_000_000_000);
    assert_eq!(world.trace_hash(), hash, "nothing has happened");
    // A host with a timer does not make the others wake.
    started.borrow()[7].reactor().call_later(Duration::from_secs(1_000_000), || {});
    world.run_for(Duration::from_secs(2_000_000));
    assert_ne!(world.trace_hash(), hash);
}

#[test]
fn each_host_has_its_contexts_and_its_queue_to_itself() {
    let world = even_world(1);
    let diary = Diary::default();
    for name in ["alice", "bob"] {
        let host = world.host(name);
        let (noted, reactor) = (Rc::clone(&diary), host.reactor());
        let context = LogContext::new(name);
        let task = context.run(|| {
            host.reactor().spawn(async move {
                for _ in 0..3 {
                    reactor.defer_later(SECOND, || Ok(())).await?;
                    note(&noted, LogContext::current().name());
                    let (dropped, resolver) = Deferred::<()>::new();
                    let later = Rc::clone(&noted);
                    // Fails after this poll, in the context that is current now.
                    drop(dropped.add_both(move |_| {
                        note(&later, format!("{} later", LogContext::current().name()));
                        Ok(())
                    }));
                    drop(resolver);
                }
                Ok::<(), Failure>(())
            })
        });
        task.detach();
    }
    world.run_for(10 * SECOND);
    let mut notes = read(&diary);
    notes.sort();
    let expected: Vec<String> = ["alice", "alice later", "bob", "bob later"]
        .into_iter()
        .flat_map(|note| [(); 3].map(|()| note.to_owned()))
        .collect();
    assert_eq!(notes, expected);
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn a_process_may_restart_itself_or_another_from_any_callback() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let diary = Diary::default();
    let noted = Rc::clone(&diary);
    bob.run(move |reactor, host| {
        note(&noted, format!("start {}", host.incarnation()));
        // The first of this life to be dropped fails its deferred, whatever became of the life before.
        let later = Rc::clone(&noted);
        let (dropped, resolver) = Deferred::<()>::new();
        drop(dropped.add_errback(move |_| {
            note(&later, "failed");
            Ok(())
        }));
        drop(resolver);
        let (host, noted) = (host.clone(), Rc::clone(&noted));
        serve(reactor, move || {
            let (host, noted) = (host.clone(), Rc::clone(&noted));
            OnData(move |transport: &Transport, _: &[u8]| {
                host.restart();
                transport.write(b"never heard");
                note(&noted, "the end of the old life");
            })
        });
    });
    let own = Diary::default();
    let transport = connect(&alice, &bob, &own);
    let transport = world.run_until_result(transport, SECOND).unwrap();
    transport.write(b"restart!");
    world.run_for(SECOND);
    let life = |number| format!("start {number}");
    assert_eq!(read(&diary), [&life(1), "failed", &life(2), "the end of the old life", "failed"]);
    assert_eq!(read(&own), ["made", "lost: the connection failed"]);
    // A task of one host that kills the other.
    let victim = bob.clone();
    let killed = alice.reactor().spawn(async move {
        victim.crash();
        Ok::<(), Failure>(())
    });
    world.run_until_result(killed, SECOND).unwrap();
    assert!(!bob.is_running() && alice.is_running());
}
