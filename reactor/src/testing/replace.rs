//! Values that a test replaces, functions above all, and puts back whatever happens.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::thread::LocalKey;

/// Puts `value` in the place of what is there, until the guard is dropped: also if the test panics.
///
/// For what code under test reads from somewhere: a function that it calls, a limit, a name. Guards on one
/// place nest; drop them in reverse order, as the end of a block does.
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use ropewalk::testing::replace;
///
/// type Send = Rc<dyn Fn(&str) -> Result<(), String>>;
///
/// struct Mailer { send: RefCell<Send> }
///
/// let mailer = Mailer { send: RefCell::new(Rc::new(|_| Ok(()))) };
/// {
///     let _broken = replace(&mailer.send, Rc::new(|_: &str| Err("no route".to_owned())) as Send);
///     assert!((mailer.send.borrow())("hello").is_err());
/// }
/// assert!((mailer.send.borrow())("hello").is_ok());
/// ```
pub fn replace<'a, T>(place: impl Replaceable<T> + 'a, value: T) -> Replaced<'a, T> {
    let before = place.put(value);
    Replaced { place: Box::new(place), before: Some(before) }
}

/// Where [`replace`] can put something: a reference to a `Cell` or `RefCell`, or a thread's local one.
pub trait Replaceable<T> {
    /// Puts `value` there and returns what was there.
    fn put(&self, value: T) -> T;
}

impl<T> Replaceable<T> for &Cell<T> {
    fn put(&self, value: T) -> T {
        self.replace(value)
    }
}

impl<T> Replaceable<T> for &RefCell<T> {
    fn put(&self, value: T) -> T {
        self.replace(value)
    }
}

impl<T: 'static> Replaceable<T> for &'static LocalKey<Cell<T>> {
    fn put(&self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> Replaceable<T> for &'static LocalKey<RefCell<T>> {
    fn put(&self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

/// Puts back what was there before [`replace`].
#[must_use = "what was there is put back when the guard is dropped"]
pub struct Replaced<'a, T> {
    place: Box<dyn Replaceable<T> + 'a>,
    before: Option<T>,
}

impl<T> Drop for Replaced<'_, T> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.place.put(before);
        }
    }
}

impl<T> fmt::Debug for Replaced<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replaced")
    }
}
