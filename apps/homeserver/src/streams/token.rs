//! Tokens: positions as clients hold them.
//!
//! Clients must treat a token as opaque text. Ours are readable on purpose, so that an operator can
//! compare one with a log line. A token from outside is only ever a bound in a query: a forged one
//! shows nothing that its bearer could not see.

use std::fmt;
use std::str::FromStr;

use super::Stream;

/// Text that is no token of this server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{found:?} is not a token that this server gave out; start again without one")]
pub struct InvalidToken {
    /// The text, cut to a length that fits into a log line.
    pub found: String,
}

impl InvalidToken {
    fn new(text: &str) -> Self {
        Self { found: text.chars().take(64).collect() }
    }
}

/// Streams in the order in which a [`StreamToken`] spells them. New ones go to the end, so that
/// tokens of earlier releases stay readable: what they lack counts as zero.
const TOKEN_STREAMS: [Stream; 8] = [
    Stream::Events,
    Stream::AccountData,
    Stream::Receipts,
    Stream::Typing,
    Stream::PushRules,
    Stream::ToDevice,
    Stream::DeviceLists,
    Stream::Presence,
];

/// How far a client has read each stream: the `next_batch` and `since` of `/sync`.
///
/// Spelt `s` and the positions, with underscores between them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct StreamToken {
    positions: [i64; TOKEN_STREAMS.len()],
}

impl StreamToken {
    /// Makes the token before everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the position of `stream`; zero for one that is in no token.
    pub fn position(&self, stream: Stream) -> i64 {
        field(stream).map_or(0, |field| self.positions[field])
    }

    /// Whether every stream is at least as far as in `other`.
    pub fn covers(&self, other: &Self) -> bool {
        self.positions.iter().zip(&other.positions).all(|(ours, theirs)| ours >= theirs)
    }

    /// Returns the token that is as far as both in every stream.
    #[must_use]
    pub fn max(mut self, other: &Self) -> Self {
        for (ours, theirs) in self.positions.iter_mut().zip(&other.positions) {
            *ours = (*ours).max(*theirs);
        }
        self
    }

    /// Returns the token with another position of `stream`.
    #[must_use]
    pub fn with(mut self, stream: Stream, position: i64) -> Self {
        if let Some(field) = field(stream) {
            self.positions[field] = position;
        }
        self
    }

    /// Returns the place in the room timeline that the token stands at.
    pub fn room_place(&self) -> RoomPlace {
        RoomPlace::Live { stream: self.position(Stream::Events) }
    }
}

fn field(stream: Stream) -> Option<usize> {
    TOKEN_STREAMS.iter().position(|&known| known == stream)
}

impl fmt::Display for StreamToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, position) in self.positions.iter().enumerate() {
            write!(f, "{}{position}", if index == 0 { 's' } else { '_' })?;
        }
        Ok(())
    }
}

impl FromStr for StreamToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let invalid = || InvalidToken::new(text);
        let mut fields = text.strip_prefix('s').ok_or_else(invalid)?.split('_');
        let mut positions = [0; TOKEN_STREAMS.len()];
        for (index, slot) in positions.iter_mut().enumerate() {
            match fields.next() {
                Some(number) => *slot = position(number).ok_or_else(invalid)?,
                None if index == 0 => return Err(invalid()),
                None => break,
            }
        }
        if fields.next().is_some() { Err(invalid()) } else { Ok(Self { positions }) }
    }
}

/// A place between two events of a room: the `from`, `to`, `start`, `end` and `prev_batch` of
/// pagination.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RoomPlace {
    /// In the order of the graph: behind the event of that depth and stream position. Spelt
    /// `t<depth>-<stream>`.
    Graph {
        /// The depth; compared first.
        depth: i64,
        /// The position in the events stream among events of that depth.
        stream: i64,
    },
    /// In the order of arrival: behind that position of the events stream. Spelt as a
    /// [`StreamToken`].
    Live {
        /// The position in the events stream.
        stream: i64,
    },
}

impl fmt::Display for RoomPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Graph { depth, stream } => write!(f, "t{depth}-{stream}"),
            Self::Live { stream } => write!(f, "s{stream}"),
        }
    }
}

impl FromStr for RoomPlace {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text.starts_with('s') {
            return text.parse::<StreamToken>().map(|token| token.room_place());
        }
        let parse = || {
            let (depth, stream) = text.strip_prefix('t')?.split_once('-')?;
            let depth = position(depth)?;
            let stream: i64 = match stream.strip_prefix('-') {
                // Events fetched from the past have negative positions.
                Some(digits) => -position(digits)?,
                None => position(stream)?,
            };
            Some(Self::Graph { depth, stream })
        };
        parse().ok_or_else(|| InvalidToken::new(text))
    }
}

/// Reads decimal digits and nothing else: no sign, no blanks.
fn position(digits: &str) -> Option<i64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_tokens_survive_the_trip_through_text() {
        let token = StreamToken::new()
            .with(Stream::Events, 412)
            .with(Stream::Typing, 1_700_000_000_000)
            .with(Stream::EventsBackfilled, 9);
        assert_eq!(token.to_string(), "s412_0_0_1700000000000_0_0_0_0");
        assert_eq!(token.to_string().parse(), Ok(token));
        assert_eq!(token.position(Stream::Events), 412);
        assert_eq!(token.position(Stream::EventsBackfilled), 0, "in no token");
    }

    #[test]
    fn a_token_of_an_earlier_release_lacks_fields() {
        assert_eq!(
            "s7_2".parse(),
            Ok(StreamToken::new().with(Stream::Events, 7).with(Stream::AccountData, 2))
        );
    }

    #[test]
    fn room_places_are_read_from_both_kinds_of_token() {
        for (text, expected) in [
            ("t5-12", RoomPlace::Graph { depth: 5, stream: 12 }),
            ("t5--3", RoomPlace::Graph { depth: 5, stream: -3 }),
            ("s12", RoomPlace::Live { stream: 12 }),
            ("s12_1_1_1_1_1_1_1", RoomPlace::Live { stream: 12 }),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!(RoomPlace::Graph { depth: 5, stream: -3 }.to_string(), "t5--3");
        assert_eq!(RoomPlace::Live { stream: 12 }.to_string(), "s12");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "s",
            "t",
            "s-1",
            "s1_",
            "s1__2",
            "s+1",
            "s 1",
            "x1",
            "t1",
            "t1-",
            "t-1-2",
            "t1---2",
            "s99999999999999999999",
            "s1_1_1_1_1_1_1_1_1",
            "t1-2-3",
        ] {
            assert!(text.parse::<RoomPlace>().is_err(), "{text:?}");
        }
    }
}
