//! [`Connect`]: whatever makes connections.

use std::net::SocketAddr;

use super::{ClientEndpoint, HostConnector};
use crate::deferred::Deferred;
use crate::protocol::Protocol;
use crate::reactor::Reactor;
use crate::transport::Transport;

/// Makes connections, to always the same peer: an endpoint, a host, an address over TCP, or any
/// `Fn(&Reactor, Box<dyn Protocol>) -> Deferred<Transport>`.
pub trait Connect {
    /// Connects, and puts `protocol` on the connection. The deferred gets the transport after
    /// `connection_made` has returned; cancelling it gives up.
    fn connect(&self, reactor: &Reactor, protocol: Box<dyn Protocol>) -> Deferred<Transport>;
}

impl<F> Connect for F
where
    F: Fn(&Reactor, Box<dyn Protocol>) -> Deferred<Transport>,
{
    fn connect(&self, reactor: &Reactor, protocol: Box<dyn Protocol>) -> Deferred<Transport> {
        self(reactor, protocol)
    }
}

impl Connect for ClientEndpoint {
    fn connect(&self, reactor: &Reactor, protocol: Box<dyn Protocol>) -> Deferred<Transport> {
        ClientEndpoint::connect(self, reactor, protocol)
    }
}

impl Connect for HostConnector {
    fn connect(&self, reactor: &Reactor, protocol: Box<dyn Protocol>) -> Deferred<Transport> {
        HostConnector::connect(self, reactor, protocol)
    }
}

impl Connect for SocketAddr {
    fn connect(&self, reactor: &Reactor, protocol: Box<dyn Protocol>) -> Deferred<Transport> {
        reactor.connect_tcp(*self, protocol)
    }
}
