//! `[room_directory]`: the list of public rooms.

use super::section::section;

section! {
    /// The list of public rooms.
    RoomDirectory {
        /// Whether users may put rooms on the list.
        allow_publication: bool = true;
    }
}
