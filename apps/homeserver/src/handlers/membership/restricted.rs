//! Joins of restricted rooms: who may come in because he is in another room, and who vouches for him.

use ruma::{OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::Refusal;
use super::super::room_error::RoomError;
use crate::model::{Action, Membership, PowerLevels};
use crate::storage::controllers::load;
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::databases::main::{current_state, memberships};
use crate::storage::engine::Txn;

/// Returns the user of ours who lets `joiner` into a restricted room; `None` if the room is not one.
///
/// # Errors
///
/// `M_FORBIDDEN` if the joiner is in none of the rooms that open this one, or if no user of ours could
/// have invited him.
pub(super) fn authorising_user(
    txn: &Txn<'_>,
    room: &Room,
    joiner: &UserId,
) -> Result<Option<OwnedUserId>, RoomError> {
    let Some(rules) = current_state::entry(txn, room.key, "m.room.join_rules", "")? else {
        return Ok(None);
    };
    let rules = load::by_key(txn, rules)?.pdu;
    let rules = JoinRules::read(rules.content());
    let authorization = &room.version.rules().authorization;
    let is_restricted = match rules.join_rule.as_deref() {
        Some("restricted") => authorization.restricted_join_rule,
        Some("knock_restricted") => authorization.knock_restricted_join_rule,
        _ => false,
    };
    if !is_restricted {
        return Ok(None);
    }
    for other in &rules.opened_by {
        let Ok(other) = <&RoomId>::try_from(other.as_str()) else { continue };
        let Some(other) = rooms::find(txn, other)? else { continue };
        let membership = current_state::membership(txn, other.key, joiner)?;
        if membership.as_deref() == Some(Membership::Join.as_str()) {
            return voucher(txn, room).map(Some);
        }
    }
    Err(Refusal::forbidden(
        "this room is open to members of certain rooms, and you are in none of them",
    )
    .into())
}

/// Returns the first of our users in the room who may invite.
fn voucher(txn: &Txn<'_>, room: &Room) -> Result<OwnedUserId, RoomError> {
    let event = |event_type: &str| {
        current_state::entry(txn, room.key, event_type, "")?
            .map(|key| load::by_key(txn, key))
            .transpose()
    };
    if let Some(create) = event("m.room.create")? {
        let power_levels = event("m.room.power_levels")?.map(|event| event.pdu);
        let levels = PowerLevels::new(room.version, &create.pdu, power_levels)?;
        for user_id in memberships::local_members(txn, room.key, Membership::Join.as_str())? {
            if levels.allow(&user_id, Action::Invite)? {
                return Ok(user_id);
            }
        }
    }
    Err(Refusal::forbidden("nobody on this server can let you into this room").into())
}

/// What a join rules event says; leniently read.
#[derive(Debug, Default)]
struct JoinRules {
    join_rule: Option<String>,
    opened_by: Vec<String>,
}

impl JoinRules {
    fn read(content: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, default)]
            join_rule: Option<&'a RawValue>,
            #[serde(borrow, default)]
            allow: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Condition {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            room_id: Option<String>,
        }
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(content.get()) else {
            return Self::default();
        };
        let conditions: Vec<Box<RawValue>> = fields
            .allow
            .and_then(|allow| serde_json::from_str(allow.get()).ok())
            .unwrap_or_default();
        let opened_by = conditions
            .iter()
            .filter_map(|condition| serde_json::from_str::<Condition>(condition.get()).ok())
            .filter(|condition| condition.kind == "m.room_membership")
            .filter_map(|condition| condition.room_id)
            .collect();
        let join_rule = fields.join_rule.and_then(|rule| serde_json::from_str(rule.get()).ok());
        Self { join_rule, opened_by }
    }
}
