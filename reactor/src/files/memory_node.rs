//! Files and folders of the file system in memory: what they hold, and what of that is on disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use super::system::{FileKind, Metadata};

#[derive(Clone)]
pub(super) enum Node {
    File(Arc<FileNode>),
    Folder(Arc<FolderNode>),
}

impl Node {
    pub(super) fn kind(&self) -> FileKind {
        match self {
            Node::File(_) => FileKind::File,
            Node::Folder(_) => FileKind::Folder,
        }
    }
}

pub(super) struct FileNode {
    permissions: u32,
    state: Mutex<FileState>,
}

struct FileState {
    contents: Vec<u8>,
    synced: Synced,
    modified: Option<SystemTime>,
}

/// What a file holds on disk.
enum Synced {
    /// Something else than what it holds now.
    Other(Vec<u8>),
    /// The first so many bytes of what it holds now.
    Prefix(usize),
}

impl FileNode {
    pub(super) fn new(permissions: u32) -> Arc<FileNode> {
        let state = FileState { contents: Vec::new(), synced: Synced::Prefix(0), modified: None };
        Arc::new(FileNode { permissions, state: Mutex::new(state) })
    }

    pub(super) fn append(&self, data: &[u8], now: Option<SystemTime>) {
        let mut state = self.state();
        state.contents.extend_from_slice(data);
        state.modified = now;
    }

    pub(super) fn write_at(&self, offset: usize, data: &[u8], now: Option<SystemTime>) {
        let mut state = self.state();
        state.keep_synced(offset);
        let end = offset + data.len();
        if state.contents.len() < end {
            state.contents.resize(end, 0);
        }
        state.contents[offset..end].copy_from_slice(data);
        state.modified = now;
    }

    pub(super) fn truncate(&self, length: usize, now: Option<SystemTime>) {
        let mut state = self.state();
        state.keep_synced(length);
        state.contents.resize(length, 0);
        state.modified = now;
    }

    pub(super) fn sync(&self) {
        let mut state = self.state();
        state.synced = Synced::Prefix(state.contents.len());
    }

    pub(super) fn lose_unsynced(&self, choose: &mut impl FnMut(u64) -> u64) {
        let mut state = self.state();
        match &mut state.synced {
            Synced::Other(synced) => {
                let synced = mem::take(synced);
                if choose(1) == 0 {
                    state.contents = synced;
                }
            }
            Synced::Prefix(synced) => {
                let synced = *synced;
                let more = choose((state.contents.len() - synced) as u64) as usize;
                state.contents.truncate(synced.saturating_add(more));
            }
        }
        state.synced = Synced::Prefix(state.contents.len());
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let state = self.state();
        let rest = usize::try_from(offset).ok().and_then(|offset| state.contents.get(offset..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        count
    }

    pub(super) fn contents(&self) -> Vec<u8> {
        self.state().contents.clone()
    }

    pub(super) fn length(&self) -> u64 {
        self.state().contents.len() as u64
    }

    pub(super) fn metadata(&self) -> Metadata {
        let state = self.state();
        let length = state.contents.len() as u64;
        let mut metadata = Metadata::new(FileKind::File, length, self.permissions);
        metadata.modified = state.modified;
        metadata
    }

    fn state(&self) -> MutexGuard<'_, FileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileState {
    /// Before what lies at `offset` and behind is changed: sets aside what is on disk.
    fn keep_synced(&mut self, offset: usize) {
        if let Synced::Prefix(synced) = self.synced
            && offset < synced
        {
            self.synced = Synced::Other(self.contents[..synced].to_vec());
        }
    }
}

pub(super) struct FolderNode {
    pub(super) permissions: u32,
    state: Mutex<FolderState>,
}

#[derive(Default)]
struct FolderState {
    entries: Entries,
    /// What is on disk; with the changes behind it, what there is now.
    synced: Entries,
    unsynced: Vec<Change>,
}

type Entries = BTreeMap<OsString, Node>;

/// Something that happened to the names of a folder.
#[derive(Clone)]
pub(super) enum Change {
    /// The name was moved to another folder, which has put it among its own.
    MoveOut {
        name: OsString,
        to: Weak<FolderNode>,
    },
    Put {
        name: OsString,
        node: Node,
    },
    Remove {
        name: OsString,
    },
    Rename {
        from: OsString,
        to: OsString,
    },
}

impl Change {
    fn apply(self, entries: &mut Entries) {
        match self {
            Change::MoveOut { name, .. } | Change::Remove { name } => drop(entries.remove(&name)),
            Change::Put { name, node } => drop(entries.insert(name, node)),
            Change::Rename { from, to } => {
                if let Some(node) = entries.remove(&from) {
                    entries.insert(to, node);
                }
            }
        }
    }
}

impl FolderNode {
    pub(super) fn new(permissions: u32) -> Arc<FolderNode> {
        Arc::new(FolderNode { permissions, state: Mutex::default() })
    }

    pub(super) fn put(&self, name: OsString, node: Node) {
        self.change(Change::Put { name, node });
    }

    pub(super) fn change(&self, change: Change) {
        let mut state = self.state();
        change.clone().apply(&mut state.entries);
        state.unsynced.push(change);
    }

    pub(super) fn sync(&self) {
        let changes = mem::take(&mut self.state().unsynced);
        for change in &changes {
            // File systems move a name in one step; it must not be gone from both folders.
            if let Change::MoveOut { to, .. } = change
                && let Some(to) = to.upgrade()
            {
                to.sync();
            }
        }
        let mut state = self.state();
        for change in changes {
            change.apply(&mut state.synced);
        }
    }

    pub(super) fn lose_unsynced(&self, choose: &mut impl FnMut(u64) -> u64) {
        let mut state = self.state();
        let changes = mem::take(&mut state.unsynced);
        // What moved a name out is kept only by a sync; see there.
        let is_kept = |change: &Change| !matches!(change, Change::MoveOut { .. });
        let count_max = changes.iter().take_while(|change| is_kept(change)).count();
        let count = choose(count_max as u64) as usize;
        for change in changes.into_iter().take(count.min(count_max)) {
            change.apply(&mut state.synced);
        }
        state.entries = state.synced.clone();
    }

    pub(super) fn get(&self, name: &OsStr) -> Option<Node> {
        self.state().entries.get(name).cloned()
    }

    pub(super) fn entries(&self) -> BTreeMap<OsString, Node> {
        self.state().entries.clone()
    }

    /// Whether the other folder is this one or lies in it.
    pub(super) fn holds(self: &Arc<Self>, other: &Arc<FolderNode>) -> bool {
        let mut folders = vec![Arc::clone(self)];
        while let Some(folder) = folders.pop() {
            if Arc::ptr_eq(&folder, other) {
                return true;
            }
            for node in folder.entries().into_values() {
                if let Node::Folder(folder) = node {
                    folders.push(folder);
                }
            }
        }
        false
    }

    fn state(&self) -> MutexGuard<'_, FolderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
