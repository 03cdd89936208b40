//! Gathers one head out of a stream in which it may come in any number of pieces, in linear time and
//! bounded memory. Shared by the request and the response codec, which say how a whole head is parsed.

use bytes::BytesMut;

use crate::error::MessageError;

/// The incomplete head at the end of what was received, if any. Empty, it owns no memory.
#[derive(Debug, Default)]
pub(crate) struct HeadIntake {
    pending: BytesMut,
}

/// A parser of heads. The text that it gets starts with the start line.
pub(crate) trait ParseHead {
    type Head: HeadBytes;
    /// Parses `text`, which may go on after the head; `None` while it is incomplete. `text` is never longer
    /// than the longest head.
    fn parse(&self, text: &[u8]) -> Result<Option<Self::Head>, MessageError>;
    /// Longest head in bytes.
    fn head_bytes_max(&self) -> usize;
    /// Says whether a start line that has no end yet is hopeless.
    fn check_start_line(&self, text: &[u8]) -> Result<(), MessageError>;
}

/// What a head says of itself.
pub(crate) trait HeadBytes {
    /// Returns its length in bytes, blank line included.
    fn head_bytes(&self) -> usize;
}

impl HeadIntake {
    /// Returns whether nothing of a next head has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes bytes from the front of `input`, up to the end of the head; all of it if that is missing.
    pub(crate) fn next<P: ParseHead>(
        &mut self,
        input: &mut &[u8],
        parser: &P,
    ) -> Result<Option<P::Head>, MessageError> {
        if self.pending.is_empty() {
            while let Some(rest) = input.strip_prefix(b"\r\n") {
                *input = rest;
            }
            if let Some(head) = parse(input, parser)? {
                *input = input.get(head.head_bytes()..).unwrap_or_default();
                return Ok(Some(head));
            }
            // The first attempt has looked at every byte. From here on, look at new lines only.
            self.pending.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        self.gather(input, parser)
    }

    fn gather<P: ParseHead>(
        &mut self,
        input: &mut &[u8],
        parser: &P,
    ) -> Result<Option<P::Head>, MessageError> {
        while !input.is_empty() {
            let line = memchr::memchr(b'\n', input).map_or(*input, |at| &input[..=at]);
            let room = parser.head_bytes_max().saturating_sub(self.pending.len());
            let (piece, rest) = input.split_at(line.len().min(room).max(1));
            self.pending.extend_from_slice(piece);
            *input = rest;
            if self.pending[..] == *b"\r\n" {
                self.pending.clear();
                return self.next(input, parser);
            }
            let over = self.pending.len() >= parser.head_bytes_max();
            let line_ends = self.pending.ends_with(b"\n");
            let bare = line_ends && !self.pending.ends_with(b"\r\n");
            if !(over || bare || self.pending.ends_with(b"\n\r\n")) {
                if !line_ends {
                    parser.check_start_line(&self.pending)?;
                }
                continue;
            }
            return match parse(&self.pending, parser)? {
                Some(head) if head.head_bytes() == self.pending.len() => {
                    self.pending = BytesMut::new();
                    Ok(Some(head))
                }
                _ => Err(MessageError::HeaderMalformed),
            };
        }
        Ok(None)
    }
}

/// Parses the head at the front of `text`. A refusal has the same status whatever pieces the text came
/// in: parsers go from line to line, and the first thing that is wrong is the one that is told.
fn parse<P: ParseHead>(text: &[u8], parser: &P) -> Result<Option<P::Head>, MessageError> {
    match text.first() {
        None => return Ok(None),
        Some(b'\n') => return Err(MessageError::BareLineFeed),
        Some(b'\r') if text.len() == 1 => return Ok(None),
        _ => {}
    }
    let limit = parser.head_bytes_max();
    let head = text.get(..limit).unwrap_or(text);
    parser.check_start_line(head)?;
    match parser.parse(head)? {
        None if head.len() >= limit => Err(MessageError::HeadTooLong { limit }),
        parsed => Ok(parsed),
    }
}
