//! Connecting: from an address to a protocol on an established connection.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::Transport;
use super::link::{Link, Setup};
use super::tcp::ConnectOptions;
use super::tls::Session;
use crate::address::Address;
use crate::context::LogContext;
use crate::core::Core;
use crate::deferred::Deferred;
use crate::protocol::{ConnectError, ConnectionLost, Protocol};

/// What is to be connected to, and how.
pub(crate) struct Attempt<'a> {
    pub(crate) address: Address,
    /// They concern TCP only.
    pub(crate) options: &'a ConnectOptions,
    pub(crate) protocol: Supply,
    pub(crate) session: Option<Session>,
}

/// Where the protocol comes from.
pub(crate) enum Supply {
    Now(Box<dyn Protocol>),
    /// From this function, once the connection stands and `connection_made` is due. If there is none, the
    /// connection is aborted.
    OnceConnected(Box<dyn FnOnce() -> Option<Box<dyn Protocol>>>),
}

/// Begins to connect. Cancelling the deferred gives up.
#[track_caller]
pub(crate) fn connect(core: &Rc<Core>, attempt: Attempt<'_>) -> Deferred<Transport> {
    let Attempt { address, options, protocol, session } = attempt;
    let fail = |error| ConnectError {
        address: address.clone(),
        source: ConnectionLost::Failed(Arc::new(error)),
    };
    if let Err(error) = core.check_open() {
        return Deferred::fail(fail(error));
    }
    let stream = match &address {
        Address::Tcp(address) => core.backend.connect(*address, options),
        Address::Unix(address) => core.backend.connect_unix(address),
        Address::Pipe => Err(io::ErrorKind::Unsupported.into()),
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return Deferred::fail(fail(error)),
    };
    let (deferred, resolver) = Deferred::new();
    let resolver = Rc::new(std::cell::Cell::new(Some(resolver)));
    let told = {
        let (resolver, address) = (Rc::clone(&resolver), address.clone());
        move |result: Result<Transport, ConnectionLost>| {
            if let Some(resolver) = resolver.take() {
                resolver.fire(result.map_err(|source| ConnectError { address, source }.into()));
            }
        }
    };
    let (protocol, claim) = match protocol {
        Supply::Now(protocol) => (protocol, None),
        Supply::OnceConnected(claim) => (Box::new(Nobody) as Box<dyn Protocol>, Some(claim)),
    };
    let context = LogContext::current();
    let setup = Setup { stream, peer: address.clone(), protocol, context, session };
    match Link::establish_later(core, setup, claim, told) {
        Ok(link) => {
            let link = Rc::downgrade(&link);
            let give_up = move || {
                if let Some(link) = link.upgrade() {
                    link.abort_connection();
                }
            };
            let pending = resolver.take();
            if let Some(pending) = &pending {
                pending.set_canceller(give_up);
            }
            resolver.set(pending);
            deferred
        }
        Err(error) => Deferred::fail(fail(error)),
    }
}

/// Holds the place of a protocol that is yet to come.
struct Nobody;

impl Protocol for Nobody {
    fn data_received(&mut self, _: &Transport, _: &[u8]) {}
}
