//! One server a data folder: a lock that ends with the process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What the locked file is called. It stays behind, empty.
const LOCK_FILE_NAME: &str = "homeserver.lock";

/// Why a data folder is not ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("another homeserver runs on {}; stop it, or choose another data_dir", data_dir.display())]
    Taken {
        /// The folder.
        data_dir: PathBuf,
    },
    /// The system refused.
    #[error("cannot lock {}", path.display())]
    Unusable {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Claims a data folder for as long as the returned file is kept.
///
/// # Errors
///
/// [`LockError::Taken`] while another process has it.
pub fn claim(data_dir: &Path) -> Result<File, LockError> {
    let path = data_dir.join(LOCK_FILE_NAME);
    let unusable = |source| LockError::Unusable { path: path.clone(), source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LockError::Taken { data_dir: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_once_and_free_again_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let lock = claim(folder.path()).unwrap();
        assert!(matches!(claim(folder.path()), Err(LockError::Taken { .. })));
        drop(lock);
        claim(folder.path()).unwrap();
    }
}
