//! `[passwords]`: how passwords are kept.

use super::section::section;

section! {
    /// How passwords are kept: always hashed with argon2id.
    Passwords {
        /// Cheap parameters, for test rigs only: a stolen database would soon give up its
        /// passwords.
        fast_hash: bool = false;
    }
}
