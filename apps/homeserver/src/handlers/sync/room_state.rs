//! The state of one room in one response: what the client must know besides the timeline.
//!
//! Two questions, each with a short answer. *Everything*: the current state, where an entry that the
//! timeline will set is as it was before. *What is new*: the changes of the current state since the
//! client last asked, where a change that the timeline tells itself is left to it. Both hold for any
//! shape of the event graph: what the timeline does not lead to is told outright.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::StateBlock;
use super::timeline::Timeline;
use crate::handlers::rendered::{RenderedEvent, Renderer};
use crate::storage::StorageError;
use crate::storage::databases::main::current_state;
use crate::storage::databases::main::shown_events::{self, StatePart};
use crate::storage::databases::state::groups;
use crate::storage::engine::Txn;
use crate::storage::keys::{EventKey, RoomKey, StateGroup};

/// Where the state of a room ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StateEnd {
    /// Now.
    Current,
    /// After the event with which the reader left.
    Past(StateGroup),
}

/// Which members to read along with the state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum MembersWanted {
    /// All of them.
    All,
    /// These users.
    These(BTreeSet<Box<str>>),
}

/// Events of a state, in order of type and state key.
pub(super) type StateEvents = Vec<Arc<RenderedEvent>>;

/// Reads states of one room for one response.
pub(super) struct StateReader<'a, 't, 'c> {
    pub(super) txn: &'t Txn<'c>,
    pub(super) room: RoomKey,
    pub(super) end: StateEnd,
    pub(super) timeline: &'a Timeline,
    pub(super) block: StateBlock,
    pub(super) renderer: &'a Renderer<'t, 'c>,
}

impl StateReader<'_, '_, '_> {
    /// Reads the whole state, for a client that knows nothing of the room.
    pub(super) fn everything(&self, members: &MembersWanted) -> Result<StateEvents, StorageError> {
        let mut found = Vec::new();
        match self.end {
            StateEnd::Current => match members {
                MembersWanted::All => self.current(StatePart::All, &mut found)?,
                MembersWanted::These(users) => {
                    self.current(StatePart::NotMembers, &mut found)?;
                    for user_id in users {
                        self.current(StatePart::MemberOf(user_id), &mut found)?;
                    }
                }
            },
            StateEnd::Past(group) => {
                for (event_type, state_key, &event) in groups::entries(self.txn, group)?.iter() {
                    let wanted = match members {
                        MembersWanted::These(users) if event_type == "m.room.member" => {
                            users.contains(state_key)
                        }
                        _ => true,
                    };
                    if wanted {
                        found.extend(self.renderer.by_key(event)?);
                    }
                }
            }
        }
        self.wind_back(found)
    }

    /// Reads the member events of some users, as they were when the timeline began.
    pub(super) fn members<'u>(
        &self,
        users: impl Iterator<Item = &'u str>,
    ) -> Result<StateEvents, StorageError> {
        let mut found = Vec::new();
        for user_id in users {
            match self.end {
                StateEnd::Current => self.current(StatePart::MemberOf(user_id), &mut found)?,
                StateEnd::Past(group) => {
                    if let Some(event) = groups::entry(self.txn, group, "m.room.member", user_id)? {
                        found.extend(self.renderer.by_key(event)?);
                    }
                }
            }
        }
        self.wind_back(found)
    }

    /// Reads what has changed in `(since, upto]` and is not told by the timeline.
    pub(super) fn changes(&self, since: i64, upto: i64) -> Result<StateEvents, StorageError> {
        let first_in_timeline = self.timeline.events.first().map(|placed| placed.event.key.0);
        let mut latest: BTreeMap<(String, String), EventKey> = BTreeMap::new();
        let mut before_timeline: BTreeMap<(String, String), EventKey> = BTreeMap::new();
        for delta in current_state::deltas(self.txn, self.room, since, upto)? {
            let entry = (delta.event_type, delta.state_key);
            match delta.event {
                Some(event) => {
                    if first_in_timeline.is_none_or(|first| delta.stream_id < first) {
                        before_timeline.insert(entry.clone(), event);
                    }
                    latest.insert(entry, event);
                }
                // The protocol has no word for an entry that is gone.
                None => {
                    latest.remove(&entry);
                    before_timeline.remove(&entry);
                }
            }
        }
        let mut found = Vec::new();
        for (entry, event) in latest {
            let told = self.block == StateBlock::BeforeTimeline && self.timeline.contains(event);
            let event = if told { before_timeline.remove(&entry) } else { Some(event) };
            if let Some(event) = event {
                found.extend(self.renderer.by_key(event)?);
            }
        }
        Ok(found)
    }

    fn current(&self, part: StatePart<'_>, found: &mut StateEvents) -> Result<(), StorageError> {
        shown_events::current_state(self.txn, self.room, part, |row| {
            found.extend(self.renderer.render(&row)?);
            Ok(())
        })
    }

    /// Turns the state at the end into that at the start of the timeline, where that is asked for.
    fn wind_back(&self, state: StateEvents) -> Result<StateEvents, StorageError> {
        if self.block == StateBlock::AfterTimeline || self.timeline.events.is_empty() {
            return Ok(state);
        }
        let mut wound_back = Vec::with_capacity(state.len());
        for event in state {
            if !self.timeline.contains(event.key) {
                wound_back.push(event);
                continue;
            }
            let state_key = event.state_key.as_deref().unwrap_or_default();
            let first = self.timeline.first_of(&event.event_type, state_key);
            if let Some(replaced) = first.and_then(|placed| placed.replaces) {
                wound_back.extend(self.renderer.by_key(replaced)?);
            }
        }
        Ok(wound_back)
    }
}
