//! The single test binary of the whole-system tests: its modules, each one subject.
//!
//! `tidy` fails when a file in this folder is not listed here.

mod bad_input;
mod clients;
mod durability;
mod process;
mod regressions;
mod tidy;

/// The homeserver: `apps/homeserver/src/main.rs`, built as a program of this package (see
/// `Cargo.toml`) so that it is always as new as the tests.
const HOMESERVER: &str = env!("CARGO_BIN_EXE_homeserver-under-test");
