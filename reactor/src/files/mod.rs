//! Files, without ever waiting for a disk on the loop.
//!
//! [`Reactor::files`](crate::Reactor::files) gives the handle: each of its operations runs in a thread and
//! comes back as a deferred. [`FileSender`] sends a file to a consumer at the consumer's pace,
//! [`BackgroundFileConsumer`] writes one at the disk's.
//!
//! ```
//! use ropewalk::testing::{Clock, success_result_of};
//!
//! let clock = Clock::new();
//! let files = clock.reactor().files();
//! let written = files.with_permissions(0o600).write_atomically("/secret", "abracadabra");
//! clock.pump();
//! success_result_of(written);
//! let secret = files.read("/secret", 1024);
//! clock.pump();
//! assert_eq!(success_result_of(secret), "abracadabra");
//! ```
//!
//! Behind the handle stands a [`FileSystem`]: the machine's, or one in memory
//! ([`MemoryFileSystem`](crate::testing::MemoryFileSystem)) that a test can fill, look into, make slow or full
//! or faulty, and take the power from. A job of your own that does several things with files asks for
//! it ([`Files::blocking`]), so that it works on both.

mod background;
mod error;
mod handle;
pub(crate) mod memory;
mod memory_node;
mod memory_tree;
mod real;
mod sender;
mod system;

pub use background::BackgroundFileConsumer;
pub use error::{FileError, FileOperation};
pub use handle::{File, Files};
pub(crate) use real::RealFileSystem;
pub use sender::{FileRange, FileSender, FileSenderError};
pub use system::{Entry, FileKind, FileSystem, Metadata, OpenFile, OpenMode};
