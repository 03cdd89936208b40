//! Lines: what stands before a delimiter, with stretches of raw bytes in between.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memmem};

use super::{FrameCodec, take_front};

/// Cuts a stream into lines. Owns no socket, reads no clock.
///
/// Feed it what arrives and ask for [events](LineEvent) until there is none; see [`FrameCodec`]. A line
/// ends with CRLF, or the delimiter that was [asked for](Self::with_delimiter). When a line says that
/// what follows is no text, a message's body for instance, [`set_raw_mode`](Self::set_raw_mode) has all
/// that comes given out as it comes, and [`set_line_mode`](Self::set_line_mode) goes back to lines.
///
/// ```
/// use ropewalk::framing::{FrameCodec, LineCodec, LineError, LineEvent};
///
/// let mut codec = LineCodec::new(80);
/// let mut text = Vec::new();
/// for piece in [&b"one\r"[..], b"\ntwo\r\nthr"] {
///     codec.feed(piece);
///     while let Some(event) = codec.next_frame()? {
///         text.push(event);
///     }
/// }
/// assert_eq!(text, [LineEvent::Line("one".into()), LineEvent::Line("two".into())]);
/// assert_eq!(codec.pending_bytes(), 3);
/// # Ok::<(), LineError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LineCodec {
    /// What has been fed and not given out, from the start of a line on.
    pending: BytesMut,
    /// How much of that holds no end of a line.
    searched: usize,
    mode: Mode,
    line_bytes_max: usize,
    delimiter: Bytes,
    accepts_lf: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// A line was too long.
    Failed,
    Lines,
    Raw,
    /// Throwing away the rest of a line that was too long.
    Skipping,
}

/// What a [`LineCodec`] found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LineEvent {
    /// A line, without its delimiter.
    Line(Bytes),
    /// Some bytes in raw mode. Where one piece ends and the next begins means nothing.
    Raw(Bytes),
}

/// Why a stream of lines stopped making sense, or a line was not sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// A line to be sent holds what would end it; the peer would see two.
    #[error("line to be sent holds its own delimiter at byte {at}; send two lines, or escape it")]
    DelimiterInside {
        /// Where it begins.
        at: usize,
    },
    /// A line is over the limit.
    #[error("line is longer than {limit} bytes")]
    TooLong {
        /// How long a line may be, in bytes, without its delimiter.
        limit: usize,
    },
}

impl LineCodec {
    /// Makes a codec for lines of at most `line_bytes_max` bytes, delimiter not counted, that end with
    /// CRLF.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> LineCodec {
        LineCodec {
            pending: BytesMut::new(),
            searched: 0,
            mode: Mode::Lines,
            line_bytes_max,
            delimiter: Bytes::from_static(b"\r\n"),
            accepts_lf: false,
        }
    }

    /// Sets what ends a line, both ways.
    ///
    /// # Panics
    ///
    /// If it is empty.
    #[must_use]
    pub fn with_delimiter(mut self, delimiter: impl Into<Bytes>) -> LineCodec {
        self.delimiter = delimiter.into();
        assert!(!self.delimiter.is_empty(), "lines need something that ends them");
        self
    }

    /// Lets a bare LF end a received line as well as CRLF. Lines that are sent end with CRLF.
    #[must_use]
    pub fn accepting_lf(mut self) -> LineCodec {
        self.delimiter = Bytes::from_static(b"\r\n");
        self.accepts_lf = true;
        self
    }

    /// Gives out what comes, and what has come behind the last line, as it is.
    pub fn set_raw_mode(&mut self) {
        if self.mode == Mode::Lines {
            self.mode = Mode::Raw;
            self.searched = 0;
        }
    }

    /// Goes back to lines. `extra` is what has been given out in raw mode but belongs to lines already;
    /// it comes before all that has not been given out.
    pub fn set_line_mode(&mut self, extra: &[u8]) {
        if self.mode != Mode::Raw {
            return;
        }
        self.mode = Mode::Lines;
        self.searched = 0;
        if !extra.is_empty() {
            let rest = std::mem::replace(&mut self.pending, BytesMut::from(extra));
            self.pending.extend_from_slice(&rest);
        }
    }

    /// Right after [`LineError::TooLong`]: goes on with the line behind the one that is too long. If more
    /// has been fed in between, that is lost.
    pub fn skip_line(&mut self) {
        if self.mode == Mode::Failed {
            self.mode = Mode::Skipping;
        }
    }

    /// Takes out what has come of a line that has not ended, for a peer whose last line has no
    /// delimiter.
    #[must_use]
    pub fn take_pending(&mut self) -> Bytes {
        self.searched = 0;
        std::mem::take(&mut self.pending).freeze()
    }

    fn next_line(&mut self) -> Result<Option<LineEvent>, LineError> {
        let limit = self.line_bytes_max;
        let Some((line_bytes, delimiter_bytes)) = self.find_end() else {
            // The delimiter of a line that is short enough would have been seen.
            if self.pending.len() >= limit.saturating_add(self.delimiter.len()) {
                return self.fail();
            }
            return Ok(None);
        };
        if line_bytes > limit {
            return self.fail();
        }
        let mut line = self.take(line_bytes + delimiter_bytes);
        line.truncate(line_bytes);
        Ok(Some(LineEvent::Line(line)))
    }

    fn fail(&mut self) -> Result<Option<LineEvent>, LineError> {
        self.mode = Mode::Failed;
        Err(LineError::TooLong { limit: self.line_bytes_max })
    }

    /// Throws away up to the end of the line. Returns whether that was found.
    fn skip(&mut self) -> bool {
        if let Some((line_bytes, delimiter_bytes)) = self.find_end() {
            self.take(line_bytes + delimiter_bytes);
            self.mode = Mode::Lines;
            return true;
        }
        // A piece of the delimiter may be the last that has come.
        let unneeded = self.pending.len().saturating_sub(self.delimiter.len() - 1);
        self.take(unneeded);
        false
    }

    /// Finds the end of the first line: the length of the line and of its delimiter.
    fn find_end(&mut self) -> Option<(usize, usize)> {
        let &last = self.delimiter.last()?;
        while let Some(offset) = memchr(last, &self.pending[self.searched..]) {
            let end = self.searched + offset + 1;
            let head = &self.pending[..end];
            if head.ends_with(&self.delimiter) {
                return Some((end - self.delimiter.len(), self.delimiter.len()));
            }
            if self.accepts_lf {
                return Some((end - 1, 1));
            }
            self.searched = end;
        }
        self.searched = self.pending.len();
        None
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.searched = 0;
        take_front(&mut self.pending, count)
    }

    /// Returns where a reader would see the line end before its own end.
    fn find_delimiter_in(&self, line: &[u8]) -> Option<usize> {
        if self.accepts_lf {
            return memchr(b'\n', line);
        }
        let delimiter = &self.delimiter[..];
        // One like `aa` may also begin in the line and end in the delimiter that follows.
        memmem::find(line, delimiter).or_else(|| {
            let mut overlaps = (1..delimiter.len()).rev().filter(|&count| {
                line.ends_with(&delimiter[..count]) && delimiter.starts_with(&delimiter[count..])
            });
            overlaps.next().map(|count| line.len() - count)
        })
    }
}

impl FrameCodec for LineCodec {
    type Frame = LineEvent;
    type Error = LineError;

    fn feed(&mut self, data: &[u8]) {
        if self.mode == Mode::Failed {
            drop(self.take_pending());
        } else {
            self.pending.extend_from_slice(data);
        }
    }

    fn next_frame(&mut self) -> Result<Option<LineEvent>, LineError> {
        match self.mode {
            Mode::Failed => Err(LineError::TooLong { limit: self.line_bytes_max }),
            Mode::Raw if self.pending.is_empty() => Ok(None),
            Mode::Raw => Ok(Some(LineEvent::Raw(self.take_pending()))),
            Mode::Lines => self.next_line(),
            Mode::Skipping => match self.skip() {
                true => self.next_line(),
                false => Ok(None),
            },
        }
    }

    fn has_failed(&self) -> bool {
        self.mode == Mode::Failed
    }

    fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    fn encode(&self, line: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), LineError> {
        if line.len() > self.line_bytes_max {
            return Err(LineError::TooLong { limit: self.line_bytes_max });
        }
        if let Some(at) = self.find_delimiter_in(line) {
            return Err(LineError::DelimiterInside { at });
        }
        write(line);
        write(&self.delimiter);
        Ok(())
    }
}
