//! The examples, run as a reader would run them: each module drives one.

mod cached_lookups;
mod chat;
mod child_process;
mod echo;
mod file_upload;
mod periodic_job;
mod proxy;
mod simulated_partition;
mod stdio;
mod thread_pool;
mod tls;
mod udp_echo;
mod unit_test;

use std::path::{Path, PathBuf};

/// An example fits on a page, or it is none.
const EXAMPLE_LINES_MAX: usize = 79;

/// The Rust files of a folder, with what they say.
fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn each_example_fits_on_a_page_is_run_by_a_test_and_is_named_where_people_look() {
    let tests = rust_files("tests/suite/examples");
    let readme = include_str!("../../../README.md");
    let front_page = include_str!("../../../src/lib.rs");
    let examples = rust_files("examples");
    assert!(examples.len() >= 14, "found only {}", examples.len());
    for (path, text) in examples {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let lines = text.lines().count();
        assert!(lines <= EXAMPLE_LINES_MAX, "{name} has {lines} lines: make it shorter");
        assert!(text.contains("`cargo run --"), "{name} does not say how it is run");
        let included = format!("#[path = \"../../../examples/{name}.rs\"]");
        assert!(
            tests.iter().any(|(_, test)| test.contains(&included)),
            "{name} is run by no test: add one beside this file"
        );
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README's list");
        assert!(front_page.contains(&format!("`{name}`")), "{name} is not on the front page");
    }
}
