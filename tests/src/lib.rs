//! Harness for whole-system tests.

use std::path::PathBuf;

/// Returns the folder that holds the workspace's manifest.
#[must_use]
pub fn workspace_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
