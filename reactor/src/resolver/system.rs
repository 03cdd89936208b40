//! Asking the operating system, in threads of its own.

use std::cell::OnceCell;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use super::{HostResolver, ResolveError};
use crate::deferred::Deferred;
use crate::reactor::Reactor;
use crate::threads::{ThreadPool, ThreadPoolOptions};

/// Looks names up as the other programs on this machine do: in `/etc/hosts`, by DNS, or whatever the
/// system is configured to use.
///
/// The order of the addresses is the system's (RFC 6724).
#[derive(Debug, Default)]
pub struct SystemResolver {
    /// Its own, so that a name server that is out of order holds up nobody else's jobs.
    threads: OnceCell<ThreadPool>,
}

impl SystemResolver {
    /// Makes one. Its threads are started when they are needed.
    #[must_use]
    pub fn new() -> SystemResolver {
        SystemResolver::default()
    }
}

impl HostResolver for SystemResolver {
    fn resolve_host(&self, reactor: &Reactor, name: &str) -> Deferred<Vec<IpAddr>> {
        let threads = self.threads.get_or_init(|| {
            let options = ThreadPoolOptions::new("resolver");
            reactor.thread_pool(options.threads(THREADS_MAX).queue_max(WAITING_MAX))
        });
        let name = name.to_owned();
        threads.defer(move || look_up(name))
    }
}

fn look_up(name: String) -> Result<Vec<IpAddr>, ResolveError> {
    match (name.as_str(), 0).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
        Err(error) if is_not_found(&error) => Err(ResolveError::NotFound { name }),
        Err(source) => Err(ResolveError::Failed { name, source: Arc::new(source) }),
    }
}

/// The standard library gives the resolver's own errors no kind; it passes on the words of
/// `gai_strerror` for `EAI_NONAME` and `EAI_NODATA` (in glibc and musl, none of which translates them
/// before `setlocale` is called).
fn is_not_found(error: &io::Error) -> bool {
    let text = error.to_string();
    [
        "Name or service not known",
        "No address associated",
        "Name does not resolve",
        "Name has no usable",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Lookups at a time. Each holds a thread for as long as the name servers take, usually
/// milliseconds; eight that hang leave the rest waiting, and no more memory is used up.
const THREADS_MAX: usize = 8;

/// Different names that may wait for a thread. Whoever asks beyond that is told at once.
const WAITING_MAX: usize = 4096;
