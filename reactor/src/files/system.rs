//! What a reactor needs of a file system, and what is made of it in one job.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::error::{FileError, FileOperation};

/// A file system: the machine's, or one in memory.
///
/// Every call may wait for a disk, so it is made in thread jobs only; on the loop there is
/// [`Files`](super::Files). Paths are those of the machine; one in memory takes relative ones as from the
/// root.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Opens a file. One that is created by that gets these permissions, less the process's umask.
    ///
    /// # Errors
    ///
    /// See [`OpenMode`]; otherwise the file system's, as of all methods.
    fn open(&self, path: &Path, mode: OpenMode, permissions: u32) -> io::Result<Arc<dyn OpenFile>>;

    /// Tells what is there under a name.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`], for one, if nothing is.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Returns what a folder holds, at most `entries_max` and one more, sorted by name.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn list(&self, folder: &Path, entries_max: usize) -> io::Result<Vec<Entry>>;

    /// Makes a folder, and those above it that are missing. One that is there already is fine.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn create_folder(&self, path: &Path, permissions: u32) -> io::Result<()>;

    /// Gives a file or folder another name; a file that has that already is gone by it.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// Brings the names in a folder to disk: which there are, and what they stand for.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// A file that was opened. Dropping the last handle closes it.
pub trait OpenFile: fmt::Debug + Send + Sync {
    /// Reads some bytes from `offset` on and returns how many; none at the file's end.
    ///
    /// # Errors
    ///
    /// The file system's, as of all methods; also that the file was not opened for this.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes some of these bytes at the file's end and returns how many.
    ///
    /// # Errors
    ///
    /// The file system's, for instance that it is full.
    fn append(&self, data: &[u8]) -> io::Result<usize>;

    /// Writes some of these bytes from `offset` on and returns how many.
    ///
    /// # Errors
    ///
    /// The file system's, for instance that it is full.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize>;

    /// Cuts the file off at this length, or fills it with zeros up to it.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn truncate(&self, length_bytes: u64) -> io::Result<()>;

    /// Returns the file's length in bytes.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn length(&self) -> io::Result<u64>;

    /// Brings what was written to disk.
    ///
    /// # Errors
    ///
    /// The file system's. What was written may then be lost, also if a later call succeeds.
    fn sync(&self) -> io::Result<()>;

    /// Returns the machine's own handle, if there is one.
    fn system_file(&self) -> Option<&fs::File> {
        None
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OpenMode {
    /// For writing at its end. It is created if it is missing.
    Append,
    /// For writing at its end, which is its beginning: what it held is gone. It is created if it is
    /// missing.
    Create,
    /// For writing at its end. It must not be there: [`io::ErrorKind::AlreadyExists`].
    CreateNew,
    /// For reading. It must be there: [`io::ErrorKind::NotFound`].
    Read,
    /// For reading, and for writing in the middle. It is created if it is missing.
    Update,
}

impl OpenMode {
    pub(super) fn check_appends(self) -> io::Result<()> {
        match self {
            OpenMode::Append | OpenMode::Create | OpenMode::CreateNew => Ok(()),
            OpenMode::Read | OpenMode::Update => Err(not_opened_for("writing at its end")),
        }
    }

    pub(super) fn check_reads(self) -> io::Result<()> {
        match self {
            OpenMode::Read | OpenMode::Update => Ok(()),
            _ => Err(not_opened_for("reading")),
        }
    }

    pub(super) fn check_updates(self) -> io::Result<()> {
        match self {
            OpenMode::Update => Ok(()),
            _ => Err(not_opened_for("writing in the middle")),
        }
    }
}

fn not_opened_for(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the file was not opened for {what}"))
}

/// What is known of a file or folder.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// Whether it is a file.
    pub kind: FileKind,
    /// Its length in bytes; of a folder, nothing to rely on.
    pub length_bytes: u64,
    /// Who may do what with it: the lowest nine bits of a Unix mode.
    pub permissions: u32,
    /// When it was last written to, if that is known.
    pub modified: Option<SystemTime>,
}

impl Metadata {
    pub(super) fn new(kind: FileKind, length_bytes: u64, permissions: u32) -> Metadata {
        Metadata { kind, length_bytes, permissions: permissions & 0o777, modified: None }
    }
}

/// What there is under a name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FileKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A device, a socket, a link in a list of entries, and so on.
    Other,
}

/// A name in a folder.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Entry {
    /// The name, without the folder's.
    pub name: OsString,
    /// What it stands for.
    pub kind: FileKind,
}

impl Entry {
    pub(super) fn new(name: OsString, kind: FileKind) -> Entry {
        Entry { name, kind }
    }
}

impl dyn FileSystem + '_ {
    /// Reads a whole file of at most `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub fn read(&self, path: &Path, bytes_max: u64) -> Result<Bytes, FileError> {
        let too_large = || FileError::TooLarge { path: path.to_owned(), bytes_max };
        let file =
            self.open(path, OpenMode::Read, 0).map_err(FileError::of(FileOperation::Open, path))?;
        let length = file.length().map_err(FileError::of(FileOperation::Metadata, path))?;
        if length > bytes_max {
            return Err(too_large());
        }
        let mut contents = Vec::new();
        let mut piece = vec![
            0;
            usize::try_from(length.saturating_add(1))
                .unwrap_or(usize::MAX)
                .clamp(READ_BYTES_MIN, READ_BYTES_MAX,)
        ];
        // To its end, whatever was announced: it may grow, and those in /proc announce nothing.
        loop {
            match file.read_at(contents.len() as u64, &mut piece) {
                Ok(0) => return Ok(contents.into()),
                Ok(count) if contents.len() as u64 + count as u64 > bytes_max => {
                    return Err(too_large());
                }
                Ok(count) => contents.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileError::of(FileOperation::Read, path)(error)),
            }
        }
    }

    /// Writes a whole file so that, whatever happens, either the old or the new one is there: under the
    /// temporary name, synced, renamed, its folder synced. `temporary` must not be there, and lie in the
    /// same folder.
    ///
    /// # Errors
    ///
    /// [`FileError`]. The old file is still there then, unless only the last sync failed.
    pub fn write_atomically(
        &self,
        path: &Path,
        temporary: &Path,
        permissions: u32,
        contents: &[u8],
    ) -> Result<(), FileError> {
        let file = self
            .open(temporary, OpenMode::CreateNew, permissions)
            .map_err(FileError::of(FileOperation::Open, temporary))?;
        let written =
            file.append_all(contents).map_err(FileError::of(FileOperation::Append, temporary));
        let synced = written
            .and_then(|()| file.sync().map_err(FileError::of(FileOperation::Sync, temporary)));
        drop(file);
        let renamed = synced.and_then(|()| {
            self.rename(temporary, path).map_err(FileError::of(FileOperation::Rename, path))
        });
        if let Err(error) = renamed {
            // That it could not be written is what the caller needs to know.
            let _ = self.remove_file(temporary);
            return Err(error);
        }
        let folder = folder_of(path);
        self.sync_folder(folder).map_err(FileError::of(FileOperation::SyncFolder, folder))
    }
}

impl dyn OpenFile + '_ {
    /// Writes all of these bytes at the file's end.
    ///
    /// # Errors
    ///
    /// The file system's; some of the bytes may have been written.
    pub fn append_all(&self, data: &[u8]) -> io::Result<()> {
        write_all(data, |_, rest| self.append(rest))
    }

    /// Writes all of these bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// The file system's; some of the bytes may have been written.
    pub fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write_all(data, |written, rest| self.write_at(offset + written as u64, rest))
    }
}

fn write_all(
    data: &[u8],
    mut write: impl FnMut(usize, &[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut written = 0;
    while written < data.len() {
        match write(written, &data[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the folder that a file lies in, as a path that can be opened.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Returns a name in the same folder that says whose it is and that somebody forgot it.
pub(crate) fn temporary_name(path: &Path, number: u64) -> PathBuf {
    let name = path.file_name().unwrap_or(OsStr::new("file"));
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{number:016x}.tmp"));
    path.with_file_name(temporary)
}

/// Pieces in which a whole file is read: a page at least, and few enough to be no burden.
const READ_BYTES_MIN: usize = 4096;
const READ_BYTES_MAX: usize = 256 * 1024;
