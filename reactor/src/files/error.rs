//! Why something with a file did not work.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why something with a file did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system refused.
    #[error("cannot {operation} {}", .path.display())]
    Failed {
        /// What was tried.
        operation: FileOperation,
        /// With which file or folder.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The file is longer than the caller wanted to read.
    #[error("{} holds more than {bytes_max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How many bytes it may hold.
        bytes_max: u64,
    },
    /// The folder holds more than anybody wants in memory.
    #[error("folder {} holds more than {entries_max} entries", .path.display())]
    TooManyEntries {
        /// The folder.
        path: PathBuf,
        /// How many entries are listed at most.
        entries_max: usize,
    },
}

impl FileError {
    pub(crate) fn of(operation: FileOperation, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        move |source| FileError::Failed { operation, path: path.to_owned(), source }
    }

    /// Returns the file or folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            FileError::Failed { path, .. }
            | FileError::TooLarge { path, .. }
            | FileError::TooManyEntries { path, .. } => path,
        }
    }

    /// Returns what kind of error the file system gave, if it was one of that.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            FileError::Failed { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

/// What is done with a file or folder.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum FileOperation {
    /// Writing at the end.
    Append,
    /// Making a folder.
    CreateFolder,
    /// Listing a folder.
    List,
    /// Asking for length, kind and so on.
    Metadata,
    /// Opening a file.
    Open,
    /// Reading.
    Read,
    /// Removing a file.
    RemoveFile,
    /// Removing an empty folder.
    RemoveFolder,
    /// Renaming.
    Rename,
    /// Bringing a file's bytes to disk.
    Sync,
    /// Bringing a folder's names to disk.
    SyncFolder,
    /// Making a file shorter or longer.
    Truncate,
    /// Writing in the middle.
    WriteAt,
}

impl fmt::Display for FileOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileOperation::Append | FileOperation::WriteAt => "write",
            FileOperation::CreateFolder => "create folder",
            FileOperation::List => "list folder",
            FileOperation::Metadata => "ask about",
            FileOperation::Open => "open",
            FileOperation::Read => "read",
            FileOperation::RemoveFile => "remove",
            FileOperation::RemoveFolder => "remove folder",
            FileOperation::Rename => "rename",
            FileOperation::Sync => "sync",
            FileOperation::SyncFolder => "sync folder",
            FileOperation::Truncate => "truncate",
        })
    }
}
