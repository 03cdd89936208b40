//! The chunked transfer coding (RFC 9112, 7.1): a strict decoder that buffers nothing, and the few bytes
//! that an encoder adds.

use crate::error::MessageError;
use crate::framing::TOKEN_BYTE;
use crate::limits::{CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// Takes the chunked coding off a body. Knows one byte at a time as well as whole reads, and copies nothing.
///
/// Stricter than RFC 9112 where leniency has been used to smuggle requests: sizes are one to sixteen
/// hexadecimal digits directly followed by `;` or CR LF, and every line ends in exactly CR LF.
#[derive(Debug)]
pub(crate) struct ChunkedDecoder {
    state: State,
    /// Bytes of the present size line, or of all trailer lines.
    line_bytes: usize,
}

/// Named after what comes next on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { remaining: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Ended,
}

/// What [`ChunkedDecoder::next`] found.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Decoded<'a> {
    Data(&'a [u8]),
    End,
    /// All input is used up.
    More,
}

impl ChunkedDecoder {
    pub(crate) fn new() -> Self {
        ChunkedDecoder { state: State::Size { size: 0, digits: 0 }, line_bytes: 0 }
    }

    /// Takes bytes from the front of `input` up to the next piece of data or the end of the body.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Decoded<'a>, MessageError> {
        loop {
            if self.state == State::Ended {
                return Ok(Decoded::End);
            }
            if let State::Data { remaining } = self.state {
                if input.is_empty() {
                    return Ok(Decoded::More);
                }
                let take = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(take);
                *input = rest;
                let remaining = remaining - take as u64;
                self.state = if remaining == 0 { State::DataCr } else { State::Data { remaining } };
                return Ok(Decoded::Data(data));
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(Decoded::More) };
            *input = rest;
            self.state = self.step(byte)?;
        }
    }

    /// The transition table of everything that is not data.
    fn step(&mut self, byte: u8) -> Result<State, MessageError> {
        self.line_bytes += 1;
        let next = match (self.state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == 16 {
                    return Err(MessageError::ChunkMalformed("size has over sixteen digits"));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => {
                return Err(MessageError::ChunkMalformed(
                    "size has to start with a hexadecimal digit",
                ));
            }
            (State::Size { size, .. }, b';') => State::Extension { size },
            (State::Size { size, .. } | State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Size { .. }, b'\n') => return Err(MessageError::BareLineFeed),
            (State::Size { .. }, _) => {
                return Err(MessageError::ChunkMalformed("size has a character that is no digit"));
            }
            (State::Extension { .. }, b'\n') => return Err(MessageError::BareLineFeed),
            (state @ State::Extension { .. }, _) if is_text(byte) => state,
            (State::Extension { .. }, _) => {
                return Err(MessageError::ChunkMalformed("extension has a control character"));
            }
            (State::SizeLf { size }, b'\n') => {
                self.line_bytes = 0;
                if size == 0 { State::TrailerStart } else { State::Data { remaining: size } }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataCr, b'\n') => return Err(MessageError::BareLineFeed),
            (State::DataLf, b'\n') => {
                self.line_bytes = 0;
                State::Size { size: 0, digits: 0 }
            }
            (State::DataCr | State::DataLf, _) => {
                return Err(MessageError::ChunkMalformed("data is longer than its size says"));
            }
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart | State::TrailerName, _) if TOKEN_BYTE[usize::from(byte)] => {
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => State::TrailerValue,
            (State::TrailerStart | State::TrailerName | State::TrailerValue, b'\n') => {
                return Err(MessageError::BareLineFeed);
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Ended,
            (State::SizeLf { .. }, _) => {
                return Err(MessageError::ChunkMalformed("size line has a bare carriage return"));
            }
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _)
            | (State::TrailerLf | State::LastLf, _) => return Err(MessageError::HeaderMalformed),
            (State::Data { .. } | State::Ended, _) => self.state,
        };
        self.check_line(next)?;
        Ok(next)
    }

    fn check_line(&self, next: State) -> Result<(), MessageError> {
        match next {
            State::Size { .. } | State::Extension { .. } | State::SizeLf { .. }
                if self.line_bytes > CHUNK_LINE_BYTES_MAX =>
            {
                Err(MessageError::ChunkMalformed("size line is too long"))
            }
            State::TrailerName | State::TrailerValue | State::TrailerLf
                if self.line_bytes > TRAILER_BYTES_MAX =>
            {
                Err(MessageError::TrailersTooLong { limit: TRAILER_BYTES_MAX })
            }
            _ => Ok(()),
        }
    }
}

/// Visible characters, space, tab, and bytes beyond ASCII, as in the value of a header field.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Ends a chunked body without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The line that announces a chunk, made without allocating.
pub(crate) struct ChunkHeader {
    text: [u8; 18],
    start: usize,
}

impl ChunkHeader {
    /// The line for a chunk of `size` bytes, which must not be 0: that would end the body.
    pub(crate) fn new(size: usize) -> Self {
        debug_assert!(size > 0, "a chunk of no bytes ends the body");
        let mut text = [0; 18];
        text[16] = b'\r';
        text[17] = b'\n';
        let mut start = 16;
        let mut rest = size as u64;
        while rest > 0 {
            start -= 1;
            text[start] = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        ChunkHeader { text, start }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `text` in pieces of `piece` bytes; returns the body, and how many bytes came after it.
    fn decode(text: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, MessageError> {
        let mut decoder = ChunkedDecoder::new();
        let mut body = Vec::new();
        for (index, mut input) in text.chunks(piece).enumerate() {
            loop {
                match decoder.next(&mut input)? {
                    Decoded::Data(data) => body.extend_from_slice(data),
                    Decoded::More => break,
                    Decoded::End => {
                        let used = index * piece + text.chunks(piece).nth(index).unwrap().len();
                        return Ok(Some((body, text.len() - used + input.len())));
                    }
                }
            }
            assert!(input.is_empty());
        }
        Ok(None)
    }

    #[test]
    fn bodies_are_told_from_what_follows() {
        for (why, text, expected) in [
            ("no data", "0\r\n\r\n", Some(("", 0))),
            ("two chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET", Some(("abcde", 3))),
            ("capitals", "A\r\n0123456789\r\n0\r\n\r\n", Some(("0123456789", 0))),
            ("zeros in front", "0003\r\nabc\r\n000\r\n\r\n", Some(("abc", 0))),
            ("extensions", "3;a=b;c=\"d e\"\r\nabc\r\n0;z\r\n\r\n", Some(("abc", 0))),
            ("trailers", "1\r\na\r\n0\r\nx: y\r\nEmpty:\r\n\r\nz", Some(("a", 1))),
            ("data that looks like framing", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", Some(("0\r\n\r\n", 0))),
            ("unfinished size", "3", None),
            ("unfinished data", "3\r\nab", None),
            ("unfinished end", "0\r\n\r", None),
        ] {
            let expected = expected.map(|(body, rest)| (body.as_bytes().to_vec(), rest));
            for piece in [1, 2, 3, text.len()] {
                assert_eq!(decode(text.as_bytes(), piece), Ok(expected.clone()), "{why}: {text:?}");
            }
        }
    }

    #[test]
    fn malformed_framing_is_refused() {
        for (why, text) in [
            ("no size", "\r\n"),
            ("a sign", "+3\r\nabc\r\n0\r\n\r\n"),
            ("a minus", "-3\r\nabc"),
            ("a space in front", " 3\r\nabc"),
            ("a space behind", "3 \r\nabc"),
            ("a space before an extension", "3 ;a\r\nabc"),
            ("a prefix", "0x3\r\nabc"),
            ("a letter", "3g\r\nabc"),
            ("an underscore", "1_0\r\n"),
            ("seventeen digits", "00000000000000003\r\nabc"),
            ("overflow", "10000000000000000\r\nabc"),
            ("a bare line feed after the size", "3\nabc\r\n0\r\n\r\n"),
            ("a bare line feed after an extension", "3;a\nabc\r\n0\r\n\r\n"),
            ("a bare carriage return", "3\rabc\r\n0\r\n\r\n"),
            ("a bare carriage return in an extension", "3;a\rb\r\nabc"),
            ("a control character in an extension", "3;a\0\r\nabc"),
            ("data too long", "3\r\nabcd\r\n0\r\n\r\n"),
            ("data without its line end", "3\r\nabc0\r\n\r\n"),
            ("a bare line feed after data", "3\r\nabc\n0\r\n\r\n"),
            ("a bare carriage return after data", "3\r\nabc\r0\r\n\r\n"),
            ("a bare line feed at the end", "0\r\n\n"),
            ("a trailer without a colon", "0\r\nabc\r\n\r\n"),
            ("a folded trailer", "0\r\na: b\r\n c\r\n\r\n"),
            ("a space before the colon", "0\r\na : b\r\n\r\n"),
            ("a bare line feed in a trailer", "0\r\na: b\n\r\n"),
            ("a bare carriage return in a trailer", "0\r\na: b\rc: d\r\n\r\n"),
        ] {
            for piece in [1, text.len()] {
                let result = decode(text.as_bytes(), piece);
                let status = result.map_err(|error| error.status().as_u16());
                assert_eq!(status, Err(400), "{why}: {text:?}");
            }
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let endless = format!("3;{}", "a".repeat(CHUNK_LINE_BYTES_MAX));
        assert!(matches!(decode(endless.as_bytes(), 7), Err(MessageError::ChunkMalformed(_))));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(TRAILER_BYTES_MAX));
        assert_eq!(
            decode(trailers.as_bytes(), 1000),
            Err(MessageError::TrailersTooLong { limit: TRAILER_BYTES_MAX })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            rng_seed: proptest::test_runner::RngSeed::Fixed(17),
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_was_encoded_is_decoded_whatever_the_split(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            piece in 1usize..50,
        ) {
            let mut wire = Vec::new();
            for data in &pieces {
                wire.extend_from_slice(ChunkHeader::new(data.len()).as_bytes());
                wire.extend_from_slice(data);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(LAST_CHUNK);
            let whole = wire.len();
            prop_assert_eq!(decode(&wire, piece).unwrap(), Some((pieces.concat(), 0)));
            for cut in 0..whole {
                prop_assert_eq!(decode(&wire[..cut], piece).unwrap(), None);
            }
        }

        #[test]
        fn noise_is_refused_or_waited_for_and_never_a_panic(
            noise in prop::collection::vec(prop::sample::select(&b"0123456789afAF;:\r\n \tx\0"[..]), 0..60),
        ) {
            let whole = decode(&noise, noise.len().max(1));
            prop_assert_eq!(decode(&noise, 1), whole);
        }
    }
}
