//! The server's side of the wire, without I/O: bytes in, heads and pieces of bodies out.

use http::Method;

use crate::error::MessageError;
use crate::framing::{BodyDecoder, BodyEvent, BodyLength, FramingFields, TOKEN_BYTE};
use crate::head::{RequestHead, Span, split_target};
use crate::intake::{HeadBytes, HeadIntake, ParseHead};
use crate::limits::{Limits, METHOD_BYTES_MAX};
use crate::lines::{Part, VERSION_BYTES, read_fields, read_line_end, read_version};

/// Cuts what a client sends into requests. Owns no socket and reads no clock.
///
/// Call [`next_event`](Self::next_event) with what was received until it returns `None`, which means
/// that all of it has been used; the codec keeps an incomplete head, nothing else. It is fine to stop
/// earlier and to come back with the rest later: that is how a server that has enough to do makes a
/// pipelining client wait. For each request comes one `Head`, then any number of `Body`, then one `End`.
///
/// After an error nothing on the connection can be believed: answer and close. The codec goes on
/// returning the same error.
///
/// ```
/// use ropewalk_http::{Limits, RequestEvent, ServerCodec};
///
/// let mut codec = ServerCodec::new(&Limits::default());
/// let mut bodies = Vec::new();
/// for piece in ["PUT /a HTTP/1.1\r\nHost: hs.exa", "mple\r\nContent-Length: 5\r\n\r\nhel", "lo"] {
///     let mut input = piece.as_bytes();
///     while let Some(event) = codec.next_event(&mut input)? {
///         match event {
///             RequestEvent::Head(head) => assert_eq!(head.path(), "/a"),
///             RequestEvent::Body(data) => bodies.extend_from_slice(data),
///             RequestEvent::End => assert_eq!(bodies, b"hello"),
///         }
///     }
/// }
/// assert!(codec.is_between_requests());
/// # Ok::<(), ropewalk_http::MessageError>(())
/// ```
#[derive(Debug)]
pub struct ServerCodec {
    state: State,
    intake: HeadIntake,
    head_limits: HeadLimits,
    body_bytes_max: u64,
}

#[derive(Debug)]
enum State {
    Head,
    Body(BodyDecoder),
    Failed(MessageError),
}

/// What [`ServerCodec::next_event`] found.
#[derive(Debug)]
pub enum RequestEvent<'a> {
    /// A request begins.
    Head(RequestHead),
    /// A piece of its body, with the chunked coding taken off. Never empty.
    Body(&'a [u8]),
    /// The request is complete; the next one may follow.
    End,
}

impl ServerCodec {
    /// Makes the codec of one connection.
    pub fn new(limits: &Limits) -> Self {
        ServerCodec {
            state: State::Head,
            intake: HeadIntake::default(),
            head_limits: HeadLimits {
                head_bytes_max: limits.head_bytes(),
                header_count_max: limits.header_count(),
                target_bytes_max: limits.target_bytes_max,
            },
            body_bytes_max: limits.body_bytes_max,
        }
    }

    /// Takes bytes from the front of `input` up to the next event; `None` asks for more bytes, and then
    /// `input` is empty.
    ///
    /// # Errors
    ///
    /// Whatever [`MessageError`] says; [`status`](MessageError::status) is what to answer.
    pub fn next_event<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<RequestEvent<'a>>, MessageError> {
        match self.whole_head(input) {
            Some(head) => Ok(Some(RequestEvent::Head(head))),
            None => self.next_other(input),
        }
    }

    /// What [`next_event`](Self::next_event) does when there is no [`whole_head`](Self::whole_head).
    pub(crate) fn next_other<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<RequestEvent<'a>>, MessageError> {
        let result = match &mut self.state {
            State::Head => self.next_head(input),
            State::Body(decoder) => match decoder.next(input) {
                Ok(BodyEvent::Data(data)) => Ok(Some(RequestEvent::Body(data))),
                Ok(BodyEvent::More) => Ok(None),
                Ok(BodyEvent::End) => {
                    self.state = State::Head;
                    Ok(Some(RequestEvent::End))
                }
                Err(error) => Err(error),
            },
            State::Failed(error) => Err(*error),
        };
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    fn next_head<'a>(
        &mut self,
        input: &mut &[u8],
    ) -> Result<Option<RequestEvent<'a>>, MessageError> {
        let Some(head) = self.intake.next(input, &self.head_limits)? else { return Ok(None) };
        self.state = State::Body(BodyDecoder::new(head.length, self.body_bytes_max)?);
        Ok(Some(RequestEvent::Head(head)))
    }

    /// Takes the head of the next request in the usual case: it has come in one piece, and is beyond doubt within
    /// the limits. Changes nothing in any other.
    #[inline(always)]
    pub(crate) fn whole_head(&mut self, input: &mut &[u8]) -> Option<RequestHead> {
        let limits = &self.head_limits;
        let is_short = input.len() <= limits.head_bytes_max.min(limits.target_bytes_max);
        // Not the line ends that may stand in front.
        let begins = input.first().is_some_and(|&byte| byte > b'\r');
        if !(is_short && begins && self.is_between_requests()) {
            return None;
        }
        let Ok(Some(head)) = limits.parse(input) else { return None };
        let rest = input.get(head.head_bytes()..)?;
        self.state = State::Body(BodyDecoder::new(head.length, self.body_bytes_max).ok()?);
        *input = rest;
        Some(head)
    }

    /// Takes the whole body of the request whose head was the last event, if that has a fixed length and is
    /// there; then neither `Body` nor `End` comes any more.
    #[inline(always)]
    pub(crate) fn take_whole_body<'a>(&mut self, input: &mut &'a [u8]) -> Option<&'a [u8]> {
        let State::Body(BodyDecoder::Exact { remaining }) = self.state else { return None };
        let (body, rest) = input.split_at_checked(usize::try_from(remaining).ok()?)?;
        *input = rest;
        self.state = State::Head;
        Some(body)
    }

    /// Returns whether the last request is complete and nothing of a next one has arrived.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head) && self.intake.is_empty()
    }
}

/// Parses whole request heads.
#[derive(Debug)]
struct HeadLimits {
    head_bytes_max: usize,
    header_count_max: usize,
    target_bytes_max: usize,
}

impl ParseHead for HeadLimits {
    type Head = RequestHead;

    fn head_bytes_max(&self) -> usize {
        self.head_bytes_max
    }

    fn check_start_line(&self, text: &[u8]) -> Result<(), MessageError> {
        // Method, space, target, space, "HTTP/1.1", CR.
        let line_bytes_max = self.target_bytes_max + METHOD_BYTES_MAX + 11;
        let Some(start) = text.get(..=line_bytes_max) else { return Ok(()) };
        if memchr::memchr(b'\n', start).is_some() {
            return Ok(());
        }
        if let Some((_, target_at)) = read_method(text)? {
            read_target(text, target_at, self.target_bytes_max)?;
        }
        Err(MessageError::TargetTooLong { limit: self.target_bytes_max })
    }

    #[inline(always)]
    fn parse(&self, text: &[u8]) -> Result<Option<RequestHead>, MessageError> {
        let Some((method, target_at)) = read_method(text)? else { return Ok(None) };
        let limit = self.target_bytes_max;
        let Some(target) = read_target(text, target_at, limit)? else { return Ok(None) };
        let version_at = target_at + target.bytes + 1;
        let words = text.get(version_at..).unwrap_or_default();
        let minor_version = match read_version(words, MessageError::RequestLineMalformed) {
            Ok(Some(minor_version)) => minor_version,
            Ok(None) => return Ok(None),
            // What it is shows at the end of its line.
            Err(_) if memchr::memchr(b'\n', words).is_none() => return Ok(None),
            Err(_) if names_other_version(text) => return Err(MessageError::VersionNotSupported),
            Err(error) => return Err(error),
        };
        let line_end_at = version_at + VERSION_BYTES;
        let line_end = text.get(line_end_at..).unwrap_or_default();
        if read_line_end(line_end, MessageError::RequestLineMalformed)?.is_none() {
            return Ok(None);
        }
        let span = Span::new(target_at, target.bytes);
        let bytes = &text[target_at..target_at + target.bytes];
        let (path, query) =
            split_target(span, bytes, target.mark).ok_or(MessageError::TargetInvalid)?;
        let mut framing = FramingFields::default();
        let fields_at = line_end_at + 2;
        let Some(fields) = read_fields(text, fields_at, self.header_count_max, &mut framing)?
        else {
            return Ok(None);
        };
        let length = framing.length(minor_version)?.unwrap_or(BodyLength::Exact(0));
        if minor_version >= 1 && !framing.host {
            return Err(MessageError::HostMissing);
        }
        if framing.expectation_unknown && minor_version >= 1 {
            return Err(MessageError::ExpectationUnknown);
        }
        let head = RequestHead {
            method,
            target: span,
            path,
            query,
            minor_version,
            length,
            keep_alive: framing.keeps_alive(minor_version),
            expects_continue: framing.expect_continue && minor_version >= 1,
            fields,
        };
        Ok(Some(head))
    }
}

/// Reads the method; returns it and where the target begins.
#[inline(always)]
fn read_method(text: &[u8]) -> Part<(Method, usize)> {
    if text.starts_with(b"GET ") {
        return Ok(Some((Method::GET, 4)));
    }
    let start = text.get(..=METHOD_BYTES_MAX).unwrap_or(text);
    match start.iter().position(|&byte| !TOKEN_BYTE[usize::from(byte)]) {
        None if start.len() <= METHOD_BYTES_MAX => Ok(None),
        Some(bytes) if bytes > 0 && start[bytes] == b' ' => match &start[..bytes] {
            b"CONNECT" => Err(MessageError::MethodNotImplemented),
            word => match Method::from_bytes(word) {
                Ok(method) => Ok(Some((method, bytes + 1))),
                Err(_) => Err(MessageError::RequestLineMalformed),
            },
        },
        _ => Err(MessageError::RequestLineMalformed),
    }
}

/// A target, as far as its characters go.
struct Target {
    bytes: usize,
    /// Where the first question mark is, if any.
    mark: Option<usize>,
}

/// Reads the target and the space behind it.
#[inline(always)]
fn read_target(text: &[u8], start: usize, bytes_max: usize) -> Part<Target> {
    let text = text.get(start..).unwrap_or_default();
    let class = |byte: &u8| TARGET_CLASS[usize::from(*byte)];
    let Some(mut bytes) = text.iter().position(|byte| class(byte) != PLAIN) else {
        return Ok(None);
    };
    let mut mark = None;
    if text[bytes] == b'?' {
        mark = Some(bytes);
        let Some(behind) = text[bytes..].iter().position(|byte| class(byte) == REFUSED) else {
            return Ok(None);
        };
        bytes += behind;
    }
    let stop = text[bytes];
    match stop {
        _ if bytes > bytes_max => Err(MessageError::TargetTooLong { limit: bytes_max }),
        b' ' if bytes > 0 => Ok(Some(Target { bytes, mark })),
        b'!'..=b'~' | 0x80.. => Err(MessageError::TargetInvalid),
        _ => Err(MessageError::RequestLineMalformed),
    }
}

/// Whether this is a request line of three words that ends like `HTTP/2.0`.
fn names_other_version(text: &[u8]) -> bool {
    let line = text.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let Some(version) = words.nth(2).and_then(|word| word.strip_prefix(b"HTTP/")) else {
        return false;
    };
    matches!(version, [b'0'..=b'9'] | [b'0'..=b'9', b'.', b'0'..=b'9'])
}

/// Whether all characters may stand in a target.
pub(crate) fn is_target(target: &str) -> bool {
    target.bytes().all(|byte| TARGET_CLASS[usize::from(byte)] != REFUSED)
}

const PLAIN: u8 = 0;
const QUESTION_MARK: u8 = 1;
const REFUSED: u8 = 2;

/// What a target may consist of: RFC 3986, and the few characters beyond it that browsers and scripts
/// send as they are (`"{}|[]`). Controls, space, and bytes beyond ASCII are refused, and so are `#<>\^` and
/// the backquote.
static TARGET_CLASS: [u8; 256] = {
    let mut class = [REFUSED; 256];
    let mut byte = b'!';
    while byte < 0x7f {
        class[byte as usize] = match byte {
            b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' => REFUSED,
            b'?' => QUESTION_MARK,
            _ => PLAIN,
        };
        byte += 1;
    }
    class
};
