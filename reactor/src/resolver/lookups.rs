//! The lookups that are under way on one reactor, and who waits for them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};

use super::{ADDRESSES_MAX, Host, HostResolver, RESOLVE_TIME_MAX, ResolveError};
use crate::core::Core;
use crate::deferred::{CancelHandle, Deferred, Resolver, maybe_deferred};
use crate::failure::{CancelledError, Failure, TimeoutError};
use crate::reactor::Reactor;
use crate::teardown::dropping;

#[derive(Default)]
pub(crate) struct Lookups {
    /// `None`: the backend's.
    resolver: RefCell<Option<Rc<dyn HostResolver>>>,
    under_way: RefCell<BTreeMap<String, Rc<Lookup>>>,
}

/// One question to the resolver.
#[derive(Default)]
struct Lookup {
    waiting: RefCell<BTreeMap<u64, Resolver<Vec<IpAddr>>>>,
    next_ticket: Cell<u64>,
    question: RefCell<CancelHandle>,
}

impl Lookups {
    pub(super) fn set_resolver(&self, resolver: Rc<dyn HostResolver>) {
        let before = self.resolver.replace(Some(resolver));
        drop(before);
    }

    pub(super) fn resolver(&self, core: &Core) -> Rc<dyn HostResolver> {
        let mut resolver = self.resolver.borrow_mut();
        Rc::clone(resolver.get_or_insert_with(|| core.backend.host_resolver()))
    }

    /// Drops the resolver with the reactor; it may own a handle on it.
    pub(crate) fn tear_down(&self) {
        let resolver = self.resolver.take();
        drop(resolver);
        for lookup in self.under_way.take().into_values() {
            lookup.answer(Err(crate::core::stopped().into()));
        }
    }

    /// Drops the resolver and whoever waits for it, without telling anybody.
    pub(crate) fn kill(&self) {
        dropping("a resolver", (self.resolver.take(), self.under_way.take()));
    }

    fn remove(&self, lookup: &Rc<Lookup>, name: &str) {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.get(name).is_some_and(|present| Rc::ptr_eq(present, lookup)) {
            under_way.remove(name);
        }
    }
}

#[track_caller]
pub(super) fn resolve(reactor: &Reactor, text: &str) -> Deferred<Vec<IpAddr>> {
    let name = match Host::parse(text) {
        Ok(Host::Address(address)) => return Deferred::succeed(vec![address]),
        Ok(Host::Name(name)) => name,
        Err(error) => return Deferred::fail(error),
    };
    let core = reactor.core();
    if let Err(error) = core.check_open() {
        return Deferred::fail(error);
    }
    let present = core.lookups.under_way.borrow().get(&name).cloned();
    if let Some(lookup) = present {
        return lookup.wait(core, &name);
    }
    let lookup = Rc::new(Lookup::default());
    core.lookups.under_way.borrow_mut().insert(name.clone(), Rc::clone(&lookup));
    let answer = lookup.wait(core, &name);
    lookup.ask(reactor, name);
    answer
}

impl Lookup {
    #[track_caller]
    fn wait(self: &Rc<Lookup>, core: &Rc<Core>, name: &str) -> Deferred<Vec<IpAddr>> {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        let (lookup, core, name) = (Rc::downgrade(self), Rc::downgrade(core), name.to_owned());
        let (deferred, resolver) = Deferred::with_canceller(move || {
            if let Some(lookup) = lookup.upgrade() {
                lookup.leave(&core, &name, ticket);
            }
        });
        self.waiting.borrow_mut().insert(ticket, resolver);
        deferred
    }

    fn leave(self: &Rc<Lookup>, core: &Weak<Core>, name: &str, ticket: u64) {
        let resolver = self.waiting.borrow_mut().remove(&ticket);
        if self.waiting.borrow().is_empty() {
            if let Some(core) = core.upgrade() {
                core.lookups.remove(self, name);
            }
            let question = self.question.take();
            question.cancel();
        }
        if let Some(resolver) = resolver {
            resolver.errback(Failure::plain(CancelledError));
        }
    }

    fn ask(self: &Rc<Lookup>, reactor: &Reactor, name: String) {
        let core = reactor.core();
        let resolver = core.lookups.resolver(core);
        let answer = maybe_deferred(|| resolver.resolve_host(reactor, &name));
        let (lookup, weak_core) = (Rc::clone(self), Rc::downgrade(core));
        let answer = answer.with_timeout(reactor, RESOLVE_TIME_MAX).add_both(move |outcome| {
            if let Some(core) = weak_core.upgrade() {
                core.lookups.remove(&lookup, &name);
            }
            lookup.answer(checked(outcome, name));
            Ok(())
        });
        self.question.replace(answer.cancel_handle());
        answer.detach();
    }

    fn answer(&self, outcome: Result<Vec<IpAddr>, Failure>) {
        // One at a time: one who waits may cancel another.
        loop {
            let next = self.waiting.borrow_mut().pop_first();
            let Some((_, resolver)) = next else { return };
            resolver.fire(outcome.clone());
        }
    }
}

/// Makes what came of a lookup fit for those who wait.
fn checked(outcome: Result<Vec<IpAddr>, Failure>, name: String) -> Result<Vec<IpAddr>, Failure> {
    match outcome {
        Ok(answers) => {
            let mut addresses = Vec::with_capacity(answers.len().min(ADDRESSES_MAX));
            for address in answers {
                if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() {
                return Err(Failure::plain(ResolveError::NotFound { name }));
            }
            Ok(addresses)
        }
        Err(failure) if failure.is::<TimeoutError>() => {
            Err(Failure::plain(ResolveError::TimedOut { name, limit: RESOLVE_TIME_MAX }))
        }
        Err(failure) => Err(failure),
    }
}
