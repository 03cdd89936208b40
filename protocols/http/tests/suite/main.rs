//! All integration tests of the crate in one binary.

mod against_httparse;
mod agent;
mod client;
mod mutation;
mod replay;
mod request;
mod response;
mod server;
mod server_body;
mod server_time;
mod simulated;
mod status_pages;
mod support;

/// Property tests draw the same cases in every run; a case that failed becomes a test of its own.
fn deterministic(cases: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(17),
        ..Default::default()
    }
}

/// A file that is not listed above would silently not run.
#[test]
fn every_file_of_the_suite_is_listed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite");
    let listed = include_str!("main.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(
            module == "main" || listed.contains(&format!("mod {module};")),
            "tests/suite/{name} is not listed in main.rs: add `mod {module};`"
        );
    }
}
