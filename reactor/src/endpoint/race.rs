//! Connecting to several addresses at a time, until one of them answers (RFC 8305, sections 4 and 5).

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

use rustls::pki_types::ServerName;

use super::host::{AttemptFailure, ConnectHostError, HostConnector};
use crate::deferred::{CancelHandle, Deferred, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::protocol::{ConnectError, ConnectionLost, Protocol};
use crate::reactor::Reactor;
use crate::timers::DelayedCall;
use crate::transport::Transport;
use crate::transport::connect::{self, Attempt, Supply};
use crate::transport::tls::Session;

/// One connection in the making.
struct Race {
    reactor: Reactor,
    connector: HostConnector,
    state: RefCell<State>,
}

struct State {
    /// Given to the first connection that stands.
    protocol: Option<Box<dyn Protocol>>,
    /// `None` once it is over.
    resolver: Option<Resolver<Transport>>,
    lookup: CancelHandle,
    waiting: VecDeque<SocketAddr>,
    under_way: BTreeMap<usize, (SocketAddr, CancelHandle)>,
    next_attempt: usize,
    failures: Vec<(SocketAddr, AttemptFailure)>,
    limit: Option<DelayedCall>,
    next_start: Option<DelayedCall>,
}

#[track_caller]
pub(super) fn connect(
    reactor: &Reactor,
    connector: &HostConnector,
    protocol: Box<dyn Protocol>,
) -> Deferred<Transport> {
    let (deferred, resolver) = Deferred::new();
    let race = Rc::new(Race {
        reactor: reactor.clone(),
        connector: connector.clone(),
        state: RefCell::new(State {
            protocol: Some(protocol),
            resolver: None,
            lookup: CancelHandle::default(),
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            next_attempt: 0,
            failures: Vec::new(),
            limit: None,
            next_start: None,
        }),
    });
    let cancelled = Rc::downgrade(&race);
    resolver.set_canceller(move || {
        if let Some(race) = cancelled.upgrade() {
            race.end(Err(Failure::plain(CancelledError)));
        }
    });
    race.state.borrow_mut().resolver = Some(resolver);
    race.begin();
    deferred
}

impl Race {
    fn begin(self: &Rc<Race>) {
        let overdue = Rc::downgrade(self);
        let limit = self.reactor.call_later(self.connector.timeout, move || {
            if let Some(race) = overdue.upgrade() {
                race.time_is_up();
            }
        });
        self.state.borrow_mut().limit = Some(limit);
        let race = Rc::clone(self);
        let lookup = self.reactor.resolve_host(&self.connector.host).add_both(move |outcome| {
            match outcome {
                Ok(addresses) => race.addresses_known(addresses),
                Err(failure) => race.end(Err(failure)),
            }
            Ok(())
        });
        self.state.borrow_mut().lookup = lookup.cancel_handle();
        lookup.detach();
    }

    fn addresses_known(self: &Rc<Race>, addresses: Vec<IpAddr>) {
        let port = self.connector.port;
        for address in interleaved(addresses) {
            let address = SocketAddr::new(address, port);
            let is_permitted = match &self.connector.permit {
                Some(rule) => rule(&address),
                None => true,
            };
            let mut state = self.state.borrow_mut();
            if is_permitted {
                state.waiting.push_back(address);
            } else {
                state.failures.push((address, AttemptFailure::Forbidden));
            }
        }
        self.start_next();
    }

    /// Begins the next attempt, and has the one after that begin in a while.
    fn start_next(self: &Rc<Race>) {
        let (number, address) = {
            let mut state = self.state.borrow_mut();
            if state.resolver.is_none() {
                return;
            }
            if let Some(next_start) = state.next_start.take() {
                next_start.cancel();
            }
            let Some(address) = state.waiting.pop_front() else {
                let is_over = state.under_way.is_empty();
                drop(state);
                if is_over {
                    self.end(Err(self.failure(None)));
                }
                return;
            };
            let number = state.next_attempt;
            state.next_attempt = number + 1;
            state.under_way.insert(number, (address, CancelHandle::default()));
            (number, address)
        };
        let race = Rc::clone(self);
        let attempt = self.attempt(address).add_both(move |outcome| {
            match outcome {
                Ok(transport) => race.end(Ok(transport)),
                Err(failure) => race.attempt_failed(number, address, &failure),
            }
            Ok(())
        });
        let mut state = self.state.borrow_mut();
        if let Some((_, cancel)) = state.under_way.get_mut(&number) {
            *cancel = attempt.cancel_handle();
            if !state.waiting.is_empty() {
                state.next_start = Some(self.start_next_later());
            }
        }
        drop(state);
        attempt.detach();
    }

    fn start_next_later(self: &Rc<Race>) -> DelayedCall {
        let weak = Rc::downgrade(self);
        self.reactor.call_later(self.connector.attempt_delay, move || {
            if let Some(race) = weak.upgrade() {
                race.start_next();
            }
        })
    }

    fn attempt(self: &Rc<Race>, address: SocketAddr) -> Deferred<Transport> {
        let session = match self.session() {
            Ok(session) => session,
            Err(error) => {
                let source = ConnectionLost::Tls(error.into());
                return Deferred::fail(ConnectError { address: address.into(), source });
            }
        };
        let weak: Weak<Race> = Rc::downgrade(self);
        let claim = move || weak.upgrade()?.state.borrow_mut().protocol.take();
        let options = &self.connector.options;
        let protocol = Supply::OnceConnected(Box::new(claim));
        let address = address.into();
        connect::connect(self.reactor.core(), Attempt { address, options, protocol, session })
    }

    fn session(&self) -> Result<Option<Session>, rustls::Error> {
        let Some(config) = &self.connector.tls else { return Ok(None) };
        let name = match &self.connector.server_name {
            Some(name) => name.clone(),
            None => {
                let host = self.connector.host.as_str();
                let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
                let host = host.strip_suffix('.').unwrap_or(host);
                ServerName::try_from(host.to_owned())
                    .map_err(|error| rustls::Error::General(format!("{host:?}: {error}")))?
            }
        };
        Session::client(config.clone(), name).map(Some)
    }

    fn attempt_failed(self: &Rc<Race>, number: usize, address: SocketAddr, failure: &Failure) {
        let mut state = self.state.borrow_mut();
        if state.under_way.remove(&number).is_none() {
            // It was given up, and this is the echo.
            return;
        }
        let reason = match failure.downcast_ref::<ConnectError>() {
            Some(error) => error.source.clone(),
            None => ConnectionLost::Failed(std::io::Error::other(failure.to_string()).into()),
        };
        state.failures.push((address, AttemptFailure::Connection(reason)));
        drop(state);
        self.start_next();
    }

    fn time_is_up(&self) {
        self.end(Err(self.failure(Some(self.connector.timeout))));
    }

    fn failure(&self, time_limit: Option<std::time::Duration>) -> Failure {
        let state = self.state.borrow();
        let mut attempts = state.failures.clone();
        let unanswered = state.under_way.values().map(|(address, _)| *address);
        let unanswered = unanswered.chain(state.waiting.iter().copied());
        attempts.extend(unanswered.map(|address| (address, AttemptFailure::NoAnswer)));
        let (host, port) = (self.connector.host.clone(), self.connector.port);
        Failure::plain(ConnectHostError { host, port, attempts, time_limit })
    }

    /// Gives the result, and gives up what is still under way.
    fn end(&self, outcome: Result<Transport, Failure>) {
        let mut state = self.state.borrow_mut();
        let Some(resolver) = state.resolver.take() else { return };
        let protocol = state.protocol.take();
        let lookup = std::mem::take(&mut state.lookup);
        let under_way = std::mem::take(&mut state.under_way);
        let timers = [state.limit.take(), state.next_start.take()];
        drop(state);
        for timer in timers.into_iter().flatten() {
            timer.cancel();
        }
        lookup.cancel();
        for (_, cancel) in under_way.into_values() {
            cancel.cancel();
        }
        drop(protocol);
        resolver.fire(outcome);
    }
}

/// Lets the two families take turns, beginning with that of the first address; otherwise the order
/// stays.
fn interleaved(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        ordered.extend(first.pop_front());
        ordered.extend(second.pop_front());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_keep_their_order() {
        for (why, given, expected) in [
            ("nothing", "", ""),
            ("one family", "1.0.0.1 1.0.0.2", "1.0.0.1 1.0.0.2"),
            ("the first stays first", "::1 ::2 ::3 1.0.0.1", "::1 1.0.0.1 ::2 ::3"),
            ("whatever it is", "1.0.0.1 ::1 ::2", "1.0.0.1 ::1 ::2"),
            ("many", "1.0.0.1 1.0.0.2 ::1 ::2", "1.0.0.1 ::1 1.0.0.2 ::2"),
        ] {
            let parse = |list: &str| -> Vec<IpAddr> {
                list.split_whitespace().map(|address| address.parse().unwrap()).collect()
            };
            assert_eq!(interleaved(parse(given)), parse(expected), "{why}");
        }
    }
}
