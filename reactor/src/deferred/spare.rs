//! Memory of steps that have run, for the next ones of the same kind.
//!
//! A program adds the same few callbacks again and again, and a step needs memory of the very type that
//! the last one of its kind has left behind. To take that costs a third of what the allocator does.

use std::any::Any;
use std::cell::Cell;
use std::mem;
use std::panic::Location;

use super::step::{Link, Step};

/// A step whose memory can be used again.
pub(super) trait Reuse: Step {
    /// Where it was added: most often, the same place means the same type.
    fn created(&self) -> &'static Location<'static>;
}

/// Returns a used step of this type, if there is one.
#[inline]
pub(super) fn take<S: Reuse>(created: &'static Location<'static>) -> Option<Box<S>> {
    SHELVES.try_with(|shelves| shelves.of(created).take()).ok()?
}

/// Keeps a used step, unless there are enough of them.
#[inline]
pub(super) fn put<S: Reuse>(step: Box<S>) {
    if size_of::<S>() > STEP_BYTES_MAX {
        return;
    }
    // The thread is at its end if they are gone.
    let _ = SHELVES.try_with(move |shelves| shelves.of(step.created()).put(step));
}

struct Shelves([Shelf; SHELF_COUNT]);

impl Shelves {
    #[inline]
    fn of(&self, created: &'static Location<'static>) -> &Shelf {
        let address = std::ptr::from_ref(created).addr();
        &self.0[address / align_of::<Location<'_>>() % SHELF_COUNT]
    }
}

/// Steps that were added at the same place; now and then, another place shares it.
struct Shelf {
    /// The others hang on it.
    first: Cell<Link>,
    count: Cell<u8>,
}

impl Shelf {
    /// Steps of another type go, so that those of this one can take their place.
    #[inline]
    fn take<S: Reuse>(&self) -> Option<Box<S>> {
        let first: Box<dyn Any> = self.first.take()?;
        let Ok(mut step) = first.downcast::<S>() else {
            self.count.set(0);
            return None;
        };
        // Known to be nothing; the compiler need not look.
        mem::forget(self.first.replace(step.replace_link(None)));
        self.count.set(self.count.get().wrapping_sub(1));
        Some(step)
    }

    #[inline]
    fn put<S: Reuse>(&self, mut step: Box<S>) {
        if self.count.get() < STEPS_MAX {
            step.replace_link(self.first.take());
            mem::forget(self.first.replace(Some(step)));
            self.count.set(self.count.get() + 1);
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        super::step::discard(self.first.take());
    }
}

/// What is kept for one place. Chains that run at the same time use more; few do.
const STEPS_MAX: u8 = 16;

/// Larger steps are rare, and clearing their memory costs more than getting it.
const STEP_BYTES_MAX: usize = 256;

/// A program of some size adds callbacks at some hundred places. Together with the other limits, this
/// keeps a thread from holding on to more than a megabyte.
const SHELF_COUNT: usize = 256;

thread_local! {
    static SHELVES: Shelves =
        const { Shelves([const { Shelf { first: Cell::new(None), count: Cell::new(0) } }; SHELF_COUNT]) };
}
