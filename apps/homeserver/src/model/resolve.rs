//! State resolution: one state out of several, by ruma's algorithm for the room version.
//!
//! ruma lets a missing event pass silently in places where its absence changes the result. Here any
//! miss fails the resolution, as does any failure to read an event.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ruma::state_res::utils::event_id_set::EventIdSet;
use ruma::state_res::{self, StateMap as RumaStateMap};
use ruma::{EventId, OwnedEventId};

use super::event::Pdu;
use super::room_version::RoomVersion;
use super::state_map::StateMap;

/// Why state could not be resolved. `E` is how reading an event fails.
#[derive(Debug)]
pub enum ResolveError<E> {
    /// ruma gave up.
    Failed {
        /// Its words.
        reason: String,
    },
    /// An event that the result depends on is not there.
    Missing {
        /// Which one.
        event_id: OwnedEventId,
    },
    /// An event could not be read.
    Read(E),
}

impl<E: fmt::Display> fmt::Display for ResolveError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { reason } => write!(f, "state resolution failed: {reason}"),
            Self::Missing { event_id } => {
                write!(f, "state resolution needs {event_id}, which is not in the database")
            }
            Self::Read(error) => write!(f, "state resolution could not read an event: {error}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ResolveError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => error.source(),
            Self::Failed { .. } | Self::Missing { .. } => None,
        }
    }
}

/// One of the states that are resolved.
#[derive(Clone, Debug)]
pub struct Fork {
    /// The state.
    pub state: StateMap,
    /// The auth chain of the state's events, these included. Only the difference between the forks'
    /// chains counts, so what is common to all of them may be left out.
    pub auth_chain: BTreeSet<OwnedEventId>,
}

/// Resolves the forks into one state.
///
/// `event_by_id` is asked for each event at most once. CPU-bound: for a database or pool thread.
///
/// # Errors
///
/// [`ResolveError`]; there is no partial answer.
pub fn resolve<E>(
    version: RoomVersion,
    forks: &[Fork],
    event_by_id: impl Fn(&EventId) -> Result<Option<Arc<Pdu>>, E>,
) -> Result<StateMap, ResolveError<E>> {
    let [first, others @ ..] = forks else { return Ok(StateMap::new()) };
    if others.iter().all(|fork| fork.state == first.state) {
        return Ok(first.state.clone());
    }
    let rules = version.rules();
    let Some(algorithm) = rules.state_res.v2_rules() else {
        let reason = format!("room version {version} has another algorithm");
        return Err(ResolveError::Failed { reason });
    };
    let events = Events::new(event_by_id);
    let maps: Vec<RumaStateMap<OwnedEventId>> =
        forks.iter().map(|fork| ruma_map(&fork.state)).collect();
    let chains: Vec<EventIdSet<OwnedEventId>> =
        forks.iter().map(|fork| fork.auth_chain.iter().cloned().collect()).collect();
    let resolved = state_res::resolve(
        &rules.authorization,
        algorithm,
        &maps,
        chains,
        |event_id| events.get(event_id),
        |conflicted| events.subgraph_between(conflicted.values().flatten()),
    );
    events.check()?;
    let resolved = resolved.map_err(|error| ResolveError::Failed { reason: error.to_string() })?;
    let mut state = StateMap::new();
    for event_id in resolved.into_values() {
        // The event's own text is the key: ruma's types may have taken it for an alias.
        if let Some(event) = events.get(&event_id)
            && let Some(state_key) = event.state_key()
        {
            state.insert(event.event_type(), state_key, event_id);
        }
    }
    events.check()?;
    Ok(state)
}

/// Returns the auth chain of `start`: those events, their auth events, theirs, and so on.
///
/// # Errors
///
/// [`ResolveError::Missing`] or [`ResolveError::Read`].
pub fn auth_chain<E>(
    start: impl IntoIterator<Item = OwnedEventId>,
    event_by_id: impl Fn(&EventId) -> Result<Option<Arc<Pdu>>, E>,
) -> Result<BTreeSet<OwnedEventId>, ResolveError<E>> {
    let mut chain = BTreeSet::new();
    let mut pending: Vec<OwnedEventId> = start.into_iter().collect();
    while let Some(event_id) = pending.pop() {
        if chain.contains(&event_id) {
            continue;
        }
        let found = event_by_id(&event_id).map_err(ResolveError::Read)?;
        let Some(event) = found else { return Err(ResolveError::Missing { event_id }) };
        pending.extend(event.auth_events().iter().cloned());
        chain.insert(event_id);
    }
    Ok(chain)
}

fn ruma_map(state: &StateMap) -> RumaStateMap<OwnedEventId> {
    state
        .iter()
        .map(|(kind, key, event_id)| ((kind.into(), key.to_owned()), event_id.clone()))
        .collect()
}

/// The events as ruma's closures ask for them: read once, the first failure remembered.
struct Events<F, E> {
    event_by_id: F,
    known: RefCell<BTreeMap<OwnedEventId, Option<Arc<Pdu>>>>,
    failure: RefCell<Option<ResolveError<E>>>,
}

impl<F, E> Events<F, E>
where
    F: Fn(&EventId) -> Result<Option<Arc<Pdu>>, E>,
{
    fn new(event_by_id: F) -> Self {
        Self { event_by_id, known: RefCell::default(), failure: RefCell::new(None) }
    }

    fn get(&self, event_id: &EventId) -> Option<Arc<Pdu>> {
        if let Some(known) = self.known.borrow().get(event_id) {
            return known.clone();
        }
        let found = match (self.event_by_id)(event_id) {
            Ok(Some(event)) => Some(event),
            Ok(None) => {
                self.fail(ResolveError::Missing { event_id: event_id.to_owned() });
                None
            }
            Err(error) => {
                self.fail(ResolveError::Read(error));
                None
            }
        };
        self.known.borrow_mut().insert(event_id.to_owned(), found.clone());
        found
    }

    fn fail(&self, failure: ResolveError<E>) {
        self.failure.borrow_mut().get_or_insert(failure);
    }

    fn check(&self) -> Result<(), ResolveError<E>> {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Returns every event on a path of auth events from one of `ends` to another, ends included.
    fn subgraph_between<'a>(
        &self,
        ends: impl Iterator<Item = &'a OwnedEventId>,
    ) -> Option<EventIdSet<OwnedEventId>> {
        let ends: BTreeSet<OwnedEventId> = ends.cloned().collect();
        // Whether an event leads to one of the ends, itself included; filled from the roots up.
        let mut leads_to_end: BTreeMap<OwnedEventId, bool> = BTreeMap::new();
        let mut pending: Vec<(OwnedEventId, bool)> =
            ends.iter().map(|event_id| (event_id.clone(), false)).collect();
        while let Some((event_id, auth_events_are_done)) = pending.pop() {
            if leads_to_end.contains_key(&event_id) {
                continue;
            }
            let event = self.get(&event_id)?;
            if auth_events_are_done {
                let leads = ends.contains(&event_id)
                    || event
                        .auth_events()
                        .iter()
                        .any(|id| leads_to_end.get(id).copied().unwrap_or(false));
                leads_to_end.insert(event_id, leads);
            } else {
                let unknown =
                    event.auth_events().iter().filter(|id| !leads_to_end.contains_key(*id));
                let unknown: Vec<_> = unknown.map(|id| (id.clone(), false)).collect();
                pending.push((event_id, true));
                pending.extend(unknown);
            }
        }
        // Everything that was visited is reachable from an end; of that, what leads to an end.
        Some(leads_to_end.into_iter().filter(|(_, leads)| *leads).map(|(id, _)| id).collect())
    }
}
