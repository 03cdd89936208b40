//! The client's side of the wire, without I/O: bytes in, heads and pieces of bodies of responses out.

use http::{Method, StatusCode};

use crate::encode::status_allows_body;
use crate::error::MessageError;
use crate::framing::{BodyDecoder, BodyEvent, BodyLength, FramingFields};
use crate::head::ResponseHead;
use crate::intake::{HeadIntake, ParseHead};
use crate::limits::Limits;
use crate::lines::{Part, VERSION_BYTES, has_control, read_fields, read_version};

/// Most informational responses (100 to 199) before the one that counts.
const INFORMATIONAL_COUNT_MAX: u8 = 16;

/// Cuts what a server sends into responses. Owns no socket and reads no clock.
///
/// Tell it of each request with [`expect_response`](Self::expect_response), one at a time, and call
/// [`next_event`](Self::next_event) with what is received until it returns `None`. For each request come one
/// `Head`, any number of `Body`, one `End`; informational responses are skipped. When the connection
/// ends, call [`end_of_input`](Self::end_of_input): some bodies end there.
///
/// After an error nothing on the connection can be believed; the codec goes on returning that error.
///
/// ```
/// use http::Method;
/// use ropewalk_http::{ClientCodec, Limits, ResponseEvent};
///
/// let mut codec = ClientCodec::new(&Limits::default());
/// codec.expect_response(&Method::GET);
/// let mut input = &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"[..];
/// while let Some(event) = codec.next_event(&mut input)? {
///     match event {
///         ResponseEvent::Head(head) => assert_eq!(head.status(), 200),
///         ResponseEvent::Body(data) => assert_eq!(data, b"hi"),
///         ResponseEvent::End => println!("ready for the next request"),
///     }
/// }
/// # Ok::<(), ropewalk_http::MessageError>(())
/// ```
#[derive(Debug)]
pub struct ClientCodec {
    state: State,
    intake: HeadIntake,
    head_limits: HeadLimits,
    body_bytes_max: u64,
}

#[derive(Debug)]
enum State {
    Idle,
    Head { bodyless: bool, informational_count: u8 },
    Body(BodyDecoder),
    Failed(MessageError),
}

/// What [`ClientCodec::next_event`] found.
#[derive(Debug)]
pub enum ResponseEvent<'a> {
    /// The response begins.
    Head(ResponseHead),
    /// A piece of its body, with the chunked coding taken off. Never empty.
    Body(&'a [u8]),
    /// The response is complete.
    End,
}

impl ClientCodec {
    /// Makes the codec of one connection.
    pub fn new(limits: &Limits) -> Self {
        ClientCodec {
            state: State::Idle,
            intake: HeadIntake::default(),
            head_limits: HeadLimits {
                head_bytes_max: limits.head_bytes(),
                header_count_max: limits.header_count(),
            },
            body_bytes_max: limits.body_bytes_max,
        }
    }

    /// Says that a request with this method has been sent. The response before has to be complete.
    pub fn expect_response(&mut self, method: &Method) {
        debug_assert!(matches!(self.state, State::Idle | State::Failed(_)), "one at a time");
        if let State::Idle = self.state {
            let bodyless = *method == Method::HEAD;
            self.state = State::Head { bodyless, informational_count: 0 };
        }
    }

    /// Takes bytes from the front of `input` up to the next event; `None` asks for more bytes, and then
    /// `input` is empty.
    ///
    /// # Errors
    ///
    /// Whatever [`MessageError`] says, and [`MessageError::Unexpected`] for bytes that nobody asked for.
    pub fn next_event<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<ResponseEvent<'a>>, MessageError> {
        let result = match &mut self.state {
            State::Idle if input.is_empty() => Ok(None),
            State::Idle => Err(MessageError::Unexpected),
            State::Head { .. } => self.next_head(input),
            State::Body(decoder) => match decoder.next(input) {
                Ok(BodyEvent::Data(data)) => Ok(Some(ResponseEvent::Body(data))),
                Ok(BodyEvent::More) => Ok(None),
                Ok(BodyEvent::End) => {
                    self.state = State::Idle;
                    Ok(Some(ResponseEvent::End))
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
    ) -> Result<Option<ResponseEvent<'a>>, MessageError> {
        let State::Head { bodyless, informational_count } = &mut self.state else {
            return Ok(None);
        };
        loop {
            let Some(mut head) = self.intake.next(input, &self.head_limits)? else {
                return Ok(None);
            };
            if head.status.is_informational() {
                *informational_count += 1;
                if head.status == StatusCode::SWITCHING_PROTOCOLS
                    || *informational_count > INFORMATIONAL_COUNT_MAX
                {
                    return Err(MessageError::Unexpected);
                }
                continue;
            }
            if *bodyless || !status_allows_body(head.status) {
                head.length = BodyLength::Exact(0);
            }
            head.keep_alive &= head.length != BodyLength::UntilClose;
            self.state = State::Body(BodyDecoder::new(head.length, self.body_bytes_max)?);
            return Ok(Some(ResponseEvent::Head(head)));
        }
    }

    /// Says that the server has closed the connection; returns whether that completes a response.
    ///
    /// # Errors
    ///
    /// [`MessageError::Truncated`] if a response is missing or incomplete.
    pub fn end_of_input(&mut self) -> Result<bool, MessageError> {
        match self.state {
            State::Idle => Ok(false),
            State::Body(BodyDecoder::UntilClose { .. }) => {
                self.state = State::Idle;
                Ok(true)
            }
            State::Failed(error) => Err(error),
            State::Head { .. } | State::Body(_) => {
                self.state = State::Failed(MessageError::Truncated);
                Err(MessageError::Truncated)
            }
        }
    }
}

/// Parses whole response heads.
#[derive(Debug)]
struct HeadLimits {
    head_bytes_max: usize,
    header_count_max: usize,
}

impl ParseHead for HeadLimits {
    type Head = ResponseHead;

    fn head_bytes_max(&self) -> usize {
        self.head_bytes_max
    }

    fn check_start_line(&self, _text: &[u8]) -> Result<(), MessageError> {
        Ok(())
    }

    fn parse(&self, text: &[u8]) -> Result<Option<ResponseHead>, MessageError> {
        let malformed = MessageError::StatusLineMalformed;
        let Some(minor_version) = read_version(text, malformed)? else { return Ok(None) };
        let Some((status, fields_at)) = read_status(text)? else { return Ok(None) };
        let mut framing = FramingFields::default();
        let Some(fields) = read_fields(text, fields_at, self.header_count_max, &mut framing)?
        else {
            return Ok(None);
        };
        let length = framing.length(minor_version)?.unwrap_or(BodyLength::UntilClose);
        let head = ResponseHead {
            status,
            minor_version,
            length,
            keep_alive: framing.keeps_alive(minor_version),
            fields,
        };
        Ok(Some(head))
    }
}

/// Reads what stands behind the version: a space, three digits, and perhaps a space and a phrase. Returns the
/// status and where the fields begin.
fn read_status(text: &[u8]) -> Part<(StatusCode, usize)> {
    let malformed = MessageError::StatusLineMalformed;
    let line = text.get(VERSION_BYTES..).unwrap_or_default();
    let Some(line_feed) = memchr::memchr(b'\n', line) else { return Ok(None) };
    let Some(line) = line[..line_feed].strip_suffix(b"\r") else {
        return Err(MessageError::BareLineFeed);
    };
    let (code, phrase) = match line {
        [b' ', code @ ..] if code.len() == 3 => (code, &[][..]),
        [b' ', a, b, c, b' ', phrase @ ..] => (&[*a, *b, *c][..], phrase),
        _ => return Err(malformed),
    };
    if has_control(phrase) {
        return Err(malformed);
    }
    let status = StatusCode::from_bytes(code).map_err(|_| malformed)?;
    Ok(Some((status, VERSION_BYTES + line_feed + 1)))
}
