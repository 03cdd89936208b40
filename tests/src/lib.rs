//! Harness for whole-system tests: real processes on free ports, a blocking client that can send
//! anything, and the ready-made Matrix clients in other languages.
//!
//! Nothing here polls or sleeps. Waiting is reading, with a limit after which the test fails and
//! shows what the process has said so far. What a process wrote, opened or listens on is taken from
//! its terminal output, as a person would.

pub mod http;
pub mod matrix;
pub mod scenario;
pub mod server;
pub mod skip;
pub mod terminal;

use std::path::PathBuf;

/// Returns the folder that holds the workspace's manifest.
#[must_use]
pub fn workspace_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns Cargo's target folder: the one that the running test was built in.
///
/// # Panics
///
/// If the running program does not lie in a target folder.
#[must_use]
pub fn target_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a test knows its own program");
    // target/<profile>/deps/<program>
    program.ancestors().nth(3).expect("tests are built below a target folder").to_owned()
}
