//! Redaction: what is left of an event, and whether a redaction takes effect.

use ruma::CanonicalJsonObject;
use ruma::canonical_json::redact_in_place;

use super::auth::Forbidden;
use super::event::{EventError, Pdu};
use super::power::{Action, PowerLevels};
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

/// Returns whether a redaction that was accepted takes effect on its target.
///
/// It does if its sender may redact what others wrote, or comes from the server of the target's
/// sender. Create events stay, and so does anything in another room. The levels are those at the
/// redaction.
///
/// # Errors
///
/// [`Forbidden`] if the room's power levels cannot be read.
pub fn takes_effect(
    version: RoomVersion,
    redaction: &Pdu,
    target: &Pdu,
    levels: &PowerLevels,
) -> Result<bool, Forbidden> {
    if redaction.redacts(version) != Some(target.event_id())
        || redaction.room_id() != target.room_id()
        || redaction.flags().rejected
        || target.flags().rejected
        || target.event_type() == "m.room.create"
    {
        return Ok(false);
    }
    if redaction.sender().server_name() == target.sender().server_name() {
        return Ok(true);
    }
    levels.allow(redaction.sender(), Action::Redact)
}
