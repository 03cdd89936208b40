//! What the network between hosts does, and what it does when it is told to fail.

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::sim::{Faults, LinkOptions, World, WorldOptions};
use ropewalk::{ConnectError, Transport};

use super::support::{Accepted, Kept, MILLISECOND, SECOND, connect, even_world, serve};
use crate::support::{Counter, Diary, Echo, OnData, read};

#[test]
fn what_is_sent_takes_its_time() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    serve(&bob.reactor(), || Echo);
    let diary = Diary::default();
    let transport = connect(&alice, &bob, &diary);
    world.run_for(19 * MILLISECOND);
    assert_eq!(read(&diary), [""; 0]);
    let transport = world.run_until_result(transport, MILLISECOND).unwrap();
    assert_eq!(read(&diary), ["made"]);
    transport.write(b"hello");
    world.run_for(19 * MILLISECOND);
    assert_eq!(read(&diary), [""; 0]);
    world.run_for(MILLISECOND);
    assert_eq!(read(&diary), ["data hello"]);
    assert_eq!(transport.peer().to_string(), bob.at(80).to_string());
    assert_eq!(world.now().as_nanos(), 40_000_000);
}

#[test]
fn a_host_talks_to_itself_and_to_others_by_name() {
    let world = World::new(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    serve(&bob.reactor(), || Echo);
    let diary = Diary::default();
    let recorder = crate::support::Recorder::new(&diary);
    let itself = bob.reactor().connect_tcp("127.0.0.1:80".parse().unwrap(), Box::new(recorder));
    let itself = world.run_until_result(itself, MILLISECOND).unwrap();
    itself.abort_connection();
    let addresses = alice.reactor().resolve_host("BOB");
    let addresses = world.run_until_result(addresses, SECOND).unwrap();
    assert_eq!(addresses, [bob.address()]);
    let nobody = alice.reactor().resolve_host("carol");
    assert!(world.run_until_result(nobody, SECOND).is_err());
}

#[test]
fn a_port_without_listener_refuses_and_an_address_without_host_cannot_be_reached() {
    let world = World::new(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let diary = Diary::default();
    let refused = connect(&alice, &bob, &diary);
    let failure = world.run_until_result(refused, SECOND).unwrap_err();
    assert_eq!(reason(&failure), Some(std::io::ErrorKind::ConnectionRefused));
    let nowhere =
        alice.reactor().connect_tcp("10.99.0.1:80".parse().unwrap(), Box::<Counter>::default());
    let failure = world.run_until_result(nowhere, SECOND).unwrap_err();
    assert_eq!(reason(&failure), Some(std::io::ErrorKind::HostUnreachable));
}

fn reason(failure: &ropewalk::Failure) -> Option<std::io::ErrorKind> {
    failure.downcast_ref::<ConnectError>()?.source.io_error().map(std::io::Error::kind)
}

#[test]
fn order_is_kept_within_a_connection_whatever_the_jitter() {
    let link = LinkOptions {
        latency_min: MILLISECOND,
        latency_max: 500 * MILLISECOND,
        bytes_per_second: None,
    };
    let faults = Faults { splits: 0.5, ..Faults::none() };
    let world = World::with_options(7, WorldOptions { link, faults, ..WorldOptions::default() });
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let received: Diary = Rc::default();
    let notes = Rc::clone(&received);
    serve(&bob.reactor(), move || {
        let notes = Rc::clone(&notes);
        OnData(move |_: &Transport, data: &[u8]| {
            notes.borrow_mut().push(String::from_utf8_lossy(data).into_owned());
        })
    });
    let transport = connect(&alice, &bob, &Diary::default());
    let transport = world.run_until_result(transport, 2 * SECOND).unwrap();
    let mut sent = String::new();
    for number in 0..100 {
        let text = format!("<{number}>");
        transport.write(text.as_bytes());
        sent += &text;
        world.run_for(MILLISECOND);
    }
    world.run_for(2 * SECOND);
    let pieces = read(&received);
    assert_eq!(pieces.concat(), sent);
    assert!(pieces.len() > 10 && pieces.iter().any(|piece| !piece.ends_with('>')), "{pieces:?}");
}

#[test]
fn bandwidth_is_shared_by_all_connections_of_a_link() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let link = LinkOptions { bytes_per_second: Some(10_000), ..LinkOptions::default() };
    world.set_link(&alice, &bob, link);
    let received = Rc::new(Cell::new(0));
    let count = Rc::clone(&received);
    serve(&bob.reactor(), move || {
        let count = Rc::clone(&count);
        OnData(move |_: &Transport, data: &[u8]| count.set(count.get() + data.len()))
    });
    let transports = [(); 2].map(|()| {
        let transport = connect(&alice, &bob, &Diary::default());
        world.run_until_result(transport, SECOND).unwrap()
    });
    for transport in &transports {
        transport.write(&[7; 50_000]);
    }
    world.run_for(5 * SECOND);
    assert!((45_000..=50_000).contains(&received.get()), "{}", received.get());
    world.run_for(6 * SECOND);
    assert_eq!(received.get(), 100_000);
}

#[test]
fn a_slow_reader_holds_up_the_writer() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let accepted = Accepted::default();
    let diary = Diary::default();
    let kept = (Rc::clone(&accepted), Rc::clone(&diary));
    serve(&bob.reactor(), move || Kept::new(&kept.0, &kept.1));
    let transport = connect(&alice, &bob, &Diary::default());
    let transport = world.run_until_result(transport, SECOND).unwrap();
    bob.set_read_rate(Some(100_000));
    transport.write(&vec![7; 1_000_000]);
    world.run_for(SECOND);
    let left = transport.buffered_bytes();
    assert!((800_000..940_000).contains(&left), "{left}");
    bob.set_read_rate(None);
    world.run_for(2 * SECOND);
    assert_eq!(transport.buffered_bytes(), 0);
    // And so does one that pauses, once the buffers in between are full.
    accepted.borrow()[0].pause_producing();
    transport.write(&vec![7; 1_000_000]);
    world.run_for(SECOND);
    assert_eq!(transport.buffered_bytes(), 1_000_000 - 64 * 1024);
    accepted.borrow()[0].resume_producing();
    world.run_for(SECOND);
    assert_eq!(transport.buffered_bytes(), 0);
    let total: usize = read(&diary).iter().map(|entry| entry.len().saturating_sub(5)).sum();
    assert_eq!(total, 2_000_000);
}

#[test]
fn half_a_close_passes_and_the_other_half_follows() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let (accepted, diary) = (Accepted::default(), Diary::default());
    let kept = (Rc::clone(&accepted), Rc::clone(&diary));
    serve(&bob.reactor(), move || {
        let mut kept = Kept::new(&kept.0, &kept.1);
        kept.recorder.outlives_peer = true;
        kept
    });
    let own = Diary::default();
    let transport = connect(&alice, &bob, &own);
    let transport = world.run_until_result(transport, SECOND).unwrap();
    transport.write(b"question");
    transport.lose_write_connection();
    world.run_for(SECOND);
    assert_eq!(read(&diary), ["made", "data question", "read lost"]);
    accepted.borrow()[0].write(b"answer");
    accepted.borrow()[0].lose_connection();
    world.run_for(SECOND);
    let end = "lost: the connection was closed cleanly";
    assert_eq!(read(&diary), [end]);
    assert_eq!(read(&own), ["made", "data answer", end]);
    world.assert_nothing_left();
}

#[test]
fn a_partition_holds_things_up_until_it_is_healed() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    serve(&bob.reactor(), || Echo);
    let diary = Diary::default();
    let transport = connect(&alice, &bob, &diary);
    let transport = world.run_until_result(transport, SECOND).unwrap();
    world.partition(&alice, &bob);
    transport.write(b"lost and found");
    let another = connect(&alice, &bob, &Diary::default());
    world.run_for(60 * SECOND);
    assert_eq!(read(&diary), ["made"]);
    assert!(!another.is_fired());
    world.heal(&alice, &bob);
    world.run_for(5 * SECOND);
    assert_eq!(read(&diary), ["data lost and found"]);
    assert!(world.run_until_result(another, SECOND).is_ok());
}

#[test]
fn a_one_way_partition_lets_the_other_way_pass() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let (accepted, diary) = (Accepted::default(), Diary::default());
    let kept = (Rc::clone(&accepted), Rc::clone(&diary));
    serve(&bob.reactor(), move || Kept::new(&kept.0, &kept.1));
    let own = Diary::default();
    let transport = connect(&alice, &bob, &own);
    let transport = world.run_until_result(transport, SECOND).unwrap();
    read(&diary);
    world.partition_one_way(&bob, &alice);
    transport.write(b"heard");
    accepted.borrow()[0].write(b"not heard");
    world.run_for(5 * SECOND);
    assert_eq!(read(&diary), ["data heard"]);
    assert_eq!(read(&own), ["made"]);
    // What nobody acknowledges is given up in the end, by both: one hears no answer, the other one has
    // none of its own heard.
    world.run_for(16 * 60 * SECOND);
    assert_eq!(read(&own), ["lost: the connection failed"]);
    assert_eq!(read(&diary), ["lost: the connection failed"]);
}

#[test]
fn connecting_into_a_partition_times_out() {
    let world = even_world(1);
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    serve(&bob.reactor(), || Echo);
    world.isolate(&bob);
    let attempt = connect(&alice, &bob, &Diary::default());
    world.run_for(126 * SECOND);
    assert!(!attempt.is_fired());
    let failure = world.run_until_result(attempt, 2 * SECOND).unwrap_err();
    assert_eq!(reason(&failure), Some(std::io::ErrorKind::TimedOut));
    // Of an attempt that nobody waits for any more, the server never hears.
    world.heal_all();
    world.run_for(60 * SECOND);
    world.assert_nothing_left();
}

#[test]
fn a_reset_in_mid_write_reaches_both_ends() {
    let mut cut_short = 0;
    for seed in 0..20 {
        let world = even_world(seed);
        let (alice, bob) = (world.host("alice"), world.host("bob"));
        let diary = Diary::default();
        let notes = Rc::clone(&diary);
        serve(&bob.reactor(), move || crate::support::Recorder::new(&notes));
        let own = Diary::default();
        let transport = connect(&alice, &bob, &own);
        let transport = world.run_until_result(transport, SECOND).unwrap();
        world.set_faults(Faults { resets: 1.0, ..Faults::none() });
        transport.write(b"0123456789");
        world.run_for(SECOND);
        assert_eq!(read(&own), ["made", "lost: the connection failed"]);
        let entries = read(&diary);
        assert_eq!(entries.last().unwrap(), "lost: the connection failed", "{entries:?}");
        cut_short += usize::from(entries.len() == 3 && entries[1] != "data 0123456789");
        world.assert_nothing_left();
    }
    assert!(cut_short > 0, "some of it arrives, now and then");
}

#[test]
fn attempts_are_refused_at_the_given_rate() {
    let faults = Faults { refusals: 0.5, ..Faults::none() };
    let world = World::with_options(3, WorldOptions { faults, ..WorldOptions::default() });
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    serve(&bob.reactor(), || Echo);
    let mut refused = 0;
    for _ in 0..100 {
        let attempt = connect(&alice, &bob, &Diary::default());
        match world.run_until_result(attempt, SECOND) {
            Ok(transport) => transport.abort_connection(),
            Err(failure) => {
                assert_eq!(reason(&failure), Some(std::io::ErrorKind::ConnectionRefused));
                refused += 1;
            }
        }
    }
    assert!((30..70).contains(&refused), "{refused}");
}

#[test]
fn a_lost_connection_is_noticed_by_who_sends_only() {
    let faults = Faults { losses: 1.0, ..Faults::none() };
    let world = World::with_options(3, WorldOptions { faults, ..WorldOptions::default() });
    let (alice, bob) = (world.host("alice"), world.host("bob"));
    let diary = Diary::default();
    let notes = Rc::clone(&diary);
    serve(&bob.reactor(), move || crate::support::Recorder::new(&notes));
    let own = Diary::default();
    let transport = connect(&alice, &bob, &own);
    let transport = world.run_until_result(transport, SECOND).unwrap();
    world.run_for(60 * SECOND);
    transport.write(b"hello?");
    world.run_for(20 * 60 * SECOND);
    assert_eq!(read(&own), ["made", "lost: the connection failed"]);
    assert_eq!(read(&diary), ["made"], "the reader could wait for ever");
}
