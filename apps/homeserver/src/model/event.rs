//! The event value: the federation JSON as it was signed, and typed fields read out of it once.
//!
//! The text is the truth. It is stored and sent on verbatim, so that unknown fields survive and
//! hashes keep matching; nothing here writes it anew.

use std::sync::Arc;

use ruma::events::TimelineEventType;
use ruma::signatures::reference_hash;
use ruma::state_res::{self, check_pdu_format};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId,
    OwnedRoomId, OwnedUserId, RoomId, UserId,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::canonical::{CanonicalError, parse_object};
use super::room_version::RoomVersion;

/// The longest event, in bytes of canonical JSON with signatures. The specification and Synapse say
/// one more; ruma's hashes stop here.
pub const EVENT_BYTES_MAX: usize = 65_535;

/// The longest type, state key, sender or id, in bytes (Client-Server API, "Size limits").
pub const FIELD_BYTES_MAX: usize = 255;

/// Why JSON is not an event of its room version.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A field is absent, of the wrong type, or against its grammar.
    #[error("not an event: {reason}")]
    Format {
        /// Which field, and what is wrong with it.
        reason: String,
    },
    /// The text is not canonical JSON.
    #[error(transparent)]
    Json(#[from] CanonicalError),
    /// The event, or a field with a limit of its own, is too long.
    #[error("{what} is {bytes} bytes long; at most {limit} are allowed")]
    TooLarge {
        /// `event`, or the name of the field.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The longest that is allowed.
        limit: usize,
    },
}

impl EventError {
    fn format(reason: impl Into<String>) -> Self {
        Self::Format { reason: reason.into() }
    }
}

/// What this server found out about an event; kept beside it, never part of its JSON.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EventFlags {
    /// Known, but without knowing the state of the room at it.
    pub outlier: bool,
    /// Failed authorisation against its auth events or the state before it.
    pub rejected: bool,
    /// Passed those, but failed against the current state when it arrived.
    pub soft_failed: bool,
}

/// An event in federation format.
///
/// Made once and then shared as `Arc<Pdu>`; implements ruma's `Event` for authorisation and state
/// resolution.
#[derive(Clone, Debug)]
pub struct Pdu {
    json: Arc<str>,
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    /// False for create events of version 12, whose JSON has no room id.
    room_id_is_written: bool,
    sender: OwnedUserId,
    event_type: Box<str>,
    /// The same as ruma knows it, which for a few types is an alias.
    timeline_type: TimelineEventType,
    state_key: Option<Box<str>>,
    content: Box<RawValue>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: u64,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    redacts_beside_content: Option<OwnedEventId>,
    redacts_in_content: Option<OwnedEventId>,
    flags: EventFlags,
}

/// The fields that are read out of the JSON; all others are skipped.
#[derive(Deserialize)]
struct Fields<'a> {
    auth_events: Vec<OwnedEventId>,
    #[serde(borrow)]
    content: &'a RawValue,
    depth: u64,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    prev_events: Vec<OwnedEventId>,
    #[serde(borrow, default)]
    redacts: Option<&'a RawValue>,
    #[serde(default)]
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(default)]
    state_key: Option<Box<str>>,
    #[serde(rename = "type")]
    event_type: Box<str>,
}

impl Pdu {
    /// Reads an event that was checked when it was stored.
    ///
    /// # Errors
    ///
    /// [`EventError::Format`] if the text does not have the fields of an event.
    pub fn from_stored(
        event_id: OwnedEventId,
        json: impl Into<Arc<str>>,
        flags: EventFlags,
    ) -> Result<Self, EventError> {
        let json = json.into();
        let fields: Fields<'_> =
            serde_json::from_str(&json).map_err(|error| EventError::format(error.to_string()))?;
        let is_redaction = &*fields.event_type == "m.room.redaction";
        let redacts_beside_content = fields.redacts.filter(|_| is_redaction).and_then(event_id_in);
        let redacts_in_content =
            if is_redaction { redacts_of_content(fields.content) } else { None };
        let room_id_is_written = fields.room_id.is_some();
        let room_id = match fields.room_id {
            Some(room_id) => room_id,
            None if &*fields.event_type == "m.room.create" => room_id_of_create(&event_id)?,
            None => return Err(EventError::format("`room_id` is missing")),
        };
        let content = fields.content.to_owned();
        Ok(Self {
            event_id,
            room_id,
            room_id_is_written,
            sender: fields.sender,
            timeline_type: TimelineEventType::from(&*fields.event_type),
            event_type: fields.event_type,
            state_key: fields.state_key,
            content,
            origin_server_ts: fields.origin_server_ts,
            depth: fields.depth,
            prev_events: fields.prev_events,
            auth_events: fields.auth_events,
            redacts_beside_content,
            redacts_in_content,
            flags,
            json,
        })
    }

    /// Reads an event from elsewhere: checks its format and sizes and computes its id.
    ///
    /// Signatures and the content hash are not looked at.
    ///
    /// # Errors
    ///
    /// [`EventError`], by what is wrong.
    pub fn from_foreign(version: RoomVersion, text: &str) -> Result<Self, EventError> {
        Self::from_object(version, &parse_object(text)?)
    }

    /// Makes the event out of its complete, signed object: checks it and computes its id.
    ///
    /// # Errors
    ///
    /// [`EventError`], by what is wrong.
    pub fn from_object(
        version: RoomVersion,
        object: &CanonicalJsonObject,
    ) -> Result<Self, EventError> {
        let json =
            serde_json::to_string(object).map_err(|error| EventError::format(error.to_string()))?;
        check_sizes(&json, object)?;
        check_fields(object)?;
        let rules = version.rules();
        check_pdu_format(object, &rules.event_format).map_err(EventError::format)?;
        let hash =
            reference_hash(object, rules).map_err(|error| EventError::format(error.to_string()))?;
        Self::with_hash(json, &hash)
    }

    /// Makes the event out of an object that this server has just put together and signed, whose
    /// reference hash it knows. Only what the client decided is checked: the sizes.
    pub(super) fn from_own(object: &CanonicalJsonObject, hash: &str) -> Result<Self, EventError> {
        let json =
            serde_json::to_string(object).map_err(|error| EventError::format(error.to_string()))?;
        check_sizes(&json, object)?;
        Self::with_hash(json, hash)
    }

    fn with_hash(json: String, hash: &str) -> Result<Self, EventError> {
        let event_id =
            EventId::new_v2_or_v3(hash).map_err(|error| EventError::format(error.to_string()))?;
        Self::from_stored(event_id, json, EventFlags::default())
    }

    /// Returns the federation JSON, canonical and as signed.
    pub fn json(&self) -> &Arc<str> {
        &self.json
    }

    /// Returns the event's id.
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// Returns the room; of a version 12 create event the room that it makes.
    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    /// Returns who sent it.
    pub fn sender(&self) -> &UserId {
        &self.sender
    }

    /// Returns the event's type as its JSON spells it.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Returns the state key; events without one are not state.
    pub fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    /// Returns whether the event is of this type with this state key.
    pub fn is_state(&self, event_type: &str, state_key: &str) -> bool {
        *self.event_type == *event_type && self.state_key() == Some(state_key)
    }

    /// Returns the content as its JSON text.
    pub fn content(&self) -> &RawValue {
        &self.content
    }

    /// Reads the content as `T`.
    ///
    /// # Errors
    ///
    /// serde's, if the content does not have that shape: contents are whatever their senders wrote.
    pub fn content_as<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content.get())
    }

    /// Returns when the sender's server says the event was made.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    /// Returns the depth that its sender gave it. Untrusted: for ordering heuristics only.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// Returns the ids of the events right before it.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.prev_events
    }

    /// Returns the ids of the events that are meant to authorise it.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.auth_events
    }

    /// Returns the event that this redaction is aimed at, read from where `version` keeps it.
    ///
    /// `None` if it is not a redaction, or if `redacts` is absent or not an event id: such a
    /// redaction redacts nothing.
    pub fn redacts(&self, version: RoomVersion) -> Option<&EventId> {
        if version.redacts_in_content() {
            self.redacts_in_content.as_deref()
        } else {
            self.redacts_beside_content.as_deref()
        }
    }

    /// Returns what this server found out about the event.
    pub fn flags(&self) -> EventFlags {
        self.flags
    }
}

impl state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.room_id_is_written.then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.timeline_type
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts_beside_content.as_ref().or(self.redacts_in_content.as_ref())
    }

    fn rejected(&self) -> bool {
        self.flags.rejected
    }
}

/// Returns the id of the version 12 room that a create event makes.
pub(super) fn room_id_of_create(event_id: &EventId) -> Result<OwnedRoomId, EventError> {
    let hash = event_id.as_str().trim_start_matches('$');
    RoomId::new_v2(hash).map_err(|error| EventError::format(error.to_string()))
}

fn event_id_in(value: &RawValue) -> Option<OwnedEventId> {
    serde_json::from_str(value.get()).ok()
}

fn redacts_of_content(content: &RawValue) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Redacts<'a> {
        #[serde(borrow, default)]
        redacts: Option<&'a RawValue>,
    }
    serde_json::from_str::<Redacts<'_>>(content.get()).ok()?.redacts.and_then(event_id_in)
}

fn check_sizes(json: &str, object: &CanonicalJsonObject) -> Result<(), EventError> {
    if json.len() > EVENT_BYTES_MAX {
        return Err(EventError::TooLarge {
            what: "event",
            bytes: json.len(),
            limit: EVENT_BYTES_MAX,
        });
    }
    for what in ["room_id", "sender", "state_key", "type"] {
        if let Some(CanonicalJsonValue::String(text)) = object.get(what)
            && text.len() > FIELD_BYTES_MAX
        {
            return Err(EventError::TooLarge { what, bytes: text.len(), limit: FIELD_BYTES_MAX });
        }
    }
    Ok(())
}

/// Checks what ruma's format check leaves out and our own reading would not notice either.
fn check_fields(object: &CanonicalJsonObject) -> Result<(), EventError> {
    for field in ["content", "hashes", "signatures"] {
        if !object.get(field).is_some_and(CanonicalJsonValue::is_object) {
            return Err(EventError::format(format!("`{field}` is not an object")));
        }
    }
    let hash = object.get("hashes").and_then(|hashes| hashes.as_object()?.get("sha256")?.as_str());
    if hash.is_none() {
        return Err(EventError::format("`hashes.sha256` is not a string"));
    }
    Ok(())
}
