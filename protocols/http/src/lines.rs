//! Reads the lines of a head: the words of the start line, and the fields. Shared by both directions.
//!
//! Every byte is looked at once. What httparse lets through and nobody should, bare line feeds above all, is
//! refused on the way; for the rest a test holds both against each other.

use crate::error::MessageError;
use crate::framing::{FramingFields, TOKEN_BYTE};
use crate::head::{Fields, FieldsBuilder, Span};

/// A part of a head, or `None` while its end has not come.
pub(crate) type Part<T> = Result<Option<T>, MessageError>;

/// Reads `HTTP/1.0` or `HTTP/1.1` at the front of `text`; returns the minor version. `malformed` is the error for
/// what is neither.
#[inline(always)]
pub(crate) fn read_version(text: &[u8], malformed: MessageError) -> Part<u8> {
    const VERSION_1_0: u64 = u64::from_le_bytes(*b"HTTP/1.0");
    const VERSION_1_1: u64 = u64::from_le_bytes(*b"HTTP/1.1");
    // As a number, which is compared in one go.
    match text.first_chunk::<VERSION_BYTES>().map(|word| u64::from_le_bytes(*word)) {
        Some(VERSION_1_1) => Ok(Some(1)),
        Some(VERSION_1_0) => Ok(Some(0)),
        Some(_) => Err(malformed),
        None if b"HTTP/1.1".starts_with(text) || b"HTTP/1.0".starts_with(text) => Ok(None),
        None => Err(malformed),
    }
}

/// Bytes of the version.
pub(crate) const VERSION_BYTES: usize = 8;

/// Reads the end of a line at the front of `text`.
#[inline(always)]
pub(crate) fn read_line_end(text: &[u8], malformed: MessageError) -> Part<()> {
    match text {
        [b'\r', b'\n', ..] => Ok(Some(())),
        [] | [b'\r'] => Ok(None),
        [b'\n', ..] => Err(MessageError::BareLineFeed),
        _ => Err(malformed),
    }
}

/// Reads the fields that begin at `start`, up to and with the blank line, and has `framing` take note of them.
#[inline(always)]
pub(crate) fn read_fields(
    text: &[u8],
    start: usize,
    count_max: usize,
    framing: &mut FramingFields,
) -> Part<Fields> {
    let mut builder = FieldsBuilder::default();
    let mut at = start;
    loop {
        let line = text.get(at..).unwrap_or_default();
        let Some(&first) = line.first() else { return Ok(None) };
        if first <= b'\r' {
            let end = read_line_end(line, MessageError::HeaderMalformed)?;
            return Ok(end.map(|()| builder.finish(text.get(..at + 2).unwrap_or(text))));
        }
        let Some(name_bytes) = line.iter().position(|&byte| !TOKEN_BYTE[usize::from(byte)]) else {
            return Ok(None);
        };
        let Some((b':', rest)) = line[name_bytes..].split_first() else {
            return Err(MessageError::HeaderMalformed);
        };
        if name_bytes == 0 {
            return Err(MessageError::HeaderMalformed);
        }
        let Some(value) = read_value(rest)? else { return Ok(None) };
        if builder.len() == count_max {
            return Err(MessageError::TooManyHeaders { limit: count_max });
        }
        let trimmed = trim_end(value);
        let trimmed_bytes = trimmed.len();
        let trimmed = trim_start(trimmed);
        framing.note(&line[..name_bytes], trimmed)?;
        let value_at = at + name_bytes + 1 + (trimmed_bytes - trimmed.len());
        builder.push(Span::new(at, name_bytes), Span::new(value_at, trimmed.len()));
        at += name_bytes + 1 + value.len() + 2;
    }
}

#[inline]
fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

#[inline]
fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Reads a field's value up to the end of its line, which is taken for granted by whoever goes on behind it.
#[inline(always)]
fn read_value(text: &[u8]) -> Part<&[u8]> {
    let mut from = 0;
    loop {
        let Some(end) = first_control(text, from) else { return Ok(None) };
        match &text[end..] {
            [b'\r', b'\n', ..] => return Ok(Some(&text[..end])),
            [b'\t', ..] => from = end + 1,
            [b'\r'] => return Ok(None),
            [b'\n', ..] => return Err(MessageError::BareLineFeed),
            _ => return Err(MessageError::HeaderMalformed),
        }
    }
}

/// Whether a control character other than the tab stands in a value (RFC 9110, section 5.5). Bytes
/// beyond ASCII may.
pub(crate) fn has_control(value: &[u8]) -> bool {
    value.iter().any(|&byte| is_control(byte) && byte != b'\t')
}

fn is_control(byte: u8) -> bool {
    byte < b' ' || byte == 0x7f
}

/// Returns where the first control character is, at `from` or behind it. Looks at eight bytes at a time.
#[inline(always)]
fn first_control(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(block) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let found = controls(*block);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += block.len();
    }
    let behind = text.get(at..)?.iter().position(|&byte| is_control(byte))?;
    Some(at + behind)
}

/// Sets the highest bit of the first of the eight bytes that is a control character, a tab included. What it
/// sets in bytes behind that may be wrong: a borrow goes over to the next.
#[inline]
fn controls(block: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_le_bytes(block);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    let is_delete = delete.wrapping_sub(ONES) & !delete;
    (below_space | is_delete) & (ONES * 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_found_wherever_they_stand() {
        for bytes in 0..40 {
            for at in 0..bytes {
                for byte in 0..=255 {
                    let mut text = vec![b'x'; bytes];
                    text[at] = byte;
                    let expected = is_control(byte).then_some(at);
                    assert_eq!(first_control(&text, 0), expected, "{byte} at {at} of {bytes}");
                    if let Some(next) = text.get_mut(at + 1) {
                        // What a borrow would make of this one does not matter.
                        *next = b' ';
                        assert_eq!(first_control(&text, 0), expected, "{byte} at {at} of {bytes}");
                    }
                }
            }
        }
    }

    #[test]
    fn white_space_around_values_is_no_part_of_them() {
        for (line, name, value) in [
            ("a:b\r\n\r\n", "a", "b"),
            ("a: b\r\n\r\n", "a", "b"),
            ("a:\t b c \t\r\n\r\n", "a", "b c"),
            ("a:\r\n\r\n", "a", ""),
            ("a: \r\n\r\n", "a", ""),
        ] {
            let mut framing = FramingFields::default();
            let fields = read_fields(line.as_bytes(), 0, 1, &mut framing).unwrap().unwrap();
            let read: Vec<_> = fields.iter().collect();
            assert_eq!(read, [(name, value.as_bytes())], "{line:?}");
        }
    }
}
