//! The engine without threads or loop: migrations, group commit, crashes.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::storage::schema::STEPS;
use crate::streams::Stream;

const THINGS: &[Migration] = &[Migration {
    version: 1,
    name: "things",
    sql: "CREATE TABLE things (name TEXT NOT NULL PRIMARY KEY);
          CREATE TABLE stream_positions (stream TEXT PRIMARY KEY, position INTEGER)",
}];

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.db");
    (folder, path)
}

fn things() -> (TempDir, LocalDatabase) {
    let (folder, path) = folder();
    let database = LocalDatabase::open_with(&path, Durability::Process, THINGS).unwrap();
    (folder, database)
}

fn add(txn: &WriteTxn<'_>, name: &str) -> Result<(), StorageError> {
    txn.execute("INSERT INTO things (name) VALUES (?1)", params![name]).map(|_| ())
}

fn names(database: &LocalDatabase) -> Vec<String> {
    database
        .read(|txn| txn.query("SELECT name FROM things ORDER BY name", params![], |row| row.get(0)))
        .unwrap()
}

/// Counts commits in the log itself: a frame that ends a transaction says how large the file is then.
pub(super) fn commit_frames(path: &std::path::Path) -> usize {
    let wal = std::fs::read(path.with_extension("db-wal")).unwrap();
    let page_bytes = u32::from_be_bytes(wal[8..12].try_into().unwrap()) as usize;
    let salts = &wal[16..24];
    wal[32..]
        .chunks_exact(24 + page_bytes)
        .filter(|frame| &frame[8..16] == salts && frame[4..8] != [0; 4])
        .count()
}

#[test]
fn the_writer_syncs_every_commit() {
    let (_folder, path) = folder();
    let database = LocalDatabase::open(&path, Durability::Sync).unwrap();
    let pragmas = database.writer().connection().pragmas().unwrap();
    assert_eq!(pragmas.journal_mode, "wal");
    assert_eq!(pragmas.synchronous, 2, "FULL");
    assert!(pragmas.foreign_keys);
    assert!(!pragmas.query_only);
}

#[test]
fn readers_cannot_write() {
    let (_folder, database) = things();
    let refused = database
        .read(|txn| txn.execute("INSERT INTO things (name) VALUES ('x')", params![]))
        .unwrap_err();
    assert!(matches!(refused, StorageError::Statement { .. }), "{refused}");
}

#[test]
fn a_panicking_read_leaves_the_reader_usable() {
    let (_folder, database) = things();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        database.read(|_| -> Result<(), StorageError> { panic!("as a test") })
    }));
    assert!(panicked.is_err());
    assert_eq!(names(&database), [""; 0]);
}

#[test]
fn migrations_run_once_and_keep_what_is_there() {
    let (_folder, path) = folder();
    for _ in 0..2 {
        LocalDatabase::open(&path, Durability::Process).unwrap();
    }
    let database = LocalDatabase::open(&path, Durability::Process).unwrap();
    let count: i64 = database
        .read(|txn| {
            txn.query_one("SELECT count(*) FROM schema_migrations", params![], |row| row.get(0))
        })
        .unwrap();
    assert_eq!(count, STEPS.len() as i64);
}

#[test]
fn the_steps_are_numbered_without_gaps() {
    for (index, step) in STEPS.iter().enumerate() {
        assert_eq!(step.version, index as i64 + 1, "{}", step.name);
    }
}

#[test]
fn a_failing_migration_leaves_no_trace_and_keeps_those_before_it() {
    let (_folder, path) = folder();
    let broken = [
        THINGS[0],
        Migration {
            version: 2,
            name: "broken",
            sql: "CREATE TABLE half (x); CREATE TABLE half (x)",
        },
    ];
    assert!(LocalDatabase::open_with(&path, Durability::Process, &broken).is_err());
    let repaired =
        [THINGS[0], Migration { version: 2, name: "half", sql: "CREATE TABLE half (x)" }];
    LocalDatabase::open_with(&path, Durability::Process, &repaired).unwrap();
}

#[test]
fn files_that_are_not_ours_to_change_are_refused() {
    let (_folder, path) = folder();
    let steps = [THINGS[0], Migration { version: 2, name: "more", sql: "CREATE TABLE more (x)" }];
    LocalDatabase::open_with(&path, Durability::Process, &steps).unwrap();
    let newer = LocalDatabase::open_with(&path, Durability::Process, THINGS).err().unwrap();
    assert!(matches!(newer, StorageError::NewerSchema { found: 2, known: 1 }), "{newer}");

    let steps = [THINGS[0], Migration { version: 2, name: "other", sql: "" }];
    let foreign = LocalDatabase::open_with(&path, Durability::Process, &steps).err().unwrap();
    assert!(matches!(foreign, StorageError::ForeignMigration { version: 2, .. }), "{foreign}");

    let other = path.with_file_name("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let foreign = LocalDatabase::open(&other, Durability::Process).err().unwrap();
    assert!(matches!(foreign, StorageError::ForeignFile { found: 0 }), "{foreign}");

    let missing = path.with_file_name("no").join("such.db");
    let missing = LocalDatabase::open(&missing, Durability::Process).err().unwrap();
    assert!(matches!(missing, StorageError::Open { .. }), "{missing}");
}

#[test]
fn many_writes_share_one_commit() {
    let (_folder, path) = folder();
    let mut database = LocalDatabase::open_with(&path, Durability::Sync, THINGS).unwrap();
    let before = commit_frames(&path);
    for index in 0..100 {
        database.enqueue("add", move |txn| add(txn, &format!("{index:03}")));
    }
    let report = database.commit();
    assert_eq!(report.outcomes.len(), 100);
    assert_eq!(commit_frames(&path) - before, 1);
    assert_eq!(database.writer().statistics().commits, 1);
    assert_eq!(names(&database).len(), 100);
}

#[test]
fn a_refused_write_costs_only_itself() {
    let (_folder, mut database) = things();
    let first = database.enqueue("first", |txn| {
        txn.next_stream_id(Stream::Events);
        txn.invalidate("things", "first");
        add(txn, "first")
    });
    let refused = database.enqueue("refused", |txn| {
        txn.invalidate("things", "refused");
        txn.after_commit(|| panic!("a refused job has no aftermath"));
        add(txn, "second")?;
        add(txn, "first")
    });
    let third = database.enqueue("third", |txn| {
        txn.invalidate("things", "third");
        add(txn, "third")
    });
    let report = database.commit();
    assert!(first.lock().unwrap().take().unwrap().is_ok());
    let error = refused.lock().unwrap().take().unwrap().unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
    assert!(third.lock().unwrap().take().unwrap().is_ok());
    assert_eq!(names(&database), ["first", "third"]);
    let keys: Vec<_> = report.invalidations.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["first", "third"]);
    assert_eq!(report.advanced, [(Stream::Events, 1)]);
    assert!(report.after_commit.is_empty());
    assert!(matches!(report.outcomes[1].fate, Fate::TakenBack));
}

#[test]
fn a_panicking_write_costs_only_itself() {
    let (_folder, mut database) = things();
    database.enqueue("first", |txn| add(txn, "first"));
    database.enqueue("panics", |txn| -> Result<(), StorageError> {
        add(txn, "second")?;
        panic!("as a test");
    });
    let report = database.commit();
    assert!(matches!(
        report.outcomes[1].fate,
        Fate::Failed(StorageError::Panicked { label: "panics" })
    ));
    assert_eq!(names(&database), ["first"]);
}

#[test]
fn a_failed_commit_fails_every_job_and_forgets_the_caches() {
    #[derive(Default)]
    struct Remembered(Vec<&'static str>);
    impl WriterCache for Remembered {
        fn job_kept(&mut self) {
            self.0.push("kept");
        }
        fn job_taken_back(&mut self) {
            self.0.push("taken back");
        }
        fn transaction_lost(&mut self) {
            self.0.push("lost");
        }
    }
    let (_folder, path) = folder();
    // A deferred reference is checked by COMMIT alone.
    let steps = [
        THINGS[0],
        Migration {
            version: 2,
            name: "children",
            sql: "CREATE TABLE children (thing TEXT NOT NULL
                      REFERENCES things (name) DEFERRABLE INITIALLY DEFERRED)",
        },
    ];
    let mut database = LocalDatabase::open_with(&path, Durability::Process, &steps).unwrap();
    database.enqueue("innocent", |txn| {
        txn.cache::<Remembered>();
        txn.next_stream_id(Stream::Events);
        txn.after_commit(|| panic!("there was no commit"));
        add(txn, "innocent")
    });
    database.enqueue("taken back", |txn| {
        add(txn, "x")?;
        Err::<(), _>(StorageError::Closed)
    });
    database.enqueue("orphan", |txn| {
        txn.execute("INSERT INTO children (thing) VALUES ('nobody')", params![])
    });
    let report = database.commit();
    assert!(matches!(report.outcomes[0].fate, Fate::Failed(StorageError::Commit(_))));
    assert!(matches!(report.outcomes[1].fate, Fate::TakenBack));
    assert!(matches!(report.outcomes[2].fate, Fate::Failed(StorageError::Commit(_))));
    assert!(report.advanced.is_empty() && report.after_commit.is_empty());
    assert_eq!(names(&database), [""; 0]);
    assert_eq!(database.writer().statistics().commits, 0);

    let remembered: Result<_, StorageError> = database.write(|txn| {
        add(txn, "later")?;
        Ok(std::mem::take(&mut txn.cache::<Remembered>().0))
    });
    assert_eq!(remembered.unwrap(), ["kept", "taken back", "kept", "lost"]);
    assert_eq!(names(&database), ["later"], "the writer goes on");
}

#[test]
fn what_does_not_fit_waits_for_the_next_batch() {
    let (_folder, path) = folder();
    let connection = Connection::open(&path, Role::Writer, Durability::Process).unwrap();
    migrate(&connection, THINGS).unwrap();
    // Every reading takes a millisecond.
    let ticks = std::sync::atomic::AtomicU64::new(0);
    let stopwatch: Stopwatch = std::sync::Arc::new(move || {
        std::time::Duration::from_millis(ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    });
    let limits = BatchLimits { jobs_max: 3, time_max: std::time::Duration::from_millis(2) };
    let mut writer = Writer::new(connection, limits, stopwatch).unwrap();
    let job = |name: &'static str| {
        WriteJob::new("add", move |txn| {
            add(txn, name).unwrap();
            Verdict::Keep
        })
    };
    let mut queue = ["a", "b", "c", "d"].map(job).into();
    assert_eq!(writer.commit_batch(&mut queue).outcomes.len(), 2, "two milliseconds");
    assert_eq!(queue.len(), 2);
    assert_eq!(writer.commit_batch(&mut queue).outcomes.len(), 2);
    assert_eq!(writer.commit_batch(&mut queue).outcomes.len(), 0);
    assert_eq!(writer.statistics().commits, 2);
}

#[test]
fn positions_survive_a_restart_and_never_go_back() {
    let (_folder, path) = folder();
    for expected in [1, 2] {
        let mut database = LocalDatabase::open_with(&path, Durability::Process, THINGS).unwrap();
        let position: Result<i64, StorageError> =
            database.write(|txn| Ok(txn.next_stream_id(Stream::Receipts)));
        assert_eq!(position.unwrap(), expected);
        assert_eq!(database.writer().positions()[&Stream::Receipts], expected);
    }
}

#[test]
fn a_crash_in_mid_transaction_leaves_the_last_commit() {
    let (_folder, path) = folder();
    let mut database = LocalDatabase::open_with(&path, Durability::Sync, THINGS).unwrap();
    database.write(|txn| add(txn, "kept")).unwrap();
    // What a killed process leaves behind is the file and its log as they are now.
    let uncommitted = database.enqueue("copy", {
        let path = path.clone();
        move |txn| {
            add(txn, "lost")?;
            for extension in ["db", "db-wal"] {
                let from = path.with_extension(extension);
                std::fs::copy(&from, path.with_file_name("crashed").with_extension(extension))
                    .unwrap();
            }
            Ok::<_, StorageError>(())
        }
    });
    database.commit();
    assert!(uncommitted.lock().unwrap().take().unwrap().is_ok());
    let crashed = path.with_file_name("crashed.db");
    let database = LocalDatabase::open_with(&crashed, Durability::Sync, THINGS).unwrap();
    assert_eq!(names(&database), ["kept"]);
}

#[test]
fn a_bound_limit_does_not_cost_a_new_plan() {
    use rusqlite::StatementStatus;
    let (_folder, database) = things();
    let connection = &database.writer().connection().inner;
    let mut statement = connection.prepare("SELECT stream FROM stream_positions LIMIT ?1").unwrap();
    for limit in [1_i64, 2, 3] {
        statement.raw_bind_parameter(1, limit).unwrap();
        let mut rows = statement.raw_query();
        while rows.next().unwrap().is_some() {}
    }
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
}
