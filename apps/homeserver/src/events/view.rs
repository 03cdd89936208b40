//! A state with a memory: entries are read once and then known, absent ones too.

use std::cell::RefCell;
use std::sync::Arc;

use crate::model::auth::{auth_keys, check_against_state, check_without_state};
use crate::model::{EventDraft, Forbidden, Pdu, PowerLevels, RoomVersion, StateMap};
use crate::storage::controllers::auth_chain::Standing;
use crate::storage::controllers::load::{self, StoredEvent};
use crate::storage::databases::main::current_state;
use crate::storage::databases::state::groups;
use crate::storage::engine::{StorageError, Txn};
use crate::storage::keys::{RoomKey, StateGroup};

use super::WriteError;

/// Remembered entries at most; then the memory starts anew. Mostly these are the member events of those
/// who speak.
const REMEMBERED_MAX: usize = 1000;

/// Which state is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum StateSource {
    /// The current state of a room.
    Current(RoomKey),
    /// A state that does not change.
    Group(StateGroup),
}

/// A state with a memory.
pub(super) struct StateView {
    source: StateSource,
    /// `None` says that there is no such entry.
    remembered: StateMap<Option<StoredEvent>>,
    remembered_count: usize,
    /// Made from the state on demand.
    power_levels: Option<PowerLevels>,
}

impl StateView {
    pub(super) fn new(source: StateSource) -> Self {
        Self { source, remembered: StateMap::new(), remembered_count: 0, power_levels: None }
    }

    /// Returns the state event of that type and key.
    pub(super) fn entry(
        &mut self,
        txn: &Txn<'_>,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<&StoredEvent>, StorageError> {
        if self.remembered.get(event_type, state_key).is_none() {
            let found = match self.source {
                StateSource::Current(room) => {
                    current_state::entry(txn, room, event_type, state_key)?
                }
                StateSource::Group(group) => groups::entry(txn, group, event_type, state_key)?,
            };
            let found = found.map(|key| load::by_key(txn, key)).transpose()?;
            self.remember(event_type, state_key, found);
        }
        Ok(self.remembered.get(event_type, state_key).and_then(Option::as_ref))
    }

    /// As [`entry`](Self::entry), the event alone.
    pub(super) fn event(
        &mut self,
        txn: &Txn<'_>,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Pdu>>, StorageError> {
        Ok(self.entry(txn, event_type, state_key)?.map(|entry| entry.pdu.clone()))
    }

    /// Returns the power levels; none in a state without a create event.
    pub(super) fn power_levels(
        &mut self,
        txn: &Txn<'_>,
        version: RoomVersion,
    ) -> Result<Option<&PowerLevels>, WriteError> {
        if self.power_levels.is_none()
            && let Some(create) = self.event(txn, "m.room.create", "")?
        {
            let event = self.event(txn, "m.room.power_levels", "")?;
            self.power_levels = Some(PowerLevels::new(version, &create, event)?);
        }
        Ok(self.power_levels.as_ref())
    }

    /// Selects the auth events for a new event.
    pub(super) fn select_auth_events(
        &mut self,
        txn: &Txn<'_>,
        version: RoomVersion,
        draft: &EventDraft,
    ) -> Result<Vec<StoredEvent>, WriteError> {
        if draft.is_create() {
            return Ok(Vec::new());
        }
        let content = draft
            .raw_content()
            .map_err(|error| Forbidden { reason: format!("the content is no JSON: {error}") })?;
        let state_key = draft.state_key.as_deref();
        let keys = auth_keys(version, &draft.event_type, &draft.sender, state_key, &content)?;
        let mut selected = Vec::with_capacity(keys.len());
        for (event_type, state_key) in keys {
            selected.extend(self.entry(txn, &event_type.to_string(), &state_key)?.cloned());
        }
        Ok(selected)
    }

    /// Checks an event against this state. The outer error is the database's.
    pub(super) fn check(
        &mut self,
        txn: &Txn<'_>,
        version: RoomVersion,
        event: &Pdu,
    ) -> Result<Result<(), Forbidden>, StorageError> {
        let failure = RefCell::new(None);
        let view = RefCell::new(self);
        let checked = check_against_state(version, event, |event_type, state_key| {
            view.borrow_mut().event(txn, event_type, state_key).unwrap_or_else(|error| {
                failure.borrow_mut().get_or_insert(error);
                None
            })
        });
        failure.into_inner().map_or(Ok(checked), Err)
    }

    /// Notes that the state is another by one event.
    pub(super) fn put(&mut self, event: StoredEvent) {
        let pdu = event.pdu.clone();
        if let Some(state_key) = pdu.state_key() {
            if matches!(pdu.event_type(), "m.room.create" | "m.room.power_levels") {
                self.power_levels = None;
            }
            self.remember(pdu.event_type(), state_key, Some(event));
        }
    }

    /// Returns how many entries are remembered.
    pub(super) fn remembered_count(&self) -> usize {
        self.remembered_count
    }

    /// Forgets if it has become too much.
    pub(super) fn trim(&mut self) {
        if self.remembered_count > REMEMBERED_MAX {
            *self = Self::new(self.source);
        }
    }

    fn remember(&mut self, event_type: &str, state_key: &str, event: Option<StoredEvent>) {
        if self.remembered.insert(event_type, state_key, event).is_none() {
            self.remembered_count += 1;
        }
    }
}

/// Checks the rules that need no state. `create` is the room's create event, unless this is it.
pub(super) fn check_auth_event_list(
    version: RoomVersion,
    event: &Pdu,
    create: Option<&Arc<Pdu>>,
    auth_events: &[StoredEvent],
) -> Result<(), Forbidden> {
    check_without_state(version, event, |event_id| {
        auth_events
            .iter()
            .map(|auth| &auth.pdu)
            .chain(create)
            .find(|candidate| candidate.event_id() == event_id)
            .cloned()
    })
}

/// Returns the keys and auth heights of events.
pub(super) fn standings(events: &[StoredEvent]) -> Vec<Standing> {
    events.iter().map(|event| (event.key, event.auth_height)).collect()
}
