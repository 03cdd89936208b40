//! `/sync`: what is new for a device since it last asked.

mod body;
mod client_sync;
mod ephemeral;
pub(crate) mod fields;
pub(crate) mod filter;
mod from_memory;
pub(crate) mod lazy_members;
pub(crate) mod question;
mod room_state;
mod rooms;
mod summary;
mod tails;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod timeline;

pub use client_sync::{ClientSync, RepeatedRequests, SyncRequest};

/// Which changes of the state a client wants to be told beside the timeline.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum StateBlock {
    /// Those up to the end of the timeline, told again where the timeline tells them (`state_after`).
    AfterTimeline,
    /// Those up to its start (`state`).
    #[default]
    BeforeTimeline,
}
