//! `[sync]`: how news reach clients.

use super::section::section;

section! {
    /// How news reach clients.
    Sync {
        /// Whether the same request, sent again while the first is answered, gets the same answer.
        response_cache: bool = true;
    }
}
