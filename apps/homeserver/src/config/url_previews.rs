//! `[url_previews]`: looking at pages that messages point to.

use super::section::section;
use super::values::Network;

section! {
    /// Looking at pages that messages point to.
    UrlPreviews {
        /// Whether previews are made.
        enabled: bool = false;
        /// Addresses never to call, in addition to private ranges, which are always refused unless
        /// outgoing.allow_private_addresses.
        deny_addresses: Vec<Network> = Vec::new(), example "[\"203.0.113.0/24\"]";
    }
}
