//! Redaction: what is left of an event.
//!
//! Whether a redaction takes effect is looked up with the rows, in `storage::databases::main::redactions`.

use ruma::CanonicalJsonObject;
use ruma::canonical_json::redact_in_place;

use super::event::EventError;
use super::room_version::RoomVersion;

/// Returns what redaction leaves of a stored event, as canonical JSON.
///
/// # Errors
///
/// [`EventError::Format`] if the text is not an event.
pub fn redacted_json(version: RoomVersion, json: &str) -> Result<String, EventError> {
    let format = |reason: String| EventError::Format { reason };
    let mut object: CanonicalJsonObject =
        serde_json::from_str(json).map_err(|error| format(error.to_string()))?;
    // Nothing in it is signed, and what other servers write there is not theirs to show.
    object.remove("unsigned");
    redact_in_place(&mut object, &version.rules().redaction, None)
        .map_err(|error| format(error.to_string()))?;
    serde_json::to_string(&object).map_err(|error| format(error.to_string()))
}
