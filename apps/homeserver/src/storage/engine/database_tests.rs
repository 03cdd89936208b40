//! The database's loop side: what shares a commit, who is told when.

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::testing::{Clock, failure_result_of, success_result_of};
use ropewalk::{Failure, LogContext};
use ruma::user_id;

use super::tests::commit_frames;
use super::{Database, Durability, StorageError, WriteTxn, params};
use crate::streams::Stream;

fn open(clock: &Clock, folder: &tempfile::TempDir) -> Database {
    open_with(clock, folder, Durability::Process)
}

fn open_with(clock: &Clock, folder: &tempfile::TempDir, durability: Durability) -> Database {
    let mut steps = crate::storage::schema::STEPS.to_vec();
    let version = steps.len() as i64 + 1;
    steps.push(super::Migration { version, name: "notes", sql: "CREATE TABLE notes (text TEXT)" });
    let path = folder.path().join("test.db");
    let opened = Database::open(clock.reactor(), &path, durability, 2, Vec::leak(steps));
    clock.pump();
    success_result_of(opened)
}

fn note(text: &'static str) -> impl FnOnce(&mut WriteTxn<'_>) -> Result<i64, StorageError> {
    move |txn| {
        txn.execute("INSERT INTO notes (text) VALUES (?1)", params![text])?;
        Ok(txn.next_stream_id(Stream::Events))
    }
}

fn commits(clock: &Clock, database: &Database) -> u64 {
    let report = database.writer_report();
    clock.pump();
    success_result_of(report).1.commits
}

#[test]
fn writes_of_one_turn_share_a_commit_and_a_refused_one_costs_only_itself() {
    let (clock, folder) = (Clock::new(), tempfile::tempdir().unwrap());
    let database = open(&clock, &folder);
    let before = commits(&clock, &database);

    let first = database.write("first", note("first"));
    let refused = database.write("refused", |txn| {
        note("refused")(txn)?;
        Err::<(), _>(Failure::new(StorageError::damaged("as the test says")))
    });
    let last = database.write("last", note("last"));
    clock.pump();

    assert_eq!(success_result_of(first), 1);
    assert!(failure_result_of(refused).is::<StorageError>());
    assert_eq!(success_result_of(last), 3);
    assert_eq!(commits(&clock, &database), before + 1);
    let notes = database.read(|txn| {
        txn.query("SELECT text FROM notes ORDER BY rowid", params![], |row| row.get::<String>(0))
    });
    clock.pump();
    assert_eq!(success_result_of(notes), ["first", "last"]);
}

#[test]
fn an_answer_comes_after_the_commit_is_in_the_log_and_many_share_one() {
    let (clock, folder) = (Clock::new(), tempfile::tempdir().unwrap());
    let database = open_with(&clock, &folder, Durability::Sync);
    let path = folder.path().join("test.db");
    for round in 1..=3 {
        let before = commit_frames(&path);
        // With synchronous=FULL a commit frame is written and synced before COMMIT returns.
        let answers: Vec<_> = (0..50)
            .map(|_| {
                let path = path.clone();
                database.write("note", note("x")).add_callback(move |_| Ok(commit_frames(&path)))
            })
            .collect();
        clock.pump();
        for answer in answers {
            assert_eq!(success_result_of(answer), before + 1, "round {round}");
        }
    }
    let report = database.writer_report();
    clock.pump();
    let (pragmas, statistics) = success_result_of(report);
    assert_eq!((&*pragmas.journal_mode, pragmas.synchronous), ("wal", 2));
    assert_eq!((statistics.commits, statistics.jobs_committed), (3, 150));
}

#[test]
fn caches_forget_then_positions_advance_then_the_caller_is_answered() {
    let (clock, folder) = (Clock::new(), tempfile::tempdir().unwrap());
    let database = open(&clock, &folder);
    let told = Rc::new(RefCell::new(Vec::new()));
    let seen = {
        let (told, notifier) = (told.clone(), database.notifier().clone());
        move |what: &str| {
            told.borrow_mut().push(format!("{what} at {}", notifier.position(Stream::Events)));
        }
    };
    let forget = seen.clone();
    database.on_invalidation("names", move |key| forget(&format!("forget {key}")));

    let answer = database
        .write("change", |txn| {
            txn.invalidate("names", "@a:b");
            txn.wake_user(Stream::Events, user_id!("@a:b"));
            note("changed")(txn)
        })
        .add_callback(move |_| {
            seen("answer");
            Ok(())
        });
    clock.pump();

    success_result_of(answer);
    assert_eq!(*told.borrow(), ["forget @a:b at 0", "answer at 1"]);
}

#[test]
fn a_caller_s_context_is_charged_and_in_force_when_it_is_answered() {
    let (clock, folder) = (Clock::new(), tempfile::tempdir().unwrap());
    let database = open(&clock, &folder);
    let context = LogContext::new("PUT-1");
    let answered_in = context.run(|| {
        database
            .write("note", note("mine"))
            .add_callback(|_| Ok(LogContext::current().name().to_owned()))
    });
    clock.pump();
    assert_eq!(success_result_of(answered_in), "PUT-1");
    assert_eq!(context.usage().db_transactions, 1);
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn a_panicking_job_rolls_back_and_the_next_one_goes_on() {
    let (clock, folder) = (Clock::new(), tempfile::tempdir().unwrap());
    let database = open(&clock, &folder);
    let panicked = database.write("panics", |txn| -> Result<(), StorageError> {
        note("lost")(txn)?;
        panic!("as the test says")
    });
    let next = database.write("next", note("kept"));
    clock.pump();
    assert!(matches!(
        failure_result_of(panicked).downcast_ref::<StorageError>(),
        Some(StorageError::Panicked { label: "panics" })
    ));
    success_result_of(next);
}
