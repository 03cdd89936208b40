//! `[cas]`: login through a CAS server.

use super::section::section;
use super::values::WebAddress;

section! {
    /// Login through a CAS server.
    Cas {
        /// The CAS server.
        server_url: Option<WebAddress> = None, example "\"https://cas.example.org/\"";
        /// The address of this server that it sends people back to.
        service_url: Option<WebAddress> = None, example "\"https://matrix.example.org/\"";
    }
}
