//! Connecting: from an address to a protocol on an established connection.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::Transport;
use super::link::{Link, Setup};
use crate::context::LogContext;
use crate::core::Core;
use crate::deferred::Deferred;
use crate::protocol::{ConnectError, ConnectionLost, Protocol};

/// Begins to connect. Cancelling the deferred gives up.
#[track_caller]
pub(crate) fn connect(
    core: &Rc<Core>,
    address: SocketAddr,
    protocol: Box<dyn Protocol>,
    session: Option<rustls::Connection>,
) -> Deferred<Transport> {
    let fail = |error| ConnectError { address, source: ConnectionLost::Failed(Arc::new(error)) };
    if let Err(error) = core.check_open() {
        return Deferred::fail(fail(error));
    }
    let stream = match core.backend.connect(address) {
        Ok(stream) => stream,
        Err(error) => return Deferred::fail(fail(error)),
    };
    let (deferred, resolver) = Deferred::new();
    let resolver = Rc::new(std::cell::Cell::new(Some(resolver)));
    let told = {
        let resolver = Rc::clone(&resolver);
        move |result: Result<Transport, ConnectionLost>| {
            if let Some(resolver) = resolver.take() {
                resolver.fire(result.map_err(|source| ConnectError { address, source }.into()));
            }
        }
    };
    let context = LogContext::current();
    let setup = Setup { stream, peer: address, protocol, context, session };
    match Link::establish_later(core, setup, told) {
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
