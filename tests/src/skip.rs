//! Tests that need something the machine may not have: skipped where it is missing, and seen to be.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Says on the terminal that a test was skipped, and how many were by now.
///
/// Written past the test runner's capture, because a skipped test counts as passed there.
///
/// # Panics
///
/// If `ROPEWALK_TESTS_SKIP=never` says that nothing may be skipped, as `.ci/run` does.
pub fn skip(test: &str, because: &str) {
    let allowed = std::env::var("ROPEWALK_TESTS_SKIP").map_or(true, |value| value != "never");
    assert!(allowed, "{test} cannot be skipped here, yet {because}");
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "skipped ({count}): {test} because {because}");
}

/// Returns whether the command can be run and says it is well.
#[must_use]
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
