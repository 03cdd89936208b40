//! Tables of the state database: states as immutable groups.
//!
//! It shares a file with the main database today. Nothing in here joins with tables outside, so that
//! it can move out.

pub mod groups;
