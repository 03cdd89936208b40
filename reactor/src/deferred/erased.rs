//! A resolver that has forgotten the type of its result, for tables of what is under way.

use std::any::Any;
use std::rc::Rc;

use super::chain::ChainOf;
use super::{Outcome, Resolver};
use crate::failure::{Failure, ResolverDropped};

/// A [`Resolver`] of some type. Costs no memory of its own.
pub(crate) struct AnyResolver(Rc<dyn FireAny>);

impl AnyResolver {
    /// Forgets the type. `None` if the resolver has fired.
    pub(crate) fn new<T: 'static>(mut resolver: Resolver<T>) -> Option<AnyResolver> {
        resolver.chain.take().map(|chain| AnyResolver(chain))
    }

    /// Gives the deferred its result out of an `Option<Result<T, Failure>>` of its type.
    ///
    /// What is not of that type, or has been taken, fails the deferred as a dropped resolver does.
    pub(crate) fn fire(self, outcome: &mut dyn Any) {
        self.0.fire_any(outcome);
    }

    /// Fails the deferred.
    pub(crate) fn errback(self, failure: Failure) {
        self.0.fail(failure);
    }
}

trait FireAny {
    fn fire_any(self: Rc<Self>, outcome: &mut dyn Any);
    fn fail(self: Rc<Self>, failure: Failure);
}

impl<T: 'static> FireAny for ChainOf<T> {
    fn fire_any(self: Rc<Self>, outcome: &mut dyn Any) {
        let outcome = outcome.downcast_mut::<Option<Outcome<T>>>().and_then(Option::take);
        let outcome = outcome
            .unwrap_or_else(|| Err(Failure::plain(ResolverDropped { created: self.created() })));
        self.fire(outcome);
    }

    fn fail(self: Rc<Self>, failure: Failure) {
        self.fire(Err(failure));
    }
}
