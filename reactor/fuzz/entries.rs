//! What is done with bytes from outside: by the fuzz targets for as long as they are let, by the ordinary
//! tests with the corpus and a bounded number of mutations.
//!
//! The first bytes of an input choose the codec's settings and the sizes of the pieces in which the rest is
//! fed. Each entry panics if the outcome depends on the pieces, if what was decoded is not what encoding
//! gives back, or if a codec keeps more than it may.

use ropewalk::framing::{
    FrameCodec, LengthPrefix, LengthPrefixedCodec, LineCodec, LineEvent, NetstringCodec,
};

/// The name of each target and what it does with an input.
pub(crate) const ENTRIES: &[(&str, Entry)] = &[
    ("length_prefixed", length_prefixed),
    ("lines", lines),
    ("lines_raw", lines_raw),
    ("netstring", netstring),
];

type Entry = fn(&[u8]);

/// Frames behind their length.
fn length_prefixed(input: &[u8]) {
    let Some((&[kind, limit, size], stream)) = input.split_first_chunk() else { return };
    let prefix = [LengthPrefix::U8, LengthPrefix::U16, LengthPrefix::U32][usize::from(kind % 3)];
    let make = || LengthPrefixedCodec::new(prefix, u32::from(limit));
    check(make, stream, size, usize::from(limit) + 4);
}

/// Netstrings.
fn netstring(input: &[u8]) {
    let Some((&[limit, size], stream)) = input.split_first_chunk() else { return };
    let make = || NetstringCodec::new(usize::from(limit));
    check(make, stream, size, usize::from(limit) + 5);
}

/// Lines, with several delimiters, and with lines that are too long skipped.
fn lines(input: &[u8]) {
    let Some((&[kind, limit, size], stream)) = input.split_first_chunk() else { return };
    let limit = usize::from(limit % 32);
    let delimiter: &'static [u8] =
        [&b"\r\n"[..], b"\n", b"aa", b"aba", b"\0"][usize::from(kind % 5)];
    let make = || LineCodec::new(limit).with_delimiter(delimiter);
    let skipping = usize::from(size) % 20 + 1;
    let (whole, pieces) = (skip_long_lines(make(), stream, usize::MAX), {
        skip_long_lines(make(), stream, skipping)
    });
    assert_eq!(whole, pieces, "lines behind those that are too long");
    let (decoded, _) = decode(make(), stream, usize::MAX, usize::MAX);
    let decoded: Vec<_> = decoded.into_iter().map(as_line).collect();
    // What a reader without any cleverness sees.
    let mut rest = stream;
    for line in &decoded {
        let end = rest.windows(delimiter.len()).position(|window| window == delimiter);
        assert_eq!(end, Some(line.len()));
        rest = &rest[line.len() + delimiter.len()..];
    }
    check_lines(make, stream, size, limit + delimiter.len());
    check_lf(limit, stream, size);
}

/// Lines and raw bytes in turns: a line that is a number is followed by as many raw bytes.
fn lines_raw(input: &[u8]) {
    let Some((&[limit, size], stream)) = input.split_first_chunk() else { return };
    let read = |size: usize| {
        let mut codec = LineCodec::new(usize::from(limit)).accepting_lf();
        let mut seen: Vec<(bool, Vec<u8>)> = Vec::new();
        let mut raw_left = 0;
        for piece in stream.chunks(size) {
            codec.feed(piece);
            while let Ok(Some(event)) = codec.next_frame() {
                match event {
                    LineEvent::Line(line) => {
                        let number = str::from_utf8(&line).ok().and_then(|text| text.parse().ok());
                        raw_left = number.unwrap_or(0_usize);
                        if raw_left > 0 {
                            codec.set_raw_mode();
                        }
                        seen.push((false, line.to_vec()));
                    }
                    LineEvent::Raw(data) => {
                        let (body, extra) = data.split_at(raw_left.min(data.len()));
                        match seen.last_mut() {
                            Some((true, before)) => before.extend_from_slice(body),
                            _ => seen.push((true, body.to_vec())),
                        }
                        raw_left -= body.len();
                        if raw_left == 0 {
                            codec.set_line_mode(extra);
                        }
                    }
                }
            }
        }
        (seen, codec.has_failed())
    };
    assert_eq!(read(usize::from(size) % 20 + 1), read(stream.len().max(1)));
}

/// Frames, the error's text if there was one, and what was left over.
type Decoded<F> = (Vec<F>, Option<String>);

fn decode<C: FrameCodec>(
    mut codec: C,
    stream: &[u8],
    size: usize,
    kept_bytes_max: usize,
) -> Decoded<C::Frame> {
    let mut frames = Vec::new();
    for piece in stream.chunks(size) {
        codec.feed(piece);
        loop {
            match codec.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert!(codec.has_failed());
                    codec.feed(b"dropped");
                    let again = codec.next_frame().err().map(|error| error.to_string());
                    assert_eq!(again, Some(error.to_string()), "an error is the last word");
                    return (frames, again);
                }
            }
        }
        assert!(codec.pending_bytes() <= kept_bytes_max, "kept {}", codec.pending_bytes());
    }
    (frames, None)
}

/// For codecs that have one way to write each frame.
fn check<C>(make: impl Fn() -> C, stream: &[u8], size: u8, kept_bytes_max: usize)
where
    C: FrameCodec<Frame: AsRef<[u8]> + PartialEq + std::fmt::Debug>,
{
    let whole = decode(make(), stream, usize::MAX, usize::MAX);
    let pieces = decode(make(), stream, usize::from(size) % 20 + 1, kept_bytes_max);
    assert_eq!(whole, pieces, "in pieces and at once");
    let mut encoded = Vec::new();
    for frame in &whole.0 {
        let written = make().encode(frame.as_ref(), |piece| encoded.extend_from_slice(piece));
        assert!(written.is_ok(), "what came in within the limit goes out");
    }
    assert!(stream.starts_with(&encoded), "what was decoded is what stood there");
}

fn check_lines(make: impl Fn() -> LineCodec, stream: &[u8], size: u8, kept_bytes_max: usize) {
    let whole = decode(make(), stream, usize::MAX, usize::MAX);
    let pieces = decode(make(), stream, usize::from(size) % 20 + 1, kept_bytes_max);
    assert_eq!(whole, pieces, "in pieces and at once");
    let mut encoded = Vec::new();
    for line in whole.0.into_iter().map(as_line) {
        let written = make().encode(&line, |piece| encoded.extend_from_slice(piece));
        assert!(written.is_ok(), "what came in as one line goes out as one");
    }
    assert!(stream.starts_with(&encoded), "what was decoded is what stood there");
}

fn check_lf(limit: usize, stream: &[u8], size: u8) {
    let make = || LineCodec::new(limit).accepting_lf();
    let whole = decode(make(), stream, usize::MAX, usize::MAX);
    assert_eq!(whole, decode(make(), stream, usize::from(size) % 20 + 1, limit + 2));
    let mut naive = stream.split(|&byte| byte == b'\n');
    for line in whole.0.into_iter().map(as_line) {
        let expected = naive.next().unwrap_or_default();
        assert_eq!(line, expected.strip_suffix(b"\r").unwrap_or(expected));
    }
}

fn skip_long_lines(mut codec: LineCodec, stream: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for piece in stream.chunks(size) {
        codec.feed(piece);
        loop {
            match codec.next_frame() {
                Ok(Some(event)) => lines.push(as_line(event)),
                Ok(None) => break,
                Err(_) => codec.skip_line(),
            }
        }
    }
    lines
}

fn as_line(event: LineEvent) -> Vec<u8> {
    match event {
        LineEvent::Line(line) => line.to_vec(),
        LineEvent::Raw(_) => unreachable!("nobody asked for raw mode"),
    }
}

/// Does with an input what the target of this name does.
pub(crate) fn run(target: &str, input: &[u8]) {
    for (name, entry) in ENTRIES {
        if *name == target {
            entry(input);
        }
    }
}
