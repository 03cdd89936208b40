//! A file sent to a consumer at the consumer's pace.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;

use super::error::{FileError, FileOperation};
use super::handle::{File, read_at};
use super::system::OpenFile;
use crate::deferred::{Deferred, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::flow::{Consumer, Producer, Streaming, checked};
use crate::threads::ThreadPool;

/// Sends a file, or a stretch of one, to a [`Consumer`] as fast as that takes it.
///
/// It registers as pull producer and reads in thread jobs, one piece of 256 KiB ahead of what the consumer
/// has. Of a file over two megabytes, a plain TCP connection is given the file itself and has the system send
/// it, in thread jobs as well, without the bytes passing through the process. In either way the loop never
/// waits for the disk.
///
/// ```
/// use std::rc::Rc;
/// use ropewalk::files::{FileSender, OpenMode};
/// use ropewalk::flow::pipe;
/// use ropewalk::testing::{Clock, success_result_of};
///
/// let clock = Clock::new();
/// clock.file_system().write("page", "<h1>hello</h1>");
/// let opened = clock.reactor().files().open("page", OpenMode::Read);
/// clock.pump();
/// let (writer, reader) = pipe(1024, 256);
/// let sender = FileSender::new(success_result_of(opened)).with_range(4..9);
/// let sent = sender.send_to(Rc::new(writer));
/// clock.pump();
/// assert_eq!(success_result_of(sent), 5);
/// assert_eq!(success_result_of(reader.read()).unwrap(), "hello");
/// ```
pub struct FileSender {
    file: File,
    range: Option<Range<u64>>,
}

/// Why a file was not sent to its end. What the file system says is a [`FileError`] instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FileSenderError {
    /// The consumer told the sender to stop.
    #[error("consumer stopped taking the file after {sent_bytes} bytes")]
    ConsumerStopped {
        /// How many it has had.
        sent_bytes: u64,
    },
    /// The file ends before the range does.
    #[error("file ended after {sent_bytes} bytes of the {expected_bytes} to be sent")]
    TooShort {
        /// How many bytes there were.
        sent_bytes: u64,
        /// How many were to be sent.
        expected_bytes: u64,
    },
}

/// A stretch of a file, for [`Consumer::take_file`].
pub struct FileRange {
    pub(crate) file: Arc<dyn OpenFile>,
    pub(crate) pool: ThreadPool,
    pub(crate) offset: u64,
    pub(crate) length_bytes: u64,
}

impl FileSender {
    /// Sends this file, from its start to what is its end when sending begins.
    #[must_use]
    pub fn new(file: File) -> FileSender {
        FileSender { file, range: None }
    }

    /// Sends these bytes of it only. All of them must be there.
    #[must_use]
    pub fn with_range(self, range: Range<u64>) -> FileSender {
        FileSender { range: Some(range), ..self }
    }

    /// Sends the file and returns the number of bytes once the consumer has been given all of them.
    ///
    /// The sender unregisters and closes the file at the end, also at a bad one. Cancelling is such an end.
    ///
    /// # Errors
    ///
    /// [`FileSenderError`] or [`FileError`]; the consumer has then had the first part.
    #[track_caller]
    pub fn send_to(self, consumer: Rc<dyn Consumer>) -> Deferred<u64> {
        let (deferred, resolver) = Deferred::new();
        let range = self.range.unwrap_or(0..u64::MAX);
        let is_whole = range.end == u64::MAX;
        let sending = Rc::new_cyclic(|itself| Sending {
            itself: Weak::clone(itself),
            consumer: checked(consumer),
            file: RefCell::new(Some(self.file)),
            start: range.start,
            position: Cell::new(range.start),
            end: Cell::new(range.end.max(range.start)),
            piece: RefCell::new(None),
            read_to: Cell::new(range.start),
            is_asked: Cell::new(false),
            is_busy: Cell::new(true),
            writes_only: Cell::new(false),
            resolver: Cell::new(None),
        });
        let weak = Rc::downgrade(&sending);
        resolver.set_canceller(move || {
            if let Some(sending) = weak.upgrade() {
                sending.end(Err(CancelledError.into()));
            }
        });
        sending.resolver.set(Some(resolver));
        sending.begin(is_whole);
        let producer: Rc<dyn Producer> = Rc::clone(&sending) as _;
        sending.consumer.register_producer(producer, Streaming::Pull);
        deferred
    }
}

impl fmt::Debug for FileSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, range) = (&self.file, &self.range);
        f.debug_struct("FileSender").field("file", file).field("range", range).finish()
    }
}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRange")
            .field("file", &self.file)
            .field("offset", &self.offset)
            .field("length_bytes", &self.length_bytes)
            .finish_non_exhaustive()
    }
}

/// A file on its way. The jobs under way and the consumer own it.
struct Sending {
    itself: Weak<Sending>,
    consumer: Rc<dyn Consumer>,
    /// `None` once it is over.
    file: RefCell<Option<File>>,
    start: u64,
    /// Up to where the consumer has had it.
    position: Cell<u64>,
    end: Cell<u64>,
    /// A piece that was read and not asked for yet.
    piece: RefCell<Option<Bytes>>,
    /// Up to where it was read.
    read_to: Cell<u64>,
    is_asked: Cell<bool>,
    /// A job is under way.
    is_busy: Cell<bool>,
    /// The consumer does not take files.
    writes_only: Cell<bool>,
    resolver: Cell<Option<Resolver<u64>>>,
}

impl Sending {
    /// Asks how long the file is; then goes on.
    fn begin(&self, is_whole: bool) {
        let length = match &*self.file.borrow() {
            Some(file) => file.length(),
            None => return,
        };
        self.then(length, move |sending, length| {
            if is_whole {
                sending.end.set(length.max(sending.start));
            } else if length < sending.end.get() {
                // Known before anybody has counted on it.
                let expected_bytes = sending.end.get() - sending.start;
                let sent_bytes = 0;
                let error = FileSenderError::TooShort { sent_bytes, expected_bytes };
                return sending.end(Err(error.into()));
            }
            if sending.end.get() - sending.start < GIVEN_BYTES_MIN {
                sending.writes_only.set(true);
            }
            sending.go_on();
        });
    }

    /// Does the next thing, if there is one to do now.
    fn go_on(&self) {
        if self.file.borrow().is_none() {
            return;
        }
        if self.is_asked.get() {
            let piece = self.piece.take();
            if let Some(piece) = piece {
                self.is_asked.set(false);
                self.position.set(self.position.get() + piece.len() as u64);
                self.consumer.write_bytes(piece);
            }
        }
        if self.position.get() == self.end.get() && !self.is_busy.get() {
            return self.end(Ok(()));
        }
        if self.is_busy.get() {
            return;
        }
        if self.is_asked.get() && !self.writes_only.get() && self.piece.borrow().is_none() {
            return self.give_file();
        }
        if self.writes_only.get() && self.piece.borrow().is_none() && self.read_to < self.end {
            self.read_ahead();
        }
    }

    fn read_ahead(&self) {
        let offset = self.read_to.get();
        let bytes_max = usize::try_from(self.end.get() - offset).unwrap_or(usize::MAX);
        let bytes_max = bytes_max.min(PIECE_BYTES);
        let read = match &*self.file.borrow() {
            Some(file) => {
                file.run(FileOperation::Read, move |file| read_at(file, offset, bytes_max))
            }
            None => return,
        };
        self.then(read, |sending, piece| {
            if piece.is_empty() {
                return sending.fail_too_short();
            }
            sending.read_to.set(sending.read_to.get() + piece.len() as u64);
            sending.piece.replace(Some(piece));
            sending.go_on();
        });
    }

    /// Gives the consumer the file in place of its bytes, if it takes that.
    fn give_file(&self) {
        let offset = self.position.get();
        let length_bytes = (self.end.get() - offset).min(FILE_BYTES_AT_ONCE);
        let range = match &*self.file.borrow() {
            Some(file) => file.range(offset, length_bytes),
            None => return,
        };
        let Some(taken) = range.and_then(|range| self.consumer.take_file(&range)) else {
            self.writes_only.set(true);
            return self.go_on();
        };
        self.is_asked.set(false);
        self.then_either(taken, move |sending, taken| match taken {
            Ok(bytes) => {
                sending.position.set(offset + bytes.min(length_bytes));
                sending.read_to.set(sending.position.get());
                sending.go_on();
            }
            Err(failure) => sending.file_refused(failure),
        });
    }

    fn file_refused(&self, failure: Failure) {
        let Some(error) = failure.downcast_ref::<io::Error>() else {
            return self.end(Err(failure));
        };
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.fail_too_short(),
            // A file system that the system cannot send from.
            io::ErrorKind::Unsupported => {
                self.writes_only.set(true);
                self.is_asked.set(true);
                self.go_on();
            }
            kind => {
                let path = self.file.borrow().as_ref().map(|file| file.path().to_owned());
                let source = error.raw_os_error().map_or(kind.into(), io::Error::from_raw_os_error);
                let path = path.unwrap_or_default();
                self.end(Err(FileError::of(FileOperation::Read, &path)(source).into()));
            }
        }
    }

    /// Goes on with what a job gives, unless it is over by then.
    fn then<T: 'static>(&self, job: Deferred<T>, f: impl FnOnce(&Sending, T) + 'static) {
        self.then_either(job, |sending, result| match result {
            Ok(value) => f(sending, value),
            Err(failure) => sending.end(Err(failure)),
        });
    }

    fn then_either<T: 'static>(
        &self,
        job: Deferred<T>,
        f: impl FnOnce(&Sending, Result<T, Failure>) + 'static,
    ) {
        self.is_busy.set(true);
        let Some(itself) = self.itself.upgrade() else { return };
        let done = job.add_both(move |result| {
            itself.is_busy.set(false);
            if itself.file.borrow().is_some() {
                f(&itself, result);
            }
            Ok(())
        });
        done.detach();
    }

    fn fail_too_short(&self) {
        let sent_bytes = self.position.get() - self.start;
        let expected_bytes = self.end.get() - self.start;
        self.end(Err(FileSenderError::TooShort { sent_bytes, expected_bytes }.into()));
    }

    fn end(&self, outcome: Result<(), Failure>) {
        let file = self.file.take();
        if file.is_none() {
            return;
        }
        drop((file, self.piece.take()));
        self.consumer.unregister_producer();
        let sent_bytes = self.position.get() - self.start;
        if let Some(resolver) = self.resolver.take() {
            resolver.fire(outcome.map(|()| sent_bytes));
        }
    }
}

impl Producer for Sending {
    fn pause_producing(&self) {}

    fn resume_producing(&self) {
        self.is_asked.set(true);
        self.go_on();
    }

    fn stop_producing(&self) {
        let sent_bytes = self.position.get() - self.start;
        self.end(Err(FileSenderError::ConsumerStopped { sent_bytes }.into()));
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<FileSender>()
    }
}

/// What is read at a time: enough that the way to a thread and back costs little beside it.
const PIECE_BYTES: usize = 256 * 1024;

/// From this length on a consumer is given the file itself, if it takes that. On loopback the system's own
/// way took 190 to 250 µs of processor time a mebibyte of a large file, reading and writing 290 to 400; at one
/// mebibyte there was no difference (`benches/file_send.rs`).
const GIVEN_BYTES_MIN: u64 = 2 * 1024 * 1024;

/// What the system is asked to send at a time. A socket commonly takes less.
const FILE_BYTES_AT_ONCE: u64 = 4 * 1024 * 1024;
