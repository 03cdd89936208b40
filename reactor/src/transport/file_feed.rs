//! A file as something to read from that never holds the loop: threads read it, a piece at a time.
//!
//! The system's poll mechanism refuses files, because they are always ready; reading them may take as
//! long as the disk likes all the same.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::core::Core;
use crate::reactor::Reactor;
use crate::slots::Key;

pub(crate) struct FileFeed {
    core: Weak<Core>,
    file: Arc<OwnedFd>,
    /// The source that is told when there is something to read.
    key: Cell<Key>,
    stage: RefCell<Stage>,
}

enum Stage {
    /// Nothing is here, and nobody has been asked.
    Empty,
    /// Reading came to the end.
    Ended,
    Failed(io::Error),
    /// A piece is here, and how much of it was taken.
    Piece(Vec<u8>, usize),
    /// A thread reads the next piece.
    Reading,
}

impl FileFeed {
    pub(crate) fn new(core: &Rc<Core>, file: OwnedFd) -> Rc<FileFeed> {
        Rc::new(FileFeed {
            core: Rc::downgrade(core),
            file: Arc::new(file),
            key: Cell::new(Key::NONE),
            stage: RefCell::new(Stage::Empty),
        })
    }

    /// Has this source served whenever there is something to read.
    pub(crate) fn set_key(&self, key: Key) {
        self.key.set(key);
    }

    pub(crate) fn read(self: &Rc<FileFeed>, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stage = self.stage.borrow_mut();
        match &mut *stage {
            Stage::Ended => Ok(0),
            Stage::Failed(_) => match mem::replace(&mut *stage, Stage::Ended) {
                Stage::Failed(error) => Err(error),
                _ => Ok(0),
            },
            Stage::Piece(bytes, taken) => {
                let count = buffer.len().min(bytes.len() - *taken);
                buffer[..count].copy_from_slice(&bytes[*taken..*taken + count]);
                *taken += count;
                if *taken == bytes.len() {
                    *stage = Stage::Empty;
                }
                Ok(count)
            }
            Stage::Empty => {
                *stage = Stage::Reading;
                drop(stage);
                self.read_next();
                Err(io::ErrorKind::WouldBlock.into())
            }
            Stage::Reading => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn read_next(self: &Rc<FileFeed>) {
        let Some(core) = self.core.upgrade() else { return };
        let file = Arc::clone(&self.file);
        let feed = Rc::downgrade(self);
        let piece = Reactor::from_core(core).defer_to_thread(move || {
            let mut bytes = vec![0; PIECE_BYTES];
            let count = rustix::io::retry_on_intr(|| rustix::io::read(&*file, &mut bytes))?;
            bytes.truncate(count);
            Ok::<_, io::Error>(bytes)
        });
        // Dropping it leaves the reading going.
        drop(piece.add_both(move |piece| {
            if let Some(feed) = feed.upgrade() {
                let stage = match piece {
                    Ok(bytes) if bytes.is_empty() => Stage::Ended,
                    Ok(bytes) => Stage::Piece(bytes, 0),
                    Err(failure) => Stage::Failed(io::Error::other(failure.to_string())),
                };
                feed.stage.replace(stage);
                feed.tell();
            }
            Ok(())
        }));
    }

    fn tell(&self) {
        if let Some(core) = self.core.upgrade() {
            core.read_later(self.key.get());
        }
    }
}

/// Read at a time: as much as a connection reads.
const PIECE_BYTES: usize = 64 * 1024;
