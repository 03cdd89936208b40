//! What the current state of a room says, as everybody is shown it: redacted where it was redacted.

use std::sync::Arc;

use super::rendered::{RenderedEvent, Renderer};
use super::sync::filter::EventForm;
use super::sync::question::ReadCaches;
use crate::storage::StorageError;
use crate::storage::databases::main::current_state;
use crate::storage::engine::Txn;
use crate::storage::keys::RoomKey;

/// Returns a room's current state event with an empty state key, if there is one.
pub(crate) fn current(
    txn: &Txn<'_>,
    caches: &ReadCaches,
    room: RoomKey,
    event_type: &str,
) -> Result<Option<Arc<RenderedEvent>>, StorageError> {
    match current_state::entry(txn, room, event_type, "")? {
        Some(event) => Renderer::new(txn, &caches.events, &EventForm::default()).by_key(event),
        None => Ok(None),
    }
}
