//! From stored federation JSON to what clients see, without a parse tree in between.
//!
//! This is the hot path of sync and of pages of messages: one walk over the stored text, values
//! copied as they stand, no allocation but the output's.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What is shown with an event but is not in its JSON.
///
/// The texts called JSON are copied as they are and must be valid; they come from stored events.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientView<'a> {
    /// The event's id.
    pub event_id: &'a str,
    /// The room; `None` in sync, where the room is known from around the event.
    pub room_id: Option<&'a str>,
    /// Now, in milliseconds since the Unix epoch: for `unsigned.age`.
    pub now_ms: u64,
    /// For the device that sent the event only: its transaction id.
    pub transaction_id: Option<&'a str>,
    /// For state: JSON of the content that it replaced.
    pub prev_content: Option<&'a str>,
    /// For state: the id of the event that it replaced.
    pub replaces_state: Option<&'a str>,
    /// For a redacted event (whose `json` is the pruned one): JSON of the redaction, in client format.
    pub redacted_because: Option<&'a str>,
    /// The membership of the user who is looking, at the time of the event.
    pub membership: Option<&'a str>,
}

/// Appends the event to `out` in the format of the client API.
///
/// `unsigned` of the stored event is left out: other servers write it, and nothing in it is to be
/// believed. Redactions carry their target both beside and in their content, in all room versions.
///
/// # Errors
///
/// serde_json's, if `json` is not the JSON of an event; `out` is then as it was before.
pub fn write_client_event(
    out: &mut Vec<u8>,
    json: &str,
    view: &ClientView<'_>,
) -> Result<(), serde_json::Error> {
    let start = out.len();
    // What is dropped makes up for what is added.
    out.reserve(json.len());
    let mut source = serde_json::Deserializer::from_str(json);
    let written = source.deserialize_map(EventWriter { out, view });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends the event to `out` as stripped state: content, sender, state key and type.
///
/// # Errors
///
/// As for [`write_client_event`].
pub fn write_stripped_event(out: &mut Vec<u8>, json: &str) -> Result<(), serde_json::Error> {
    let start = out.len();
    let mut source = serde_json::Deserializer::from_str(json);
    let written = source.deserialize_map(StrippedWriter { out });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends `text` to `out` as a JSON string.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    // Most are identifiers, in which nothing needs escaping.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if serde_json::to_writer(&mut *out, text).is_err() {
        debug_assert!(false, "writing text to memory cannot fail");
    }
}

struct EventWriter<'o, 'v> {
    out: &'o mut Vec<u8>,
    view: &'v ClientView<'v>,
}

impl<'de> Visitor<'de> for EventWriter<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Self { out, view } = self;
        let mut content: Option<&RawValue> = None;
        let mut redacts: Option<&RawValue> = None;
        let mut origin_server_ts: u64 = 0;
        let mut is_redaction = false;
        out.push(b'{');
        while let Some(key) = fields.next_key_seed(Key)? {
            match &*key {
                "auth_events" | "depth" | "event_id" | "hashes" | "origin" | "prev_events"
                | "room_id" | "signatures" | "unsigned" => {
                    fields.next_value::<IgnoredAny>()?;
                }
                "content" => content = Some(fields.next_value()?),
                "origin_server_ts" => {
                    let value: &RawValue = fields.next_value()?;
                    origin_server_ts = value.get().parse().unwrap_or(0);
                    write_field(out, "origin_server_ts", value);
                }
                "redacts" => redacts = Some(fields.next_value()?),
                "type" => {
                    let value: &RawValue = fields.next_value()?;
                    is_redaction = value.get() == r#""m.room.redaction""#;
                    write_field(out, "type", value);
                }
                other => write_field(out, other, fields.next_value()?),
            }
        }
        if let Some(content) = content {
            if is_redaction {
                write_redaction(out, content, redacts);
            } else {
                write_field(out, "content", content);
                if let Some(redacts) = redacts {
                    write_field(out, "redacts", redacts);
                }
            }
        }
        out.extend_from_slice(br#""event_id":"#);
        write_json_string(out, view.event_id);
        if let Some(room_id) = view.room_id {
            out.extend_from_slice(br#","room_id":"#);
            write_json_string(out, room_id);
        }
        write_unsigned(out, view, origin_server_ts);
        out.push(b'}');
        Ok(())
    }
}

fn write_unsigned(out: &mut Vec<u8>, view: &ClientView<'_>, origin_server_ts: u64) {
    out.extend_from_slice(br#","unsigned":{"age":"#);
    write_number(out, view.now_ms.saturating_sub(origin_server_ts));
    for (name, text) in [
        (r#","membership":"#, view.membership),
        (r#","replaces_state":"#, view.replaces_state),
        (r#","transaction_id":"#, view.transaction_id),
    ] {
        if let Some(text) = text {
            out.extend_from_slice(name.as_bytes());
            write_json_string(out, text);
        }
    }
    for (name, json) in [
        (r#","prev_content":"#, view.prev_content),
        (r#","redacted_because":"#, view.redacted_because),
    ] {
        if let Some(json) = json {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(json.as_bytes());
        }
    }
    out.push(b'}');
}

/// Writes content and `redacts` of a redaction, each with the target wherever it was found.
fn write_redaction(out: &mut Vec<u8>, content: &RawValue, beside: Option<&RawValue>) {
    #[derive(serde::Deserialize)]
    struct Content<'a> {
        #[serde(borrow, default)]
        redacts: Option<&'a RawValue>,
    }
    let inside =
        serde_json::from_str::<Content<'_>>(content.get()).ok().and_then(|content| content.redacts);
    match (beside, inside) {
        (Some(target), None) => {
            out.extend_from_slice(br#""content":{"redacts":"#);
            out.extend_from_slice(target.get().as_bytes());
            // The content begins with a brace; what follows is its first key or the closing brace.
            let rest = content.get().strip_prefix('{').unwrap_or("}");
            if !rest.trim_start().starts_with('}') {
                out.push(b',');
            }
            out.extend_from_slice(rest.as_bytes());
            out.push(b',');
        }
        _ => write_field(out, "content", content),
    }
    if let Some(target) = beside.or(inside) {
        write_field(out, "redacts", target);
    }
}

struct StrippedWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for StrippedWriter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let out = self.out;
        out.push(b'{');
        let mut separator = None;
        while let Some(key) = fields.next_key_seed(Key)? {
            if matches!(&*key, "content" | "sender" | "state_key" | "type") {
                out.extend(separator.replace(b','));
                write_json_string(out, &key);
                out.push(b':');
                out.extend_from_slice(fields.next_value::<&RawValue>()?.get().as_bytes());
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// Writes `"name":value,`.
fn write_field(out: &mut Vec<u8>, name: &str, value: &RawValue) {
    write_json_string(out, name);
    out.push(b':');
    out.extend_from_slice(value.get().as_bytes());
    out.push(b',');
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Reads a key, borrowed unless it holds an escape.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Cow<'de, str>, D::Error> {
        source.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
