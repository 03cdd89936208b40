//! Pipes: bytes through, the producer slowed down, each kind of end.

use std::rc::Rc;

use proptest::prelude::*;
use ropewalk::flow::{FlowError, PipeError, PipeReader, pipe};
use ropewalk::testing::{
    Clock, NoDeferredLeaks, UnhandledErrors, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{CancelledError, Consumer, Streaming};

use super::Sink;
use crate::support::{Diary, RecordingProducer, read};

fn text(reader: &PipeReader) -> String {
    let piece = success_result_of(reader.read()).expect("a piece");
    String::from_utf8(piece.to_vec()).unwrap()
}

#[test]
fn pieces_are_read_in_order_before_and_after_they_were_written() {
    let _leaks = NoDeferredLeaks::watch();
    let (writer, reader) = pipe(100, 10);
    writer.write(b"one");
    writer.write(b"");
    writer.write(b"two");
    assert_eq!(writer.buffered_bytes(), 6);
    assert_eq!((text(&reader), text(&reader)), ("one".into(), "two".into()));
    let waiting = [reader.read(), reader.read(), reader.read(), reader.read()];
    let [third, cancelled, fourth, end] = waiting;
    cancelled.cancel();
    assert!(failure_result_of(cancelled).is::<CancelledError>());
    writer.write(b"three");
    writer.write(b"four");
    assert_eq!(success_result_of(third).unwrap(), "three");
    assert_eq!(success_result_of(fourth).unwrap(), "four");
    assert_no_result(&end);
    writer.finish();
    assert_eq!(success_result_of(end), None);
    assert_eq!(success_result_of(reader.read()), None);
}

#[test]
fn a_writer_that_goes_without_a_word_is_noticed_after_its_bytes() {
    let (writer, reader) = pipe(100, 10);
    let other = writer.clone();
    writer.write(b"half");
    drop(writer);
    drop(other);
    assert_eq!(text(&reader), "half");
    let failure = failure_result_of(reader.read());
    assert_eq!(failure.downcast_ref(), Some(&PipeError::WriterDropped));
}

#[test]
fn a_push_producer_is_paused_and_resumed_at_the_marks() {
    let clock = Clock::new();
    let diary = Diary::default();
    let (writer, reader) = pipe(10, 3);
    writer.register_producer(Rc::new(RecordingProducer(Rc::clone(&diary))), Streaming::Push);
    let steps = [("0123456789", &[][..]), ("x", &["pause"]), ("more", &[])];
    for (piece, told) in steps {
        writer.write(piece.as_bytes());
        clock.pump();
        assert_eq!(read(&diary), told);
    }
    text(&reader);
    assert_eq!(read(&diary), [""; 0], "five bytes are left");
    text(&reader);
    assert_eq!(read(&diary), [""; 0], "four bytes are left");
    text(&reader);
    assert_eq!(read(&diary), ["resume"]);
    drop(reader);
    assert_eq!(read(&diary), ["stop"]);
    assert!(writer.is_abandoned());
    writer.write(b"into the void");
    assert_eq!(writer.buffered_bytes(), 0);
    writer.register_producer(Rc::new(RecordingProducer(Rc::clone(&diary))), Streaming::Push);
    assert_eq!(read(&diary), ["stop"]);
}

#[test]
fn a_pull_producer_is_asked_while_there_is_room() {
    let diary = Diary::default();
    let (writer, reader) = pipe(10, 3);
    writer.register_producer(Rc::new(RecordingProducer(Rc::clone(&diary))), Streaming::Pull);
    assert_eq!(read(&diary), ["resume"]);
    writer.write(b"abc");
    assert_eq!(read(&diary), ["resume"]);
    writer.write(b"d");
    assert_eq!(read(&diary), [""; 0], "enough waits");
    text(&reader);
    assert_eq!(read(&diary), ["resume"]);
    text(&reader);
    assert_eq!(read(&diary), [""; 0], "it was asked already");
}

#[test]
fn a_pipe_feeds_a_consumer_at_its_pace_and_tells_the_sum() {
    let _leaks = NoDeferredLeaks::watch();
    let (writer, reader) = pipe(10, 3);
    let diary = Diary::default();
    writer.register_producer(Rc::new(RecordingProducer(Rc::clone(&diary))), Streaming::Push);
    writer.write(b"early ");
    let sink = Rc::new(Sink::default());
    let sent = reader.send_to(Rc::clone(&sink) as Rc<dyn Consumer>);
    assert_eq!(sink.take(), "early ");
    writer.write(b"birds ");
    assert_eq!(sink.take(), "birds ");
    sink.producer().pause_producing();
    writer.write(b"wait for ");
    writer.write(b"it");
    assert_eq!((sink.take(), read(&diary)), (String::new(), vec!["pause".to_owned()]));
    writer.unregister_producer();
    writer.finish();
    drop(writer);
    assert_no_result(&sent);
    sink.producer().resume_producing();
    assert_eq!(sink.take(), "wait for it");
    assert!(!sink.is_fed());
    assert_eq!(success_result_of(sent), 23);
}

#[test]
fn a_consumer_that_has_enough_stops_the_producer_at_the_far_end() {
    let _leaks = NoDeferredLeaks::watch();
    let (writer, reader) = pipe(10, 3);
    let diary = Diary::default();
    writer.register_producer(Rc::new(RecordingProducer(Rc::clone(&diary))), Streaming::Push);
    let sink = Rc::new(Sink::default());
    let sent = reader.send_to(Rc::clone(&sink) as Rc<dyn Consumer>);
    writer.write(b"abc");
    sink.producer().stop_producing();
    let failure = failure_result_of(sent);
    assert_eq!(failure.downcast_ref(), Some(&PipeError::ConsumerStopped { sent_bytes: 3 }));
    assert_eq!(read(&diary), ["stop"]);
    assert!(writer.is_abandoned());
}

#[test]
fn sending_can_be_cancelled_and_ends_badly_with_its_writer() {
    let _leaks = NoDeferredLeaks::watch();
    let (writer, reader) = pipe(10, 3);
    let sink = Rc::new(Sink::default());
    let sent = reader.send_to(Rc::clone(&sink) as Rc<dyn Consumer>);
    sent.cancel();
    assert!(failure_result_of(sent).is::<CancelledError>());
    assert!(!sink.is_fed());
    assert!(writer.is_abandoned());

    let (writer, reader) = pipe(10, 3);
    let sent = reader.send_to(Rc::clone(&sink) as Rc<dyn Consumer>);
    writer.write(b"half");
    drop(writer);
    let failure = failure_result_of(sent);
    assert_eq!(failure.downcast_ref(), Some(&PipeError::WriterDropped));
    assert!(!sink.is_fed());
}

#[test]
fn a_write_after_the_end_is_reported_and_dropped() {
    let trap = UnhandledErrors::trap();
    let (writer, reader) = pipe(10, 3);
    writer.finish();
    writer.write(b"late");
    let caught = trap.take();
    let error = caught[0].failure.downcast_ref::<FlowError>().unwrap();
    assert!(matches!(error, FlowError::WroteAfterUnregister { .. }));
    assert_eq!(success_result_of(reader.read()), None);
}

proptest! {
    #[test]
    fn whatever_the_pauses_every_byte_arrives_once_and_in_order(
        steps in prop::collection::vec((0..4, 0usize..20), 1..60),
    ) {
        let (writer, reader) = pipe(16, 4);
        let sink = Rc::new(Sink::default());
        let sent = reader.send_to(Rc::clone(&sink) as Rc<dyn Consumer>);
        let mut expected = Vec::new();
        for (number, (step, length)) in steps.into_iter().enumerate() {
            match step {
                0 => sink.producer().pause_producing(),
                1 => sink.producer().resume_producing(),
                _ => {
                    let piece = vec![number as u8; length];
                    expected.extend_from_slice(&piece);
                    writer.write(&piece);
                }
            }
            prop_assert_eq!(sink.received.borrow().len() + writer.buffered_bytes(), expected.len());
        }
        writer.finish();
        if sink.is_fed() {
            sink.producer().resume_producing();
        }
        prop_assert_eq!(&*sink.received.borrow(), &expected);
        prop_assert_eq!(success_result_of(sent), expected.len() as u64);
    }
}
