//! One producer that feeds several consumers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::{Consumer, Feed, Producer, Streaming, checked};

/// A [`Consumer`] that passes everything on to several others. A handle is a cheap clone.
///
/// Each branch says what happens when its consumer is slow ([`SlowBranch`]). A branch whose consumer tells it to
/// stop is dropped; the producer is told to stop when none is left. Until the first branch is there, it is
/// made to wait. When the producer unregisters, so do the branches, and the tee is as new.
///
/// ```
/// use std::rc::Rc;
/// use ropewalk::flow::{SlowBranch, Tee, pipe};
/// use ropewalk::testing::success_result_of;
/// use ropewalk::Consumer;
///
/// let tee = Tee::new();
/// let (one, reads_one) = pipe(1024, 256);
/// let (other, reads_other) = pipe(1024, 256);
/// tee.add(Rc::new(one), SlowBranch::Waits);
/// tee.add(Rc::new(other), SlowBranch::Waits);
/// tee.write(b"to both");
/// assert_eq!(success_result_of(reads_one.read()).unwrap(), "to both");
/// assert_eq!(success_result_of(reads_other.read()).unwrap(), "to both");
/// ```
#[derive(Clone, Default)]
pub struct Tee {
    shared: Rc<Shared>,
}

/// What a branch of a [`Tee`] does while its consumer takes nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlowBranch {
    /// The pieces that come meanwhile are not for it. It goes on with the next whole one.
    Skips,
    /// All wait: the producer is paused until this consumer, too, takes more.
    Waits,
}

/// One way out of a [`Tee`].
#[derive(Clone)]
pub struct TeeBranch {
    branch: Rc<Branch>,
}

#[derive(Default)]
struct Shared {
    feed: Rc<Feed>,
    branches: RefCell<Vec<Rc<Branch>>>,
}

struct Branch {
    tee: Weak<Shared>,
    consumer: Rc<dyn Consumer>,
    slow: SlowBranch,
    is_paused: Cell<bool>,
    skipped_bytes: Cell<u64>,
}

impl Tee {
    /// Makes a tee without branches.
    #[must_use]
    pub fn new() -> Tee {
        Tee::default()
    }

    /// Adds a branch, for what is written from now on.
    pub fn add(&self, consumer: Rc<dyn Consumer>, slow: SlowBranch) -> TeeBranch {
        let branch = Rc::new(Branch {
            tee: Rc::downgrade(&self.shared),
            consumer: checked(consumer),
            slow,
            is_paused: Cell::new(false),
            skipped_bytes: Cell::new(0),
        });
        self.shared.branches.borrow_mut().push(Rc::clone(&branch));
        let producer: Rc<dyn Producer> = Rc::clone(&branch) as _;
        branch.consumer.register_producer(producer, Streaming::Push);
        self.shared.steer();
        TeeBranch { branch }
    }
}

impl TeeBranch {
    /// Takes the branch away; its consumer sees the producer unregister.
    pub fn remove(&self) {
        if let Some(tee) = self.branch.tee.upgrade()
            && tee.forget(&self.branch)
        {
            self.branch.consumer.unregister_producer();
            tee.stop_if_useless();
        }
    }

    /// Returns how many bytes it has missed by being slow.
    #[must_use]
    pub fn skipped_bytes(&self) -> u64 {
        self.branch.skipped_bytes.get()
    }
}

impl Consumer for Tee {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        self.shared.feed.register(producer, streaming);
        self.shared.steer();
    }

    fn unregister_producer(&self) {
        if self.shared.feed.unregister() {
            for branch in self.shared.branches.take() {
                branch.consumer.unregister_producer();
            }
        }
    }

    fn write(&self, data: &[u8]) {
        self.shared.write(data.len(), |consumer| consumer.write(data));
    }

    fn write_bytes(&self, data: Bytes) {
        self.shared.write(data.len(), |consumer| consumer.write_bytes(data.clone()));
    }
}

impl Shared {
    fn write(&self, bytes: usize, write: impl Fn(&dyn Consumer)) {
        self.feed.wrote();
        let branches = self.branches.borrow().clone();
        for branch in branches {
            if branch.slow == SlowBranch::Skips && branch.is_paused.get() {
                branch.skipped_bytes.set(branch.skipped_bytes.get() + bytes as u64);
            } else {
                write(&*branch.consumer);
            }
        }
        self.steer();
    }

    /// Pauses or resumes the producer, as the slowest branch that all wait for demands.
    fn steer(&self) {
        let branches = self.branches.borrow();
        let waits =
            |branch: &Rc<Branch>| branch.slow == SlowBranch::Waits && branch.is_paused.get();
        let all_wait = branches.is_empty() || branches.iter().any(waits);
        // Outside of a reactor's turn the producer is told at once.
        drop(branches);
        if all_wait {
            self.feed.pause();
        } else {
            self.feed.resume();
        }
    }

    /// Drops a branch, and returns whether it was there.
    fn forget(&self, branch: &Rc<Branch>) -> bool {
        let mut branches = self.branches.borrow_mut();
        let place = branches.iter().position(|other| Rc::ptr_eq(other, branch));
        let forgotten = place.map(|place| branches.remove(place));
        drop(branches);
        forgotten.is_some()
    }

    fn stop_if_useless(&self) {
        if self.branches.borrow().is_empty() {
            self.feed.stop();
        } else {
            self.steer();
        }
    }
}

impl Branch {
    fn set_paused(&self, is_paused: bool) {
        self.is_paused.set(is_paused);
        if let Some(tee) = self.tee.upgrade() {
            tee.steer();
        }
    }
}

impl Producer for Branch {
    fn pause_producing(&self) {
        self.set_paused(true);
    }

    fn resume_producing(&self) {
        self.set_paused(false);
    }

    fn stop_producing(&self) {
        let Some(tee) = self.tee.upgrade() else { return };
        let itself =
            tee.branches.borrow().iter().find(|branch| std::ptr::eq(&***branch, self)).cloned();
        if let Some(itself) = itself {
            tee.forget(&itself);
            tee.stop_if_useless();
        }
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<Tee>()
    }
}

impl fmt::Debug for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tee").field("branches", &self.shared.branches.borrow().len()).finish()
    }
}

impl fmt::Debug for TeeBranch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeeBranch").field("skipped_bytes", &self.skipped_bytes()).finish()
    }
}
