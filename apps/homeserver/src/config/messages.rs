//! `[messages]`: what may happen to messages.

use super::section::section;

section! {
    /// What may happen to messages.
    Messages {
        /// Whether messages can carry a time after which they vanish (MSC2228).
        self_destruct: bool = false;
    }
}
