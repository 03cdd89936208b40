//! The producer that feeds one of this crate's consumers, from the consumer's side.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{FlowError, Producer, Streaming};
use crate::context::LogContext;
use crate::deferred::Deferred;
use crate::ready;

/// The place for a producer in a consumer: tells it what it must know, after the current callback and in
/// the context in which it was registered.
#[derive(Default)]
pub(crate) struct Feed {
    fed: RefCell<Option<Rc<Fed>>>,
}

struct Fed {
    producer: Rc<dyn Producer>,
    streaming: Streaming,
    context: LogContext,
    /// A push producer was told to pause; a pull producer was asked and has not written.
    waits: Cell<bool>,
}

impl Feed {
    /// Takes a producer; one that is registered already is told to stop.
    pub(crate) fn register(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        self.stop();
        let context = LogContext::current();
        let fed = Fed { producer, streaming, context, waits: Cell::new(false) };
        self.fed.replace(Some(Rc::new(fed)));
    }

    /// Forgets the producer, and returns whether there was one.
    pub(crate) fn unregister(&self) -> bool {
        let fed = self.fed.take();
        fed.is_some()
    }

    /// Tells the producer to stop, and forgets it.
    pub(crate) fn stop(&self) {
        if let Some(fed) = self.fed.take() {
            tell_to_stop(Rc::clone(&fed.producer), fed.context.clone());
        }
    }

    /// Whether a push producer waits to be resumed.
    pub(crate) fn is_paused(&self) -> bool {
        let fed = self.fed.borrow();
        fed.as_ref().is_some_and(|fed| fed.streaming == Streaming::Push && fed.waits.get())
    }

    /// Returns the registered producer's name.
    pub(crate) fn producer_name(&self) -> Option<&'static str> {
        self.fed.borrow().as_ref().map(|fed| fed.producer.type_name())
    }

    /// Notes that the producer has written.
    pub(crate) fn wrote(&self) {
        if let Some(fed) = &*self.fed.borrow()
            && fed.streaming == Streaming::Pull
        {
            fed.waits.set(false);
        }
    }

    /// Too much waits: a push producer is paused. A pull producer is just not asked.
    pub(crate) fn pause(self: &Rc<Self>) {
        // Outside of a reactor's turn the producer is told at once, so nothing may be borrowed then.
        let fed = self.fed.borrow().clone();
        if let Some(fed) = fed
            && fed.streaming == Streaming::Push
            && !fed.waits.replace(true)
        {
            self.tell(&fed, |fed| {
                // It may have been resumed before it heard of this.
                if fed.waits.get() {
                    fed.producer.pause_producing();
                }
            });
        }
    }

    /// More is wanted: a push producer that was paused goes on, a pull producer is asked.
    pub(crate) fn resume(self: &Rc<Self>) {
        let fed = self.fed.borrow().clone();
        let Some(fed) = fed else { return };
        let tells = match fed.streaming {
            Streaming::Pull => !fed.waits.replace(true),
            Streaming::Push => fed.waits.replace(false),
        };
        if tells {
            self.tell(&fed, |fed| {
                if fed.streaming == Streaming::Pull || !fed.waits.get() {
                    fed.producer.resume_producing();
                }
            });
        }
    }

    /// Calls the producer after the current callback, if it is still registered then.
    fn tell(self: &Rc<Self>, fed: &Rc<Fed>, tell: impl FnOnce(&Fed) + 'static) {
        let feed = Rc::downgrade(self);
        let fed = Rc::clone(fed);
        let context = fed.context.clone();
        context.run(|| {
            ready::enqueue(move || {
                let Some(feed) = feed.upgrade() else { return };
                let is_registered =
                    feed.fed.borrow().as_ref().is_some_and(|now| Rc::ptr_eq(now, &fed));
                if is_registered {
                    tell(&fed);
                }
            });
        });
    }
}

/// Has a producer told to stop after the current callback.
pub(crate) fn tell_to_stop(producer: Rc<dyn Producer>, context: LogContext) {
    context.run(|| ready::enqueue(move || producer.stop_producing()));
}

/// Complains about somebody who broke a rule, as about a failure that nobody handled.
#[track_caller]
pub(crate) fn report(error: FlowError) {
    drop(Deferred::<()>::fail(error));
}
