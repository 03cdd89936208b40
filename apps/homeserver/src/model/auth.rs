//! Authorisation: which events authorise another, and whether they do.
//!
//! The rules are ruma's. This module gives them our event value, makes ruma's plain-text errors one
//! type, and minds the create event of version 12, which is in no event's auth events and which the
//! checks must be shown all the same.

use std::sync::Arc;

use ruma::events::{StateEventType, TimelineEventType};
use ruma::state_res::{
    auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
};
use ruma::{EventId, OwnedEventId, UserId};
use serde_json::value::RawValue;

use super::event::Pdu;
use super::room_version::RoomVersion;

/// An event is not allowed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Forbidden {
    /// Which rule it breaks.
    pub reason: String,
}

impl Forbidden {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// The state that an event must be authorised by: (type, state key), in ruma's order.
///
/// # Errors
///
/// [`Forbidden`] if the event's own content cannot be read where the selection depends on it.
pub fn auth_keys(
    version: RoomVersion,
    event_type: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
) -> Result<Vec<(StateEventType, String)>, Forbidden> {
    let event_type = TimelineEventType::from(event_type);
    let rules = &version.rules().authorization;
    auth_types_for_event(&event_type, sender, state_key, content, rules).map_err(Forbidden::new)
}

/// Selects the auth events for a new event out of the room's state at that point.
///
/// `state_at` is asked for a type and a state key. Nothing is added beyond the selection, because
/// surplus entries would get the event rejected.
///
/// # Errors
///
/// [`Forbidden`] as for [`auth_keys`].
pub fn select_auth_events(
    version: RoomVersion,
    event_type: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    mut state_at: impl FnMut(&str, &str) -> Option<OwnedEventId>,
) -> Result<Vec<OwnedEventId>, Forbidden> {
    let keys = auth_keys(version, event_type, sender, state_key, content)?;
    Ok(keys.iter().filter_map(|(kind, key)| state_at(&kind.to_string(), key)).collect())
}

/// Checks the rules that need no state: the create event's own, and the list of auth events.
///
/// Once per event. `event_by_id` must find every auth event with its flags, and in version 12 the
/// create event, which is named by the room's id.
///
/// # Errors
///
/// [`Forbidden`]: reject the event.
pub fn check_without_state(
    version: RoomVersion,
    event: &Pdu,
    event_by_id: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<(), Forbidden> {
    let rules = &version.rules().authorization;
    check_state_independent_auth_rules(rules, event, event_by_id).map_err(Forbidden::new)
}

/// Checks the rules that depend on state: the state before the event (else reject), or the room's
/// current state (else soft-fail).
///
/// `state_at` is asked for a type and a state key; for `m.room.create` it must answer in all room
/// versions.
///
/// # Errors
///
/// [`Forbidden`] with the rule that was broken.
pub fn check_against_state(
    version: RoomVersion,
    event: &Pdu,
    state_at: impl Fn(&str, &str) -> Option<Arc<Pdu>>,
) -> Result<(), Forbidden> {
    let rules = &version.rules().authorization;
    check_state_dependent_auth_rules(rules, event, |kind, key| state_at(&kind.to_string(), key))
        .map_err(Forbidden::new)
}

/// Checks the rules that depend on state against the event's own auth events.
///
/// `create` is the room's create event; version 12 does not list it among the auth events.
///
/// # Errors
///
/// [`Forbidden`]: reject the event.
pub fn check_against_auth_events(
    version: RoomVersion,
    event: &Pdu,
    create: &Arc<Pdu>,
    auth_events: &[Arc<Pdu>],
) -> Result<(), Forbidden> {
    check_against_state(version, event, |kind, key| {
        if kind == "m.room.create" && key.is_empty() {
            return Some(create.clone());
        }
        auth_events.iter().find(|candidate| candidate.is_state(kind, key)).cloned()
    })
}
