//! A check that no deferred is left behind.

use std::cell::Cell;

thread_local! {
    static LIVING: Cell<usize> = const { Cell::new(0) };
}

/// Lies in each deferred's origin, and counts those that live on this thread.
///
/// Only in builds with debug assertions, which tests are; elsewhere it is nothing.
pub(crate) struct Counted(());

impl Counted {
    #[inline]
    pub(crate) fn new() -> Counted {
        if cfg!(debug_assertions) {
            LIVING.set(LIVING.get() + 1);
        }
        Counted(())
    }
}

impl Drop for Counted {
    #[inline]
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            // The thread's locals may be gone already when the last deferreds are.
            let _ = LIVING.try_with(|living| living.set(living.get() - 1));
        }
    }
}

/// Checks that the deferreds of this thread which were made since are gone when it is dropped.
///
/// A deferred that is still there then is most often one that somebody waits for and nobody will
/// ever fire. Make it before the [`Clock`](super::Clock), so that it is dropped after that. Finds
/// nothing in builds without debug assertions.
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::testing::NoDeferredLeaks;
///
/// let check = NoDeferredLeaks::watch();
/// let (deferred, resolver) = Deferred::<()>::new();
/// assert_eq!(check.living(), 1);
/// resolver.callback(());
/// drop(deferred);
/// ```
#[derive(Debug)]
pub struct NoDeferredLeaks {
    before: usize,
}

impl NoDeferredLeaks {
    /// Begins to watch.
    #[must_use = "the check is made when it is dropped"]
    pub fn watch() -> NoDeferredLeaks {
        NoDeferredLeaks { before: LIVING.get() }
    }

    /// Returns how many deferreds have been made since and not gone.
    #[must_use]
    pub fn living(&self) -> usize {
        LIVING.get().saturating_sub(self.before)
    }
}

impl Drop for NoDeferredLeaks {
    fn drop(&mut self) {
        let living = self.living();
        if living > 0 && !std::thread::panicking() {
            panic!("{living} deferreds are still there; does somebody wait for them in vain?");
        }
    }
}
