//! Each codec by itself: tables of streams, every split of them, limits, round trips.

use proptest::prelude::*;
use ropewalk::framing::{
    FrameCodec, LengthPrefix, LengthPrefixError, LengthPrefixedCodec, LineCodec, LineError,
    LineEvent, NetstringCodec, NetstringError,
};

/// Feeds the pieces, taking out all there is after each.
fn decode<C: FrameCodec>(mut codec: C, pieces: &[&[u8]]) -> (Vec<C::Frame>, Option<C::Error>) {
    let mut frames = Vec::new();
    for piece in pieces {
        codec.feed(piece);
        loop {
            match codec.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Checks a stream at once, byte by byte, and cut at each two places.
fn check<C: FrameCodec<Frame: PartialEq + std::fmt::Debug, Error: PartialEq>>(
    why: &str,
    make: impl Fn() -> C,
    stream: &[u8],
    expected: &(Vec<C::Frame>, Option<C::Error>),
) {
    assert_eq!(&decode(make(), &[stream]), expected, "{why}, at once");
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(&decode(make(), &bytes), expected, "{why}, byte by byte");
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(&decode(make(), &pieces), expected, "{why}, cut at {first} and {second}");
        }
    }
}

#[test]
fn lines_are_cut_at_their_delimiter_wherever_the_stream_is_split() {
    let plain = || LineCodec::new(5);
    let lenient = || LineCodec::new(5).accepting_lf();
    let doubled = || LineCodec::new(5).with_delimiter(&b"aa"[..]);
    let zero = || LineCodec::new(5).with_delimiter(&b"\0"[..]);
    let too_long = || Some(LineError::TooLong { limit: 5 });
    type Make<'a> = &'a dyn Fn() -> LineCodec;
    for (why, make, stream, lines, error) in [
        ("nothing", &plain as Make, &b""[..], &[][..], None),
        ("two and a half", &plain, b"one\r\ntwo\r\nthr", &["one", "two"], None),
        ("empty lines", &plain, b"\r\n\r\n", &["", ""], None),
        ("a bare LF is text", &plain, b"a\nb\r\n", &["a\nb"], None),
        ("a bare CR is text", &plain, b"a\rb\r\r\n", &["a\rb\r"], None),
        ("as long as may be", &plain, b"12345\r\n", &["12345"], None),
        ("one more", &plain, b"a\r\n123456\r\nb\r\n", &["a"], too_long()),
        ("too long without an end", &plain, b"a\r\n1234567", &["a"], too_long()),
        ("perhaps at its end", &plain, b"12345\r", &[], None),
        ("a CR too many", &plain, b"12345\r\r\n", &[], too_long()),
        ("CRLF and LF", &lenient, b"a\nb\r\n\n\r\nc\rd\n", &["a", "b", "", "", "c\rd"], None),
        ("as long as may be, LF", &lenient, b"12345\n12345\r\n", &["12345", "12345"], None),
        ("one more, LF", &lenient, b"123456\n", &[], too_long()),
        ("without an end, LF", &lenient, b"1234567", &[], too_long()),
        ("a delimiter that overlaps itself", &doubled, b"xaaayaa", &["x", "ay"], None),
        ("zero bytes", &zero, b"a\r\n\0b\0", &["a\r\n", "b"], None),
    ] {
        let lines = lines.iter().map(|line| LineEvent::Line((*line).into())).collect();
        check(why, make, stream, &(lines, error));
    }
}

#[test]
fn frames_behind_their_length_are_cut_wherever_the_stream_is_split() {
    let too_long = |announced, limit| Some(LengthPrefixError::TooLong { announced, limit });
    for (why, prefix, limit, stream, frames, error) in [
        ("nothing", LengthPrefix::U8, 9, &b""[..], &[][..], None),
        ("one byte", LengthPrefix::U8, 9, b"\x03one\x00\x03two\x01", &["one", "", "two"], None),
        ("the limit", LengthPrefix::U8, 3, b"\x03one\x04four", &["one"], too_long(4, 3)),
        ("two bytes", LengthPrefix::U16, 9, b"\x00\x03one\x00\x00\x00", &["one", ""], None),
        ("too long", LengthPrefix::U16, 9, b"\x00\x01a\x01\x00", &["a"], too_long(256, 9)),
        ("four bytes", LengthPrefix::U32, 9, b"\0\0\0\x03one\0\0\0\x01t\0\0", &["one", "t"], None),
        ("much", LengthPrefix::U32, 9, b"\xff\xff\xff\xff", &[], too_long(u32::MAX.into(), 9)),
        ("no limit but the prefix", LengthPrefix::U8, u32::MAX, b"\x01a", &["a"], None),
    ] {
        let frames = frames.iter().map(|frame| (*frame).into()).collect();
        check(why, || LengthPrefixedCodec::new(prefix, limit), stream, &(frames, error));
    }
}

#[test]
fn netstrings_are_cut_wherever_the_stream_is_split() {
    let too_long = |announced| NetstringError::TooLong { announced, limit: 12 };
    for (why, stream, frames, error) in [
        ("nothing", &b""[..], &[][..], None),
        ("some", b"5:hello,0:,1:,,", &["hello", "", ","], None),
        ("cut off", b"1:a,5:hell", &["a"], None),
        ("no comma yet", b"5:hello", &[], None),
        ("something else", b"5:hello;", &[], Some(NetstringError::NoComma { found: b';' })),
        ("the limit", b"12:abcdefghijkl,13:", &["abcdefghijkl"], Some(too_long(13))),
        ("told before all digits came", b"1234567", &[], Some(too_long(123))),
        ("a leading zero", b"01:a,", &[], Some(NetstringError::LeadingZero)),
        ("two zeros", b"00:,", &[], Some(NetstringError::LeadingZero)),
        ("no digit", b":a,", &[], Some(NetstringError::NotALength { found: b':' })),
        ("a sign", b"-1:a,", &[], Some(NetstringError::NotALength { found: b'-' })),
        ("a space", b"1 :a,", &[], Some(NetstringError::NotALength { found: b' ' })),
    ] {
        let frames = frames.iter().map(|frame| (*frame).into()).collect();
        check(why, || NetstringCodec::new(12), stream, &(frames, error));
    }
}

#[test]
fn after_an_error_a_codec_keeps_nothing_and_says_the_same() {
    let mut codec = NetstringCodec::new(10);
    codec.feed(b"11:");
    let error = codec.next_frame().unwrap_err();
    assert!(codec.has_failed());
    codec.feed(&[b'x'; 1000]);
    assert_eq!(codec.pending_bytes(), 0);
    assert_eq!(codec.next_frame(), Err(error));

    let mut codec = LengthPrefixedCodec::new(LengthPrefix::U8, 1);
    codec.feed(b"\x02ab\x01a");
    let error = codec.next_frame().unwrap_err();
    codec.feed(&[b'x'; 1000]);
    assert_eq!(codec.pending_bytes(), 0);
    assert_eq!(codec.next_frame(), Err(error));

    let mut codec = LineCodec::new(3);
    codec.feed(b"abcdef");
    let error = codec.next_frame().unwrap_err();
    codec.feed(&[b'x'; 1000]);
    assert_eq!(codec.pending_bytes(), 0);
    assert_eq!(codec.next_frame(), Err(error));
}

#[test]
fn a_line_that_is_too_long_can_be_skipped() {
    let mut codec = LineCodec::new(3);
    codec.feed(b"one\r\nseven");
    assert_eq!(codec.next_frame(), Ok(Some(LineEvent::Line("one".into()))));
    assert_eq!(codec.next_frame(), Err(LineError::TooLong { limit: 3 }));
    codec.skip_line();
    assert_eq!(codec.next_frame(), Ok(None));
    for _ in 0..1000 {
        codec.feed(b"teen and on and on");
        assert_eq!(codec.next_frame(), Ok(None));
        assert!(codec.pending_bytes() < 2, "none of it is kept but what may begin the delimiter");
    }
    codec.feed(b"\r");
    assert_eq!(codec.next_frame(), Ok(None));
    codec.feed(b"\ntwo\r\n");
    assert_eq!(codec.next_frame(), Ok(Some(LineEvent::Line("two".into()))));
}

#[test]
fn raw_mode_gives_out_what_comes_until_lines_go_on() {
    let mut codec = LineCodec::new(10);
    codec.feed(b"body\r\nab");
    assert_eq!(codec.next_frame(), Ok(Some(LineEvent::Line("body".into()))));
    codec.set_raw_mode();
    assert_eq!(codec.next_frame(), Ok(Some(LineEvent::Raw("ab".into()))));
    assert_eq!(codec.next_frame(), Ok(None));
    codec.feed(b"longer than any line may be\r\nnext\r");
    let Ok(Some(LineEvent::Raw(data))) = codec.next_frame() else { panic!("raw bytes expected") };
    let extra = data.slice(data.len() - 5..);
    codec.feed(b"\nlast");
    codec.set_line_mode(&extra);
    assert_eq!(codec.next_frame(), Ok(Some(LineEvent::Line("next".into()))));
    assert_eq!(codec.next_frame(), Ok(None));
    assert_eq!(codec.take_pending(), "last");
    assert_eq!(codec.pending_bytes(), 0);
}

#[test]
fn what_cannot_be_told_is_refused_before_a_byte_is_written() {
    let nothing = |_: &[u8]| panic!("nothing is to be written");
    let inside = |at| Err(LineError::DelimiterInside { at });
    assert_eq!(LineCodec::new(9).encode(b"a\r\nb", nothing), inside(1));
    assert_eq!(LineCodec::new(9).accepting_lf().encode(b"a\nb", nothing), inside(1));
    assert_eq!(LineCodec::new(9).with_delimiter(&b"aa"[..]).encode(b"xa", nothing), inside(1));
    assert_eq!(LineCodec::new(1).encode(b"ab", nothing), Err(LineError::TooLong { limit: 1 }));
    let error = NetstringError::TooLong { announced: 2, limit: 1 };
    assert_eq!(NetstringCodec::new(1).encode(b"ab", nothing), Err(error));
    let codec = LengthPrefixedCodec::new(LengthPrefix::U8, 1000);
    let error = LengthPrefixError::TooLong { announced: 256, limit: 255 };
    assert_eq!(codec.encode(&[0; 256], nothing), Err(error));
}

/// Encodes frames one behind the other.
fn encode<C: FrameCodec<Error: PartialEq>>(codec: &C, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for frame in frames {
        assert_eq!(codec.encode(frame, |piece| stream.extend_from_slice(piece)), Ok(()));
    }
    stream
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        piece in 1usize..50,
    ) {
        for prefix in [LengthPrefix::U8, LengthPrefix::U16, LengthPrefix::U32] {
            let codec = LengthPrefixedCodec::new(prefix, 200);
            let stream = encode(&codec, &frames);
            let pieces: Vec<&[u8]> = stream.chunks(piece).collect();
            let (decoded, error) = decode(codec, &pieces);
            prop_assert_eq!(&decoded, &frames);
            prop_assert_eq!(error, None);
        }
        let codec = NetstringCodec::new(200);
        let stream = encode(&codec, &frames);
        let pieces: Vec<&[u8]> = stream.chunks(piece).collect();
        prop_assert_eq!(decode(codec, &pieces), (frames.iter().cloned().map(Into::into).collect(), None));
    }

    #[test]
    fn lines_that_go_in_come_out(
        lines in prop::collection::vec("[a-c\r]{0,40}", 0..20),
        piece in 1usize..50,
        kind in 0..3,
    ) {
        let codec = match kind {
            0 => LineCodec::new(40),
            1 => LineCodec::new(40).accepting_lf(),
            _ => LineCodec::new(40).with_delimiter(&b"\0\0"[..]),
        };
        let lines: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
        let stream = encode(&codec, &lines);
        let pieces: Vec<&[u8]> = stream.chunks(piece).collect();
        let expected = lines.into_iter().map(|line| LineEvent::Line(line.into())).collect();
        prop_assert_eq!(decode(codec, &pieces), (expected, None));
    }
}
