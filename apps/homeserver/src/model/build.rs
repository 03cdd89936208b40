//! Making events of our own: fields, content hash, signature, event id, in this order.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ruma::canonical_json::RedactingSerializer;
use ruma::signatures::{JsonError, KeyPair as _, add_content_hash_to_event};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedServerName, OwnedUserId, RoomId, ServerName, UInt,
};

use super::event::{EventError, Pdu};
use super::key_pair::SigningKeyPair;
use super::room_version::RoomVersion;

/// The greatest depth an event may have (room versions 6 and up).
pub const DEPTH_MAX: u64 = (1 << 53) - 1;

/// Why an event could not be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The finished event breaks the rules of events, above all their sizes.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The event could not be hashed and signed.
    #[error("the event cannot be signed: {reason}")]
    Sign {
        /// ruma's words.
        reason: String,
    },
}

/// The server's name and the key that signs its events. Can be shared between threads.
pub struct EventSigner {
    server_name: OwnedServerName,
    key_pair: SigningKeyPair,
}

impl EventSigner {
    /// Signs as `server_name`.
    pub fn new(server_name: OwnedServerName, key_pair: SigningKeyPair) -> Self {
        Self { server_name, key_pair }
    }

    /// Returns the name that events are signed as.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// Returns the key's id, such as `ed25519:a_abcd`.
    pub fn key_id(&self) -> &str {
        self.key_pair.key_id()
    }

    /// Returns the key, for signing what is not an event.
    pub fn key_pair(&self) -> &SigningKeyPair {
        &self.key_pair
    }

    /// Returns the public half of the key, 32 bytes.
    pub fn public_key(&self) -> &[u8] {
        self.key_pair.public_key()
    }
}

impl fmt::Debug for EventSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSigner")
            .field("server_name", &self.server_name)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

/// What somebody wants to say, before it has a place in the room's graph.
#[derive(Clone, Debug, PartialEq)]
pub struct EventDraft {
    /// Who says it.
    pub sender: OwnedUserId,
    /// The event's type.
    pub event_type: String,
    /// The state key, for state events.
    pub state_key: Option<String>,
    /// The content, already known to be canonical.
    pub content: CanonicalJsonObject,
    /// The target of a redaction; put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
}

impl EventDraft {
    /// Drafts an event that is not state.
    pub fn message(
        sender: OwnedUserId,
        event_type: impl Into<String>,
        content: CanonicalJsonObject,
    ) -> Self {
        Self { sender, event_type: event_type.into(), state_key: None, content, redacts: None }
    }

    /// Drafts a state event.
    pub fn state(
        sender: OwnedUserId,
        event_type: impl Into<String>,
        state_key: impl Into<String>,
        content: CanonicalJsonObject,
    ) -> Self {
        let state_key = Some(state_key.into());
        Self { sender, event_type: event_type.into(), state_key, content, redacts: None }
    }

    /// Drafts the redaction of `target`.
    pub fn redaction(sender: OwnedUserId, target: OwnedEventId, reason: Option<String>) -> Self {
        let content = reason
            .map(|reason| ("reason".to_owned(), CanonicalJsonValue::String(reason)))
            .into_iter()
            .collect();
        let mut draft = Self::message(sender, "m.room.redaction", content);
        draft.redacts = Some(target);
        draft
    }

    /// Returns whether this event makes a room.
    pub fn is_create(&self) -> bool {
        self.event_type == "m.room.create" && self.state_key.as_deref() == Some("")
    }

    /// Returns the content as text, as the authorisation rules want to read it.
    ///
    /// # Errors
    ///
    /// serde's; not for contents that were parsed as canonical JSON.
    pub fn raw_content(&self) -> Result<Box<serde_json::value::RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(&self.content)
    }
}

/// Where an event stands in its room, and when it was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The room; ignored for a version 12 create event, which names its room by its own hash.
    pub room_id: OwnedRoomId,
    /// The forward extremities that it follows.
    pub prev_events: Vec<OwnedEventId>,
    /// The events that authorise it.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the greatest depth of `prev_events`; capped at [`DEPTH_MAX`].
    pub depth: u64,
    /// Now.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
}

impl Place {
    /// The place of a room's create event.
    pub fn first(room_id: OwnedRoomId, origin_server_ts: MilliSecondsSinceUnixEpoch) -> Self {
        Self { room_id, prev_events: vec![], auth_events: vec![], depth: 1, origin_server_ts }
    }
}

impl EventSigner {
    /// Makes the event: fills in the fields, hashes, signs and computes the id.
    ///
    /// Costs a signature, some tens of microseconds: not for the loop.
    ///
    /// # Errors
    ///
    /// [`BuildError::Event`], most often because the result is too large.
    pub fn sign(
        &self,
        version: RoomVersion,
        draft: EventDraft,
        place: Place,
    ) -> Result<Pdu, BuildError> {
        let mut object = assemble(version, draft, place);
        add_content_hash_to_event(&mut object).map_err(|error| refused(error, &object))?;
        // What is signed and what the id is a hash of is the same text: the redacted event without
        // signatures and `unsigned` (Server-Server API, "Signing Events" and "Calculating the reference
        // hash for an event"), so it is made once.
        let rules = version.rules();
        let redacted = RedactingSerializer::new()
            .rules(&rules.redaction)
            .custom_redacted_root_fields(&["signatures", "unsigned"])
            .serialize(&object)
            .map_err(|error| BuildError::Sign { reason: error.to_string() })?;
        let signature = self.key_pair.sign(redacted.as_bytes());
        let signature = CanonicalJsonValue::String(signature.base64());
        let signatures =
            CanonicalJsonObject::from([(self.key_pair.key_id().to_owned(), signature)]);
        let signatures = CanonicalJsonObject::from([(
            self.server_name.to_string(),
            CanonicalJsonValue::Object(signatures),
        )]);
        object.insert("signatures".to_owned(), CanonicalJsonValue::Object(signatures));
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, redacted.as_bytes()));
        Ok(Pdu::from_own(&object, &hash)?)
    }
}

fn refused(error: JsonError, object: &CanonicalJsonObject) -> BuildError {
    match error {
        JsonError::PduTooLarge => too_large(object),
        error => BuildError::Sign { reason: error.to_string() },
    }
}

/// Returns a room id for a new room of a version before 12, from 18 random letters' worth of bytes.
///
/// # Errors
///
/// [`EventError::Format`] if the server's name leaves no room for a room id.
pub fn room_id_with_domain(
    random: [u8; 18],
    server_name: &ServerName,
) -> Result<OwnedRoomId, EventError> {
    const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let opaque: String =
        random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect();
    RoomId::parse(format!("!{opaque}:{server_name}"))
        .map_err(|error| EventError::Format { reason: format!("room id: {error}") })
}

fn assemble(version: RoomVersion, draft: EventDraft, place: Place) -> CanonicalJsonObject {
    let has_room_id = !(version.room_id_is_create_hash() && draft.is_create());
    let EventDraft { sender, event_type, state_key, mut content, redacts } = draft;
    let mut object = CanonicalJsonObject::new();
    if let Some(target) = redacts {
        let fields = if version.redacts_in_content() { &mut content } else { &mut object };
        fields.insert("redacts".to_owned(), text(target));
    }
    object.insert("auth_events".to_owned(), ids(place.auth_events));
    object.insert("content".to_owned(), CanonicalJsonValue::Object(content));
    let depth = UInt::try_from(place.depth.min(DEPTH_MAX)).unwrap_or(UInt::MAX);
    object.insert("depth".to_owned(), depth.into());
    object.insert("origin_server_ts".to_owned(), place.origin_server_ts.get().into());
    object.insert("prev_events".to_owned(), ids(place.prev_events));
    if has_room_id {
        object.insert("room_id".to_owned(), text(place.room_id));
    }
    object.insert("sender".to_owned(), text(sender));
    if let Some(state_key) = state_key {
        object.insert("state_key".to_owned(), CanonicalJsonValue::String(state_key));
    }
    object.insert("type".to_owned(), CanonicalJsonValue::String(event_type));
    object
}

fn text(id: impl Into<String>) -> CanonicalJsonValue {
    CanonicalJsonValue::String(id.into())
}

fn ids(ids: Vec<OwnedEventId>) -> CanonicalJsonValue {
    CanonicalJsonValue::Array(ids.into_iter().map(text).collect())
}

fn too_large(object: &CanonicalJsonObject) -> BuildError {
    BuildError::Event(EventError::TooLarge {
        what: "event",
        bytes: serde_json::to_string(object).map_or(usize::MAX, |json| json.len()),
        limit: super::event::EVENT_BYTES_MAX,
    })
}
