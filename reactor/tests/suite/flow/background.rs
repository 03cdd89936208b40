//! `BackgroundFileConsumer`: the disk's pace, and each way that writing can end.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use ropewalk::files::{BackgroundFileConsumer, FileError, FileOperation, OpenMode};
use ropewalk::flow::FlowError;
use ropewalk::testing::{
    Clock, UnhandledErrors, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{Consumer, Producer, Reactor, Streaming};

use super::open;
use crate::support::{Diary, RecordingProducer, read};

/// How long the disk takes for a slice.
const SLICE: Duration = Duration::from_millis(10);

fn consumer(clock: &Clock) -> BackgroundFileConsumer {
    BackgroundFileConsumer::new(open(clock, "f", OpenMode::CreateNew))
}

fn slow(clock: &Clock) {
    clock.file_system().set_pace(|operation, _| match operation {
        FileOperation::Append => SLICE,
        _ => Duration::ZERO,
    });
}

fn producer(consumer: &BackgroundFileConsumer, streaming: Streaming) -> Diary {
    let diary = Diary::default();
    consumer.register_producer(Rc::new(RecordingProducer(Rc::clone(&diary))), streaming);
    diary
}

#[test]
fn a_push_producer_is_paused_at_five_slices_and_resumed_at_two() {
    let clock = Clock::new();
    let consumer = consumer(&clock);
    slow(&clock);
    let diary = producer(&consumer, Streaming::Push);
    for slice in ["a", "b", "c", "d"] {
        consumer.write(slice.as_bytes());
        clock.pump();
        assert_eq!(read(&diary), [""; 0]);
    }
    consumer.write(b"e");
    clock.pump();
    assert_eq!(read(&diary), ["pause"]);
    clock.advance(SLICE);
    assert_eq!(read(&diary), [""; 0], "four wait");
    clock.advance(SLICE * 2);
    assert_eq!(read(&diary), ["resume"], "two wait");
    consumer.unregister_producer();
    let on_disk = consumer.wait();
    clock.advance(SLICE);
    assert_no_result(&on_disk);
    clock.advance(SLICE);
    assert_eq!(success_result_of(on_disk), 5);
    assert_eq!(clock.file_system().read("f").unwrap(), b"abcde");
    assert_eq!(read(&diary), [""; 0]);
}

#[test]
fn large_slices_pause_by_their_bytes() {
    let clock = Clock::new();
    let consumer = consumer(&clock);
    slow(&clock);
    let diary = producer(&consumer, Streaming::Push);
    consumer.write_bytes(Bytes::from(vec![0; 2_000_000]));
    assert_eq!(consumer.waiting_bytes(), 2_000_000);
    clock.pump();
    assert_eq!(read(&diary), ["pause"]);
    clock.advance(SLICE);
    assert_eq!(read(&diary), ["resume"]);
    assert_eq!(consumer.waiting_bytes(), 0);
}

#[test]
fn a_pull_producer_is_asked_as_the_disk_takes_it() {
    let clock = Clock::new();
    let consumer = consumer(&clock);
    slow(&clock);
    let diary = producer(&consumer, Streaming::Pull);
    clock.pump();
    assert_eq!(read(&diary), ["resume"], "once at once");
    for _ in 0..2 {
        consumer.write(b"x");
        clock.pump();
        assert_eq!(read(&diary), ["resume"]);
    }
    consumer.write(b"x");
    clock.pump();
    assert_eq!(read(&diary), [""; 0], "three wait");
    clock.advance(SLICE);
    assert_eq!(read(&diary), ["resume"]);
    clock.advance(SLICE * 9);
    assert_eq!(read(&diary), [""; 0], "it was asked");
}

#[test]
fn what_was_written_is_on_disk_when_waiting_is_over_name_and_all() {
    for streaming in [None, Some(Streaming::Pull), Some(Streaming::Push)] {
        let clock = Clock::new();
        let consumer = consumer(&clock);
        if let Some(streaming) = streaming {
            producer(&consumer, streaming);
        }
        let waits = [consumer.wait(), consumer.wait()];
        consumer.write(b"hello ");
        consumer.write(b"world");
        match streaming {
            None => consumer.finish(),
            Some(_) => consumer.unregister_producer(),
        }
        // It goes on by itself.
        drop(consumer);
        clock.pump();
        for wait in waits {
            assert_eq!(success_result_of(wait), 11);
        }
        clock.file_system().lose_unsynced();
        assert_eq!(clock.file_system().read("f").unwrap(), b"hello world");
    }
}

#[test]
fn a_producer_that_writes_nothing_leaves_an_empty_file() {
    let clock = Clock::new();
    let consumer = consumer(&clock);
    producer(&consumer, Streaming::Push);
    consumer.unregister_producer();
    let on_disk = consumer.wait();
    clock.pump();
    assert_eq!(success_result_of(on_disk), 0);
    assert_eq!(success_result_of(consumer.wait()), 0, "also when asked later");
    clock.file_system().lose_unsynced();
    assert_eq!(clock.file_system().read("f").unwrap(), b"");
}

#[test]
fn a_write_that_fails_stops_the_producer_paused_or_not() {
    for (slices, streaming, told) in [
        (1, Streaming::Push, &["stop"][..]),
        (7, Streaming::Push, &["pause", "stop"]),
        (1, Streaming::Pull, &["resume", "resume", "stop"]),
        (3, Streaming::Pull, &["resume", "resume", "resume", "stop"]),
    ] {
        let clock = Clock::new();
        let trap = UnhandledErrors::trap();
        let consumer = consumer(&clock);
        slow(&clock);
        clock.file_system().set_capacity(Some(0));
        let diary = producer(&consumer, streaming);
        for _ in 0..slices {
            clock.pump();
            consumer.write(b"too much");
        }
        let on_disk = consumer.wait();
        clock.advance(SLICE);
        assert_eq!(read(&diary), told, "{slices} {streaming:?}");
        let failure = failure_result_of(on_disk);
        let error = failure.downcast_ref::<FileError>().unwrap();
        assert_eq!(error.io_kind(), Some(io::ErrorKind::StorageFull));
        // What it still had in hand is no news; a new producer is too late.
        consumer.write(b"in hand");
        assert_eq!(consumer.waiting_bytes(), 0);
        let late = producer(&consumer, Streaming::Push);
        clock.pump();
        assert_eq!(read(&late), ["stop"]);
        assert!(failure_result_of(consumer.wait()).is::<FileError>());
        assert_eq!(trap.take().len(), 0);
        assert_eq!(clock.pending_calls(), 0);
    }
}

#[test]
fn a_sync_that_fails_is_not_passed_over() {
    for operation in [FileOperation::Sync, FileOperation::SyncFolder] {
        let clock = Clock::new();
        let consumer = consumer(&clock);
        let _fault = clock.file_system().inject(move |tried, _| match tried == operation {
            true => Err(io::Error::other("the disk does not answer")),
            false => Ok(()),
        });
        consumer.write(b"x");
        consumer.finish();
        let on_disk = consumer.wait();
        clock.pump();
        assert!(failure_result_of(on_disk).is::<FileError>());
    }
}

#[test]
fn a_failure_that_nobody_waits_for_is_reported() {
    let clock = Clock::new();
    let trap = UnhandledErrors::trap();
    let consumer = consumer(&clock);
    clock.file_system().set_capacity(Some(0));
    consumer.write(b"x");
    clock.pump();
    drop(consumer);
    let caught = trap.take();
    assert_eq!(caught.len(), 1);
    assert!(caught[0].failure.is::<FileError>());
}

#[test]
fn the_rules_are_kept_by_errors() {
    let clock = Clock::new();
    let trap = UnhandledErrors::trap();
    let first = consumer(&clock);
    let diary = producer(&first, Streaming::Push);
    let second = Rc::new(RecordingProducer(Diary::default()));
    let refused = first.register(Rc::clone(&second) as Rc<dyn Producer>, Streaming::Push);
    assert!(matches!(refused, Err(FlowError::RegisteredTwice { .. })));
    first.register_producer(second.clone(), Streaming::Push);
    clock.pump();
    assert_eq!(read(&second.0), ["stop"]);
    assert_eq!(read(&diary), [""; 0], "the first one stays");
    first.unregister_producer();
    let late = first.try_write("late".into());
    assert!(matches!(late, Err(FlowError::WroteAfterUnregister { .. })));
    first.write(b"late");
    assert!(first.register(second, Streaming::Push).is_err(), "one file, one producer");
    clock.pump();
    assert_eq!(success_result_of(first.wait()), 0);
    assert!(first.try_write("later still".into()).is_err());
    let caught = trap.take();
    assert_eq!(caught.len(), 2);
    assert!(caught.iter().all(|caught| caught.failure.is::<FlowError>()));
}

#[test]
fn finishing_stops_a_producer_and_letting_go_closes_the_file_as_it_is() {
    let clock = Clock::new();
    let finished = consumer(&clock);
    let diary = producer(&finished, Streaming::Push);
    finished.finish();
    finished.finish();
    clock.pump();
    assert_eq!(read(&diary), ["stop"]);
    assert_eq!(success_result_of(finished.wait()), 0);

    let abandoned = BackgroundFileConsumer::new(open(&clock, "g", OpenMode::CreateNew));
    abandoned.write(b"some");
    let on_disk = abandoned.wait();
    drop(abandoned);
    clock.pump();
    assert!(failure_result_of(on_disk).is::<ropewalk::ResolverDropped>());
    assert_eq!(clock.file_system().read("g").unwrap(), b"some");
}

/// Writes numbers as long as it is let.
struct Counting {
    consumer: BackgroundFileConsumer,
    next: Cell<u32>,
    is_paused: Cell<bool>,
}

impl Counting {
    fn go_on(&self) {
        while !self.is_paused.get() && self.next.get() < 20_000 {
            let number = self.next.replace(self.next.get() + 1);
            self.consumer.write(&number.to_le_bytes());
            // It is paused only after this returns, so a few slices at a time.
            if number % 4 == 3 {
                return;
            }
        }
        if self.next.get() == 20_000 {
            self.next.set(u32::MAX);
            self.consumer.unregister_producer();
        }
    }
}

impl Producer for Counting {
    fn pause_producing(&self) {
        self.is_paused.set(true);
    }
    fn resume_producing(&self) {
        self.is_paused.set(false);
        self.go_on();
    }
    fn stop_producing(&self) {
        panic!("nobody stops it");
    }
}

#[test]
fn a_real_file_gets_everything_in_order_from_real_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers");
    let reactor = Reactor::new().unwrap();
    let files = reactor.files();
    let opened = reactor.run_until(files.open(&path, OpenMode::CreateNew)).unwrap();
    let consumer = BackgroundFileConsumer::new(opened);
    let on_disk = consumer.wait();
    let counting = Rc::new(Counting {
        consumer: consumer.clone(),
        next: Cell::new(0),
        is_paused: Cell::new(false),
    });
    consumer.register_producer(Rc::clone(&counting) as Rc<dyn Producer>, Streaming::Pull);
    drop(consumer);
    drop(counting);
    assert_eq!(reactor.run_until(on_disk).unwrap(), 80_000);
    let expected: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    assert!(std::fs::read(&path).unwrap() == expected);
}

/// Writes slices of these lengths, and notes how it ended.
struct Slices {
    consumer: BackgroundFileConsumer,
    lengths: RefCell<Vec<usize>>,
    streaming: Streaming,
    is_paused: Cell<bool>,
    end: Cell<Option<&'static str>>,
}

impl Slices {
    fn produce(&self) {
        if self.end.get().is_some() || self.is_paused.get() {
            return;
        }
        let length = self.lengths.borrow_mut().pop();
        match length {
            Some(length) => self.consumer.write(&vec![length as u8; length]),
            None => {
                self.end.set(Some("unregistered"));
                self.consumer.unregister_producer();
            }
        }
    }
}

impl Producer for Slices {
    fn pause_producing(&self) {
        self.is_paused.set(true);
    }
    fn resume_producing(&self) {
        self.is_paused.set(false);
        if self.streaming == Streaming::Pull {
            self.produce();
        }
    }
    fn stop_producing(&self) {
        self.end.set(Some("stopped"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn it_always_ends_with_all_on_disk_or_with_a_failure_and_a_producer_that_knows(
        lengths in prop::collection::vec(0usize..300_000, 0..30),
        capacity in prop::option::of(0u64..4_000_000),
        failing in prop::option::of(0usize..40),
        write_bytes_max in prop::option::of(5_000usize..100_000),
        is_push in any::<bool>(),
    ) {
        let clock = Clock::new();
        let disk = clock.file_system().clone();
        let consumer = consumer(&clock);
        let on_disk = consumer.wait();
        slow(&clock);
        disk.set_capacity(capacity);
        disk.set_write_bytes_max(write_bytes_max);
        let operations = AtomicUsize::new(0);
        let _fault = disk.inject(move |_, _| {
            match Some(operations.fetch_add(1, Ordering::Relaxed)) == failing {
                true => Err(io::Error::other("the disk does not answer")),
                false => Ok(()),
            }
        });
        let streaming = if is_push { Streaming::Push } else { Streaming::Pull };
        let expected: Vec<u8> =
            lengths.iter().rev().flat_map(|&length| vec![length as u8; length]).collect();
        let producer = Rc::new(Slices {
            consumer: consumer.clone(),
            lengths: RefCell::new(lengths),
            streaming,
            is_paused: Cell::new(false),
            end: Cell::new(None),
        });
        consumer.register_producer(Rc::clone(&producer) as Rc<dyn Producer>, streaming);
        for _ in 0..20_000 {
            if producer.end.get().is_none() && is_push {
                // More than one in a turn, as connections have it.
                (0..3).for_each(|_| producer.produce());
            }
            clock.advance(SLICE);
            if on_disk.is_fired() {
                break;
            }
        }
        match on_disk.into_result() {
            Err(_) => prop_assert!(false, "still waiting"),
            Ok(Ok(count)) => {
                prop_assert_eq!(count, expected.len() as u64);
                prop_assert_eq!(producer.end.get(), Some("unregistered"));
                disk.lose_unsynced();
                prop_assert!(disk.read("f").unwrap() == expected);
            }
            Ok(Err(failure)) => {
                prop_assert!(failure.is::<FileError>());
                prop_assert!(capacity.is_some() || failing.is_some());
                prop_assert!(producer.end.get().is_some(), "it was told, or had done its part");
            }
        }
        prop_assert_eq!(clock.pending_calls(), 0);
    }
}
