//! The schema of the main database, step by step.
//!
//! One file a step, named after its number and its subject. A step that has been released is never
//! edited: a change is a new step at the end of [`STEPS`].

use super::engine::Migration;

/// Every step, in order.
pub(crate) const STEPS: &[Migration] = &[
    Migration { version: 1, name: "events", sql: include_str!("0001_events.sql") },
    Migration { version: 2, name: "accounts", sql: include_str!("0002_accounts.sql") },
];
