//! Where connections come from and lead to: hosts by name.
//!
//! [`HostConnector`] connects to a host whose name has one address or many, of both families, by the
//! rules of RFC 8305 ("happy eyeballs"): whichever answers first is the one.

mod host;
mod race;

pub use self::host::{AddressRule, AttemptFailure, ConnectHostError, HostConnector};
