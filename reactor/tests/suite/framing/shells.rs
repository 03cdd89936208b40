//! Codecs on connections: what receivers are told, when, and what they may do then.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use ropewalk::framing::{
    FrameProtocol, FrameReceiver, FrameTransport, LineCodec, LineError, LineProtocol, LineReceiver,
    LineTransport, NetstringCodec, NetstringError,
};
use ropewalk::testing::{Clock, MemoryTransport};
use ropewalk::{ConnectionLost, Transport};

use crate::support::{Diary, note, read};

/// Notes what it is told, and does what a line says.
struct Lines {
    diary: Diary,
    raw_left: usize,
    kept: Rc<RefCell<Option<LineTransport>>>,
}

fn connect<'a>(clock: &'a Clock, codec: LineCodec) -> (MemoryTransport<'a>, Diary, LineTransport) {
    let diary = Diary::default();
    let kept = Rc::default();
    let receiver = Lines { diary: Rc::clone(&diary), raw_left: 0, kept: Rc::clone(&kept) };
    let memory = MemoryTransport::connect(clock, LineProtocol::with_codec(codec, receiver));
    let lines = kept.take().expect("it was told of the connection");
    (memory, diary, lines)
}

impl LineReceiver for Lines {
    fn connection_made(&mut self, lines: &LineTransport) {
        self.kept.replace(Some(lines.clone()));
    }

    fn line_received(&mut self, lines: &LineTransport, line: Bytes) {
        let line = String::from_utf8_lossy(&line).into_owned();
        note(&self.diary, &line);
        match line.as_str() {
            "pause" => lines.transport().pause_producing(),
            "pause and go on" => {
                lines.transport().pause_producing();
                lines.transport().resume_producing();
            }
            "leave" => lines.transport().lose_connection(),
            "abort" => lines.transport().abort_connection(),
            "panic" => panic!("as asked"),
            _ => {}
        }
        if let Some(length) = line.strip_prefix("raw ") {
            self.raw_left = length.parse().unwrap();
            lines.set_raw_mode();
        }
    }

    fn raw_data_received(&mut self, lines: &LineTransport, data: Bytes) {
        let count = self.raw_left.min(data.len());
        note(&self.diary, format!("[{}]", String::from_utf8_lossy(&data[..count])));
        self.raw_left -= count;
        if self.raw_left == 0 {
            lines.set_line_mode(&data[count..]);
        }
    }

    fn line_length_exceeded(&mut self, lines: &LineTransport, error: LineError) {
        note(&self.diary, error.to_string());
        if lines.transport().buffered_bytes() == 0 {
            lines.skip_line();
        }
    }

    fn read_connection_lost(&mut self, lines: &LineTransport) {
        note(&self.diary, format!("end, left {:?}", lines.take_pending()));
        lines.transport().lose_connection();
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        note(&self.diary, format!("lost: {reason}"));
    }
}

const CLEAN: &str = "lost: the connection was closed cleanly";

#[test]
fn lines_arrive_and_raw_bytes_in_between() {
    let clock = Clock::new();
    let (memory, diary, lines) = connect(&clock, LineCodec::new(20));
    memory.deliver(b"one\r\nraw 5\r\nab");
    memory.deliver(b"cdetwo\r\nraw 3\r\nxyzthree\r\nfo");
    lines.send_line(b"answer").unwrap();
    assert_eq!(memory.take_written(), b"answer\r\n");
    memory.finish();
    let expected = [
        "one",
        "raw 5",
        "[ab]",
        "[cde]",
        "two",
        "raw 3",
        "[xyz]",
        "three",
        "end, left b\"fo\"",
        CLEAN,
    ];
    assert_eq!(read(&diary), expected);
}

#[test]
fn a_receiver_that_pauses_is_not_told_of_lines_that_have_come() {
    let clock = Clock::new();
    let (memory, diary, lines) = connect(&clock, LineCodec::new(20));
    memory.deliver(b"one\r\npause\r\ntwo\r\npause\r\nthree\r\n");
    memory.deliver(b"four\r\n");
    memory.finish();
    assert_eq!(read(&diary), ["one", "pause"]);
    lines.transport().resume_producing();
    assert_eq!(read(&diary), [""; 0], "not from inside the call");
    clock.pump();
    assert_eq!(read(&diary), ["two", "pause"]);
    lines.transport().resume_producing();
    lines.transport().pause_producing();
    clock.pump();
    assert_eq!(read(&diary), [""; 0]);
    lines.transport().resume_producing();
    clock.pump();
    assert_eq!(read(&diary), ["three", "four", "end, left b\"\"", CLEAN]);
    assert_eq!(clock.open_connections(), 0);
}

#[test]
fn pausing_and_going_on_at_once_changes_nothing() {
    let clock = Clock::new();
    let (memory, diary, _) = connect(&clock, LineCodec::new(20));
    memory.deliver(b"pause and go on\r\ntwo\r\n");
    assert_eq!(read(&diary), ["pause and go on", "two"]);
}

#[test]
fn what_is_held_back_is_delivered_after_the_peer_has_finished() {
    let clock = Clock::new();
    let (memory, diary, lines) = connect(&clock, LineCodec::new(20));
    memory.deliver(b"pause\r\ntwo\r\nthree");
    memory.finish();
    assert_eq!(read(&diary), ["pause"]);
    lines.transport().resume_producing();
    clock.pump();
    assert_eq!(read(&diary), ["two", "end, left b\"three\"", CLEAN]);
}

#[test]
fn nothing_is_delivered_once_the_receiver_has_asked_for_the_end() {
    for (word, end) in
        [("leave", CLEAN), ("abort", "lost: the connection was aborted by this side")]
    {
        let clock = Clock::new();
        let (memory, diary, _) = connect(&clock, LineCodec::new(20));
        memory.deliver(format!("{word}\r\nunheard\r\n").as_bytes());
        clock.pump();
        assert_eq!(read(&diary), [word, end]);
    }
}

#[test]
fn a_receiver_that_panics_hears_of_the_end_only() {
    let clock = Clock::new();
    let (memory, diary, _) = connect(&clock, LineCodec::new(20));
    memory.deliver(b"panic\r\nunheard\r\n");
    let end = "lost: the protocol panicked, so its connection was aborted";
    assert_eq!(read(&diary), ["panic", end]);
}

#[test]
fn going_back_to_lines_from_outside_has_what_was_kept_delivered() {
    let clock = Clock::new();
    let (memory, diary, lines) = connect(&clock, LineCodec::new(20));
    lines.set_raw_mode();
    lines.set_line_mode(b"one\r\nraw 9\r\nab");
    assert_eq!(read(&diary), [""; 0], "not from inside the call");
    clock.pump();
    assert_eq!(read(&diary), ["one", "raw 9", "[ab]"]);
    lines.set_line_mode(b"");
    memory.deliver(b"two\r\n");
    assert_eq!(read(&diary), ["two"]);
}

#[test]
fn a_line_that_is_too_long_is_skipped_on_request() {
    let clock = Clock::new();
    let (memory, diary, lines) = connect(&clock, LineCodec::new(5));
    memory.deliver(b"a\r\n123456\r\nb\r\n1234567");
    memory.deliver(b"8\r\nc\r\n");
    let long = "line is longer than 5 bytes";
    assert_eq!(read(&diary), ["a", long, "b", long, "c"]);
    // Not asked for now: told once, and then nothing.
    lines.transport().write(&vec![b'x'; 70_000]);
    memory.deliver(b"1234567\r\n");
    memory.deliver(b"d\r\n1234567\r\n");
    assert_eq!(read(&diary), [long]);
    assert_eq!(lines.pending_bytes() / 8, 1, "only what came with the line that is too long");
}

/// Answers each frame, and leaves the rest to the trait.
struct Frames(Diary);

impl FrameReceiver<NetstringCodec> for Frames {
    fn frame_received(&mut self, frames: &FrameTransport<NetstringCodec>, frame: Bytes) {
        note(&self.0, format!("{frame:?}"));
        frames.send_frame(&frame).unwrap();
        let error = NetstringError::TooLong { announced: 9, limit: 8 };
        assert_eq!(frames.send_frame(b"too long."), Err(error));
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        note(&self.0, format!("lost: {reason}"));
    }
}

#[test]
fn frames_arrive_and_a_broken_stream_ends_the_connection() {
    let clock = Clock::new();
    let diary = Diary::default();
    let receiver = Frames(Rc::clone(&diary));
    let memory =
        MemoryTransport::connect(&clock, FrameProtocol::new(NetstringCodec::new(8), receiver));
    memory.deliver(b"3:one,3:tw");
    memory.deliver(b"o,");
    assert_eq!(memory.take_written(), b"3:one,3:two,");
    memory.deliver(b"3:thr;3:for,");
    assert_eq!(read(&diary), ["b\"one\"", "b\"two\"", CLEAN]);
    assert!(!Transport::is_connected(memory.transport()));
}
