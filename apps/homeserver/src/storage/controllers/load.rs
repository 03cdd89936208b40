//! Event values out of rows.

use std::sync::Arc;

use ruma::EventId;

use crate::model::{EventFlags, Pdu};
use crate::storage::databases::main::events::{self, EventRow};
use crate::storage::engine::{StorageError, Txn};
use crate::storage::keys::EventKey;

/// An event value with what the database knows about it.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its key.
    pub key: EventKey,
    /// Where it stands in the auth graph; zero for events that are not state.
    pub auth_height: i64,
    /// The event.
    pub pdu: Arc<Pdu>,
}

impl TryFrom<EventRow> for StoredEvent {
    type Error = StorageError;

    fn try_from(row: EventRow) -> Result<Self, StorageError> {
        let flags = EventFlags {
            outlier: row.outlier,
            rejected: row.rejected.is_some(),
            soft_failed: row.soft_failed,
        };
        let event_id = row.event_id;
        let pdu = Pdu::from_stored(event_id.clone(), row.json, flags).map_err(|error| {
            StorageError::damaged(format!("the JSON of event {event_id} ({error})"))
        })?;
        let auth_height = row.auth_height.unwrap_or(0);
        Ok(Self { key: row.key, auth_height, pdu: Arc::new(pdu) })
    }
}

/// Returns the event of that key.
///
/// # Errors
///
/// [`StorageError::Damaged`] if there is none, or if its JSON is not an event.
pub fn by_key(txn: &Txn<'_>, key: EventKey) -> Result<StoredEvent, StorageError> {
    events::by_key(txn, key)?.try_into()
}

/// Returns the event of that id, if we have it.
///
/// # Errors
///
/// [`StorageError::Damaged`] if its JSON is not an event.
pub fn find(txn: &Txn<'_>, event_id: &EventId) -> Result<Option<StoredEvent>, StorageError> {
    events::find(txn, event_id)?.map(StoredEvent::try_from).transpose()
}
