//! A file system in memory, for tests and simulated hosts.
//!
//! Bytes and names that were synced are told from those that were not, so that power can be lost.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use super::error::FileOperation;
use super::memory_node::{Change, FileNode, FolderNode, Node};
use super::memory_tree::{find, find_folder, make_folders, names, split, used_bytes};
use super::system::{Entry, FileKind, FileSystem, Metadata, OpenFile, OpenMode};

/// A file system in memory: what the reactor of a [`Clock`](crate::testing::Clock) has instead of the
/// machine's.
///
/// What the code under test does with it is done as on a disk whose cache is lost with the power: bytes
/// are safe once their file is synced, names once their folder is. [`lose_unsynced`](Self::lose_unsynced)
/// takes the power away. It can also be [slow](Self::set_pace), [full](Self::set_capacity) and
/// [faulty](Self::inject), for those who use it through the reactor; the methods here that read and write files are
/// for the test itself and none of that.
///
/// A handle is a cheap clone. Relative paths are taken as from the root; there are no links.
///
/// ```
/// use std::path::Path;
/// use ropewalk::files::OpenMode;
/// use ropewalk::testing::{Clock, success_result_of};
///
/// let clock = Clock::new();
/// let disk = clock.file_system();
/// disk.write("/var/notes", "one");
/// let opened = clock.reactor().files().open("/var/notes", OpenMode::Append);
/// clock.pump();
/// let file = success_result_of(opened);
/// let written = file.append(" two");
/// clock.pump();
/// success_result_of(written);
/// assert_eq!(disk.read("/var/notes").unwrap(), b"one two");
/// disk.lose_unsynced();
/// assert_eq!(disk.read("/var/notes").unwrap(), b"one");
/// ```
#[derive(Clone)]
pub struct MemoryFileSystem {
    shared: Arc<Shared>,
}

struct Shared {
    /// Held during each operation, so that one may touch several folders.
    root: Mutex<Arc<FolderNode>>,
    /// Counts losses of power; files that were opened before are dead.
    losses: AtomicU64,
    settings: Mutex<Settings>,
    spent_nanos: AtomicU64,
}

#[derive(Default)]
struct Settings {
    capacity_bytes: Option<u64>,
    write_bytes_max: Option<usize>,
    pace: Option<Pace>,
    faults: BTreeMap<u64, Fault>,
    next_fault: u64,
    wall_clock: Option<WallClock>,
}

type Pace = Arc<dyn Fn(FileOperation, u64) -> Duration + Send + Sync>;
type Fault = Arc<dyn Fn(FileOperation, &Path) -> io::Result<()> + Send + Sync>;
type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

// For tests.

impl MemoryFileSystem {
    /// Makes an empty file system.
    #[must_use]
    pub fn new() -> MemoryFileSystem {
        MemoryFileSystem {
            shared: Arc::new(Shared {
                root: Mutex::new(FolderNode::new(0o755)),
                losses: AtomicU64::new(0),
                settings: Mutex::default(),
                spent_nanos: AtomicU64::new(0),
            }),
        }
    }

    /// Returns what a file holds now, synced or not; `None` if there is none of this name.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let root = self.shared.root();
        match find(&root, path.as_ref()) {
            Ok(Node::File(file)) => Some(file.contents()),
            _ => None,
        }
    }

    /// Puts a file there, safely synced, with the folders above it; one that is there is replaced.
    ///
    /// # Panics
    ///
    /// If the path names a folder, or leads through a file.
    pub fn write(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        let path = path.as_ref();
        let root = self.shared.root();
        let (folder, name) = split(path).expect("a path with a name at its end");
        let folders = make_folders(&root, &folder, 0o755).expect("a path through folders");
        let there = folders.last().expect("the root at least");
        assert!(!matches!(there.get(&name), Some(Node::Folder(_))), "a folder is in the way");
        let file = FileNode::new(0o644);
        file.append(contents.as_ref(), self.shared.now());
        file.sync();
        there.put(name, Node::File(file));
        folders.iter().for_each(|folder| folder.sync());
    }

    /// Returns the names of all files, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut folders = vec![(PathBuf::from("/"), Arc::clone(&self.shared.root()))];
        while let Some((path, folder)) = folders.pop() {
            for (name, node) in folder.entries() {
                match node {
                    Node::File(_) => paths.push(path.join(name)),
                    Node::Folder(folder) => folders.push((path.join(name), folder)),
                }
            }
        }
        paths.sort();
        paths
    }

    /// Takes the power away: what was not synced is gone, all of it. Files that are open are dead.
    pub fn lose_unsynced(&self) {
        self.lose_some_unsynced(|_| 0);
    }

    /// Takes the power away when some of what was not synced has reached the disk by itself.
    ///
    /// How much is up to `choose(n)`, which returns a number from 0 to `n`: of each file's new bytes the
    /// first so many are kept, of each folder's changes the oldest so many.
    pub fn lose_some_unsynced(&self, mut choose: impl FnMut(u64) -> u64) {
        let root = self.shared.root();
        self.shared.losses.fetch_add(1, Ordering::Relaxed);
        let mut folders = vec![Arc::clone(&root)];
        while let Some(folder) = folders.pop() {
            folder.lose_unsynced(&mut choose);
            for node in folder.entries().into_values() {
                match node {
                    Node::File(file) => file.lose_unsynced(&mut choose),
                    Node::Folder(folder) => folders.push(folder),
                }
            }
        }
    }

    /// Sets how many bytes the files may hold together. The write that passes it is cut short, the next one
    /// fails with [`io::ErrorKind::StorageFull`].
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.settings().capacity_bytes = bytes;
    }

    /// Sets how many bytes one call writes at most, as a system may cut any write short.
    pub fn set_write_bytes_max(&self, bytes: Option<usize>) {
        self.shared.settings().write_bytes_max = bytes;
    }

    /// Sets how long an operation takes, given its kind and how many bytes it read or wrote. The result of a
    /// thread job comes back that much virtual time later.
    pub fn set_pace(&self, pace: impl Fn(FileOperation, u64) -> Duration + Send + Sync + 'static) {
        self.shared.settings().pace = Some(Arc::new(pace));
    }

    /// Has each operation ask `fault` first, which may make it fail, until the guard is dropped.
    ///
    /// ```
    /// use std::io;
    /// use ropewalk::files::{FileError, FileOperation};
    /// use ropewalk::testing::{Clock, failure_result_of};
    ///
    /// let clock = Clock::new();
    /// let disk = clock.file_system();
    /// let fault = disk.inject(|operation, _| match operation {
    ///     FileOperation::Sync => Err(io::Error::other("the disk does not answer")),
    ///     _ => Ok(()),
    /// });
    /// let written = clock.reactor().files().write_atomically("state", "1");
    /// clock.pump();
    /// assert!(failure_result_of(written).is::<FileError>());
    /// drop(fault);
    /// ```
    pub fn inject(
        &self,
        fault: impl Fn(FileOperation, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> InjectedFault {
        let mut settings = self.shared.settings();
        let number = settings.next_fault;
        settings.next_fault += 1;
        settings.faults.insert(number, Arc::new(fault));
        InjectedFault { shared: Arc::downgrade(&self.shared), number }
    }
}

impl MemoryFileSystem {
    /// Sets what tells when a file was written.
    pub(crate) fn set_wall_clock(&self, wall_clock: WallClock) {
        self.shared.settings().wall_clock = Some(wall_clock);
    }

    /// Returns how much time operations have taken since the last time this was asked.
    pub(crate) fn take_time_spent(&self) -> Duration {
        Duration::from_nanos(self.shared.spent_nanos.swap(0, Ordering::Relaxed))
    }
}

impl Default for MemoryFileSystem {
    fn default() -> MemoryFileSystem {
        MemoryFileSystem::new()
    }
}

impl fmt::Debug for MemoryFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFileSystem").field("paths", &self.paths()).finish()
    }
}

/// A fault in a [`MemoryFileSystem`], which is mended when this is dropped.
#[must_use = "the fault is mended when this is dropped"]
pub struct InjectedFault {
    shared: Weak<Shared>,
    number: u64,
}

impl Drop for InjectedFault {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let fault = shared.settings().faults.remove(&self.number);
            drop(fault);
        }
    }
}

impl fmt::Debug for InjectedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectedFault").field("number", &self.number).finish()
    }
}

impl Shared {
    /// No code of others runs under the locks, so that a poisoned one is as good as any.
    fn root(&self) -> MutexGuard<'_, Arc<FolderNode>> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Option<SystemTime> {
        let wall_clock = self.settings().wall_clock.clone();
        wall_clock.map(|wall_clock| wall_clock())
    }

    /// What comes before each operation: faults.
    fn begin(&self, operation: FileOperation, path: &Path) -> io::Result<()> {
        let faults: Vec<Fault> = self.settings().faults.values().cloned().collect();
        faults.iter().try_for_each(|fault| fault(operation, path))
    }

    /// What comes after each operation that was tried: its time.
    fn end<T>(&self, operation: FileOperation, bytes: u64, result: io::Result<T>) -> io::Result<T> {
        let pace = self.settings().pace.clone();
        if let Some(pace) = pace {
            let nanos = u64::try_from(pace(operation, bytes).as_nanos()).unwrap_or(u64::MAX);
            self.spent_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
        result
    }

    /// Does something with the tree.
    fn change<T>(
        &self,
        operation: FileOperation,
        path: &Path,
        f: impl FnOnce(&Arc<FolderNode>) -> io::Result<T>,
    ) -> io::Result<T> {
        let result = self.begin(operation, path).and_then(|()| f(&self.root()));
        self.end(operation, 0, result)
    }

    /// Returns how many of these bytes can be written.
    fn writable_bytes(&self, root: &Arc<FolderNode>, count: usize) -> io::Result<usize> {
        let (capacity, write_bytes_max) = {
            let settings = self.settings();
            (settings.capacity_bytes, settings.write_bytes_max)
        };
        let mut writable = count.min(write_bytes_max.unwrap_or(usize::MAX).max(1));
        if let Some(capacity) = capacity {
            let free = capacity.saturating_sub(used_bytes(root));
            writable = writable.min(usize::try_from(free).unwrap_or(usize::MAX));
            if writable == 0 && count > 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(writable)
    }
}

impl FileSystem for MemoryFileSystem {
    fn open(&self, path: &Path, mode: OpenMode, permissions: u32) -> io::Result<Arc<dyn OpenFile>> {
        let shared = &self.shared;
        shared.change(FileOperation::Open, path, |root| {
            let found = match find(root, path) {
                Ok(Node::Folder(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                Ok(Node::File(_)) if mode == OpenMode::CreateNew => {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                Ok(Node::File(file)) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound && mode != OpenMode::Read => {
                    None
                }
                Err(error) => return Err(error),
            };
            let file = match found {
                Some(file) => file,
                None => {
                    let (folder, name) = split(path)?;
                    let file = FileNode::new(permissions);
                    find_folder(root, &folder)?.put(name, Node::File(Arc::clone(&file)));
                    file
                }
            };
            if mode == OpenMode::Create {
                file.truncate(0, shared.now());
            }
            Ok(Arc::new(MemoryFile {
                shared: Arc::clone(shared),
                file,
                path: path.to_owned(),
                mode,
                losses: shared.losses.load(Ordering::Relaxed),
            }) as Arc<dyn OpenFile>)
        })
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.shared.change(FileOperation::Metadata, path, |root| match find(root, path)? {
            Node::File(file) => Ok(file.metadata()),
            Node::Folder(folder) => Ok(Metadata::new(FileKind::Folder, 0, folder.permissions)),
        })
    }

    fn list(&self, folder: &Path, entries_max: usize) -> io::Result<Vec<Entry>> {
        self.shared.change(FileOperation::List, folder, |root| {
            let entries = find_folder(root, &names(folder)?)?.entries();
            let entries = entries.into_iter().take(entries_max.saturating_add(1));
            Ok(entries.map(|(name, node)| Entry::new(name, node.kind())).collect())
        })
    }

    fn create_folder(&self, path: &Path, permissions: u32) -> io::Result<()> {
        self.shared.change(FileOperation::CreateFolder, path, |root| {
            make_folders(root, &names(path)?, permissions).map(drop)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.change(FileOperation::Rename, from, |root| {
            let (from_folder, from_name) = split(from)?;
            let (to_folder, to_name) = split(to)?;
            let from_folder = find_folder(root, &from_folder)?;
            let to_folder = find_folder(root, &to_folder)?;
            let node = from_folder.get(&from_name).ok_or(io::ErrorKind::NotFound)?;
            if let Node::Folder(moved) = &node
                && moved.holds(&to_folder)
            {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            match (&node, to_folder.get(&to_name)) {
                (_, None) | (Node::File(_), Some(Node::File(_))) => {}
                (Node::Folder(_), Some(Node::Folder(there))) if there.entries().is_empty() => {}
                (Node::Folder(_), Some(Node::Folder(_))) => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                (Node::File(_), Some(Node::Folder(_))) => {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                (Node::Folder(_), Some(Node::File(_))) => {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            if Arc::ptr_eq(&from_folder, &to_folder) {
                from_folder.change(Change::Rename { from: from_name, to: to_name });
            } else {
                to_folder.put(to_name, node);
                from_folder
                    .change(Change::MoveOut { name: from_name, to: Arc::downgrade(&to_folder) });
            }
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.change(FileOperation::RemoveFile, path, |root| {
            let (folder, name) = split(path)?;
            let folder = find_folder(root, &folder)?;
            match folder.get(&name).ok_or(io::ErrorKind::NotFound)? {
                Node::File(_) => folder.change(Change::Remove { name }),
                Node::Folder(_) => return Err(io::ErrorKind::IsADirectory.into()),
            }
            Ok(())
        })
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.shared.change(FileOperation::RemoveFolder, path, |root| {
            let (folder, name) = split(path)?;
            let folder = find_folder(root, &folder)?;
            match folder.get(&name).ok_or(io::ErrorKind::NotFound)? {
                Node::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Node::Folder(removed) if !removed.entries().is_empty() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                Node::Folder(_) => folder.change(Change::Remove { name }),
            }
            Ok(())
        })
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.shared.change(FileOperation::SyncFolder, path, |root| {
            find_folder(root, &names(path)?)?.sync();
            Ok(())
        })
    }
}

/// A file of a [`MemoryFileSystem`] that was opened.
struct MemoryFile {
    shared: Arc<Shared>,
    file: Arc<FileNode>,
    path: PathBuf,
    mode: OpenMode,
    losses: u64,
}

impl MemoryFile {
    /// Does something with the file, which tells how many bytes it was.
    fn act(
        &self,
        operation: FileOperation,
        f: impl FnOnce(&Arc<FolderNode>) -> io::Result<u64>,
    ) -> io::Result<u64> {
        let result = self.shared.begin(operation, &self.path).and_then(|()| {
            let root = self.shared.root();
            if self.shared.losses.load(Ordering::Relaxed) == self.losses {
                f(&root)
            } else {
                Err(io::Error::other("the power was lost while the file was open"))
            }
        });
        self.shared.end(operation, *result.as_ref().unwrap_or(&0), result)
    }
}

impl OpenFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.act(FileOperation::Read, |_| {
            self.mode.check_reads()?;
            Ok(self.file.read_at(offset, buffer) as u64)
        })?;
        Ok(count as usize)
    }

    fn append(&self, data: &[u8]) -> io::Result<usize> {
        let count = self.act(FileOperation::Append, |root| {
            self.mode.check_appends()?;
            let writable = self.shared.writable_bytes(root, data.len())?;
            self.file.append(&data[..writable], self.shared.now());
            Ok(writable as u64)
        })?;
        Ok(count as usize)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        let count = self.act(FileOperation::WriteAt, |root| {
            self.mode.check_updates()?;
            let writable = self.shared.writable_bytes(root, data.len())?;
            self.file.write_at(in_memory(offset)?, &data[..writable], self.shared.now());
            Ok(writable as u64)
        })?;
        Ok(count as usize)
    }

    fn truncate(&self, length_bytes: u64) -> io::Result<()> {
        let act = self.act(FileOperation::Truncate, |_| {
            self.file.truncate(in_memory(length_bytes)?, self.shared.now());
            Ok(0)
        });
        act.map(drop)
    }

    fn length(&self) -> io::Result<u64> {
        // Told as what it found, it would count as bytes that were read.
        let mut length = 0;
        self.act(FileOperation::Metadata, |_| {
            length = self.file.length();
            Ok(0)
        })?;
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        let act = self.act(FileOperation::Sync, |_| {
            self.file.sync();
            Ok(0)
        });
        act.map(drop)
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, mode) = (&self.path, self.mode);
        f.debug_struct("MemoryFile").field("path", path).field("mode", &mode).finish()
    }
}

/// A file with a hole of this size would fill the memory.
fn in_memory(offset: u64) -> io::Result<usize> {
    match usize::try_from(offset) {
        Ok(offset) if offset <= FILE_BYTES_MAX => Ok(offset),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// What a file in memory may be seeked or stretched to.
const FILE_BYTES_MAX: usize = 1 << 30;
