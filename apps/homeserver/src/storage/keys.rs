//! The integers by which rooms, events and states go inside the database.

use super::engine::{FromColumn, Param};

macro_rules! integer_keys {
    ($($(#[$doc:meta])* $name:ident),*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
            pub struct $name(pub i64);

            impl From<$name> for Param<'_> {
                fn from(key: $name) -> Self {
                    Self::Integer(key.0)
                }
            }

            impl FromColumn<'_> for $name {
                fn from_column(value: Param<'_>) -> Option<Self> {
                    i64::from_column(value).map(Self)
                }
            }
        )*
    };
}

integer_keys!(
    /// An event: its stream ordering. Negative for events fetched from the past.
    EventKey,
    /// A room.
    RoomKey,
    /// An immutable state: a map from type and state key to an event.
    StateGroup
);
