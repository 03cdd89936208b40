//! [`Files`] and [`File`]: the file system as the loop sees it, every operation a deferred.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Weak;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{FileError, FileOperation};
use super::sender::FileRange;
use super::system::{Entry, FileSystem, Metadata, OpenFile, OpenMode, temporary_name};
use crate::core::Core;
use crate::deferred::{Deferred, DeferredLock};
use crate::failure::Failure;
use crate::reactor::Reactor;
use crate::threads::{ThreadPool, ThreadPoolOptions};

/// The file system, with every operation run in a thread. A handle is a cheap clone.
///
/// Cancelling an operation takes it out of its pool's queue; one that has begun runs to its end, and
/// nobody hears of it. The failures are [`FileError`]s, or [`ThreadPoolError`](crate::ThreadPoolError)s if
/// the pool takes no more jobs.
///
/// See [the module](super) for an example.
#[derive(Clone)]
pub struct Files {
    core: Weak<Core>,
    system: Arc<dyn FileSystem>,
    pool: ThreadPool,
    permissions: u32,
}

impl Reactor {
    /// Returns the file system. Its operations run in a pool of their own, so that a slow disk holds up
    /// nothing else.
    #[must_use]
    pub fn files(&self) -> Files {
        let core = self.core();
        let pool = core.files_pool.get_or_init(|| {
            self.thread_pool(ThreadPoolOptions::new("files").threads(FILES_THREADS))
        });
        Files {
            core: std::rc::Rc::downgrade(core),
            system: core.backend.file_system(),
            pool: pool.clone(),
            permissions: PERMISSIONS,
        }
    }
}

impl Files {
    /// Sets which permissions files have that are created, less the process's umask: those of a Unix mode.
    /// Folders can be entered, besides, by those who may read them. It is `0o666` otherwise.
    #[must_use]
    pub fn with_permissions(&self, permissions: u32) -> Files {
        Files { permissions: permissions & 0o777, ..self.clone() }
    }

    /// Sets where operations run.
    #[must_use]
    pub fn with_pool(&self, pool: ThreadPool) -> Files {
        Files { pool, ..self.clone() }
    }

    /// Reads a whole file of at most `bytes_max` bytes.
    #[track_caller]
    pub fn read(&self, path: impl Into<PathBuf>, bytes_max: u64) -> Deferred<Bytes> {
        self.run(path, move |system, path| system.read(path, bytes_max))
    }

    /// Writes a whole file so that, whatever happens, either the old or the new contents are there; once the
    /// deferred has fired, the new ones are on disk.
    ///
    /// They are written under another name in the same folder, `.name.0123456789abcdef.tmp`, which is left
    /// behind only if the process is killed meanwhile. A link is replaced by a file.
    #[track_caller]
    pub fn write_atomically(
        &self,
        path: impl Into<PathBuf>,
        contents: impl Into<Bytes>,
    ) -> Deferred<()> {
        let contents = contents.into();
        let permissions = self.permissions;
        let number = self.random_number();
        self.run(path, move |system, path| {
            let temporary = temporary_name(path, number);
            system.write_atomically(path, &temporary, permissions, &contents)
        })
    }

    /// Opens a file.
    #[track_caller]
    pub fn open(&self, path: impl Into<PathBuf>, mode: OpenMode) -> Deferred<File> {
        let path = path.into();
        let permissions = self.permissions;
        let files = self.clone();
        let opened = self.run(path.clone(), move |system, path| {
            system.open(path, mode, permissions).map_err(FileError::of(FileOperation::Open, path))
        });
        opened.add_callback(move |opened| {
            let lock = DeferredLock::new();
            Ok(File { files, path, opened: Some(opened), lock })
        })
    }

    /// Tells what there is under a name.
    #[track_caller]
    pub fn metadata(&self, path: impl Into<PathBuf>) -> Deferred<Metadata> {
        self.attempt(FileOperation::Metadata, path, |system, path| system.metadata(path))
    }

    /// Returns what a folder holds, sorted by name: a hundred thousand entries at most.
    #[track_caller]
    pub fn list(&self, folder: impl Into<PathBuf>) -> Deferred<Vec<Entry>> {
        self.run(folder, |system, path| {
            let entries_max = LISTED_ENTRIES_MAX;
            let listed = system.list(path, entries_max);
            let entries = listed.map_err(FileError::of(FileOperation::List, path))?;
            if entries.len() > entries_max {
                return Err(FileError::TooManyEntries { path: path.to_owned(), entries_max });
            }
            Ok(entries)
        })
    }

    /// Makes a folder, and those above it that are missing. One that is there already is fine.
    #[track_caller]
    pub fn create_folder(&self, path: impl Into<PathBuf>) -> Deferred<()> {
        let permissions = self.permissions | (self.permissions & 0o444) >> 2;
        self.attempt(FileOperation::CreateFolder, path, move |system, path| {
            system.create_folder(path, permissions)
        })
    }

    /// Gives a file or folder another name; a file that has that already is gone by it.
    #[track_caller]
    pub fn rename(&self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Deferred<()> {
        let to = to.into();
        self.attempt(FileOperation::Rename, from, move |system, from| system.rename(from, &to))
    }

    /// Removes a file.
    #[track_caller]
    pub fn remove(&self, path: impl Into<PathBuf>) -> Deferred<()> {
        self.attempt(FileOperation::RemoveFile, path, |system, path| system.remove_file(path))
    }

    /// Removes an empty folder.
    #[track_caller]
    pub fn remove_folder(&self, path: impl Into<PathBuf>) -> Deferred<()> {
        self.attempt(FileOperation::RemoveFolder, path, |system, path| system.remove_folder(path))
    }

    /// Brings the names in a folder to disk. A file that was created, renamed or removed may be as before
    /// after a loss of power unless its folder is synced; [`write_atomically`](Files::write_atomically) does that
    /// by itself.
    #[track_caller]
    pub fn sync_folder(&self, path: impl Into<PathBuf>) -> Deferred<()> {
        self.attempt(FileOperation::SyncFolder, path, |system, path| system.sync_folder(path))
    }

    /// Returns the file system itself, for a job of your own in a thread. On the loop its calls would
    /// wait for the disk.
    #[must_use]
    pub fn blocking(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.system)
    }

    /// Runs one operation of the file system.
    #[track_caller]
    fn attempt<T: Send + 'static>(
        &self,
        operation: FileOperation,
        path: impl Into<PathBuf>,
        f: impl FnOnce(&dyn FileSystem, &Path) -> io::Result<T> + Send + 'static,
    ) -> Deferred<T> {
        self.run(path, move |system, path| f(system, path).map_err(FileError::of(operation, path)))
    }

    #[track_caller]
    fn run<T: Send + 'static>(
        &self,
        path: impl Into<PathBuf>,
        f: impl FnOnce(&dyn FileSystem, &Path) -> Result<T, FileError> + Send + 'static,
    ) -> Deferred<T> {
        let path = path.into();
        let system = Arc::clone(&self.system);
        self.pool.defer(move || f(&*system, &path))
    }

    fn random_number(&self) -> u64 {
        let mut bytes = [0; 8];
        if let Some(core) = self.core.upgrade() {
            core.backend.random_bytes(&mut bytes);
        }
        u64::from_le_bytes(bytes)
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files")
            .field("pool", &self.pool.name())
            .field("permissions", &format_args!("{:03o}", self.permissions))
            .finish_non_exhaustive()
    }
}

/// A file that was opened with [`Files::open`].
///
/// Operations are done in the order in which they were asked for, one at a time. Cancelling one that waits
/// takes it out of the line. Dropping the file closes it, in a thread, once what was asked for is done.
///
/// ```
/// use ropewalk::files::OpenMode;
/// use ropewalk::{Failure, Reactor};
///
/// # fn main() -> Result<(), Failure> {
/// let reactor = Reactor::new()?;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("log");
/// let files = reactor.files();
/// let text = reactor.spawn(async move {
///     let log = files.open(&path, OpenMode::Append).await?;
///     let first = log.append("one\n"); // goes on by itself
///     log.append("two\n").await?;
///     first.await?;
///     log.sync().await?;
///     files.read(&path, 1024).await
/// });
/// assert_eq!(reactor.run_until(text)?, "one\ntwo\n");
/// # Ok(())
/// # }
/// ```
pub struct File {
    files: Files,
    path: PathBuf,
    /// `None` once it is being closed.
    opened: Option<Arc<dyn OpenFile>>,
    lock: DeferredLock,
}

impl File {
    /// Reads up to `bytes_max` bytes from `offset` on: fewer only at the file's end, none behind it.
    #[track_caller]
    pub fn read_at(&self, offset: u64, bytes_max: usize) -> Deferred<Bytes> {
        self.run(FileOperation::Read, move |file| read_at(file, offset, bytes_max))
    }

    /// Writes these bytes at the file's end.
    #[track_caller]
    pub fn append(&self, data: impl Into<Bytes>) -> Deferred<()> {
        let data = data.into();
        self.run(FileOperation::Append, move |file| file.append_all(&data))
    }

    /// Writes these bytes from `offset` on, into a file that was opened for [`OpenMode::Update`].
    #[track_caller]
    pub fn write_at(&self, offset: u64, data: impl Into<Bytes>) -> Deferred<()> {
        let data = data.into();
        self.run(FileOperation::WriteAt, move |file| file.write_all_at(offset, &data))
    }

    /// Cuts the file off at this length, or fills it with zeros up to it.
    #[track_caller]
    pub fn truncate(&self, length_bytes: u64) -> Deferred<()> {
        self.run(FileOperation::Truncate, move |file| file.truncate(length_bytes))
    }

    /// Brings what was written to disk.
    #[track_caller]
    pub fn sync(&self) -> Deferred<()> {
        self.run(FileOperation::Sync, |file| file.sync())
    }

    /// Returns the file's length in bytes.
    #[track_caller]
    pub fn length(&self) -> Deferred<u64> {
        self.run(FileOperation::Metadata, |file| file.length())
    }

    /// Closes the file, once what was asked for before is done. What was not synced is not lost by that, but
    /// is by a loss of power.
    #[track_caller]
    pub fn close(mut self) -> Deferred<()> {
        let opened = self.opened.take();
        let pool = self.files.pool.clone();
        self.lock.acquire().add_callback(move |guard| {
            pool.defer(move || {
                drop(opened);
                Ok::<_, Failure>(())
            })
            .add_both(move |result: Result<(), Failure>| {
                drop(guard);
                result
            })
        })
    }

    /// Returns the file system that it was opened from.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Returns the name by which it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a stretch of the file for whoever takes files.
    pub(super) fn range(&self, offset: u64, length_bytes: u64) -> Option<FileRange> {
        let file = Arc::clone(self.opened.as_ref()?);
        Some(FileRange { file, pool: self.files.pool.clone(), offset, length_bytes })
    }

    /// Runs `f` with the file in a thread, when its turn comes.
    #[track_caller]
    pub(super) fn run<T: Send + 'static>(
        &self,
        operation: FileOperation,
        f: impl FnOnce(&dyn OpenFile) -> io::Result<T> + Send + 'static,
    ) -> Deferred<T> {
        let Some(opened) = self.opened.clone() else {
            return Deferred::fail(io::Error::from(io::ErrorKind::NotConnected));
        };
        let path = self.path.clone();
        let pool = self.files.pool.clone();
        self.lock.acquire().add_callback(move |guard| {
            let done = pool.defer(move || f(&*opened).map_err(FileError::of(operation, &path)));
            done.add_both(move |result: Result<T, Failure>| {
                drop(guard);
                result
            })
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let Some(opened) = self.opened.take() else { return };
        // Closing may wait for a disk. Behind the operations that wait, if there are any, it is the last of
        // them that closes.
        let closed = self.files.pool.defer(move || {
            drop(opened);
            Ok::<_, Failure>(())
        });
        // A pool that takes no more jobs has dropped, and so closed, it here.
        closed.add_errback(|_| Ok(())).detach();
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Reads until the bytes are there, or the file ends.
pub(super) fn read_at(file: &dyn OpenFile, offset: u64, bytes_max: usize) -> io::Result<Bytes> {
    // Room for what is there, however much was asked for.
    let rest = usize::try_from(file.length()?.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut data = vec![0; bytes_max.min(rest.max(READ_BYTES_MIN))];
    let mut filled = 0;
    while filled < data.len() {
        match file.read_at(offset + filled as u64, &mut data[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(filled);
    Ok(data.into())
}

/// What is read at least, of files that announce no length.
const READ_BYTES_MIN: usize = 4096;

/// Threads that wait for disks. More than this at a time do not make a disk faster.
const FILES_THREADS: usize = 4;

/// What the process's umask takes from, as for other programs.
const PERMISSIONS: u32 = 0o666;

/// Entries of a folder that are held in memory at once: some megabytes.
const LISTED_ENTRIES_MAX: usize = 100_000;
