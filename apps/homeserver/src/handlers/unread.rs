//! How many events of a room somebody has not read and wants to be told of, by his push rules.
//!
//! Counted when it is asked for, from the newest event back to what he read or said last, and kept, so
//! that the next time only what is new is counted. What he says himself he has read.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ruma::power_levels::NotificationPowerLevels;
use ruma::push::{FlattenedJson, PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset};
use ruma::room_version_rules::RoomPowerLevelsRules;
use ruma::serde::Raw;
use ruma::{Int, OwnedUserId, RoomId, UInt, UserId};
use serde_json::Value;

use super::generations::GenerationCache;
use super::push_rules;
use super::rendered::{RenderedEvent, Renderer, content_of};
use super::sync::timeline::Placed;
use crate::storage::StorageError;
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::databases::main::{current_state, receipts, shown_events};
use crate::storage::engine::Txn;
use crate::storage::keys::{EventKey, RoomKey};

/// How many counts, and how many users' rules, one generation remembers; some 300 bytes and some 6 KiB
/// each.
const GENERATION_COUNTS: usize = 20_000;
const GENERATION_RULES: usize = 500;

/// The most events looked at for one room. Beyond that a count says "at least".
const LOOKED_AT_MAX: usize = 200;

/// Events looked at in the first round: who takes part in a room finds something of his own there.
const FIRST_ROUND: usize = 8;

/// How many events wait to be read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Unread {
    /// Those that the reader wants to be told of.
    pub(crate) notify_count: u64,
    /// Those of them that are to stand out.
    pub(crate) highlight_count: u64,
}

impl Unread {
    fn plus(self, other: Self) -> Self {
        Self {
            notify_count: self.notify_count + other.notify_count,
            highlight_count: self.highlight_count + other.highlight_count,
        }
    }
}

/// A count, with what it takes to go on counting.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    /// What has been read: the count begins behind it.
    read: EventKey,
    /// Up to where it reaches.
    upto: i64,
    /// The position of the receipts at which that was so.
    receipts_at: i64,
    /// The position of the push rules that were used.
    rules_at: i64,
    rules: Arc<Ruleset>,
    /// The room as the rules see it; none while nobody else has said anything.
    room: Option<Arc<PushConditionRoomCtx>>,
    /// The count.
    pub(crate) unread: Unread,
}

/// Counts and rules that were needed lately.
#[derive(Debug)]
pub(crate) struct UnreadCache {
    counts: GenerationCache<(OwnedUserId, RoomKey), Arc<Counted>>,
    rules: GenerationCache<(OwnedUserId, i64), Arc<Ruleset>>,
}

impl Default for UnreadCache {
    fn default() -> Self {
        Self {
            counts: GenerationCache::new(GENERATION_COUNTS),
            rules: GenerationCache::new(GENERATION_RULES),
        }
    }
}

impl UnreadCache {
    /// Counts on from memory, with events that follow one another. `None` if that takes the database.
    ///
    /// `reaches_from` says behind which position `events` are complete.
    pub(crate) fn count_on<'e>(
        &self,
        reader: &UserId,
        room: RoomKey,
        (reaches_from, upto): (i64, i64),
        events: impl Iterator<Item = &'e Placed>,
    ) -> Option<Unread> {
        let key = (reader.to_owned(), room);
        let known = self.counts.find(&key)?;
        if known.upto >= upto {
            return Some(known.unread);
        }
        if known.upto < reaches_from {
            return None;
        }
        let mut counted = Counted { upto, ..(*known).clone() };
        for placed in events.filter(|placed| placed.event.key.0 > known.upto) {
            let event = &placed.event;
            if &*event.event_type == "m.room.power_levels" {
                return None;
            }
            if *event.sender == *reader.as_str() {
                counted.unread = Unread::default();
                counted.read = event.key;
            } else {
                let room = counted.room.as_ref()?;
                counted.unread = counted.unread.plus(weigh(&counted.rules, room, event));
            }
        }
        let unread = counted.unread;
        self.counts.keep(key, Arc::new(counted), 1);
        Some(unread)
    }
}

/// Counts in one transaction, for one reader.
pub(crate) struct Counter<'t, 'c> {
    pub(crate) txn: &'t Txn<'c>,
    pub(crate) cache: &'t UnreadCache,
    pub(crate) reader: &'t UserId,
    /// Up to which event to count.
    pub(crate) upto: i64,
    /// The positions of receipts and push rules.
    pub(crate) receipts_at: i64,
    /// See above.
    pub(crate) rules_at: i64,
}

impl Counter<'_, '_> {
    /// Counts what the reader has not read of a room; `joined` is the event that made him a member.
    pub(crate) fn count(
        &self,
        room: RoomKey,
        room_id: &RoomId,
        joined: EventKey,
        renderer: &Renderer<'_, '_>,
    ) -> Result<Unread, StorageError> {
        let key = (self.reader.to_owned(), room);
        let known = self.cache.counts.find(&key).filter(|known| known.rules_at == self.rules_at);
        let read = match &known {
            Some(known) if known.receipts_at == self.receipts_at => known.read,
            _ => receipts::read_upto(self.txn, room_id, self.reader)?.unwrap_or(joined),
        };
        let known = known.filter(|known| known.read >= read);
        if let Some(known) = known.as_ref().filter(|known| known.upto >= self.upto) {
            return Ok(known.unread);
        }
        let rules = match &known {
            Some(known) => Arc::clone(&known.rules),
            None => self.rules()?,
        };
        let floor = known.as_ref().map_or(read.0, |known| known.upto);
        let mut counted = Counted {
            read: known.as_ref().map_or(read, |known| known.read),
            upto: self.upto,
            receipts_at: self.receipts_at,
            rules_at: self.rules_at,
            rules,
            room: None,
            unread: known.as_ref().map(|known| known.unread).unwrap_or_default(),
        };
        let own = self.walk_back(room, floor, renderer, &mut counted)?;
        if let Some(own) = own {
            counted.read = own;
        }
        let unread = counted.unread;
        if counted.room.is_none() {
            counted.room = known.and_then(|known| known.room.clone());
        }
        self.cache.counts.keep(key, Arc::new(counted), 1);
        Ok(unread)
    }

    /// Adds to the count what lies above `floor`, newest first. Returns the reader's own event at which
    /// the walk ended; what was counted below it does not count.
    fn walk_back(
        &self,
        room: RoomKey,
        floor: i64,
        renderer: &Renderer<'_, '_>,
        counted: &mut Counted,
    ) -> Result<Option<EventKey>, StorageError> {
        let mut from = self.upto;
        let mut looked_at = 0;
        let mut found = Unread::default();
        let mut own: Option<EventKey> = None;
        while own.is_none() && looked_at < LOOKED_AT_MAX {
            let round = if looked_at == 0 { FIRST_ROUND } else { LOOKED_AT_MAX - looked_at };
            let mut others: Vec<Arc<RenderedEvent>> = Vec::new();
            let mut row_count = 0;
            shown_events::newest_by_arrival(self.txn, room, floor, from, round, |row| {
                row_count += 1;
                from = row.key()?.0 - 1;
                if own.is_some() {
                    return Ok(());
                }
                if row.sender()? == self.reader.as_str() {
                    own = Some(row.key()?);
                } else {
                    others.extend(renderer.render(&row)?);
                }
                Ok(())
            })?;
            if !others.is_empty() && counted.room.is_none() {
                counted.room = Some(Arc::new(self.room_as_rules_see_it(room)?));
            }
            if let Some(room) = &counted.room {
                for event in &others {
                    found = found.plus(weigh(&counted.rules, room, event));
                }
            }
            looked_at += row_count;
            if row_count < round {
                break;
            }
        }
        let before = if own.is_some() { Unread::default() } else { counted.unread };
        counted.unread = before.plus(found);
        Ok(own)
    }

    fn rules(&self) -> Result<Arc<Ruleset>, StorageError> {
        let key = (self.reader.to_owned(), self.rules_at);
        if let Some(rules) = self.cache.rules.find(&key) {
            return Ok(rules);
        }
        let rules = Arc::new(push_rules::of_user(self.txn, self.reader)?);
        self.cache.rules.keep(key, Arc::clone(&rules), 1);
        Ok(rules)
    }

    fn room_as_rules_see_it(&self, key: RoomKey) -> Result<PushConditionRoomCtx, StorageError> {
        let room = rooms::by_key(self.txn, key)?;
        let members = current_state::member_count(self.txn, key, "join")?;
        let own = self.content(key, "m.room.member", self.reader.as_str())?;
        let name = own["displayname"].as_str().unwrap_or_default().to_owned();
        let members = UInt::try_from(members).unwrap_or_default();
        let context =
            PushConditionRoomCtx::new(room.room_id.clone(), members, self.reader.to_owned(), name);
        Ok(context.with_power_levels(self.power_levels(&room)?))
    }

    /// Reads who may notify the whole room. Creators whom nothing can stop are given the highest level.
    fn power_levels(&self, room: &Room) -> Result<PushConditionPowerLevelsCtx, StorageError> {
        let levels = self.content(room.key, "m.room.power_levels", "")?;
        let number = |value: &Value| serde_json::from_value::<Int>(value.clone()).ok();
        let mut users: std::collections::BTreeMap<OwnedUserId, Int> = levels["users"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(user_id, level)| {
                Some((OwnedUserId::try_from(user_id.as_str()).ok()?, number(level)?))
            })
            .collect();
        if room.version.creators_are_privileged() {
            users.insert(room.creator.clone(), Int::MAX);
            let create = self.content(room.key, "m.room.create", "")?;
            let others = create["additional_creators"].as_array().into_iter().flatten();
            let others = others.filter_map(|user_id| user_id.as_str()?.try_into().ok());
            users.extend(others.map(|user_id| (user_id, Int::MAX)));
        } else if levels.is_null() {
            users.insert(room.creator.clone(), Int::from(100));
        }
        let mut notifications = NotificationPowerLevels::new();
        if let Some(level) = number(&levels["notifications"]["room"]) {
            notifications.room = level;
        }
        let users_default = number(&levels["users_default"]).unwrap_or_default();
        let rules = RoomPowerLevelsRules::new(&room.version.rules().authorization, None);
        Ok(PushConditionPowerLevelsCtx::new(users, users_default, notifications, rules))
    }

    /// Reads the content of an entry of the current state; null if there is none.
    fn content(
        &self,
        room: RoomKey,
        event_type: &str,
        state_key: &str,
    ) -> Result<Value, StorageError> {
        let Some(event) = current_state::entry(self.txn, room, event_type, state_key)? else {
            return Ok(Value::Null);
        };
        shown_events::by_key(self.txn, event, |row| {
            let content = content_of(row.json()?)?;
            Ok(serde_json::from_str(content.get()).unwrap_or_default())
        })
    }
}

/// Weighs one event by the rules.
fn weigh(rules: &Ruleset, room: &PushConditionRoomCtx, event: &RenderedEvent) -> Unread {
    let flattened = event.flattened();
    for rule in rules {
        if at_once(rule.applies(flattened, room)) == Some(true) {
            return Unread {
                notify_count: u64::from(rule.triggers_notification()),
                highlight_count: u64::from(
                    rule.triggers_notification() && rule.triggers_highlight(),
                ),
            };
        }
    }
    Unread::default()
}

/// Runs a future that never waits: ruma's conditions are `async` for a feature that we do not use.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Returns an event as push conditions look at it.
pub(crate) fn flatten(members: &str) -> FlattenedJson {
    let raw = Raw::<Value>::from_json_string(format!("{{{members}}}"));
    // The text was made here from parsed JSON: it parses.
    let empty = || FlattenedJson::from_raw(&Raw::<Value>::from_json(Default::default()));
    raw.map_or_else(|_| empty(), |raw| FlattenedJson::from_raw(&raw))
}
