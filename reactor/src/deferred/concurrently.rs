//! [`concurrently_execute`]: the same for many, so many at a time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{CancelHandle, Deferred, IntoDeferred, Outcome, Resolver, maybe_deferred};
use crate::failure::{CancelledError, Failure};

/// Calls `f` with each item, of which at most `limit` are under way at a time; fires when all are done.
///
/// The next item is taken when one is done, so that an endless or costly iterator is asked for no more
/// than is needed. Items are begun in order. What has its result at once is followed by the next at
/// once, without nesting. With a limit of zero it is as with one.
///
/// Cancelling takes no more items and cancels what is under way. Dropping detaches: the work goes on.
///
/// ```
/// use ropewalk::{Deferred, concurrently_execute};
///
/// let (slow, resolver) = Deferred::new();
/// let mut slow = Some(slow);
/// let all = concurrently_execute(2, 1..=100, move |number: u32| match number {
///     1 => slow.take().expect("the first number comes once"),
///     _ => Deferred::succeed(()),
/// });
/// assert!(!all.is_fired());
/// resolver.callback(());
/// assert!(all.is_fired());
/// ```
///
/// # Errors
///
/// The failure that comes first, as soon as it comes. One of the `limit` lanes ends with it, the others
/// go on to the end of the items; later failures are dropped. A panic of `f` or of the iterator is such
/// a failure, too; after one of the iterator nothing more is begun.
#[track_caller]
pub fn concurrently_execute<I, R>(
    limit: usize,
    items: I,
    f: impl FnMut(I::Item) -> R + 'static,
) -> Deferred<()>
where
    I: IntoIterator,
    I::IntoIter: 'static,
    R: IntoDeferred<()>,
{
    let (deferred, resolver) = Deferred::new();
    let work = Rc::new(Work {
        source: Cell::new(Some((items.into_iter(), f))),
        is_driving: Cell::new(false),
        is_cancelled: Cell::new(false),
        free_lanes: Cell::new(limit.max(1)),
        under_way: RefCell::default(),
        next_number: Cell::new(0),
        resolver: Cell::new(None),
    });
    let weak = Rc::downgrade(&work);
    resolver.set_canceller(move || {
        if let Some(work) = weak.upgrade() {
            work.cancel();
        }
    });
    work.resolver.set(Some(resolver));
    work.drive();
    deferred
}

struct Work<I, F> {
    /// Where the items come from and what is done with them; out of its place while it is asked, and
    /// when there are no more.
    source: Cell<Option<(I, F)>>,
    is_driving: Cell<bool>,
    is_cancelled: Cell<bool>,
    free_lanes: Cell<usize>,
    under_way: RefCell<BTreeMap<u64, CancelHandle>>,
    next_number: Cell<u64>,
    resolver: Cell<Option<Resolver<()>>>,
}

impl<I: Iterator + 'static, R: IntoDeferred<()>, F: FnMut(I::Item) -> R + 'static> Work<I, F> {
    /// Begins as many as there are free lanes for.
    ///
    /// Never nests: `f` may fire what an earlier item waits for.
    fn drive(self: &Rc<Self>) {
        if self.is_driving.replace(true) {
            return;
        }
        while self.free_lanes.get() > 0
            && let Some((mut items, mut f)) = self.source.take()
        {
            let mut is_at_end = true;
            let begun = maybe_deferred(|| match items.next() {
                Some(item) => {
                    is_at_end = false;
                    f(item).into_deferred()
                }
                None => Deferred::succeed(()),
            });
            if !is_at_end && !self.is_cancelled.get() {
                self.source.set(Some((items, f)));
            }
            self.free_lanes.set(self.free_lanes.get() - 1);
            match begun.into_result() {
                Ok(outcome) => self.end_one(outcome),
                Err(pending) => self.wait_for(pending),
            }
        }
        self.is_driving.set(false);
        if self.under_way.borrow().is_empty()
            && let Some(resolver) = self.resolver.take()
        {
            resolver.callback(());
        }
    }

    fn wait_for(self: &Rc<Self>, pending: Deferred<()>) {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let handle = pending.cancel_handle();
        self.under_way.borrow_mut().insert(number, handle.clone());
        let this = Rc::clone(self);
        pending
            .add_both(move |outcome| {
                let handle = this.under_way.borrow_mut().remove(&number);
                drop(handle);
                this.end_one(outcome);
                this.drive();
                Ok(())
            })
            .detach();
        if self.is_cancelled.get() {
            handle.cancel();
        }
    }

    fn end_one(&self, outcome: Outcome<()>) {
        match outcome {
            Ok(()) => self.free_lanes.set(self.free_lanes.get() + 1),
            Err(failure) => {
                if let Some(resolver) = self.resolver.take() {
                    resolver.errback(failure);
                }
            }
        }
    }
}

impl<I, F> Work<I, F> {
    fn cancel(&self) {
        self.is_cancelled.set(true);
        let source = self.source.take();
        drop(source);
        if let Some(resolver) = self.resolver.take() {
            resolver.errback(Failure::plain(CancelledError));
        }
        // One at a time: cancelling one may end others.
        loop {
            let next = self.under_way.borrow_mut().pop_first();
            let Some((_, handle)) = next else { break };
            handle.cancel();
        }
    }
}
