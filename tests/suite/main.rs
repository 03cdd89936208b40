//! The single test binary of the whole-system tests.
