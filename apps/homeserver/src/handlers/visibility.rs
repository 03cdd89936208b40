//! Which events of a room somebody may see: its history visibility, applied.
//!
//! Client-Server API, "Room History Visibility". The state that counts is that before the event; for
//! an event that changes the visibility, or the reader's own membership, the better of before and
//! after.

use std::collections::BTreeMap;

use ruma::UserId;

use super::generations::GenerationCache;
use super::rendered::content_of;
use crate::model::Membership;
use crate::model::visibility::{HistoryVisibility, may_see};
use crate::storage::StorageError;
use crate::storage::databases::main::shown_events::{self, ShownRow};
use crate::storage::databases::main::{memberships, reader_rooms};
use crate::storage::databases::state::groups;
use crate::storage::engine::Txn;
use crate::storage::keys::{EventKey, RoomKey, StateGroup};

/// How many states' visibilities one generation remembers. Each takes a few dozen bytes.
const GENERATION_STATES: usize = 20_000;

/// What states say about the visibility of history, remembered: states never change.
#[derive(Debug)]
pub(crate) struct VisibilityCache {
    by_state: GenerationCache<StateGroup, HistoryVisibility>,
}

impl Default for VisibilityCache {
    fn default() -> Self {
        Self { by_state: GenerationCache::new(GENERATION_STATES) }
    }
}

impl VisibilityCache {
    fn at(&self, txn: &Txn<'_>, state: StateGroup) -> Result<HistoryVisibility, StorageError> {
        if let Some(known) = self.by_state.find(&state) {
            return Ok(known);
        }
        let visibility = match groups::entry(txn, state, "m.room.history_visibility", "")? {
            None => HistoryVisibility::Shared,
            Some(event) => shown_events::by_key(txn, event, |row| {
                Ok(HistoryVisibility::of_content(content_of(row.json()?)?))
            })?,
        };
        self.by_state.keep(state, visibility, 1);
        Ok(visibility)
    }
}

/// Where an event stands among the states, as far as that decides who sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Which event.
    pub(crate) key: EventKey,
    /// The state before it; none for an outlier.
    pub(crate) before: Option<StateGroup>,
    /// The state after it.
    pub(crate) after: Option<StateGroup>,
    /// Whether the state after it counts as well.
    pub(crate) changes: Change,
}

/// What an event changes of that which decides who sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// Nothing.
    Nothing,
    /// The reader's own membership.
    OwnMembership,
    /// The visibility of the room's history.
    Visibility,
}

impl Standing {
    /// Reads where an event of a list stands, for that reader.
    pub(crate) fn of(row: &ShownRow<'_, '_>, reader: &UserId) -> Result<Self, StorageError> {
        let changes = match (row.event_type()?, row.state_key()?) {
            ("m.room.history_visibility", Some("")) => Change::Visibility,
            ("m.room.member", Some(state_key)) if state_key == reader.as_str() => {
                Change::OwnMembership
            }
            _ => Change::Nothing,
        };
        Ok(Self {
            key: row.key()?,
            before: row.state_before()?,
            after: row.state_after()?,
            changes,
        })
    }
}

/// What one reader may see of one room.
pub(crate) struct Sight<'t, 'c> {
    txn: &'t Txn<'c>,
    cache: &'t VisibilityCache,
    reader: &'t UserId,
    is_joined: bool,
    /// The last event that made him a member or kept him one.
    last_join: Option<EventKey>,
    memberships: BTreeMap<StateGroup, Option<Membership>>,
}

impl<'t, 'c> Sight<'t, 'c> {
    /// Makes the sight of a reader who is, or is not, in the room now.
    pub(crate) fn knowing(
        txn: &'t Txn<'c>,
        cache: &'t VisibilityCache,
        reader: &'t UserId,
        room: RoomKey,
        is_joined: bool,
    ) -> Result<Self, StorageError> {
        // Who is in the room now is in it later than anything, so his past need not be looked up.
        let last_join = if is_joined { None } else { reader_rooms::last_join(txn, reader, room)? };
        let memberships = BTreeMap::new();
        Ok(Self { txn, cache, reader, is_joined, last_join, memberships })
    }

    /// Whether the reader may see the event.
    pub(crate) fn sees(&mut self, event: Standing) -> Result<bool, StorageError> {
        let before = match (event.before, event.after) {
            (Some(before), _) => before,
            // The create event: before it there is no state, and nothing set means shared.
            (None, Some(_)) => {
                return Ok(may_see(HistoryVisibility::Shared, None, self.joins_after(event.key)));
            }
            // Nobody knows the state at an outlier, so nobody may see it by right.
            (None, None) => return Ok(false),
        };
        if self.sees_in(event.key, before)? {
            return Ok(true);
        }
        let Some(after) = event.after.filter(|&after| after != before) else { return Ok(false) };
        match event.changes {
            Change::Nothing => Ok(false),
            Change::Visibility => self.sees_in(event.key, after),
            // Who is put out, or declines an invitation, must learn of it, whatever the setting.
            Change::OwnMembership => {
                Ok(matches!(self.membership_at(after)?, Some(Membership::Leave | Membership::Ban))
                    || self.sees_in(event.key, after)?)
            }
        }
    }

    fn sees_in(&mut self, event: EventKey, state: StateGroup) -> Result<bool, StorageError> {
        let visibility = self.cache.at(self.txn, state)?;
        let joins_later = self.joins_after(event);
        // Most rooms are decided here, without a look at who was in them.
        if may_see(visibility, None, joins_later) {
            return Ok(true);
        }
        let membership = self.membership_at(state)?;
        Ok(may_see(visibility, membership, joins_later))
    }

    fn membership_at(&mut self, state: StateGroup) -> Result<Option<Membership>, StorageError> {
        if let Some(known) = self.memberships.get(&state) {
            return Ok(*known);
        }
        let event = groups::entry(self.txn, state, "m.room.member", self.reader.as_str())?;
        let membership = match event {
            None => None,
            Some(event) => memberships::by_event(self.txn, event)?
                .and_then(|member| member.membership.parse().ok()),
        };
        self.memberships.insert(state, membership);
        Ok(membership)
    }

    fn joins_after(&self, event: EventKey) -> bool {
        self.is_joined || self.last_join.is_some_and(|join| join >= event)
    }
}
