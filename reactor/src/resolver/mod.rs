//! Names of hosts and their addresses.
//!
//! Owns asking: which names are names, which are addresses already, one lookup for all who ask the
//! same at the same time, and the limit in time. Who answers is a [`HostResolver`]: the system's
//! (files, DNS, whatever it is configured to use), asked in threads of its own; a [`HostTable`] on a
//! test's clock; or one that a program sets with [`Reactor::set_host_resolver`].
//!
//! Answers are not kept: how long they hold is not among what the system tells. A name server nearby
//! keeps them, and knows.
//!
//! ```
//! use ropewalk::testing::{Clock, success_result_of};
//!
//! let clock = Clock::new();
//! clock.hosts().add("hs.example", ["192.0.2.1".parse().unwrap()]);
//! let addresses = clock.reactor().resolve_host("hs.example");
//! clock.pump();
//! assert_eq!(success_result_of(addresses), ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
//! ```

mod lookups;
mod system;
mod table;

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::lookups::Lookups;
pub use self::system::SystemResolver;
pub use self::table::HostTable;
use crate::deferred::Deferred;
use crate::reactor::Reactor;

/// Finds the addresses of hosts.
///
/// It is asked only for what [could be a name](ResolveError::NotAName) and is no address, and not
/// for a name that it is looking up already. There is a limit in time around it.
pub trait HostResolver {
    /// Looks up a name, in lower case and without a dot at its end. Gives its addresses, the best
    /// first.
    ///
    /// Cancelling the deferred means that nobody waits any more. No address at all is the same as a
    /// failure with [`ResolveError::NotFound`].
    fn resolve_host(&self, reactor: &Reactor, name: &str) -> Deferred<Vec<IpAddr>>;
}

/// Why a name has no addresses.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The system could not find out.
    #[error("cannot look up host {name:?}")]
    Failed {
        /// What was looked up.
        name: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// This cannot be the name of a host, and nobody was asked.
    #[error("{name:?} is no name of a host: {why}")]
    NotAName {
        /// What was to be looked up.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// There is no such host, or it has no address.
    #[error(
        "no host is called {name:?}; check the spelling, or the name servers that are configured"
    )]
    NotFound {
        /// What was looked up.
        name: String,
    },
    /// The answer took too long.
    #[error("no answer within {} s as to the addresses of {name:?}", .limit.as_secs_f64())]
    TimedOut {
        /// What was looked up.
        name: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl Reactor {
    /// Finds the addresses of a host, the best first; never an empty list.
    ///
    /// An address, with or without the brackets of a URL, is its own answer, at once. Those who ask for
    /// one name at the same time share a lookup. Cancelling leaves it; when the last one has left, it is
    /// given up.
    ///
    /// # Errors
    ///
    /// [`ResolveError`]; whatever a [`HostResolver`] of the program's own fails with.
    #[track_caller]
    pub fn resolve_host(&self, name: &str) -> Deferred<Vec<IpAddr>> {
        lookups::resolve(self, name)
    }

    /// Has another resolver look up names from now on.
    pub fn set_host_resolver(&self, resolver: Rc<dyn HostResolver>) {
        self.core().lookups.set_resolver(resolver);
    }

    /// Returns the resolver that looks up names, for instance to put another one before it.
    #[must_use]
    pub fn host_resolver(&self) -> Rc<dyn HostResolver> {
        self.core().lookups.resolver(self.core())
    }
}

/// What a piece of text names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    Address(IpAddr),
    /// In lower case, without a dot at its end.
    Name(String),
}

impl Host {
    /// # Errors
    ///
    /// [`ResolveError::NotAName`].
    pub(crate) fn parse(text: &str) -> Result<Host, ResolveError> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        match inner.unwrap_or(text).parse() {
            Ok(address @ IpAddr::V6(_)) => return Ok(Host::Address(address)),
            Ok(address @ IpAddr::V4(_)) if inner.is_none() => return Ok(Host::Address(address)),
            Ok(IpAddr::V4(_)) | Err(_) => {}
        }
        match name_fault(text) {
            Some(why) => Err(ResolveError::NotAName { name: shortened(text), why }),
            None => Ok(Host::Name(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase())),
        }
    }
}

/// Returns which rule a would-be name breaks.
fn name_fault(text: &str) -> Option<&'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return Some("it is longer than 253 bytes");
    }
    if !name.is_ascii() {
        return Some("letters beyond a to z have to be written as \"xn--…\"");
    }
    if name.contains(':') {
        return Some("it has a colon; a port goes elsewhere");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Some("only letters, digits, '-', '_' and '.' may be in it");
    }
    let is_label = |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len());
    if !name.split('.').all(is_label) {
        return Some("between two dots there have to be 1 to 63 bytes");
    }
    None
}

/// What an error shows of a text that may be anything.
fn shortened(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX + 3).collect()
}

/// A name takes at most 255 bytes in a DNS message (RFC 1035, 2.3.4); that is 253 in text.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// The system's own resolver gives up after 30 seconds in the most common configurations (three
/// servers, two rounds of 5 seconds).
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(30);

/// A name with more addresses than this is not going to be reached by trying more of them.
const ADDRESSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let long_label = "a".repeat(64);
        let long_name = ["a"; 128].join(".");
        let address = |text: &str| Ok(Host::Address(text.parse().unwrap()));
        let name = |text: &str| Ok(Host::Name(text.to_owned()));
        for (why, text, expected) in [
            ("an address", "192.0.2.1", address("192.0.2.1")),
            ("a longer address", "2001:db8::1", address("2001:db8::1")),
            ("as in a URL", "[2001:db8::1]", address("2001:db8::1")),
            ("only the longer ones have brackets", "[192.0.2.1]", Err("only letters")),
            ("a name", "hs.example", name("hs.example")),
            (
                "a name of the network next door",
                "_matrix._tcp.hs.example",
                name("_matrix._tcp.hs.example"),
            ),
            ("case does not matter", "HS.Example", name("hs.example")),
            ("a dot at the end", "hs.example.", name("hs.example")),
            ("one label", "localhost", name("localhost")),
            ("nothing", "", Err("empty")),
            ("the root", ".", Err("empty")),
            ("an empty label", "hs..example", Err("between two dots")),
            ("a long label", &long_label, Err("between two dots")),
            ("a long name", &long_name, Err("longer than")),
            ("with its port", "hs.example:8448", Err("colon")),
            ("a scope", "fe80::1%eth0", Err("colon")),
            ("a space", "hs example", Err("only letters")),
            ("a null", "hs\0.example", Err("only letters")),
            ("an umlaut", "köln.example", Err("xn--")),
        ] {
            match (Host::parse(text), expected) {
                (Ok(host), Ok(expected)) => assert_eq!(host, expected, "{why}: {text:?}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{why}: {error}");
                }
                (host, expected) => panic!("{why}: {host:?}, not {expected:?}"),
            }
        }
    }
}
