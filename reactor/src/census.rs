//! Which deferreds there are, by where they were made.
//!
//! Kept for each thread, while somebody wants it: builds with debug assertions do from the start, for their
//! tests; others once a program has [asked](crate::Reactor::track_deferreds).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;

/// Counts a deferred that was made at `created`, if that is wanted. Whoever is told so calls [`uncount`] when
/// the deferred goes.
#[inline]
pub(crate) fn count(created: &'static Location<'static>) -> bool {
    let is_tracking = IS_TRACKING.get();
    if is_tracking {
        add(created);
    }
    is_tracking
}

#[cold]
#[inline(never)]
fn add(created: &'static Location<'static>) {
    LIVING.set(LIVING.get() + 1);
    PLACES.with(|places| *places.borrow_mut().entry(Place::of(created)).or_default() += 1);
}

/// Takes a deferred out of the count that [`count`] has counted.
#[cold]
#[inline(never)]
pub(crate) fn uncount(created: &'static Location<'static>) {
    // The thread's locals may be gone already when the last deferreds are.
    let _ = LIVING.try_with(|living| living.set(living.get().saturating_sub(1)));
    let _ = PLACES.try_with(|places| {
        let mut places = places.borrow_mut();
        let place = Place::of(created);
        if let Some(count) = places.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                places.remove(&place);
            }
        }
    });
}

/// Returns how many of this thread's deferreds live that were counted.
pub(crate) fn living() -> usize {
    LIVING.get()
}

/// Has this thread's deferreds counted from now on, or no longer.
pub(crate) fn track(is_tracking: bool) {
    IS_TRACKING.set(is_tracking);
}

pub(crate) fn is_tracking() -> bool {
    IS_TRACKING.get()
}

/// Returns where living deferreds were made, and how many at each place.
pub(crate) fn places() -> BTreeMap<Place, usize> {
    PLACES.with_borrow(BTreeMap::clone)
}

/// Somewhere in the source.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    file: &'static str,
    line: u32,
    column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Place {
    fn of(location: &'static Location<'static>) -> Place {
        Place { file: location.file(), line: location.line(), column: location.column() }
    }
}

thread_local! {
    static IS_TRACKING: Cell<bool> = const { Cell::new(cfg!(debug_assertions)) };
    static LIVING: Cell<usize> = const { Cell::new(0) };
    static PLACES: RefCell<BTreeMap<Place, usize>> = const { RefCell::new(BTreeMap::new()) };
}
