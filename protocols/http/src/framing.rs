//! Where a message ends: the header fields that decide it, and the decoder of a body's bytes. Both
//! directions share it. Anything that two readers could understand differently is refused here.

use crate::chunked::{ChunkedDecoder, Decoded};
use crate::error::MessageError;

/// How long the body of a message says it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyLength {
    /// In chunks, ended by the last one.
    Chunked,
    /// Exactly so many bytes; no body at all is `Exact(0)`.
    Exact(u64),
    /// Responses only: until the server closes the connection.
    UntilClose,
}

/// What the fields of one head say about framing and about the connection, gathered field by field.
#[derive(Debug, Default)]
pub(crate) struct FramingFields {
    pub(crate) content_length: Option<u64>,
    pub(crate) transfer_encoding: bool,
    pub(crate) host: bool,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) expect_continue: bool,
    pub(crate) expectation_unknown: bool,
}

impl FramingFields {
    /// Takes note of one field; most are none of our business, which their length tells.
    #[inline(always)]
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), MessageError> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if std::mem::replace(&mut self.host, true) {
                    return Err(MessageError::HostRepeated);
                }
                if !is_host(value) {
                    return Err(MessageError::HostInvalid);
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if value.eq_ignore_ascii_case(b"100-continue") {
                    self.expect_continue = true;
                } else {
                    self.expectation_unknown = true;
                }
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse_decimal(value).ok_or(MessageError::ContentLengthInvalid)?;
                if self.content_length.replace(length).is_some() {
                    return Err(MessageError::ContentLengthRepeated);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if std::mem::replace(&mut self.transfer_encoding, true) {
                    return Err(MessageError::TransferEncodingInvalid);
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(transfer_encoding_error(value));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the length that the fields announce, or `None` if they do not say.
    pub(crate) fn length(&self, minor_version: u8) -> Result<Option<BodyLength>, MessageError> {
        if !self.transfer_encoding {
            return Ok(self.content_length.map(BodyLength::Exact));
        }
        if self.content_length.is_some() {
            return Err(MessageError::LengthAndTransferEncoding);
        }
        if minor_version == 0 {
            return Err(MessageError::TransferEncodingInvalid);
        }
        Ok(Some(BodyLength::Chunked))
    }

    /// Returns whether the sender keeps the connection open after this message.
    pub(crate) fn keeps_alive(&self, minor_version: u8) -> bool {
        !self.close && (minor_version >= 1 || self.keep_alive)
    }
}

/// A final `chunked` under codings that we lack is a known request we do not implement; anything else
/// leaves the end of the body open, which is how requests are smuggled.
fn transfer_encoding_error(value: &[u8]) -> MessageError {
    let mut codings = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).rev();
    let last_is_chunked = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let mut known = [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"].into_iter();
    if last_is_chunked && codings.all(|coding| known.any(|name| coding.eq_ignore_ascii_case(name)))
    {
        return MessageError::TransferEncodingNotImplemented;
    }
    MessageError::TransferEncodingInvalid
}

/// Digits and nothing else: no sign, no space, no list, and no overflow.
fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Whether this can be a host and port, or nothing, as far as its characters go.
pub(crate) fn is_host(value: &[u8]) -> bool {
    // Without leaving early, which a valid host never does, and four at a time.
    let is_valid = |byte: u8| HOST_BYTE[usize::from(byte)];
    let (blocks, rest) = value.as_chunks::<4>();
    let mut valid = true;
    for &[a, b, c, d] in blocks {
        valid &= is_valid(a) & is_valid(b) & is_valid(c) & is_valid(d);
    }
    rest.iter().fold(valid, |valid, &byte| valid & is_valid(byte))
}

/// What a host and port may consist of (RFC 3986 `reg-name`, IP literals, `:` and digits).
static HOST_BYTE: [bool; 256] = byte_set(b"-._~%!$&'()*+,;=:[]");

/// Characters of a token (RFC 9110, 5.6.2).
pub(crate) static TOKEN_BYTE: [bool; 256] = byte_set(b"!#$%&'*+-.^_`|~");

/// Letters, digits and `others`.
const fn byte_set(others: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        set[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        set[others[index] as usize] = true;
        index += 1;
    }
    set
}

/// The bytes of one body, cut out of the stream.
#[derive(Debug)]
pub(crate) enum BodyDecoder {
    Chunked { decoder: ChunkedDecoder, total: u64, limit: u64 },
    Exact { remaining: u64 },
    UntilClose { total: u64, limit: u64 },
}

/// What [`BodyDecoder::next`] found.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum BodyEvent<'a> {
    Data(&'a [u8]),
    End,
    /// All input is used up.
    More,
}

impl BodyDecoder {
    /// # Errors
    ///
    /// `BodyTooLarge` if the announced length is over `limit`.
    pub(crate) fn new(length: BodyLength, limit: u64) -> Result<Self, MessageError> {
        match length {
            BodyLength::Chunked => {
                Ok(BodyDecoder::Chunked { decoder: ChunkedDecoder::new(), total: 0, limit })
            }
            BodyLength::Exact(length) if length > limit => {
                Err(MessageError::BodyTooLarge { limit })
            }
            BodyLength::Exact(length) => Ok(BodyDecoder::Exact { remaining: length }),
            BodyLength::UntilClose => Ok(BodyDecoder::UntilClose { total: 0, limit }),
        }
    }

    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<BodyEvent<'a>, MessageError> {
        match self {
            BodyDecoder::Exact { remaining: 0 } => Ok(BodyEvent::End),
            BodyDecoder::Exact { .. } | BodyDecoder::UntilClose { .. } if input.is_empty() => {
                Ok(BodyEvent::More)
            }
            BodyDecoder::Exact { remaining } => {
                let take = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(take);
                *remaining -= take as u64;
                *input = rest;
                Ok(BodyEvent::Data(data))
            }
            BodyDecoder::UntilClose { total, limit } => {
                let data = std::mem::take(input);
                add_within(total, data.len(), *limit)?;
                Ok(BodyEvent::Data(data))
            }
            BodyDecoder::Chunked { decoder, total, limit } => match decoder.next(input)? {
                Decoded::Data(data) => {
                    add_within(total, data.len(), *limit)?;
                    Ok(BodyEvent::Data(data))
                }
                Decoded::End => Ok(BodyEvent::End),
                Decoded::More => Ok(BodyEvent::More),
            },
        }
    }
}

fn add_within(total: &mut u64, bytes: usize, limit: u64) -> Result<(), MessageError> {
    *total = total.saturating_add(bytes as u64);
    if *total > limit { Err(MessageError::BodyTooLarge { limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_plain_decimal_numbers() {
        for (why, text, expected) in [
            ("zero", "0", Some(0)),
            ("leading zeros say nothing new", "007", Some(7)),
            ("the largest", "18446744073709551615", Some(u64::MAX)),
            ("one more", "18446744073709551616", None),
            ("nothing", "", None),
            ("a plus sign", "+5", None),
            ("a minus sign", "-5", None),
            ("a space in front", " 5", None),
            ("a space within", "5 5", None),
            ("a list", "5, 5", None),
            ("hexadecimal", "0x5", None),
            ("an underscore", "1_000", None),
        ] {
            assert_eq!(parse_decimal(text.as_bytes()), expected, "{why}: {text:?}");
        }
    }

    #[test]
    fn only_compression_below_chunked_is_a_matter_of_implementation() {
        for (value, status) in [
            ("gzip, chunked", 501),
            ("deflate,chunked", 501),
            ("gzip", 400),
            ("chunked, gzip", 400),
            ("chunked, chunked", 400),
            ("xchunked", 400),
            ("chunked;a=b", 400),
            ("identity", 400),
            ("", 400),
            ("\x0bchunked", 400),
        ] {
            let status_found = transfer_encoding_error(value.as_bytes()).status();
            assert_eq!(status_found, status, "{value:?}");
        }
    }
}
