//! What the tests of handlers share.

use std::path::Path;

use ropewalk::testing::{Clock, success_result_of};

use crate::storage::engine::{Database, Durability};
use crate::storage::schema;

/// Opens a new database on a manual clock.
pub(crate) fn open_database(clock: &Clock, path: &Path) -> Database {
    let opened = Database::open(clock.reactor(), path, Durability::Process, 1, schema::STEPS);
    clock.pump();
    success_result_of(opened)
}
