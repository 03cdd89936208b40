//! `[smtp]`: how mails leave the server.

use super::section::section;

section! {
    /// How mails leave the server.
    Smtp {
        /// The mail server.
        host: String = "localhost".to_owned();
        /// Its port.
        port: u16 = 25;
        /// The sender of the mails.
        from: String = "homeserver@example.org".to_owned();
    }
}
