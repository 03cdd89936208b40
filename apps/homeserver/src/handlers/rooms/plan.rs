//! What a `createRoom` request turns into: the events of the new room, in order.
//!
//! Pure but for the profiles, which are asked for one at a time. Whether the events are allowed is not
//! decided here: they go through the room's rules like all others.

use ruma::api::client::room::Visibility;
use ruma::api::client::room::create_room::v3::{Request, RoomPreset};
use ruma::api::error::ErrorKind;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, OwnedUserId, RoomAliasId,
    ServerName, UserId,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::member_events::{MemberDraft, Profile};
use super::super::room_error::RoomError;
use super::super::{Refusal, room_error};
use crate::model::canonical::parse_object;
use crate::model::room_version::UnsupportedRoomVersion;
use crate::model::{EventDraft, Membership, RoomVersion, StateMap};
use crate::storage::StorageError;

/// Events that a new room may begin with, invitations included: all of them are signed and written in
/// one go, while other writes wait.
const EVENTS_MAX: usize = 500;

/// Power of the people a `trusted_private_chat` begins with, in versions in which it is a number.
const CREATOR_LEVEL: i64 = 100;

/// Who makes a room, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maker<'a> {
    /// Who asks.
    pub(super) user_id: &'a UserId,
    /// This server.
    pub(super) server_name: &'a ServerName,
    /// The version of rooms that are made without naming one.
    pub(super) default_version: RoomVersion,
}

/// A room to be.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) version: RoomVersion,
    /// Content of the create event, but for what the server adds.
    pub(super) creation_content: CanonicalJsonObject,
    /// All other events, in order.
    pub(super) events: Vec<EventDraft>,
    /// The alias to give it.
    pub(super) alias: Option<OwnedRoomAliasId>,
    /// Whether the directory lists it.
    pub(super) is_public: bool,
}

/// Plans the room.
///
/// # Errors
///
/// [`Refusal`]s for what is wrong with the request; the first error of `profile_of`.
pub(super) fn plan(
    request: &Request,
    maker: Maker<'_>,
    profile_of: &mut dyn FnMut(&UserId) -> Result<Profile, StorageError>,
) -> Result<Plan, RoomError> {
    let version = version_of(request, maker)?;
    let preset = Preset::of(request)?;
    let invitees = invitees_of(request, maker)?;
    let alias = alias_of(request, maker)?;
    let mut initial_state = initial_state_of(request, maker.user_id)?;
    if initial_state.len() + invitees.len() > EVENTS_MAX {
        return Err(Refusal::invalid_param(format!(
            "a room can begin with {EVENTS_MAX} state events and invitations at most"
        ))
        .into());
    }

    let creation_content = creation_content(request, maker, version, preset, &invitees)?;
    let power_levels = match take(&mut initial_state, "m.room.power_levels") {
        Some(content) => content,
        None => power_levels_content(request, maker, version, preset, &invitees)?,
    };
    let state = |event_type: &str, content| {
        EventDraft::state(maker.user_id.to_owned(), event_type, "", content)
    };
    let profile = profile_of(maker.user_id)?;
    let mut events = vec![
        MemberDraft::new(maker.user_id, maker.user_id, Membership::Join).profile(profile).finish(),
        state("m.room.power_levels", power_levels),
    ];
    let given: StateMap<()> = initial_state
        .iter()
        .map(|draft| (&*draft.event_type, draft.state_key.as_deref().unwrap_or_default(), ()))
        .collect();
    let alias_content = alias.as_ref().map(|alias| json!({"alias": alias.as_str()}));
    for (event_type, content) in [
        ("m.room.canonical_alias", alias_content),
        ("m.room.join_rules", Some(json!({"join_rule": preset.join_rule()}))),
        ("m.room.history_visibility", Some(json!({"history_visibility": "shared"}))),
        ("m.room.guest_access", Some(json!({"guest_access": preset.guest_access()}))),
    ] {
        // What the request sets itself takes the place of what the preset would set.
        if let Some(content) = content
            && given.get(event_type, "").is_none()
        {
            events.push(state(event_type, canonical(content)?));
        }
    }
    events.append(&mut initial_state);
    if let Some(name) = &request.name {
        events.push(state("m.room.name", canonical(json!({"name": name}))?));
    }
    if let Some(topic) = &request.topic {
        let content = json!({"topic": topic, "m.topic": {"m.text": [{"body": topic}]}});
        events.push(state("m.room.topic", canonical(content)?));
    }
    for invitee in &invitees {
        let invite = MemberDraft::new(maker.user_id, invitee, Membership::Invite)
            .profile(profile_of(invitee)?)
            .direct(request.is_direct);
        events.push(invite.finish());
    }
    Ok(Plan {
        version,
        creation_content,
        events,
        alias,
        is_public: request.visibility == Visibility::Public,
    })
}

/// Returns how many people a request invites.
pub(crate) fn invite_count(request: &Request) -> usize {
    request.invite.len() + request.invite_3pid.len()
}

/// The choices that a preset bundles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Preset {
    Private,
    Public,
    TrustedPrivate,
}

impl Preset {
    fn of(request: &Request) -> Result<Self, Refusal> {
        match &request.preset {
            Some(RoomPreset::PrivateChat) => Ok(Self::Private),
            Some(RoomPreset::PublicChat) => Ok(Self::Public),
            Some(RoomPreset::TrustedPrivateChat) => Ok(Self::TrustedPrivate),
            Some(other) => Err(Refusal::invalid_param(format!(
                "{other:?} is no preset; there are private_chat, public_chat and trusted_private_chat"
            ))),
            None if request.visibility == Visibility::Public => Ok(Self::Public),
            None => Ok(Self::Private),
        }
    }

    fn join_rule(self) -> &'static str {
        match self {
            Self::Private | Self::TrustedPrivate => "invite",
            Self::Public => "public",
        }
    }

    fn guest_access(self) -> &'static str {
        match self {
            Self::Private | Self::TrustedPrivate => "can_join",
            Self::Public => "forbidden",
        }
    }
}

fn version_of(request: &Request, maker: Maker<'_>) -> Result<RoomVersion, Refusal> {
    match &request.room_version {
        None => Ok(maker.default_version),
        Some(asked) => asked.as_str().parse().map_err(|error: UnsupportedRoomVersion| {
            Refusal::new(ErrorKind::UnsupportedRoomVersion, error.to_string())
        }),
    }
}

/// Returns whom to invite: each once, and not the one who asks.
fn invitees_of(request: &Request, maker: Maker<'_>) -> Result<Vec<OwnedUserId>, Refusal> {
    if !request.invite_3pid.is_empty() {
        return Err(room_error::no_third_party_invites());
    }
    let mut invitees: Vec<OwnedUserId> = Vec::new();
    for user_id in &request.invite {
        room_error::check_local(user_id, maker.server_name)?;
        if user_id != maker.user_id && !invitees.contains(user_id) {
            invitees.push(user_id.clone());
        }
    }
    Ok(invitees)
}

fn alias_of(request: &Request, maker: Maker<'_>) -> Result<Option<OwnedRoomAliasId>, Refusal> {
    let Some(name) = &request.room_alias_name else { return Ok(None) };
    if name.is_empty()
        || name.contains(|c: char| c.is_whitespace() || matches!(c, ':' | '#' | '\0'))
    {
        return Err(Refusal::invalid_param(format!(
            "{name:?} is no alias name; it is the part between # and : of an alias, without spaces"
        )));
    }
    RoomAliasId::parse(format!("#{name}:{}", maker.server_name)).map(Some).map_err(|error| {
        Refusal::invalid_param(format!("the alias name {name:?} does not do: {error}"))
    })
}

fn initial_state_of(request: &Request, creator: &UserId) -> Result<Vec<EventDraft>, Refusal> {
    #[derive(Deserialize)]
    struct InitialState<'a> {
        #[serde(rename = "type")]
        event_type: String,
        #[serde(default)]
        state_key: String,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let mut drafts = Vec::with_capacity(request.initial_state.len());
    for (index, raw) in request.initial_state.iter().enumerate() {
        let entry: InitialState<'_> = serde_json::from_str(raw.json().get())
            .map_err(|error| Refusal::bad_json(format!("initial_state[{index}]: {error}")))?;
        if entry.event_type == "m.room.create" {
            return Err(Refusal::new(
                ErrorKind::InvalidRoomState,
                "m.room.create cannot be in initial_state; use creation_content",
            ));
        }
        let content = parse_object(entry.content.get()).map_err(|error| {
            Refusal::bad_json(format!("initial_state[{index}].content: {error}"))
        })?;
        drafts.push(EventDraft::state(
            creator.to_owned(),
            entry.event_type,
            entry.state_key,
            content,
        ));
    }
    Ok(drafts)
}

/// Takes the entry of that type and an empty state key out of the list; the last one counts.
fn take(drafts: &mut Vec<EventDraft>, event_type: &str) -> Option<CanonicalJsonObject> {
    let mut taken = None;
    drafts.retain_mut(|draft| {
        let matches = draft.event_type == event_type && draft.state_key.as_deref() == Some("");
        if matches {
            taken = Some(std::mem::take(&mut draft.content));
        }
        !matches
    });
    taken
}

fn creation_content(
    request: &Request,
    maker: Maker<'_>,
    version: RoomVersion,
    preset: Preset,
    invitees: &[OwnedUserId],
) -> Result<CanonicalJsonObject, Refusal> {
    let mut content = match &request.creation_content {
        Some(raw) => parse_object(raw.json().get())
            .map_err(|error| Refusal::bad_json(format!("creation_content: {error}")))?,
        None => CanonicalJsonObject::new(),
    };
    // These are the server's to set, where the version has them.
    content.remove("creator");
    content.remove("room_version");
    if version.creators_are_privileged() {
        let creators = additional_creators(&content, maker.user_id, preset, invitees)?;
        if creators.is_empty() {
            content.remove("additional_creators");
        } else {
            content.insert("additional_creators".to_owned(), CanonicalJsonValue::Array(creators));
        }
    }
    Ok(content)
}

/// Returns who shares the power of the creator: who was asked for and, in a trusted chat, who is invited.
fn additional_creators(
    content: &CanonicalJsonObject,
    creator: &UserId,
    preset: Preset,
    invitees: &[OwnedUserId],
) -> Result<Vec<CanonicalJsonValue>, Refusal> {
    let wrong =
        || Refusal::bad_json("creation_content.additional_creators must be a list of user ids");
    let mut creators: Vec<&str> = Vec::new();
    match content.get("additional_creators") {
        None => {}
        Some(CanonicalJsonValue::Array(given)) => {
            for value in given {
                let user_id = value.as_str().ok_or_else(wrong)?;
                <&UserId>::try_from(user_id).map_err(|_| wrong())?;
                creators.push(user_id);
            }
        }
        Some(_) => return Err(wrong()),
    }
    if preset == Preset::TrustedPrivate {
        creators.extend(invitees.iter().map(|user_id| user_id.as_str()));
    }
    let mut once: Vec<CanonicalJsonValue> = Vec::new();
    for user_id in creators {
        let value = text(user_id);
        if user_id != creator.as_str() && !once.contains(&value) {
            once.push(value);
        }
    }
    Ok(once)
}

fn power_levels_content(
    request: &Request,
    maker: Maker<'_>,
    version: RoomVersion,
    preset: Preset,
    invitees: &[OwnedUserId],
) -> Result<CanonicalJsonObject, Refusal> {
    let mut users = json!({});
    if !version.creators_are_privileged() {
        users[maker.user_id.as_str()] = CREATOR_LEVEL.into();
        if preset == Preset::TrustedPrivate {
            for user_id in invitees {
                users[user_id.as_str()] = CREATOR_LEVEL.into();
            }
        }
    }
    // Closing a room for good is for creators where these stand above everybody (room version 12).
    let tombstone = if version.creators_are_privileged() { 150 } else { 100 };
    let invite = if preset == Preset::Public { 50 } else { 0 };
    let mut content = canonical(json!({
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "invite": invite,
        "kick": 50,
        "redact": 50,
        "state_default": 50,
        "users": users,
        "users_default": 0,
    }))?;
    if let Some(raw) = &request.power_level_content_override {
        let given = parse_object(raw.json().get())
            .map_err(|error| Refusal::bad_json(format!("power_level_content_override: {error}")))?;
        content.extend(given);
    }
    Ok(content)
}

fn text(text: &str) -> CanonicalJsonValue {
    CanonicalJsonValue::String(text.to_owned())
}

fn canonical(value: Value) -> Result<CanonicalJsonObject, Refusal> {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => Ok(object),
        Ok(_) => Err(Refusal::bad_json("an event's content must be an object")),
        Err(error) => Err(Refusal::bad_json(error.to_string())),
    }
}
