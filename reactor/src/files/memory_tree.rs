//! Ways through the tree of the file system in memory.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::memory_node::{FolderNode, Node};

/// Returns the names that lead from the root to what the path means.
pub(super) fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir | Component::Prefix(_) | Component::RootDir => {}
            Component::Normal(name) => names.push(name.to_owned()),
            // The root is above itself.
            Component::ParentDir => drop(names.pop()),
        }
    }
    if path.as_os_str().is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names) }
}

/// Returns the names that lead to the folder, and the name in it.
pub(super) fn split(path: &Path) -> io::Result<(Vec<OsString>, OsString)> {
    let mut names = names(path)?;
    let name = names.pop().ok_or(io::ErrorKind::IsADirectory)?;
    Ok((names, name))
}

pub(super) fn find(root: &Arc<FolderNode>, path: &Path) -> io::Result<Node> {
    let mut names = names(path)?;
    let Some(name) = names.pop() else { return Ok(Node::Folder(Arc::clone(root))) };
    find_folder(root, &names)?.get(&name).ok_or_else(|| io::ErrorKind::NotFound.into())
}

pub(super) fn find_folder(
    root: &Arc<FolderNode>,
    names: &[OsString],
) -> io::Result<Arc<FolderNode>> {
    let mut folder = Arc::clone(root);
    for name in names {
        folder = match folder.get(name).ok_or(io::ErrorKind::NotFound)? {
            Node::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Node::Folder(next) => next,
        };
    }
    Ok(folder)
}

/// Makes the folders on the way that are missing, and returns all of them, from the root on.
pub(super) fn make_folders(
    root: &Arc<FolderNode>,
    names: &[OsString],
    permissions: u32,
) -> io::Result<Vec<Arc<FolderNode>>> {
    let mut folders = vec![Arc::clone(root)];
    let mut folder = Arc::clone(root);
    for name in names {
        folder = match folder.get(name) {
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            Some(Node::Folder(next)) => next,
            None => {
                let made = FolderNode::new(permissions);
                folder.put(name.clone(), Node::Folder(Arc::clone(&made)));
                made
            }
        };
        folders.push(Arc::clone(&folder));
    }
    Ok(folders)
}

pub(super) fn used_bytes(root: &Arc<FolderNode>) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![Arc::clone(root)];
    while let Some(folder) = folders.pop() {
        for node in folder.entries().into_values() {
            match node {
                Node::File(file) => bytes += file.length(),
                Node::Folder(folder) => folders.push(folder),
            }
        }
    }
    bytes
}
