//! `[federation]`: talking to other homeservers.

use std::path::PathBuf;

use ruma::OwnedServerName;

use super::section::section;
use super::values::words;

words! {
    /// Whether servers that do not answer are left alone for a while.
    Backoff {
        /// Try again at once.
        Off = "off",
        /// Wait longer after each failure.
        On = "on",
    }
}

section! {
    /// Talking to other homeservers.
    Federation {
        /// Whether to talk to other homeservers at all.
        enabled: bool = true;
        /// Certificate authorities to trust in addition to the system's, in PEM.
        trusted_ca: Vec<PathBuf> = Vec::new(), example "[\"ca.pem\"]";
        /// Whether other servers' certificates are checked. Switch off in closed test networks
        /// only.
        verify_certificates: bool = true;
        /// Notaries: servers to ask for other servers' keys.
        trusted_key_servers: Vec<OwnedServerName> = Vec::new(), example "[\"notary.example\"]";
        /// Whether servers on loopback, private and link-local addresses may be called.
        allow_private_addresses: bool = false;
        /// Talk to these servers only; empty: to all.
        allow_servers: Vec<OwnedServerName> = Vec::new(), example "[\"friends.example\"]";
        /// Never talk to these servers.
        deny_servers: Vec<OwnedServerName> = Vec::new(), example "[\"spam.example\"]";
        /// Whether other servers may read the list of public rooms.
        public_rooms_over_federation: bool = false;
        /// Whether the list of public rooms can be read without an account.
        public_rooms_without_auth: bool = false;
        /// "on": servers that do not answer are left alone for a while; "off" for test rigs.
        backoff: Backoff = Backoff::On;
        /// What /.well-known/matrix/server answers, e.g. "matrix.example.org:443"; empty: 404.
        well_known_server: String = String::new();
    }
}
