//! The single test binary of the whole-system tests: its modules, each one subject.
//!
//! `tidy` fails when a file in this folder is not listed here.

mod tidy;
