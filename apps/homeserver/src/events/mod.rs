//! Events on their way into a room: made here, or received.
//!
//! All of it runs inside one job of the database's writer. Jobs that wait for the same room build on
//! each other in memory and go to disk with the same commit. Nothing in here looks at a clock, draws
//! random numbers or waits.
//!
//! ```text
//! dedupe by transaction → room head → auth events → build, hash, sign → auth check → persist
//! ```

mod admit;
mod create_room;
mod error;
mod head;
mod receive;
mod send;
mod view;

pub use admit::ClientTransaction;
pub use create_room::{CreatedRoom, NewRoom};
pub use error::WriteError;
pub use receive::Received;
pub use send::SentEvent;

use std::sync::Arc;

use ruma::ServerName;

use crate::model::EventSigner;

#[cfg(test)]
pub(crate) mod tests;

/// Writes events into rooms. Cheap to clone into a database job.
#[derive(Clone, Debug)]
pub struct RoomWriter {
    signer: Arc<EventSigner>,
}

impl RoomWriter {
    /// Makes a writer that signs with this server's key.
    pub fn new(signer: Arc<EventSigner>) -> Self {
        Self { signer }
    }

    /// Returns this server's name.
    pub fn server_name(&self) -> &ServerName {
        self.signer.server_name()
    }
}
