//! Events as clients see them: rendered once, kept, and written into many answers.
//!
//! A [`RenderedEvent`] is JSON text cut where answers differ: the room's id is left out of sync, the
//! age changes by the millisecond, and the transaction id is for the device that sent the event. The
//! rest is the same for everybody, so a [`RenderCache`] shares it between the database threads.
//!
//! What is kept never goes stale: an event's row does not change, and which redaction applies to it
//! is part of the key.

use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ruma::push::FlattenedJson;
use ruma::{CanonicalJsonObject, DeviceId, RoomId, UserId};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::generations::GenerationCache;
use super::sync::filter::{EventFacts, EventForm};
use crate::model::Membership;
use crate::model::redact::redacted_json;
use crate::storage::StorageError;
use crate::storage::databases::main::shown_events::{self, ShownRow};
use crate::storage::databases::main::{events, redactions, rooms};
use crate::storage::engine::Txn;
use crate::storage::keys::{EventKey, RoomKey};

/// How many bytes of rendered events one generation of a [`RenderCache`] holds. There are two; an
/// event of usual size takes 700 bytes, so a generation is several thousand of them.
const GENERATION_BYTES: usize = 4 << 20;

/// What an event costs besides its text, roughly.
const EVENT_OVERHEAD_BYTES: usize = 200;

/// An event as clients see it, cut where answers differ.
#[derive(Debug)]
pub(crate) struct RenderedEvent {
    /// Its key: its position in the stream of events.
    pub(crate) key: EventKey,
    /// Its type.
    pub(crate) event_type: Box<str>,
    /// Its state key, if it is a state event.
    pub(crate) state_key: Option<Box<str>>,
    /// Who sent it.
    pub(crate) sender: Box<str>,
    /// When it was sent, in ms since 1970, as its sender says.
    pub(crate) origin_server_ts: i64,
    /// Whether its content has a `url` that is a string.
    pub(crate) has_url: bool,
    /// Everything but `room_id` and `unsigned`, without the braces around it.
    members: Box<str>,
    /// Where in `members` the content is.
    content: Range<usize>,
    /// What is in `unsigned` besides `age` and `transaction_id`, without braces.
    unsigned: Box<str>,
    /// Device and transaction that sent it.
    transaction: Option<(Box<str>, Box<str>)>,
    /// As push conditions look at it; made when first needed.
    flattened: OnceLock<Box<FlattenedJson>>,
}

/// For whom and when an event is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    /// Who reads it.
    pub(crate) user_id: &'a UserId,
    /// The device he reads it on.
    pub(crate) device_id: Option<&'a DeviceId>,
    /// The time of day, in ms since 1970.
    pub(crate) now_ms: i64,
    /// The room's id, where the answer does not say it elsewhere.
    pub(crate) room_id: Option<&'a RoomId>,
}

impl RenderedEvent {
    /// Returns its content, as JSON.
    pub(crate) fn content(&self) -> &str {
        &self.members[self.content.clone()]
    }

    /// Returns the membership that a member event gives.
    pub(crate) fn membership(&self) -> Option<Membership> {
        serde_json::from_str(self.content()).ok().and_then(Membership::of_content)
    }

    /// Returns it as push conditions look at it.
    pub(crate) fn flattened(&self) -> &FlattenedJson {
        self.flattened.get_or_init(|| Box::new(super::unread::flatten(&self.members)))
    }

    /// Returns what a filter may ask.
    pub(crate) fn facts<'a>(&'a self, room_id: &'a RoomId) -> EventFacts<'a> {
        EventFacts {
            event_type: &self.event_type,
            sender: Some(&self.sender),
            room_id: Some(room_id),
            has_url: self.has_url,
        }
    }

    /// Whether it is the member event of somebody.
    pub(crate) fn is_member_event(&self) -> bool {
        &*self.event_type == "m.room.member" && self.state_key.is_some()
    }

    /// Writes it as one JSON object.
    pub(crate) fn write(&self, out: &mut Vec<u8>, reading: Reading<'_>) {
        out.push(b'{');
        if let Some(room_id) = reading.room_id {
            out.extend_from_slice(b"\"room_id\":");
            write_text(out, room_id.as_str());
            out.push(b',');
        }
        out.extend_from_slice(self.members.as_bytes());
        let age = reading.now_ms.saturating_sub(self.origin_server_ts).max(0);
        // Writing to memory cannot fail.
        let _ = write!(out, ",\"unsigned\":{{\"age\":{age}");
        if !self.unsigned.is_empty() {
            out.push(b',');
            out.extend_from_slice(self.unsigned.as_bytes());
        }
        if let (Some((device_id, txn_id)), Some(reader)) = (&self.transaction, reading.device_id)
            && **device_id == *reader.as_str()
            && *self.sender == *reading.user_id.as_str()
        {
            out.extend_from_slice(b",\"transaction_id\":");
            write_text(out, txn_id);
        }
        out.extend_from_slice(b"}}");
    }

    /// Writes it in the form that a filter asks for.
    pub(crate) fn write_as(&self, out: &mut Vec<u8>, form: &EventForm, reading: Reading<'_>) {
        let Some(fields) = &form.fields else { return self.write(out, reading) };
        let mut whole = Vec::new();
        self.write(&mut whole, reading);
        let cut = serde_json::from_slice(&whole).map(|event: Value| fields.of(&event));
        // The text was made here from parsed JSON: it parses.
        let _ = serde_json::to_writer(out, &cut.unwrap_or(Value::Null));
    }

    /// Writes it stripped: the four fields that people see who are not in the room.
    pub(crate) fn write_stripped(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":");
        write_text(out, &self.event_type);
        out.extend_from_slice(b",\"state_key\":");
        write_text(out, self.state_key.as_deref().unwrap_or_default());
        out.extend_from_slice(b",\"sender\":");
        write_text(out, &self.sender);
        out.extend_from_slice(b",\"content\":");
        out.extend_from_slice(self.content().as_bytes());
        out.push(b'}');
    }

    fn size_bytes(&self) -> usize {
        self.members.len() + self.unsigned.len() + EVENT_OVERHEAD_BYTES
    }
}

/// Writes items as a JSON list.
pub(crate) fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Writes text as a JSON string.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if text.as_bytes().iter().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(out, text);
    }
}

/// Which rendering: the event, the redaction that applies to it, and the one that applies to the
/// event that it replaced.
type RenderKey = (EventKey, Option<EventKey>, Option<EventKey>);

/// Rendered events that were needed lately, shared between database threads.
#[derive(Debug)]
pub(crate) struct RenderCache {
    kept: GenerationCache<RenderKey, Arc<RenderedEvent>>,
}

impl Default for RenderCache {
    fn default() -> Self {
        Self { kept: GenerationCache::new(GENERATION_BYTES) }
    }
}

/// Renders events out of one transaction.
#[derive(Clone, Copy)]
pub(crate) struct Renderer<'t, 'c> {
    txn: &'t Txn<'c>,
    cache: &'t RenderCache,
    federation: bool,
}

impl<'t, 'c> Renderer<'t, 'c> {
    /// Makes a renderer of the form that a filter asks for.
    pub(crate) fn new(txn: &'t Txn<'c>, cache: &'t RenderCache, form: &EventForm) -> Self {
        Self { txn, cache, federation: form.federation }
    }

    /// Renders an event of a list. `None`: it must not be shown (a redaction that does not apply).
    pub(crate) fn render(
        &self,
        row: &ShownRow<'_, '_>,
    ) -> Result<Option<Arc<RenderedEvent>>, StorageError> {
        let event = row.key()?;
        let redaction = match row.redaction_wanted_by()? {
            None => None,
            Some(_) => redactions::applied_to(self.txn, &events::by_key(self.txn, event)?)?,
        };
        let redaction_of_replaced = match row.redaction_of_replaced_wanted_by()? {
            None => None,
            Some(_) => match row.replaces()? {
                None => None,
                Some(replaced) => {
                    redactions::applied_to(self.txn, &events::by_key(self.txn, replaced)?)?
                }
            },
        };
        let key = (event, redaction, redaction_of_replaced);
        if !self.federation
            && let Some(found) = self.cache.kept.find(&key)
        {
            return Ok(Some(found));
        }
        if row.event_type()? == "m.room.redaction"
            && !redactions::may_be_shown(self.txn, &events::by_key(self.txn, event)?)?
        {
            return Ok(None);
        }
        let rendered = Arc::new(if self.federation {
            self.as_federated(row)?
        } else {
            self.as_seen(row, redaction, redaction_of_replaced.is_some())?
        });
        if !self.federation {
            self.cache.kept.keep(key, Arc::clone(&rendered), rendered.size_bytes());
        }
        Ok(Some(rendered))
    }

    /// Renders the event of that key, shown or not.
    pub(crate) fn by_key(
        &self,
        event: EventKey,
    ) -> Result<Option<Arc<RenderedEvent>>, StorageError> {
        shown_events::by_key(self.txn, event, |row| self.render(&row))
    }

    fn as_seen(
        &self,
        row: &ShownRow<'_, '_>,
        redaction: Option<EventKey>,
        replaced_is_redacted: bool,
    ) -> Result<RenderedEvent, StorageError> {
        let json = row.json()?;
        let event_type = row.event_type()?;
        let mut redacts = None;
        let content = if redaction.is_some() {
            self.redacted_content(row.room()?, json)?
        } else {
            let stored: StoredEvent<'_> = parse(json)?;
            if event_type == "m.room.redaction" {
                redacts = stored.redacts().map(str::to_owned);
            }
            match &redacts {
                Some(redacts) => with_redacts(stored.content.get(), redacts)?,
                None => stored.content.get().to_owned(),
            }
        };
        let mut members = Vec::with_capacity(content.len() + 300);
        members.extend_from_slice(b"\"content\":");
        members.extend_from_slice(content.as_bytes());
        let content_range = members.len() - content.len()..members.len();
        let sent = row.origin_server_ts()?;
        members.extend_from_slice(b",\"event_id\":");
        write_text(&mut members, row.event_id()?);
        // Writing to memory cannot fail.
        let _ = write!(members, ",\"origin_server_ts\":{sent}");
        if let Some(redacts) = &redacts {
            members.extend_from_slice(b",\"redacts\":");
            write_text(&mut members, redacts);
        }
        members.extend_from_slice(b",\"sender\":");
        write_text(&mut members, row.sender()?);
        if let Some(state_key) = row.state_key()? {
            members.extend_from_slice(b",\"state_key\":");
            write_text(&mut members, state_key);
        }
        members.extend_from_slice(b",\"type\":");
        write_text(&mut members, event_type);
        let unsigned = self.unsigned(row, redaction, replaced_is_redacted)?;
        finish(row, members, content_range, unsigned)
    }

    fn as_federated(&self, row: &ShownRow<'_, '_>) -> Result<RenderedEvent, StorageError> {
        let mut object: CanonicalJsonObject = parse(row.json()?)?;
        object.remove("unsigned");
        object.remove("room_id");
        object.insert("event_id".to_owned(), row.event_id()?.to_owned().into());
        let content = object.remove("content").map(|content| content.to_string());
        let content = content.unwrap_or_else(|| "{}".to_owned());
        let mut members = format!("\"content\":{content}").into_bytes();
        let content_range = members.len() - content.len()..members.len();
        let rest = serde_json::to_vec(&object).map_err(|_| damaged("an event"))?;
        members.push(b',');
        members.extend_from_slice(rest.get(1..rest.len() - 1).unwrap_or_default());
        finish(row, members, content_range, String::new())
    }

    /// What `unsigned` says besides the age and the transaction.
    fn unsigned(
        &self,
        row: &ShownRow<'_, '_>,
        redaction: Option<EventKey>,
        replaced_is_redacted: bool,
    ) -> Result<String, StorageError> {
        let mut unsigned = Vec::new();
        if let Some(replaced) = row.replaces()? {
            let (event_id, sender, content) = shown_events::by_key(self.txn, replaced, |row| {
                let stored: StoredEvent<'_> = parse(row.json()?)?;
                let content = if replaced_is_redacted {
                    self.redacted_content(row.room()?, row.json()?)?
                } else {
                    stored.content.get().to_owned()
                };
                Ok((row.event_id()?.to_owned(), row.sender()?.to_owned(), content))
            })?;
            // A redacted event does not tell what stood before it.
            if redaction.is_none() {
                unsigned.extend_from_slice(b"\"prev_content\":");
                unsigned.extend_from_slice(content.as_bytes());
                unsigned.extend_from_slice(b",\"prev_sender\":");
                write_text(&mut unsigned, &sender);
                unsigned.push(b',');
            }
            unsigned.extend_from_slice(b"\"replaces_state\":");
            write_text(&mut unsigned, &event_id);
        }
        if let Some(redaction) = redaction {
            // One step only: whether the redaction is itself redacted is not asked.
            let because =
                shown_events::by_key(self.txn, redaction, |row| self.as_seen(&row, None, false))?;
            if !unsigned.is_empty() {
                unsigned.push(b',');
            }
            unsigned.extend_from_slice(b"\"redacted_because\":{");
            unsigned.extend_from_slice(because.members.as_bytes());
            unsigned.extend_from_slice(b",\"unsigned\":{}}");
        }
        String::from_utf8(unsigned).map_err(|_| damaged("an event"))
    }

    fn redacted_content(&self, room: RoomKey, json: &str) -> Result<String, StorageError> {
        let version = rooms::by_key(self.txn, room)?.version;
        let redacted = redacted_json(version, json).map_err(|_| damaged("a redacted event"))?;
        let stored: StoredEvent<'_> = parse(&redacted)?;
        Ok(stored.content.get().to_owned())
    }
}

fn finish(
    row: &ShownRow<'_, '_>,
    members: Vec<u8>,
    content: Range<usize>,
    unsigned: String,
) -> Result<RenderedEvent, StorageError> {
    let members = String::from_utf8(members).map_err(|_| damaged("an event"))?;
    let has_url = has_url(&members[content.clone()]);
    let transaction = row.transaction()?;
    Ok(RenderedEvent {
        key: row.key()?,
        event_type: row.event_type()?.into(),
        state_key: row.state_key()?.map(Into::into),
        sender: row.sender()?.into(),
        origin_server_ts: row.origin_server_ts()?,
        has_url,
        members: members.into(),
        content,
        unsigned: unsigned.into(),
        transaction: transaction.map(|(device_id, txn_id)| (device_id.into(), txn_id.into())),
        flattened: OnceLock::new(),
    })
}

/// The parts of a stored event that are not in columns.
#[derive(Deserialize)]
struct StoredEvent<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow, default)]
    redacts: Option<&'a RawValue>,
}

impl<'a> StoredEvent<'a> {
    /// Returns what a redaction wants redacted: at the top up to room version 10, in the content
    /// from 11 on. Something other than text is none.
    fn redacts(&self) -> Option<&'a str> {
        #[derive(Deserialize)]
        struct Content<'a> {
            #[serde(borrow)]
            redacts: &'a str,
        }
        let top = self.redacts.and_then(|raw| serde_json::from_str(raw.get()).ok());
        top.or_else(|| {
            let content: Content<'a> = serde_json::from_str(self.content.get()).ok()?;
            Some(content.redacts)
        })
    }
}

/// Returns the content of a redaction with `redacts` in it, where newer clients look for it.
fn with_redacts(content: &str, redacts: &str) -> Result<String, StorageError> {
    let mut content: CanonicalJsonObject = parse(content)?;
    content.insert("redacts".to_owned(), redacts.to_owned().into());
    serde_json::to_string(&content).map_err(|_| damaged("a redaction"))
}

/// Returns the content of a stored event.
pub(crate) fn content_of(json: &str) -> Result<&RawValue, StorageError> {
    parse::<StoredEvent<'_>>(json).map(|stored| stored.content)
}

fn has_url(content: &str) -> bool {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        url: &'a RawValue,
    }
    content.contains("\"url\"")
        && serde_json::from_str::<Content<'_>>(content)
            .is_ok_and(|content| content.url.get().starts_with('"'))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, StorageError> {
    serde_json::from_str(json).map_err(|_| damaged("the JSON of an event"))
}

fn damaged(what: &str) -> StorageError {
    StorageError::damaged(format!("{what} cannot be read"))
}
