//! Each rule between producers and consumers, broken once: who did it is named, and nothing else happens.
#![cfg(debug_assertions)]

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::files::{BackgroundFileConsumer, OpenMode};
use ropewalk::flow::{FlowError, SlowBranch, Tee, checked, pipe};
use ropewalk::testing::{Clock, MemoryTransport, UnhandledErrors, success_result_of};
use ropewalk::{Consumer, Producer, Streaming};

use super::Sink;
use crate::support::{Diary, Recorder, RecordingProducer};

struct Source;

impl Producer for Source {
    fn pause_producing(&self) {}
    fn resume_producing(&self) {}
    fn stop_producing(&self) {}
}

/// Returns what is complained about when this is done to a checked consumer and the sink behind it.
fn complaints(does: impl FnOnce(&dyn Consumer, &Sink)) -> Vec<FlowError> {
    let trap = UnhandledErrors::trap();
    let sink = Rc::new(Sink::default());
    let consumer = checked(Rc::clone(&sink) as Rc<dyn Consumer>);
    does(&*consumer, &sink);
    let caught = trap.take();
    caught
        .iter()
        .map(|caught| caught.failure.downcast_ref::<FlowError>().unwrap().clone())
        .collect()
}

fn register(consumer: &dyn Consumer, streaming: Streaming) {
    consumer.register_producer(Rc::new(Source), streaming);
}

#[test]
fn whoever_keeps_the_rules_hears_nothing() {
    let push = complaints(|consumer, sink| {
        consumer.write(b"by somebody who never registers");
        register(consumer, Streaming::Push);
        sink.producer().pause_producing();
        consumer.write(b"what was in hand");
        sink.producer().pause_producing();
        sink.producer().resume_producing();
        consumer.write(b"more");
        consumer.unregister_producer();
        consumer.unregister_producer();
        register(consumer, Streaming::Push);
        sink.producer().stop_producing();
        consumer.unregister_producer();
    });
    assert_eq!(push, []);
    let pull = complaints(|consumer, sink| {
        register(consumer, Streaming::Pull);
        for _ in 0..3 {
            sink.producer().resume_producing();
            sink.producer().resume_producing();
            consumer.write(b"piece");
        }
        consumer.unregister_producer();
    });
    assert_eq!(pull, []);
}

#[test]
fn whoever_breaks_a_rule_is_named() {
    let producer = std::any::type_name::<Source>();
    let consumer = std::any::type_name::<Sink>();
    type Does = fn(&dyn Consumer, &Sink);
    let table: [(&str, Does, FlowError); 9] = [
        (
            "registered twice",
            |consumer, _| {
                register(consumer, Streaming::Push);
                register(consumer, Streaming::Push);
            },
            FlowError::RegisteredTwice { producer, consumer, registered: producer },
        ),
        (
            "a write after the end",
            |consumer, _| {
                register(consumer, Streaming::Push);
                consumer.unregister_producer();
                consumer.write(b"late");
            },
            FlowError::WroteAfterUnregister { producer, consumer },
        ),
        (
            "a pull producer that does not wait to be asked",
            |consumer, _| {
                register(consumer, Streaming::Pull);
                consumer.write(b"hasty");
            },
            FlowError::WroteUnasked { producer, consumer },
        ),
        (
            "two pieces for one question",
            |consumer, sink| {
                register(consumer, Streaming::Pull);
                sink.producer().resume_producing();
                consumer.write_bytes("one".into());
                consumer.write_bytes("two".into());
            },
            FlowError::WroteUnasked { producer, consumer },
        ),
        (
            "a write after having been told to stop",
            |consumer, sink| {
                register(consumer, Streaming::Push);
                sink.producer().stop_producing();
                consumer.write(b"deaf");
            },
            FlowError::WroteAfterStop { producer, consumer },
        ),
        (
            "a pause that is ignored",
            |consumer, sink| {
                register(consumer, Streaming::Push);
                sink.producer().pause_producing();
                for _ in 0..9 {
                    consumer.write(&[0; 1024 * 1024]);
                }
            },
            FlowError::IgnoredPause { producer, consumer, bytes: 5 * 1024 * 1024 },
        ),
        (
            "a pull producer that is paused",
            |consumer, sink| {
                register(consumer, Streaming::Pull);
                sink.producer().pause_producing();
            },
            FlowError::PausedPull { producer, consumer },
        ),
        (
            "a producer that is told something after it has left",
            |consumer, sink| {
                register(consumer, Streaming::Push);
                let source = sink.producer();
                consumer.unregister_producer();
                source.pause_producing();
            },
            FlowError::ToldAfterUnregister { producer, consumer, told: "pause" },
        ),
        (
            "a producer that is told something after it was told to stop",
            |consumer, sink| {
                register(consumer, Streaming::Push);
                sink.producer().stop_producing();
                sink.producer().resume_producing();
            },
            FlowError::ToldAfterStop { producer, consumer, told: "resume" },
        ),
    ];
    for (why, does, expected) in table {
        assert_eq!(complaints(does), [expected], "{why}");
    }
}

#[test]
fn a_complaint_can_be_read() {
    let errors = complaints(|consumer, _| {
        register(consumer, Streaming::Pull);
        consumer.write(b"hasty");
    });
    let text = errors[0].to_string();
    let ends = "flow::rules::Source, a pull producer, wrote to suite::flow::Sink without having been asked";
    assert!(text.ends_with(ends), "{text}");
}

#[test]
fn a_transport_keeps_the_rules_towards_its_producer() {
    let trap = UnhandledErrors::trap();
    for streaming in [Streaming::Pull, Streaming::Push] {
        let clock = Clock::new();
        let diary = Diary::default();
        let memory = MemoryTransport::connect(&clock, Recorder::new(&Diary::default()));
        let consumer = checked(Rc::new(memory.transport().clone()));
        let producer = Rc::new(RecordingProducer(Rc::clone(&diary)));
        consumer.register_producer(producer, streaming);
        clock.pump();
        for _ in 0..4 {
            consumer.write(&[0; 200_000]);
            memory.take_written();
        }
        consumer.write(&[0; 200_000]);
        consumer.unregister_producer();
        memory.take_written();
        memory.reset();
        consumer.register_producer(Rc::new(RecordingProducer(Rc::clone(&diary))), streaming);
        clock.pump();
        assert_eq!(diary.borrow().last().map(String::as_str), Some("stop"));
        assert!(diary.borrow().len() > 4);
    }
    assert_eq!(trap.take().len(), 0);
}

/// Unregisters when it is asked, as one does that has nothing to write.
struct Nothing(RefCell<Option<Rc<dyn Consumer>>>);

impl Producer for Nothing {
    fn pause_producing(&self) {}
    fn resume_producing(&self) {
        if let Some(consumer) = self.0.take() {
            consumer.unregister_producer();
        }
    }
    fn stop_producing(&self) {}
}

/// Outside of a reactor's turn a producer is told things at once, from inside the call that leads to them.
#[test]
fn a_producer_may_leave_when_it_is_asked_wherever_that_is() {
    let clock = Clock::new();
    let opened = clock.reactor().files().open("f", OpenMode::CreateNew);
    clock.pump();
    let file = BackgroundFileConsumer::new(success_result_of(opened));
    let tee = Tee::new();
    tee.add(Rc::new(Sink::default()), SlowBranch::Waits);
    let (writer, _reader) = pipe(10, 1);
    let consumers: [Rc<dyn Consumer>; 3] = [Rc::new(file.clone()), Rc::new(tee), Rc::new(writer)];
    for consumer in consumers {
        let nothing = Rc::new(Nothing(RefCell::new(Some(Rc::clone(&consumer)))));
        consumer.register_producer(Rc::clone(&nothing) as Rc<dyn Producer>, Streaming::Pull);
        assert!(nothing.0.borrow().is_none(), "it was asked, and left");
    }
    clock.pump();
    assert_eq!(success_result_of(file.wait()), 0);
}
