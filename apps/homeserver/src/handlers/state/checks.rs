//! State that the room's rules would let pass and that would do harm all the same.

use std::collections::BTreeSet;

use ruma::api::error::ErrorKind;
use ruma::events::room::server_acl::RoomServerAclEventContent;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, RoomAliasId, RoomId, ServerName, UserId};

use super::super::Refusal;
use super::super::room_error::{RoomError, check_local};
use crate::model::EventDraft;
use crate::storage::controllers::load;
use crate::storage::databases::main::{current_state, room_aliases, rooms};
use crate::storage::engine::Txn;

/// Checks what a client wants to set.
///
/// # Errors
///
/// `M_BAD_ALIAS` and `M_INVALID_PARAM` for aliases, `M_BAD_STATE` for an access list that would lock this
/// server out.
pub(super) fn check(
    txn: &Txn<'_>,
    server_name: &ServerName,
    room_id: &RoomId,
    draft: &EventDraft,
) -> Result<(), RoomError> {
    match (&*draft.event_type, draft.state_key.as_deref()) {
        ("m.room.canonical_alias", Some("")) => check_aliases(txn, server_name, room_id, draft),
        ("m.room.member", Some(target)) => Ok(check_member(server_name, target, &draft.content)?),
        ("m.room.server_acl", Some("")) => Ok(check_acl(server_name, &draft.content)?),
        _ => Ok(()),
    }
}

/// An invitation has to reach whoever is invited.
fn check_member(
    server_name: &ServerName,
    target: &str,
    content: &CanonicalJsonObject,
) -> Result<(), Refusal> {
    let target = <&UserId>::try_from(target)
        .map_err(|_| Refusal::bad_json("the state key of a member event is a user id"))?;
    match content.get("membership").and_then(CanonicalJsonValue::as_str) {
        Some("invite") => check_local(target, server_name),
        _ => Ok(()),
    }
}

/// An alias that is new in the event must stand for this room. Those that were there before may have
/// been deleted since: that must not keep others from changing the rest.
fn check_aliases(
    txn: &Txn<'_>,
    server_name: &ServerName,
    room_id: &RoomId,
    draft: &EventDraft,
) -> Result<(), RoomError> {
    let Some(room) = rooms::find(txn, room_id)? else { return Ok(()) };
    let before = match current_state::entry(txn, room.key, "m.room.canonical_alias", "")? {
        Some(event) => load::by_key(txn, event)?
            .pdu
            .content_as::<CanonicalJsonObject>()
            .map(|content| aliases_in(&content).unwrap_or_default())
            .unwrap_or_default(),
        None => BTreeSet::new(),
    };
    for alias in aliases_in(&draft.content)?.difference(&before) {
        let id = <&RoomAliasId>::try_from(alias.as_str()).map_err(|error| {
            Refusal::invalid_param(format!("{alias:?} is no room alias: {error}"))
        })?;
        let target = match id.server_name() == server_name {
            true => room_aliases::find(txn, id)?.map(|found| found.room_id),
            false => None,
        };
        if target.as_deref() != Some(room_id) {
            let message = format!("the alias {alias} does not stand for this room");
            return Err(Refusal::new(ErrorKind::BadAlias, message).into());
        }
    }
    Ok(())
}

fn aliases_in(content: &CanonicalJsonObject) -> Result<BTreeSet<String>, Refusal> {
    let mut found = BTreeSet::new();
    match content.get("alias") {
        None | Some(CanonicalJsonValue::Null) => {}
        // Some clients remove the alias by emptying it.
        Some(CanonicalJsonValue::String(alias)) if alias.is_empty() => {}
        Some(CanonicalJsonValue::String(alias)) => {
            found.insert(alias.clone());
        }
        Some(_) => return Err(Refusal::bad_json("`alias` must be a string")),
    }
    match content.get("alt_aliases") {
        None | Some(CanonicalJsonValue::Null) => {}
        Some(CanonicalJsonValue::Array(aliases)) => {
            for alias in aliases {
                let alias = alias.as_str();
                let alias = alias
                    .ok_or_else(|| Refusal::bad_json("`alt_aliases` must be a list of strings"))?;
                found.insert(alias.to_owned());
            }
        }
        Some(_) => return Err(Refusal::bad_json("`alt_aliases` must be a list of strings")),
    }
    Ok(found)
}

fn check_acl(server_name: &ServerName, content: &CanonicalJsonObject) -> Result<(), Refusal> {
    let text =
        serde_json::to_string(content).map_err(|error| Refusal::bad_json(error.to_string()))?;
    let acl: RoomServerAclEventContent = serde_json::from_str(&text)
        .map_err(|error| Refusal::bad_json(format!("m.room.server_acl: {error}")))?;
    if acl.is_allowed(server_name) {
        Ok(())
    } else {
        Err(Refusal::new(
            ErrorKind::BadState,
            format!("this access list would lock {server_name} itself out of the room"),
        ))
    }
}
