//! The list of public rooms: largest first, in pages, searchable.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ropewalk::Failure;
use ruma::directory::{PublicRoomsChunk, PublicRoomsChunkInit, RoomTypeFilter};
use ruma::room::{JoinRuleKind, RoomType};
use ruma::{OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, RoomId, UInt};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::super::Refusal;
use super::super::room_error::RoomError;
use super::super::state_events;
use super::super::sync::question::ReadCaches;
use super::Directory;
use crate::storage::StorageError;
use crate::storage::databases::main::rooms::{self, PublicRoom};
use crate::storage::engine::Txn;

/// Rooms on a page if the client does not say, and at most.
const PAGE_ROOMS: usize = 50;
const PAGE_ROOMS_MAX: usize = 500;

/// The longest search text, in bytes; longer ones find nothing anyway.
const SEARCH_BYTES_MAX: usize = 512;

/// Which rooms to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// How many.
    pub(crate) limit: Option<UInt>,
    /// Where to go on: a token of an earlier page.
    pub(crate) since: Option<String>,
    /// Text to look for in names, topics and aliases.
    pub(crate) search: Option<String>,
    /// Types that rooms must have; empty: any.
    pub(crate) room_types: Vec<RoomTypeFilter>,
}

/// A page of the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) chunk: Vec<PublicRoomsChunk>,
    pub(crate) next_batch: Option<String>,
    pub(crate) prev_batch: Option<String>,
    /// How many rooms there are on all pages together, if nothing is searched for.
    pub(crate) total: UInt,
}

impl Directory {
    /// Returns a page of the list of public rooms.
    pub(crate) async fn public_rooms(&self, query: Query) -> Result<Page, Failure> {
        let caches = self.caches.clone();
        self.work.read(move |txn| Ok(public_rooms(txn, &caches, &query)?)).await
    }
}

/// A place in the list, between two rooms: right behind (or before) a room as it stood then. Rooms that
/// grow or shrink between two pages can be missed or come twice; nothing else moves.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Cursor {
    direction: Direction,
    joined_count: i64,
    room_id: OwnedRoomId,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Backwards,
    Forwards,
}

impl Cursor {
    fn parse(token: &str) -> Option<Self> {
        let (direction, rest) = token.split_at_checked(1)?;
        let direction = match direction {
            "b" => Direction::Backwards,
            "f" => Direction::Forwards,
            _ => return None,
        };
        let (joined_count, room_id) = rest.split_once('_')?;
        let joined_count = joined_count.parse().ok()?;
        Some(Self { direction, joined_count, room_id: RoomId::parse(room_id).ok()? })
    }

    fn token(direction: Direction, room: &PublicRoom) -> String {
        let letter = match direction {
            Direction::Backwards => 'b',
            Direction::Forwards => 'f',
        };
        format!("{letter}{}_{}", room.joined_count, room.room.room_id)
    }

    /// Whether a room lies beyond the cursor, in its direction.
    fn is_passed_by(&self, room: &PublicRoom) -> bool {
        let here = (Reverse(self.joined_count), &self.room_id);
        let there = (Reverse(room.joined_count), &room.room.room_id);
        match self.direction {
            Direction::Backwards => there < here,
            Direction::Forwards => there > here,
        }
    }
}

pub(super) fn public_rooms(
    txn: &Txn<'_>,
    caches: &ReadCaches,
    query: &Query,
) -> Result<Page, RoomError> {
    let limit = query.limit.map_or(PAGE_ROOMS, |limit| {
        usize::try_from(u64::from(limit)).unwrap_or(usize::MAX).clamp(1, PAGE_ROOMS_MAX)
    });
    let cursor = match &query.since {
        None => None,
        Some(token) => Some(Cursor::parse(token).ok_or_else(|| {
            Refusal::invalid_param(
                "`since` must be the next_batch or prev_batch of an earlier page",
            )
        })?),
    };
    let search = query.search.as_deref().map(str::trim).filter(|text| !text.is_empty());
    if search.is_some_and(|text| text.len() > SEARCH_BYTES_MAX) {
        return Err(Refusal::invalid_param(format!(
            "the search text is longer than {SEARCH_BYTES_MAX} bytes"
        ))
        .into());
    }
    let search = search.map(str::to_lowercase);

    let mut listed = rooms::public_rooms(txn)?;
    listed.sort_by(|a, b| {
        (Reverse(a.joined_count), &a.room.room_id).cmp(&(Reverse(b.joined_count), &b.room.room_id))
    });
    let total = listed.len();
    let backwards = cursor.as_ref().is_some_and(|cursor| cursor.direction == Direction::Backwards);
    if backwards {
        listed.reverse();
    }
    let mut page: Vec<(PublicRoom, PublicRoomsChunk)> = Vec::new();
    let mut is_cut = false;
    for room in listed {
        if cursor.as_ref().is_some_and(|cursor| !cursor.is_passed_by(&room)) {
            continue;
        }
        let chunk = describe(txn, caches, &room)?;
        if !is_reachable(&chunk) || !is_wanted(&chunk, search.as_deref(), &query.room_types) {
            continue;
        }
        if page.len() == limit {
            is_cut = true;
            break;
        }
        page.push((room, chunk));
    }
    if backwards {
        page.reverse();
    }
    // Where we come from there is something; where we go to, if the page was cut.
    let (has_before, has_after) =
        if backwards { (is_cut, true) } else { (cursor.is_some(), is_cut) };
    let edge = |room: Option<&(PublicRoom, PublicRoomsChunk)>, direction| {
        room.map(|(room, _)| Cursor::token(direction, room))
    };
    Ok(Page {
        prev_batch: edge(page.first().filter(|_| has_before), Direction::Backwards),
        next_batch: edge(page.last().filter(|_| has_after), Direction::Forwards),
        chunk: page.into_iter().map(|(_, chunk)| chunk).collect(),
        total: UInt::try_from(total).unwrap_or(UInt::MAX),
    })
}

/// Whether those who find the room in the list can do something with it: come in, knock, or read.
fn is_reachable(room: &PublicRoomsChunk) -> bool {
    room.num_joined_members > UInt::MIN
        && (room.world_readable
            || matches!(
                room.join_rule,
                JoinRuleKind::Public | JoinRuleKind::Knock | JoinRuleKind::KnockRestricted
            ))
}

fn is_wanted(room: &PublicRoomsChunk, search: Option<&str>, room_types: &[RoomTypeFilter]) -> bool {
    let has_type = room_types.is_empty()
        || room_types.iter().any(|wanted| *wanted == RoomTypeFilter::from(room.room_type.clone()));
    let has_text = search.is_none_or(|text| {
        let alias = room.canonical_alias.as_ref().map(|alias| alias.as_str());
        [room.name.as_deref(), room.topic.as_deref(), alias]
            .into_iter()
            .flatten()
            .any(|field| field.to_lowercase().contains(text))
    });
    has_type && has_text
}

/// Reads what the list shows of a room out of its state; what cannot be read is left out.
fn describe(
    txn: &Txn<'_>,
    caches: &ReadCaches,
    room: &PublicRoom,
) -> Result<PublicRoomsChunk, RoomError> {
    let mut chunk = PublicRoomsChunk::from(PublicRoomsChunkInit {
        num_joined_members: UInt::try_from(room.joined_count).unwrap_or_default(),
        room_id: room.room.room_id.clone(),
        world_readable: false,
        guest_can_join: false,
    });
    let field = |event_type: &str, name: &str| -> Result<Option<String>, StorageError> {
        let event = state_events::current(txn, caches, room.room.key, event_type)?;
        Ok(event.and_then(|event| text_in(event.content(), name)))
    };
    chunk.name = field("m.room.name", "name")?.filter(|name: &String| !name.is_empty());
    chunk.topic = field("m.room.topic", "topic")?;
    chunk.canonical_alias = parsed::<OwnedRoomAliasId>(field("m.room.canonical_alias", "alias")?);
    chunk.avatar_url = field("m.room.avatar", "url")?.map(OwnedMxcUri::from);
    chunk.room_type = field("m.room.create", "type")?.map(RoomType::from);
    chunk.guest_can_join =
        field("m.room.guest_access", "guest_access")?.as_deref() == Some("can_join");
    // A room without rules is closed.
    chunk.join_rule =
        field("m.room.join_rules", "join_rule")?.map_or(JoinRuleKind::Invite, JoinRuleKind::from);
    let visibility = field("m.room.history_visibility", "history_visibility")?;
    chunk.world_readable = visibility.as_deref() == Some("world_readable");
    Ok(chunk)
}

/// Returns a field of a content if it is text.
fn text_in(content: &str, name: &str) -> Option<String> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(content).ok()?;
    serde_json::from_str(fields.get(name)?.get()).ok()
}

fn parsed<T: DeserializeOwned>(text: Option<String>) -> Option<T> {
    text.and_then(|text| serde_json::from_value(serde_json::Value::String(text)).ok())
}
