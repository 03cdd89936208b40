//! Heads of messages as they were received: one `Bytes` and offsets into it, nothing allocated a field.

use std::fmt;

use bytes::Bytes;
use http::{Method, StatusCode};
use smallvec::SmallVec;

use crate::framing::BodyLength;
use crate::intake::HeadBytes;

/// Where in the head one piece of text stands. Heads are at most 65,535 bytes long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    start: u16,
    bytes: u16,
}

impl Span {
    /// The place at `start` of so many bytes. Heads are never longer than a span can say.
    #[inline]
    pub(crate) fn new(start: usize, bytes: usize) -> Self {
        debug_assert!(start + bytes <= usize::from(u16::MAX), "intake takes no longer heads");
        Span { start: start as u16, bytes: bytes as u16 }
    }

    fn within(self, whole: &[u8]) -> &[u8] {
        let start = usize::from(self.start);
        whole.get(start..start + usize::from(self.bytes)).unwrap_or_default()
    }

    /// Returns the text here, or nothing if it is not UTF-8.
    ///
    /// The check of the standard library takes sixteen bytes in one go, but only on aligned blocks, and is
    /// slow on short text; `whole` begins aligned, so whole blocks of it are checked where they are
    /// all text, as in nearly every head.
    fn text(self, whole: &[u8]) -> &str {
        let start = usize::from(self.start);
        let end = start + usize::from(self.bytes);
        let block_start = start & !15;
        if let Some(blocks) = whole.get(block_start..end.next_multiple_of(16))
            && let Ok(text) = std::str::from_utf8(blocks)
        {
            return text.get(start - block_start..end - block_start).unwrap_or_default();
        }
        std::str::from_utf8(self.within(whole)).unwrap_or_default()
    }

    /// The part of this span behind its first `skip` bytes.
    fn behind(self, skip: usize) -> Self {
        let skip = u16::try_from(skip).unwrap_or(u16::MAX).min(self.bytes);
        Span { start: self.start + skip, bytes: self.bytes - skip }
    }

    fn first(self, bytes: usize) -> Self {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX).min(self.bytes);
        Span { start: self.start, bytes }
    }
}

/// Names and values of one head. One allocation holds its text and, behind it, a table of where each
/// field stands: four numbers of 16 bits, little-endian, for start and length of name and of value.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    block: Bytes,
    text_bytes: u16,
}

/// Bytes of one entry of the table.
const ENTRY_BYTES: usize = 8;

/// Puts the block of one head together.
#[derive(Default)]
pub(crate) struct FieldsBuilder {
    table: SmallVec<[u64; USUAL_FIELDS]>,
}

/// Browsers send about a dozen fields.
const USUAL_FIELDS: usize = 16;

impl FieldsBuilder {
    /// Returns the number of fields.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(crate) fn push(&mut self, name: Span, value: Span) {
        let numbers = u64::from(name.start)
            | u64::from(name.bytes) << 16
            | u64::from(value.start) << 32
            | u64::from(value.bytes) << 48;
        self.table.push(numbers);
    }

    /// Copies the text of the head, of at most [`HEAD_BYTES_CEILING`](crate::HEAD_BYTES_CEILING) bytes.
    #[inline(always)]
    pub(crate) fn finish(self, head: &[u8]) -> Fields {
        debug_assert!(u16::try_from(head.len()).is_ok(), "intake takes no longer heads");
        let mut block = Vec::with_capacity(head.len() + self.table.len() * ENTRY_BYTES);
        block.extend_from_slice(head);
        for numbers in &self.table {
            block.extend_from_slice(&numbers.to_le_bytes());
        }
        Fields { block: Bytes::from(block), text_bytes: head.len() as u16 }
    }
}

impl Fields {
    fn spans(&self) -> impl Iterator<Item = (Span, Span)> {
        let table = self.block.get(usize::from(self.text_bytes)..).unwrap_or_default();
        table.as_chunks::<ENTRY_BYTES>().0.iter().map(|entry| {
            let numbers = u64::from_le_bytes(*entry);
            let span = |shift: u32| Span {
                start: (numbers >> shift) as u16,
                bytes: (numbers >> (shift + 16)) as u16,
            };
            (span(0), span(32))
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.spans().map(|(name, value)| (name.text(&self.block), value.within(&self.block)))
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.spans().find(|(span, _)| {
            usize::from(span.bytes) == name.len()
                && span.within(&self.block).eq_ignore_ascii_case(name.as_bytes())
        })?;
        Some(value.within(&self.block))
    }

    /// Names only: values hold tokens and cookies, which stay out of logs.
    fn debug_names(&self) -> Vec<&str> {
        self.iter().map(|(name, _)| name).collect()
    }
}

/// The head of a request: method, target, version and header fields, as they came.
///
/// Lookup of a field is case-insensitive and allocates nothing. Cloning shares the text.
#[derive(Clone)]
pub struct RequestHead {
    pub(crate) method: Method,
    pub(crate) fields: Fields,
    pub(crate) target: Span,
    pub(crate) path: Span,
    /// Of the text behind the question mark, if there is one.
    pub(crate) query: Option<Span>,
    pub(crate) minor_version: u8,
    pub(crate) length: BodyLength,
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
}

impl RequestHead {
    /// Returns the method. Any token is let through; what exists is for the handler to say.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the request target as received: `/path?query`, `http://host/path?query` or `*`.
    pub fn target(&self) -> &str {
        self.target.text(&self.fields.block)
    }

    /// Returns the path, still percent-encoded, without the query; `*` for the asterisk form.
    pub fn path(&self) -> &str {
        self.path.text(&self.fields.block)
    }

    /// Returns what stands behind the first question mark, still percent-encoded.
    pub fn query(&self) -> Option<&str> {
        Some(self.query?.text(&self.fields.block))
    }

    /// Returns the value of the first field of that name, in whatever case; surrounding space is removed.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.fields.first(name)
    }

    /// Returns the value of the first field of that name if it is UTF-8.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.fields.first(name)?).ok()
    }

    /// Returns all fields in the order in which they came, names as they were spelt.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter()
    }

    /// Returns the minor version: 1 for `HTTP/1.1`, 0 for `HTTP/1.0`.
    pub fn minor_version(&self) -> u8 {
        self.minor_version
    }

    /// Returns how long the body says it is; `Exact(0)` without one.
    pub fn body_length(&self) -> BodyLength {
        self.length
    }

    /// Returns whether the client wants to go on using the connection afterwards.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Returns whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("header_names", &self.fields.debug_names())
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Finds path and query in a target, whose first question mark is at `mark`; `None` if it has none of the
/// forms that a server takes.
#[inline(always)]
pub(crate) fn split_target(
    target: Span,
    bytes: &[u8],
    mark: Option<usize>,
) -> Option<(Span, Option<Span>)> {
    let path_start = match bytes {
        [b'/', ..] => 0,
        b"*" => return Some((target, None)),
        _ => {
            let scheme = bytes.iter().position(|&byte| byte == b':')?;
            let name = &bytes[..scheme];
            if !name.eq_ignore_ascii_case(b"http") && !name.eq_ignore_ascii_case(b"https") {
                return None;
            }
            let authority = bytes[scheme..].strip_prefix(b"://")?;
            let host_bytes =
                authority.iter().position(|byte| b"/?".contains(byte)).unwrap_or(authority.len());
            if host_bytes == 0 {
                return None;
            }
            scheme + 3 + host_bytes
        }
    };
    let path_end = mark.unwrap_or(bytes.len());
    let path = target.behind(path_start).first(path_end.saturating_sub(path_start));
    Some((path, mark.map(|mark| target.behind(mark + 1))))
}

/// The head of a response: status, version and header fields, as they came.
#[derive(Clone)]
pub struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) minor_version: u8,
    pub(crate) length: BodyLength,
    pub(crate) keep_alive: bool,
}

impl ResponseHead {
    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the value of the first field of that name, in whatever case; surrounding space is removed.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.fields.first(name)
    }

    /// Returns the value of the first field of that name if it is UTF-8.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.fields.first(name)?).ok()
    }

    /// Returns all fields in the order in which they came, names as they were spelt.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter()
    }

    /// Returns the minor version: 1 for `HTTP/1.1`, 0 for `HTTP/1.0`.
    pub fn minor_version(&self) -> u8 {
        self.minor_version
    }

    /// Returns how long the body that follows says it is; `Exact(0)` where none may follow.
    pub fn body_length(&self) -> BodyLength {
        self.length
    }

    /// Returns whether the server keeps the connection open afterwards.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("header_names", &self.fields.debug_names())
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl HeadBytes for RequestHead {
    #[inline]
    fn head_bytes(&self) -> usize {
        usize::from(self.fields.text_bytes)
    }
}

impl HeadBytes for ResponseHead {
    fn head_bytes(&self) -> usize {
        usize::from(self.fields.text_bytes)
    }
}
