//! A consumer that writes a file at the disk's pace.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::error::FileOperation;
use super::handle::File;
use super::system::folder_of;
use crate::deferred::{Deferred, ObservableDeferred, Resolver};
use crate::failure::Failure;
use crate::flow::{Consumer, Feed, FlowError, Producer, Streaming, report};

/// A [`Consumer`] that writes a file in thread jobs, so that the disk never holds up the loop.
///
/// One file, one producer. What is written is queued; each job writes what has come together. A push
/// producer is paused when five slices wait for the disk (or a megabyte), and resumed when two are left; a
/// pull producer is asked for a slice whenever no more than two wait.
///
/// When the producer unregisters, or [`finish`](Self::finish) is called, what is queued is written, the file
/// synced, and so is its name if the file was created. [`wait`](Self::wait) tells when all that is on disk. A
/// write that fails ends it: the producer is told to stop, and `wait` has the error. The file is closed in
/// every case.
///
/// A handle is a cheap clone. When the last one goes before the end, the file is closed as it is.
///
/// ```
/// use std::rc::Rc;
/// use ropewalk::files::{BackgroundFileConsumer, OpenMode};
/// use ropewalk::testing::{Clock, success_result_of};
/// use ropewalk::Consumer;
///
/// let clock = Clock::new();
/// let opened = clock.reactor().files().open("upload", OpenMode::CreateNew);
/// clock.pump();
/// let consumer = BackgroundFileConsumer::new(success_result_of(opened));
/// consumer.write(b"some ");
/// consumer.write(b"bytes");
/// consumer.finish();
/// let on_disk = consumer.wait();
/// clock.pump();
/// assert_eq!(success_result_of(on_disk), 10);
/// clock.file_system().lose_unsynced();
/// assert_eq!(clock.file_system().read("upload").unwrap(), b"some bytes");
/// ```
#[derive(Clone)]
pub struct BackgroundFileConsumer {
    writing: Rc<Writing>,
}

struct Writing {
    itself: Weak<Writing>,
    /// `None` once it is closed.
    file: RefCell<Option<File>>,
    feed: Rc<Feed>,
    queue: RefCell<VecDeque<Bytes>>,
    /// Slices and bytes that a job has not written yet, those that it has been given included.
    waiting_slices: Cell<usize>,
    waiting_bytes: Cell<usize>,
    written_bytes: Cell<u64>,
    stage: Cell<Stage>,
    is_writing: Cell<bool>,
    has_failed: Cell<bool>,
    finished: ObservableDeferred<u64>,
    resolver: Cell<Option<Resolver<u64>>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// A write has failed, or all is on disk.
    Ended,
    /// What is queued is the last.
    Finishing,
    Open,
}

impl BackgroundFileConsumer {
    /// Writes to this file, at its end. It must have been opened for that.
    #[must_use]
    #[track_caller]
    pub fn new(file: File) -> BackgroundFileConsumer {
        let (deferred, resolver) = Deferred::new();
        let writing = Rc::new_cyclic(|itself| Writing {
            itself: Weak::clone(itself),
            file: RefCell::new(Some(file)),
            feed: Rc::default(),
            queue: RefCell::default(),
            waiting_slices: Cell::new(0),
            waiting_bytes: Cell::new(0),
            written_bytes: Cell::new(0),
            stage: Cell::new(Stage::Open),
            is_writing: Cell::new(false),
            has_failed: Cell::new(false),
            finished: ObservableDeferred::new(deferred),
            resolver: Cell::new(Some(resolver)),
        });
        BackgroundFileConsumer { writing }
    }

    /// Names the producer, as [`Consumer::register_producer`] does.
    ///
    /// # Errors
    ///
    /// [`FlowError::RegisteredTwice`] if there is one or was one; the newcomer is not told anything.
    pub fn register(
        &self,
        producer: Rc<dyn Producer>,
        streaming: Streaming,
    ) -> Result<(), FlowError> {
        let writing = &self.writing;
        let registered = match writing.feed.producer_name() {
            None if writing.stage.get() == Stage::Open => {
                writing.feed.register(producer, streaming);
                writing.steer();
                return Ok(());
            }
            Some(name) => name,
            None => "one that has finished",
        };
        let (producer, consumer) = (producer.type_name(), self.type_name());
        Err(FlowError::RegisteredTwice { producer, consumer, registered })
    }

    /// Queues these bytes.
    ///
    /// # Errors
    ///
    /// [`FlowError::WroteAfterUnregister`] once the producer has unregistered or the file was finished. After
    /// a write that failed bytes are dropped: what the producer still had in hand is no news.
    pub fn try_write(&self, data: Bytes) -> Result<(), FlowError> {
        let writing = &self.writing;
        match writing.stage.get() {
            Stage::Open => {
                writing.push(data);
                Ok(())
            }
            Stage::Ended if writing.has_failed.get() => Ok(()),
            Stage::Ended | Stage::Finishing => {
                let producer = writing.feed.producer_name().unwrap_or("somebody");
                Err(FlowError::WroteAfterUnregister { producer, consumer: self.type_name() })
            }
        }
    }

    /// Nothing more will be written: what is queued goes to disk and the file is closed. A producer that is
    /// registered still is told to stop.
    pub fn finish(&self) {
        let writing = &self.writing;
        if writing.stage.get() == Stage::Open {
            writing.stage.set(Stage::Finishing);
            writing.feed.stop();
            writing.go_on();
        }
    }

    /// Returns the number of bytes written, once all of them are on disk and the file is closed. It may be
    /// called at any time, several times. Cancelling only stops the waiting.
    ///
    /// # Errors
    ///
    /// The first write or sync that failed, as a [`FileError`](super::FileError).
    #[track_caller]
    pub fn wait(&self) -> Deferred<u64> {
        self.writing.finished.observe()
    }

    /// Returns how many bytes are not written yet.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.writing.waiting_bytes.get()
    }
}

/// What breaks the rules is reported, see [the module](crate::flow), and changes nothing: a second producer
/// is told to stop, bytes that come too late are dropped.
impl Consumer for BackgroundFileConsumer {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        if let Err(error) = self.register(Rc::clone(&producer), streaming) {
            // After a failed write the producer is just too late.
            if !self.writing.has_failed.get() {
                report(error);
            }
            let late = Feed::default();
            late.register(producer, streaming);
            late.stop();
        }
    }

    fn unregister_producer(&self) {
        let writing = &self.writing;
        if writing.feed.unregister() && writing.stage.get() == Stage::Open {
            writing.stage.set(Stage::Finishing);
            writing.go_on();
        }
    }

    fn write(&self, data: &[u8]) {
        self.write_bytes(Bytes::copy_from_slice(data));
    }

    fn write_bytes(&self, data: Bytes) {
        if let Err(error) = self.try_write(data) {
            report(error);
        }
    }
}

impl Writing {
    fn push(&self, data: Bytes) {
        self.feed.wrote();
        if data.is_empty() {
            return self.steer();
        }
        self.waiting_slices.set(self.waiting_slices.get() + 1);
        self.waiting_bytes.set(self.waiting_bytes.get() + data.len());
        self.queue.borrow_mut().push_back(data);
        self.go_on();
        self.steer();
    }

    /// Pauses, resumes or asks the producer, as what waits demands.
    fn steer(&self) {
        let (slices, bytes) = (self.waiting_slices.get(), self.waiting_bytes.get());
        if slices >= SLICES_HIGH || bytes >= BYTES_HIGH {
            self.feed.pause();
        } else if slices <= SLICES_LOW && bytes <= BYTES_LOW {
            self.feed.resume();
        }
    }

    /// Gives the next job what is queued, or ends if nothing is and nothing will be.
    fn go_on(&self) {
        if self.is_writing.get() || self.stage.get() == Stage::Ended {
            return;
        }
        // What is under way keeps this alive: a file that is finished gets to disk, whoever lets go of it.
        let Some(itself) = self.itself.upgrade() else { return };
        let batch = self.take_batch();
        let (slices, bytes) = (batch.len(), batch.iter().map(Bytes::len).sum::<usize>());
        let done = match &*self.file.borrow() {
            Some(file) if slices > 0 => file.run(FileOperation::Append, move |file| {
                batch.iter().try_for_each(|slice| file.append_all(slice))
            }),
            Some(file) if self.stage.get() == Stage::Finishing => sync(file),
            _ => return,
        };
        self.is_writing.set(true);
        let done = done.add_both(move |result| {
            itself.is_writing.set(false);
            itself.waiting_slices.set(itself.waiting_slices.get().saturating_sub(slices));
            itself.waiting_bytes.set(itself.waiting_bytes.get().saturating_sub(bytes));
            match result {
                Err(failure) => itself.end(Err(failure)),
                Ok(()) if slices == 0 => itself.end(Ok(())),
                Ok(()) => {
                    itself.written_bytes.set(itself.written_bytes.get() + bytes as u64);
                    itself.go_on();
                    itself.steer();
                }
            }
            Ok(())
        });
        done.detach();
    }

    /// Takes what one job writes: everything, unless the producer waits to be resumed on the way.
    fn take_batch(&self) -> Vec<Bytes> {
        let mut queue = self.queue.borrow_mut();
        let left = if self.feed.is_paused() { SLICES_LOW } else { 0 };
        let count = if queue.len() > left { queue.len() - left } else { queue.len() };
        queue.drain(..count).collect()
    }

    fn end(&self, outcome: Result<(), Failure>) {
        self.stage.set(Stage::Ended);
        self.has_failed.set(outcome.is_err());
        self.feed.stop();
        let queue = self.queue.take();
        self.waiting_slices.set(0);
        self.waiting_bytes.set(0);
        let (file, resolver) = (self.file.take(), self.resolver.take());
        drop(queue);
        let written_bytes = self.written_bytes.get();
        let Some(file) = file else { return };
        let told = file.close().add_both(move |_| {
            if let Some(resolver) = resolver {
                resolver.fire(outcome.map(|()| written_bytes));
            }
            Ok(())
        });
        told.detach();
    }
}

/// Brings the file's bytes to disk, and its name.
fn sync(file: &File) -> Deferred<()> {
    let folder = folder_of(file.path()).to_owned();
    let files = file.files().clone();
    file.sync().add_callback(move |()| files.sync_folder(folder))
}

impl fmt::Debug for BackgroundFileConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundFileConsumer")
            .field("stage", &self.writing.stage.get())
            .field("waiting_bytes", &self.writing.waiting_bytes.get())
            .field("written_bytes", &self.writing.written_bytes.get())
            .finish()
    }
}

/// Slices that pause a push producer, and that resume it: with those the disk is kept busy until it has
/// written again. A slice is what one write gave, on a connection up to 64 KiB.
const SLICES_HIGH: usize = 5;
const SLICES_LOW: usize = 2;

/// The same in bytes, for producers of large slices.
const BYTES_HIGH: usize = 1024 * 1024;
const BYTES_LOW: usize = 512 * 1024;
