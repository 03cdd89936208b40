//! Filters, compiled: which rooms and events a client wants, and in which form.
//!
//! Made once from ruma's parsed definition and then asked for each event. Nothing here reads a
//! database; an event is described by [`EventFacts`].

use std::collections::BTreeSet;

use ruma::api::client::filter::{
    EventFormat, Filter, FilterDefinition, LazyLoadOptions, RoomEventFilter, UrlFilter,
};
use ruma::{OwnedRoomId, RoomId, UserId};

use super::fields::EventFields;

/// How many timeline events a room shows unless the filter says otherwise.
const TIMELINE_LIMIT_DEFAULT: usize = 10;

/// The most timeline events of one room in one response, whatever the filter says: more comes by
/// paging, which can be stopped.
const TIMELINE_LIMIT_MAX: usize = 100;

/// The most events of any other kind in one list.
const LIST_LIMIT_MAX: usize = 100_000;

/// What a filter may ask about an event.
#[derive(Clone, Copy)]
pub(crate) struct EventFacts<'a> {
    /// The event's type.
    pub(crate) event_type: &'a str,
    /// Who sent it; `None` for events without a sender, such as account data.
    pub(crate) sender: Option<&'a str>,
    /// The room it is in, if it is in one.
    pub(crate) room_id: Option<&'a RoomId>,
    /// Whether its content has a `url` that is a string.
    pub(crate) has_url: bool,
}

/// Which events of one kind (timeline, state, account data and so on) are wanted.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct EventFilter {
    types: Option<Vec<TypePattern>>,
    not_types: Vec<TypePattern>,
    senders: Option<BTreeSet<String>>,
    not_senders: BTreeSet<String>,
    rooms: RoomChoice,
    has_url: Option<bool>,
    limit: Option<usize>,
}

impl EventFilter {
    /// Whether the event is wanted. What is excluded stays out even if it is included as well.
    pub(crate) fn admits(&self, event: EventFacts<'_>) -> bool {
        if self.admits_all() {
            return true;
        }
        let matches = |patterns: &[TypePattern]| {
            patterns.iter().any(|pattern| pattern.matches(event.event_type))
        };
        if matches(&self.not_types) || self.types.as_deref().is_some_and(|some| !matches(some)) {
            return false;
        }
        let sender_wanted = match event.sender {
            Some(sender) => {
                !self.not_senders.contains(sender)
                    && self.senders.as_ref().is_none_or(|senders| senders.contains(sender))
            }
            None => self.senders.is_none(),
        };
        sender_wanted
            && event.room_id.is_none_or(|room_id| self.rooms.admits(room_id))
            && self.has_url.is_none_or(|wanted| wanted == event.has_url)
    }

    /// Whether every event is wanted, so that none need be asked about.
    pub(crate) fn admits_all(&self) -> bool {
        self.types.is_none()
            && self.not_types.is_empty()
            && self.senders.is_none()
            && self.not_senders.is_empty()
            && self.rooms == RoomChoice::default()
            && self.has_url.is_none()
    }

    /// Whether an answer depends on whether contents have a `url`.
    pub(crate) fn asks_about_urls(&self) -> bool {
        self.has_url.is_some()
    }

    /// The most events wanted in a list that is not a timeline.
    pub(crate) fn list_limit(&self) -> usize {
        self.limit.unwrap_or(LIST_LIMIT_MAX).min(LIST_LIMIT_MAX)
    }
}

impl From<&RoomEventFilter> for EventFilter {
    fn from(filter: &RoomEventFilter) -> Self {
        Self {
            types: filter.types.as_deref().map(TypePattern::list),
            not_types: TypePattern::list(&filter.not_types),
            senders: filter.senders.as_deref().map(user_ids),
            not_senders: user_ids(&filter.not_senders),
            rooms: RoomChoice::new(filter.rooms.as_deref(), &filter.not_rooms),
            has_url: filter.url_filter.map(|wanted| matches!(wanted, UrlFilter::EventsWithUrl)),
            limit: filter.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        }
    }
}

impl From<&Filter> for EventFilter {
    fn from(filter: &Filter) -> Self {
        Self {
            types: filter.types.as_deref().map(TypePattern::list),
            not_types: TypePattern::list(&filter.not_types),
            senders: filter.senders.as_deref().map(user_ids),
            not_senders: user_ids(&filter.not_senders),
            limit: filter.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            ..Self::default()
        }
    }
}

fn user_ids(users: &[impl AsRef<UserId>]) -> BTreeSet<String> {
    users.iter().map(|user| user.as_ref().to_string()).collect()
}

/// Which rooms are wanted.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct RoomChoice {
    only: Option<BTreeSet<OwnedRoomId>>,
    not: BTreeSet<OwnedRoomId>,
}

impl RoomChoice {
    fn new(only: Option<&[OwnedRoomId]>, not: &[OwnedRoomId]) -> Self {
        Self {
            only: only.map(|rooms| rooms.iter().cloned().collect()),
            not: not.iter().cloned().collect(),
        }
    }

    fn admits(&self, room_id: &RoomId) -> bool {
        !self.not.contains(room_id) && self.only.as_ref().is_none_or(|only| only.contains(room_id))
    }
}

/// An event type in which `*` stands for any text, even none.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct TypePattern {
    /// What stands between the asterisks: one part means that there is none.
    parts: Vec<String>,
}

impl TypePattern {
    fn list(patterns: &[String]) -> Vec<Self> {
        patterns
            .iter()
            .map(|pattern| Self { parts: pattern.split('*').map(str::to_owned).collect() })
            .collect()
    }

    fn matches(&self, event_type: &str) -> bool {
        let (first, rest) = match self.parts.split_first() {
            Some((only, [])) => return only == event_type,
            Some(parts) => parts,
            None => return event_type.is_empty(),
        };
        let Some(mut left) = event_type.strip_prefix(first.as_str()) else { return false };
        let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
        // The leftmost place for each part leaves the most text for those behind it.
        for part in middle {
            match left.find(part.as_str()) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(last.as_str())
    }
}

/// Which members come with a room's state.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum Members {
    /// All of them.
    #[default]
    All,
    /// Those who sent something in the timeline, unless this device has them already.
    Lazy,
    /// Those who sent something in the timeline, each time again.
    LazyRedundant,
}

impl Members {
    /// Whether members are left out until they say something.
    pub(crate) fn is_lazy(self) -> bool {
        self != Self::All
    }
}

impl From<LazyLoadOptions> for Members {
    fn from(options: LazyLoadOptions) -> Self {
        match options {
            LazyLoadOptions::Disabled => Self::All,
            LazyLoadOptions::Enabled { include_redundant_members: false } => Self::Lazy,
            LazyLoadOptions::Enabled { include_redundant_members: true } => Self::LazyRedundant,
        }
    }
}

/// A whole `/sync` filter.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct SyncFilter {
    rooms: RoomChoice,
    /// Whether rooms are shown that the user has left.
    pub(crate) include_leave: bool,
    /// Timeline events.
    pub(crate) timeline: EventFilter,
    /// State events outside the timeline.
    pub(crate) state: EventFilter,
    /// Typing and receipts.
    pub(crate) ephemeral: EventFilter,
    /// Account data of rooms.
    pub(crate) room_account_data: EventFilter,
    /// Account data outside rooms.
    pub(crate) account_data: EventFilter,
    /// Which members come with the state.
    pub(crate) members: Members,
    /// The form of events.
    pub(crate) form: EventForm,
}

/// The form in which a client wants events.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct EventForm {
    /// As they travel between servers, rather than as clients usually see them.
    pub(crate) federation: bool,
    /// Only these fields, if any are named.
    pub(crate) fields: Option<EventFields>,
}

impl SyncFilter {
    /// Whether anything of this room is wanted.
    pub(crate) fn admits_room(&self, room_id: &RoomId) -> bool {
        self.rooms.admits(room_id)
    }

    /// The most timeline events of a room in one response.
    pub(crate) fn timeline_limit(&self) -> usize {
        self.timeline.limit.unwrap_or(TIMELINE_LIMIT_DEFAULT).min(TIMELINE_LIMIT_MAX)
    }
}

impl From<&FilterDefinition> for SyncFilter {
    fn from(definition: &FilterDefinition) -> Self {
        let room = &definition.room;
        Self {
            rooms: RoomChoice::new(room.rooms.as_deref(), &room.not_rooms),
            include_leave: room.include_leave,
            timeline: (&room.timeline).into(),
            state: (&room.state).into(),
            ephemeral: (&room.ephemeral).into(),
            room_account_data: (&room.account_data).into(),
            account_data: (&definition.account_data).into(),
            members: room.state.lazy_load_options.into(),
            form: EventForm {
                federation: definition.event_format == EventFormat::Federation,
                fields: definition.event_fields.as_deref().map(EventFields::new),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn filter(definition: Value) -> EventFilter {
        (&serde_json::from_value::<RoomEventFilter>(definition).unwrap()).into()
    }

    fn sync_filter(definition: Value) -> SyncFilter {
        (&serde_json::from_value::<FilterDefinition>(definition).unwrap()).into()
    }

    fn message(has_url: bool) -> EventFacts<'static> {
        EventFacts {
            event_type: "m.room.message",
            sender: Some("@anna:hs"),
            room_id: Some(<&RoomId>::try_from("!r:hs").unwrap()),
            has_url,
        }
    }

    #[test]
    fn event_filters_follow_the_specification() {
        for (why, definition, admitted) in [
            ("nothing asked", json!({}), true),
            ("its type", json!({"types": ["m.room.name", "m.room.message"]}), true),
            ("another type", json!({"types": ["m.room.name"]}), false),
            ("no type at all", json!({"types": []}), false),
            ("its type excluded", json!({"not_types": ["m.room.message"]}), false),
            ("exclusion wins", json!({"types": ["m.*"], "not_types": ["m.room.message"]}), false),
            ("a wildcard at the end", json!({"types": ["m.room.*"]}), true),
            ("a wildcard in the middle", json!({"types": ["m.*.message"]}), true),
            ("a wildcard at the start", json!({"types": ["*message"]}), true),
            ("only a wildcard", json!({"types": ["*"]}), true),
            ("two wildcards", json!({"types": ["*room*"]}), true),
            ("wildcards may not overlap", json!({"types": ["m.room.mess*ssage"]}), false),
            ("a wildcard may stand for nothing", json!({"types": ["m.room.message*"]}), true),
            ("a prefix is no match", json!({"types": ["m.room"]}), false),
            ("its sender", json!({"senders": ["@anna:hs"]}), true),
            ("another sender", json!({"senders": ["@bert:hs"]}), false),
            ("no sender at all", json!({"senders": []}), false),
            ("its sender excluded", json!({"not_senders": ["@anna:hs"]}), false),
            (
                "exclusion of senders wins",
                json!({"senders": ["@anna:hs"], "not_senders": ["@anna:hs"]}),
                false,
            ),
            ("its room", json!({"rooms": ["!r:hs"]}), true),
            ("another room", json!({"rooms": ["!s:hs"]}), false),
            ("its room excluded", json!({"not_rooms": ["!r:hs"], "rooms": ["!r:hs"]}), false),
            ("with a url", json!({"contains_url": true}), false),
            ("without a url", json!({"contains_url": false}), true),
        ] {
            assert_eq!(
                filter(definition.clone()).admits(message(false)),
                admitted,
                "{why}: {definition}"
            );
        }
        assert!(filter(json!({"contains_url": true})).admits(message(true)));
        assert!(!filter(json!({"contains_url": false})).admits(message(true)));
    }

    #[test]
    fn events_without_a_sender_pass_unless_senders_are_listed() {
        let tag = EventFacts { event_type: "m.tag", sender: None, room_id: None, has_url: false };
        assert!(filter(json!({"not_senders": ["@anna:hs"], "rooms": ["!r:hs"]})).admits(tag));
        assert!(!filter(json!({"senders": ["@anna:hs"]})).admits(tag));
    }

    #[test]
    fn limits_have_bounds() {
        assert_eq!(sync_filter(json!({})).timeline_limit(), 10);
        let limited = |limit: u64| sync_filter(json!({"room": {"timeline": {"limit": limit}}}));
        assert_eq!(limited(0).timeline_limit(), 0);
        assert_eq!(limited(50).timeline_limit(), 50);
        assert_eq!(limited(1 << 50).timeline_limit(), TIMELINE_LIMIT_MAX);
        assert_eq!(filter(json!({"limit": 3})).list_limit(), 3);
        assert_eq!(filter(json!({})).list_limit(), LIST_LIMIT_MAX);
    }

    #[test]
    fn a_whole_filter_is_read() {
        let filter = sync_filter(json!({
            "event_format": "federation",
            "event_fields": ["type", "content.body"],
            "room": {
                "include_leave": true,
                "rooms": ["!r:hs", "!s:hs"],
                "not_rooms": ["!s:hs"],
                "state": {"lazy_load_members": true, "include_redundant_members": true},
            },
        }));
        assert!(filter.include_leave && filter.form.federation && filter.form.fields.is_some());
        assert_eq!(filter.members, Members::LazyRedundant);
        let room = |id| filter.admits_room(<&RoomId>::try_from(id).unwrap());
        assert!(room("!r:hs") && !room("!s:hs") && !room("!t:hs"));

        let lazy = sync_filter(json!({"room": {"state": {"lazy_load_members": true}}}));
        assert_eq!(lazy.members, Members::Lazy);
        assert!(lazy.members.is_lazy() && !Members::All.is_lazy());
        assert_eq!(sync_filter(json!({})), SyncFilter::default());
    }

    #[test]
    fn what_a_filter_asks_is_known_beforehand() {
        assert!(filter(json!({"limit": 1})).admits_all());
        assert!(filter(json!({"contains_url": true})).asks_about_urls());
    }
}
