//! Places in a program at which a test can let something go wrong.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::failure::Failure;

/// A named place at which a test can let something go wrong.
///
/// The program asks at that place; outside of tests the answer is `Ok`, and costs a look at one number. A
/// test [injects](Self::inject) failures, on its own thread, until the guard is dropped.
///
/// ```
/// use ropewalk::Failure;
/// use ropewalk::testing::FaultPoint;
///
/// static BEFORE_COMMIT: FaultPoint = FaultPoint::new("before the commit");
///
/// fn commit() -> Result<(), Failure> {
///     BEFORE_COMMIT.check()?;
///     Ok(())
/// }
///
/// let fault = BEFORE_COMMIT.inject(|| Some(std::fmt::Error.into()));
/// assert!(commit().is_err());
/// assert_eq!(fault.hit_count(), 1);
/// drop(fault);
/// assert!(commit().is_ok());
/// ```
#[derive(Debug)]
pub struct FaultPoint {
    name: &'static str,
}

impl FaultPoint {
    /// Makes a fault point. Those of the same name are the same.
    #[must_use]
    pub const fn new(name: &'static str) -> FaultPoint {
        FaultPoint { name }
    }

    /// Asks whether something is to go wrong here now.
    ///
    /// # Errors
    ///
    /// The failure that a test has injected.
    #[inline]
    pub fn check(&self) -> Result<(), Failure> {
        if COUNT.get() == 0 { Ok(()) } else { self.check_injected() }
    }

    #[cold]
    fn check_injected(&self) -> Result<(), Failure> {
        let fault = FAULTS.with_borrow(|faults| {
            faults.iter().rev().find(|fault| fault.point == self.name).cloned()
        });
        let Some(fault) = fault else { return Ok(()) };
        fault.hit_count.set(fault.hit_count.get() + 1);
        // Out of its place while it is called, since it may lead here again.
        let make = fault.make.borrow_mut().take();
        let Some(mut make) = make else { return Ok(()) };
        let failure = make();
        *fault.make.borrow_mut() = Some(make);
        failure.map_or(Ok(()), Err)
    }

    /// Has `make` asked, each time the program comes here on this thread, for a failure or `None`.
    ///
    /// The guard that was made last is the one that is asked.
    pub fn inject(&self, make: impl FnMut() -> Option<Failure> + 'static) -> Fault {
        let fault = Rc::new(Injected {
            point: self.name,
            make: RefCell::new(Some(Box::new(make))),
            hit_count: Cell::new(0),
        });
        FAULTS.with_borrow_mut(|faults| faults.push(Rc::clone(&fault)));
        COUNT.set(COUNT.get() + 1);
        Fault { fault }
    }
}

type MakeFailure = Box<dyn FnMut() -> Option<Failure>>;

struct Injected {
    point: &'static str,
    make: RefCell<Option<MakeFailure>>,
    hit_count: Cell<usize>,
}

/// Failures that a test has injected; see [`FaultPoint::inject`].
#[must_use = "the fault is taken back when the guard is dropped"]
pub struct Fault {
    fault: Rc<Injected>,
}

impl Fault {
    /// Returns how often the program came there.
    #[must_use]
    pub fn hit_count(&self) -> usize {
        self.fault.hit_count.get()
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        FAULTS.with_borrow_mut(|faults| faults.retain(|fault| !Rc::ptr_eq(fault, &self.fault)));
        COUNT.set(COUNT.get() - 1);
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("point", &self.fault.point)
            .field("hit_count", &self.hit_count())
            .finish()
    }
}

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static FAULTS: RefCell<Vec<Rc<Injected>>> = const { RefCell::new(Vec::new()) };
}
