//! TCP listeners and connectors.

use std::net::SocketAddr;

/// How a port listens and what its connections start with.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections that the system may hold until they are accepted.
    pub backlog: u32,
    /// Whether small writes are sent at once (`TCP_NODELAY`).
    pub no_delay: bool,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions { backlog: 1024, no_delay: true }
    }
}

/// A port that accepts connections until it is told to stop.
#[derive(Clone, Debug)]
pub struct ListeningPort {
    pub(crate) address: SocketAddr,
}

impl ListeningPort {
    /// Returns the address that it listens on, with the port that the system picked for port 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections. Those that were accepted live on.
    pub fn stop_listening(&self) {}
}
