//! `[presence]`: who is online.

use super::section::section;

section! {
    /// Who is online.
    Presence {
        /// Whether it is tracked and told.
        enabled: bool = true;
    }
}
