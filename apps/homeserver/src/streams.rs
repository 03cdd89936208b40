//! Streams: names, positions, and who is told when one moves.
//!
//! A stream is an ordered sequence of things that happened. Its position only grows. News about it
//! is a name and a number; whoever wants the rows reads them from storage.

mod notifier;
mod token;

pub use notifier::{Notifier, Snapshot, Wake};
pub use token::{InvalidToken, RoomPlace, StreamToken};

/// The streams of this server. Alphabetical; the order of fields in a token is the token's own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stream {
    /// Account data and tags of users.
    AccountData,
    /// Changes of device lists.
    DeviceLists,
    /// Events of rooms, in the order in which they were persisted.
    Events,
    /// Events fetched from the past, counted downwards from zero.
    EventsBackfilled,
    /// Presence of users.
    Presence,
    /// Changes of push rules.
    PushRules,
    /// Read receipts.
    Receipts,
    /// Messages from device to device.
    ToDevice,
    /// Who is typing. Kept in memory only.
    Typing,
}

impl Stream {
    /// All streams, in alphabetical order.
    pub const ALL: [Self; 9] = [
        Self::AccountData,
        Self::DeviceLists,
        Self::Events,
        Self::EventsBackfilled,
        Self::Presence,
        Self::PushRules,
        Self::Receipts,
        Self::ToDevice,
        Self::Typing,
    ];

    /// Returns the name under which the position is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::AccountData => "account_data",
            Self::DeviceLists => "device_lists",
            Self::Events => "events",
            Self::EventsBackfilled => "events_backfilled",
            Self::Presence => "presence",
            Self::PushRules => "push_rules",
            Self::Receipts => "receipts",
            Self::ToDevice => "to_device",
            Self::Typing => "typing",
        }
    }

    /// Returns the stream of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }
}
