//! `[outgoing]`: connections that the server opens to anything but homeservers.

use std::path::PathBuf;

use super::section::section;

section! {
    /// Connections to identity servers, push gateways, application services, CAS and previewed
    /// pages.
    Outgoing {
        /// Certificate authorities to trust in addition to the system's, in PEM.
        trusted_ca: Vec<PathBuf> = Vec::new(), example "[\"ca.pem\"]";
        /// Accept any certificate. For test rigs only.
        accept_any_certificate: bool = false;
        /// Whether loopback, private and link-local addresses may be called.
        allow_private_addresses: bool = false;
    }
}
