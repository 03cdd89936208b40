//! Files, without ever waiting for a disk on the loop.
//!
//! [`Reactor::files`](crate::Reactor::files) gives the handle: each of its operations runs in a thread and
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

mod error;
mod handle;
pub(crate) mod memory;
mod memory_node;
mod real;
mod system;

pub use error::{FileError, FileOperation};
pub use handle::{File, Files};
pub(crate) use real::RealFileSystem;
pub use system::{Entry, FileKind, FileSystem, Metadata, OpenFile, OpenMode};
