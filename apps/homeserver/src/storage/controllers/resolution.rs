//! State resolution over what the database holds.
//!
//! The algorithm is in [`model::resolve`](crate::model::resolve); this hands it the states, the
//! difference of their auth chains and the events it asks for.

use std::collections::BTreeSet;

use ruma::{EventId, OwnedEventId};

use crate::model::resolve::{Fork, ResolveError, resolve as resolve_forks};
use crate::model::{RoomVersion, StateMap};
use crate::storage::databases::main::{events, graph};
use crate::storage::databases::state::groups;
use crate::storage::engine::{StorageError, Txn};
use crate::storage::keys::{EventKey, StateGroup};

use super::auth_chain::{self, Standing};
use super::load;

/// Why states could not be resolved.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolutionError {
    /// The algorithm gave up.
    #[error("the state cannot be resolved: {reason}")]
    Algorithm {
        /// ruma's words.
        reason: String,
    },
    /// An event that the algorithm needs is not there.
    #[error("the state cannot be resolved without event {event_id}, which is not there")]
    MissingEvent {
        /// The event.
        event_id: OwnedEventId,
    },
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<ResolveError<StorageError>> for ResolutionError {
    fn from(error: ResolveError<StorageError>) -> Self {
        match error {
            ResolveError::Failed { reason } => Self::Algorithm { reason },
            ResolveError::Missing { event_id } => Self::MissingEvent { event_id },
            ResolveError::Read(error) => Self::Storage(error),
        }
    }
}

/// Returns the state that the given states resolve to.
///
/// # Errors
///
/// [`ResolutionError`].
pub fn resolve(
    txn: &Txn<'_>,
    version: RoomVersion,
    groups: &BTreeSet<StateGroup>,
) -> Result<StateMap<EventKey>, ResolutionError> {
    let states = groups
        .iter()
        .map(|&group| groups::entries(txn, group))
        .collect::<Result<Vec<_>, StorageError>>()?;
    let mut distinct: Vec<StateMap<EventKey>> = Vec::with_capacity(states.len());
    for state in states {
        if !distinct.contains(&state) {
            distinct.push(state);
        }
    }
    if distinct.len() < 2 {
        return Ok(distinct.pop().unwrap_or_default());
    }
    let mut difference = difference(txn, &distinct)?;
    let mut forks = Vec::with_capacity(distinct.len());
    for state in &distinct {
        // Only the difference of the chains counts: one has all of it and the others nothing.
        let auth_chain = std::mem::take(&mut difference);
        forks.push(Fork { state: with_ids(txn, state)?, auth_chain });
    }
    let resolved = resolve_forks(version, &forks, |event_id: &EventId| {
        load::find(txn, event_id).map(|found| found.map(|event| event.pdu))
    })?;
    let mut state = StateMap::new();
    for (event_type, state_key, event_id) in resolved.iter() {
        let key = events::find_key(txn, event_id)?
            .ok_or_else(|| ResolutionError::MissingEvent { event_id: event_id.clone() })?;
        state.insert(event_type, state_key, key);
    }
    Ok(state)
}

/// Returns the events in the auth chains of some but not all of the states.
fn difference(
    txn: &Txn<'_>,
    states: &[StateMap<EventKey>],
) -> Result<BTreeSet<OwnedEventId>, StorageError> {
    let standing = |event: EventKey| -> Result<Standing, StorageError> {
        Ok((event, graph::auth_height(txn, event)?))
    };
    let sets = states
        .iter()
        .map(|state| state.values().map(|&event| standing(event)).collect())
        .collect::<Result<Vec<BTreeSet<Standing>>, StorageError>>()?;
    auth_chain::difference(&sets, |event| graph::auth_events(txn, event))?
        .into_iter()
        .map(|event| events::event_id(txn, event))
        .collect()
}

fn with_ids(txn: &Txn<'_>, state: &StateMap<EventKey>) -> Result<StateMap, StorageError> {
    let mut ids = StateMap::new();
    for (event_type, state_key, &event) in state.iter() {
        ids.insert(event_type, state_key, events::event_id(txn, event)?);
    }
    Ok(ids)
}
