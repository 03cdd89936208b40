//! Transports, on connections in memory: what is written, how it ends, producers, contexts.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk::testing::{Clock, MemoryPair, MemoryTransport, failure_result_of, success_result_of};
use ropewalk::{
    Address, ConnectError, LogContext, Producer, Protocol, Streaming, Transport, logging,
};

use crate::support::{Counter, Diary, Echo, OnData, Recorder, RecordingProducer, note, read};

/// More than what lies between two ends in memory.
const MUCH: usize = 1_000_000;

#[test]
fn writes_of_all_sizes_arrive_in_order() {
    let clock = Clock::new();
    let memory = MemoryTransport::connect(&clock, Recorder::new(&Diary::default()));
    let mut expected = Vec::new();
    for (number, length) in [1, 0, 64, 5_000, 20_000, 3, 200_000, 7, 16_384, 1].iter().enumerate() {
        let data = vec![number as u8; *length];
        expected.extend_from_slice(&data);
        if number % 2 == 0 {
            memory.transport().write(&data);
        } else {
            memory.transport().write_bytes(Bytes::from(data));
        }
    }
    assert_eq!(memory.transport().buffered_bytes(), expected.len() - 65_536, "sent at 64 KiB");
    assert!(memory.take_written() == expected);
    assert_eq!(memory.transport().buffered_bytes(), 0);
}

#[test]
fn two_connections_that_write_by_turns_do_not_mix() {
    let clock = Clock::new();
    let one = MemoryTransport::connect(&clock, Echo);
    let other = MemoryTransport::connect(&clock, Echo);
    for _ in 0..100 {
        one.transport().write(b"one ");
        other.transport().write(b"other ");
    }
    assert_eq!(other.take_written(), b"other ".repeat(100));
    assert_eq!(one.take_written(), b"one ".repeat(100));
}

#[test]
fn nothing_is_sent_before_the_callback_has_returned() {
    let clock = Clock::new();
    let memory = MemoryTransport::connect(
        &clock,
        OnData(|transport: &Transport, _: &[u8]| {
            transport.write(b"head ");
            transport.write(b"body");
            assert_eq!(transport.buffered_bytes(), 9);
        }),
    );
    memory.deliver(b"go");
    assert_eq!(memory.take_written(), b"head body");
}

#[test]
fn losing_a_connection_sends_what_was_written_first() {
    let clock = Clock::new();
    let diary = Diary::default();
    let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
    let data = vec![b'x'; MUCH];
    memory.transport().write(&data);
    memory.transport().lose_connection();
    memory.transport().write(b"too late");
    assert!(!memory.transport().is_connected());
    clock.pump();
    assert_eq!(read(&diary), ["made"], "not lost while there is something to send");
    assert!(memory.take_written() == data);
    assert!(memory.is_closed());
    assert_eq!(read(&diary), ["lost: the connection was closed cleanly"]);
}

#[test]
fn a_peer_that_takes_nothing_is_cut_off_while_closing() {
    const SECOND: Duration = Duration::from_secs(1);
    let clock = Clock::new();
    let diary = Diary::default();
    let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
    memory.transport().write(&vec![b'x'; MUCH]);
    clock.advance(100 * SECOND);
    assert_eq!(read(&diary), ["made"], "as long as nobody asks for the end");
    memory.transport().lose_connection();
    clock.advance(29 * SECOND);
    assert_eq!(read(&diary), [""; 0]);
    memory.take_some_written(1_000);
    clock.advance(29 * SECOND);
    assert_eq!(read(&diary), [""; 0], "it has taken something");
    clock.advance(SECOND);
    assert_eq!(read(&diary), ["lost: the connection failed"]);
    assert_eq!(clock.pending_calls(), 0);
    assert_eq!(clock.open_connections(), 0);
}

#[test]
fn a_peer_that_talks_on_still_gets_the_last_bytes() {
    for peer_finishes in [true, false] {
        let clock = Clock::new();
        let diary = Diary::default();
        let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
        memory.transport().write(b"that is too much");
        memory.transport().lose_connection();
        memory.deliver(b"unheard");
        assert_eq!(read(&diary), ["made", "lost: the connection was closed cleanly"]);
        assert!(!memory.is_closed(), "closing now would take back what was sent");
        memory.deliver(b"unheard, too");
        assert_eq!(memory.take_written(), b"that is too much");
        if peer_finishes {
            memory.finish();
        } else {
            clock.advance(Duration::from_secs(2));
        }
        assert!(memory.is_closed());
        assert_eq!(clock.open_connections(), 0);
        assert_eq!(clock.pending_calls(), 0);
    }
}

#[test]
fn aborting_drops_what_was_written() {
    let clock = Clock::new();
    let diary = Diary::default();
    let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
    memory.transport().write(b"never sent");
    memory.transport().abort_connection();
    memory.transport().write(b"ignored");
    assert_eq!(memory.transport().buffered_bytes(), 0);
    assert_eq!(read(&diary), ["made"], "told after the caller has returned");
    assert_eq!(memory.take_written(), b"");
    assert!(memory.is_closed());
    assert_eq!(read(&diary), ["lost: the connection was aborted by this side"]);
}

#[test]
fn a_peer_that_finishes_is_answered_and_the_connection_closed() {
    let clock = Clock::new();
    let diary = Diary::default();
    let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
    memory.transport().write(b"answer");
    memory.deliver(b"question");
    memory.finish();
    assert_eq!(memory.take_written(), b"answer");
    assert!(memory.is_closed());
    let expected =
        ["made", "data question", "read lost", "lost: the connection was closed cleanly"];
    assert_eq!(read(&diary), expected);
}

#[test]
fn half_a_connection_lives_on_until_the_other_half_ends() {
    let clock = Clock::new();
    let diary = Diary::default();
    let protocol = Recorder { outlives_peer: true, ..Recorder::new(&diary) };
    let memory = MemoryTransport::connect(&clock, protocol);
    memory.finish();
    assert_eq!(read(&diary), ["made", "read lost"]);
    memory.transport().write(b"still ");
    assert_eq!(memory.take_written(), b"still ");
    memory.transport().write(b"talking");
    memory.transport().lose_write_connection();
    memory.transport().write(b"no more");
    assert_eq!(memory.take_written(), b"talking");
    assert!(memory.is_closed());
    assert_eq!(read(&diary), ["lost: the connection was closed cleanly"]);
}

#[test]
fn after_this_side_has_finished_the_peer_is_heard_to_its_end() {
    let clock = Clock::new();
    let diary = Diary::default();
    let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
    memory.transport().write(b"question");
    memory.transport().lose_write_connection();
    assert_eq!(memory.take_written(), b"question");
    assert!(!memory.is_closed());
    memory.deliver(b"answer");
    memory.finish();
    assert!(memory.is_closed());
    let expected = ["made", "data answer", "lost: the connection was closed cleanly"];
    assert_eq!(read(&diary), expected);
}

#[test]
fn a_reset_ends_the_connection_also_while_reading_is_paused() {
    for is_paused in [false, true] {
        let clock = Clock::new();
        let diary = Diary::default();
        let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
        if is_paused {
            memory.transport().pause_producing();
        }
        memory.reset();
        assert_eq!(read(&diary), ["made", "lost: the connection failed"], "paused: {is_paused}");
        assert!(!memory.transport().is_connected());
    }
}

#[test]
fn paused_reading_keeps_bytes_back_and_resuming_delivers_them_without_a_new_edge() {
    let clock = Clock::new();
    let diary = Diary::default();
    let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
    memory.transport().pause_producing();
    memory.deliver(b"early ");
    memory.deliver(b"birds");
    memory.finish();
    assert_eq!(read(&diary), ["made"]);
    memory.transport().resume_producing();
    memory.transport().resume_producing();
    assert_eq!(read(&diary), [""; 0], "not from inside the call");
    clock.pump();
    let expected = ["data early birds", "read lost", "lost: the connection was closed cleanly"];
    assert_eq!(read(&diary), expected);
}

#[test]
fn pausing_inside_data_received_stops_at_once() {
    let clock = Clock::new();
    let count = Rc::new(Cell::new(0));
    let seen = Rc::clone(&count);
    let sender = MemoryTransport::connect(
        &clock,
        OnData(move |transport: &Transport, _: &[u8]| {
            seen.set(seen.get() + 1);
            transport.pause_producing();
        }),
    );
    sender.deliver(&[1; 65_536]);
    sender.deliver(&[2; 1_000]);
    assert_eq!(count.get(), 1);
    sender.transport().resume_producing();
    clock.pump();
    assert_eq!(count.get(), 2);
}

#[test]
fn a_slow_reader_pauses_the_push_producer_and_resumes_it_at_the_low_mark() {
    let clock = Clock::new();
    let diary = Diary::default();
    let memory = MemoryTransport::connect(&clock, Echo);
    memory.transport().set_watermarks(100_000, 10_000);
    let producer = Rc::new(RecordingProducer(Rc::clone(&diary)));
    memory.transport().register_producer(producer, Streaming::Push);
    memory.transport().write(&[0; 65_536]);
    clock.pump();
    memory.transport().write(&[0; 100_000]);
    clock.pump();
    assert_eq!(read(&diary), [""; 0], "exactly at the mark is not over it");
    memory.transport().write(b"x");
    assert_eq!(read(&diary), [""; 0], "not from inside write");
    clock.pump();
    assert_eq!(read(&diary), ["pause"]);
    let taken = memory.take_written().len();
    assert_eq!(taken, 165_537);
    assert_eq!(read(&diary), ["resume"]);
}

#[test]
fn a_producer_is_told_to_stop_when_the_connection_is_gone() {
    let clock = Clock::new();
    let diary = Diary::default();
    let producer = || Rc::new(RecordingProducer(Rc::clone(&diary)));
    let memory = MemoryTransport::connect(&clock, Echo);
    memory.transport().register_producer(producer(), Streaming::Push);
    memory.transport().register_producer(producer(), Streaming::Push);
    clock.pump();
    assert_eq!(read(&diary), ["stop"], "the first, which was replaced");
    memory.transport().abort_connection();
    clock.pump();
    assert_eq!(read(&diary), ["stop"]);
    memory.transport().register_producer(producer(), Streaming::Push);
    clock.pump();
    assert_eq!(read(&diary), ["stop"]);
}

/// Writes numbered pieces when asked, then unregisters and closes.
struct Pieces {
    transport: Transport,
    left: Cell<u8>,
}

impl Producer for Pieces {
    fn pause_producing(&self) {
        unreachable!("a pull producer is not paused");
    }

    fn resume_producing(&self) {
        assert_eq!(self.transport.buffered_bytes(), 0, "asked only when all is sent");
        let left = self.left.get();
        if left == 0 {
            self.transport.unregister_producer();
            return;
        }
        self.left.set(left - 1);
        self.transport.write(&vec![left; 70_000]);
    }

    fn stop_producing(&self) {}
}

#[test]
fn a_pull_producer_is_asked_for_one_piece_at_a_time_and_closing_waits_for_it() {
    let clock = Clock::new();
    let diary = Diary::default();
    let memory = MemoryTransport::connect(&clock, Recorder::new(&diary));
    let transport = memory.transport();
    let pieces = Rc::new(Pieces { transport: transport.clone(), left: Cell::new(5) });
    transport.register_producer(pieces.clone(), Streaming::Pull);
    transport.lose_connection();
    clock.pump();
    assert_eq!(pieces.left.get(), 4, "nobody reads, so that it is not asked again");
    let written = memory.take_written();
    let expected: Vec<u8> = (1..=5).rev().flat_map(|n| vec![n; 70_000]).collect();
    assert!(written == expected);
    assert!(memory.is_closed());
    assert_eq!(read(&diary), ["made", "lost: the connection was closed cleanly"]);
}

/// Panics in the method of this name.
struct PanicsIn(&'static str, Diary);

impl Protocol for PanicsIn {
    fn connection_made(&mut self, _: &Transport) {
        note(&self.1, "made");
        assert_ne!(self.0, "made");
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) {
        note(&self.1, "data");
        assert_ne!(self.0, "data");
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        note(&self.1, "read lost");
        assert_ne!(self.0, "read lost");
        transport.lose_connection();
    }

    fn connection_lost(&mut self, reason: ropewalk::ConnectionLost) {
        note(&self.1, format!("lost: {reason}"));
        assert_ne!(self.0, "lost");
    }
}

#[test]
fn a_panicking_protocol_is_only_told_of_the_end_and_nobody_else_is_hurt() {
    let panicked = "lost: the protocol panicked, so its connection was aborted";
    let done = "lost: the connection was closed cleanly";
    for (method, expected) in [
        ("made", vec!["made", panicked]),
        ("data", vec!["made", "data", panicked]),
        ("read lost", vec!["made", "data", "read lost", panicked]),
        ("lost", vec!["made", "data", "read lost", done]),
    ] {
        let clock = Clock::new();
        let lines = logging::capture(100);
        let neighbour = MemoryTransport::connect(&clock, Echo);
        let diary = Diary::default();
        let memory = MemoryTransport::connect(&clock, PanicsIn(method, Rc::clone(&diary)));
        if !memory.is_closed() {
            memory.deliver(b"x");
        }
        memory.finish();
        assert_eq!(read(&diary), expected, "{method}");
        assert!(memory.is_closed());
        assert_eq!(clock.open_connections(), 1);
        neighbour.deliver(b"still here?");
        assert_eq!(neighbour.take_written(), b"still here?");
        let lines = lines.take();
        assert!(lines.iter().any(|line| line.contains("panicked")), "{method}: {lines:?}");
    }
}

#[test]
fn a_million_bytes_pass_between_two_protocols() {
    let clock = Clock::new();
    let pair = MemoryPair::connect(&clock, Echo, Counter::default());
    pair.first_transport().write(&[7; MUCH]);
    pair.first_transport().lose_connection();
    pair.pump();
    assert_eq!(pair.second().bytes, MUCH);
    assert!(pair.second().is_lost);
}

#[test]
fn ports_in_memory_accept_and_refuse_as_real_ones_do() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let diary = Diary::default();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let notes = Rc::clone(&diary);
    let factory = move |peer: &Address| -> Option<Box<dyn Protocol>> {
        note(&notes, format!("from {}", peer.socket_address()?.ip()));
        (notes.borrow().len() < 2).then(|| Box::new(Echo) as Box<dyn Protocol>)
    };
    let port = reactor.listen_tcp(any, Rc::new(factory), Default::default()).unwrap();
    let address = port.local_address();
    let counter = Rc::new(RefCell::new(Counter::default()));
    let connected = reactor.connect_tcp(address, Box::new(Rc::clone(&counter)));
    clock.pump();
    let transport = success_result_of(connected);
    transport.write(b"twelve bytes");
    clock.pump();
    assert_eq!(counter.borrow().bytes, 12);

    let refused = Rc::new(RefCell::new(Counter::default()));
    let connected = reactor.connect_tcp(address, Box::new(Rc::clone(&refused)));
    clock.pump();
    connected.detach();
    assert!(refused.borrow().is_lost, "the factory returned no protocol");
    assert_eq!(read(&diary), ["from 127.0.0.1", "from 127.0.0.1"]);

    port.stop_listening();
    let failure = failure_result_of(reactor.connect_tcp(address, Box::new(Echo)));
    assert!(failure.is::<ConnectError>(), "{failure}");
    assert!(transport.is_connected(), "what was accepted lives on");
}

#[test]
fn each_accepted_connection_runs_in_a_context_of_its_own() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let names = Diary::default();
    let contexts = Rc::new(RefCell::new(Vec::new()));
    let (seen, seen_contexts) = (Rc::clone(&names), Rc::clone(&contexts));
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> {
        let (seen, contexts) = (Rc::clone(&seen), Rc::clone(&seen_contexts));
        Some(Box::new(OnData(move |_: &Transport, _: &[u8]| {
            note(&seen, LogContext::current().name());
            contexts.borrow_mut().push(LogContext::current());
        })))
    };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let request = LogContext::new("starting-up");
    let port =
        request.run(|| reactor.listen_tcp(any, Rc::new(factory), Default::default())).unwrap();
    let mut transports = Vec::new();
    for _ in 0..2 {
        let connected = reactor.connect_tcp(port.local_address(), Box::new(Echo));
        clock.pump();
        let transport = success_result_of(connected);
        transport.write(b"x");
        transports.push(transport);
        clock.pump();
    }
    let number = port.local_address().port();
    assert_eq!(read(&names), [format!("tcp-{number}-1"), format!("tcp-{number}-2")]);
    let context = contexts.borrow()[0].clone();
    assert!(!context.is_finished());
    transports[0].lose_connection();
    clock.pump();
    assert!(context.is_finished(), "with its connection");
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn a_connector_runs_in_the_context_that_asked_for_it() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let factory = |_: &Address| -> Option<Box<dyn Protocol>> { Some(Box::new(Echo)) };
    let port = reactor.listen_tcp(any, Rc::new(factory), Default::default()).unwrap();
    let names = Diary::default();
    let seen = Rc::clone(&names);
    let protocol = OnData(move |_: &Transport, _: &[u8]| {
        note(&seen, LogContext::current().name());
    });
    let connected = LogContext::new("request-1").run(|| {
        let connected = reactor.connect_tcp(port.local_address(), Box::new(protocol));
        connected.add_callback(|transport| {
            transport.write(b"x");
            Ok(LogContext::current().name().to_owned())
        })
    });
    clock.pump();
    assert_eq!(success_result_of(connected), "request-1");
    assert_eq!(read(&names), ["request-1"]);
}

#[test]
fn cancelling_a_connection_attempt_gives_it_up() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let factory = |_: &Address| -> Option<Box<dyn Protocol>> { Some(Box::new(Echo)) };
    let port = reactor.listen_tcp(any, Rc::new(factory), Default::default()).unwrap();
    let diary = Diary::default();
    let connected = reactor.connect_tcp(port.local_address(), Box::new(Recorder::new(&diary)));
    connected.cancel();
    clock.pump();
    assert!(failure_result_of(connected).is::<ropewalk::CancelledError>());
    assert_eq!(read(&diary), [""; 0]);
    assert_eq!(clock.open_connections(), 1, "the port");
}
