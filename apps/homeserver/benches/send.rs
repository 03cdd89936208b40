//! What one event costs the database's writer: `cargo bench -p homeserver --bench send [-- COUNT]`.
//!
//! One thread, one room of version 12 with a hundred members, every event signed, checked and written.
//! Prints microseconds of CPU time an event, alone and in groups that share a commit, with commits that
//! wait for the disk and without.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use homeserver::events::{ClientTransaction, NewRoom, RoomWriter, WriteError};
use homeserver::model::{EventDraft, EventSigner, RoomVersion, SigningKeyPair};
use homeserver::storage::engine::{Durability, LocalDatabase};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, UserId, uint,
};
use serde_json::{Value, json};

const MEMBERS: usize = 100;

fn main() -> ExitCode {
    let count = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(20_000);
    for (name, durability) in [("no sync", Durability::Process), ("synced", Durability::Sync)] {
        for group in [1, 10, 100] {
            // One sync an event is for the disk to answer for, not for us: fewer will do.
            let count = if durability == Durability::Sync { count / 10 } else { count };
            match measure(durability, group, count) {
                Ok((cpu, wall)) => {
                    println!("{name:8} groups of {group:3}: {cpu:6.1} us CPU, {wall:6.1} us wall");
                }
                Err(error) => {
                    eprintln!("error: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// Returns CPU and wall time an event, in microseconds.
fn measure(
    durability: Durability,
    group: usize,
    count: usize,
) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let mut database = LocalDatabase::open(&folder.path().join("bench.db"), durability)?;
    let key = SigningKeyPair::new("bench", &[7; 32])?;
    let writer = RoomWriter::new(Arc::new(EventSigner::new("bench".try_into()?, key)));
    let room = make_room(&mut database, &writer)?;

    let before = (cpu_time(), wall_time());
    for start in (0..count).step_by(group) {
        for index in start..start + group {
            let (writer, room) = (writer.clone(), room.clone());
            let transaction =
                ClientTransaction { device_id: "DEVICE".to_owned(), txn_id: format!("m{index}") };
            let content = json!({"msgtype": "m.text", "body": format!("message number {index}")});
            let draft =
                EventDraft::message(member(index % MEMBERS)?, "m.room.message", object(content)?);
            database.enqueue("send", move |txn| {
                writer.send(txn, &room, draft, Some(&transaction), now())
            });
        }
        database.commit();
    }
    let after = (cpu_time(), wall_time());
    let committed = database.writer().statistics().jobs_committed;
    if committed < count as u64 {
        return Err(format!("only {committed} of {count} events were written").into());
    }
    let each = |elapsed: Duration| elapsed.as_secs_f64() * 1e6 / count as f64;
    Ok((each(after.0 - before.0), each(after.1 - before.1)))
}

fn make_room(
    database: &mut LocalDatabase,
    writer: &RoomWriter,
) -> Result<OwnedRoomId, Box<dyn std::error::Error>> {
    let creator = member(0)?;
    let state = |sender: &OwnedUserId, kind: &str, key: &str, content: Value| {
        object(content).map(|content| EventDraft::state(sender.clone(), kind, key, content))
    };
    let mut events = vec![
        state(&creator, "m.room.member", creator.as_str(), json!({"membership": "join"}))?,
        state(&creator, "m.room.power_levels", "", json!({}))?,
        state(&creator, "m.room.join_rules", "", json!({"join_rule": "public"}))?,
    ];
    for index in 1..MEMBERS {
        let user = member(index)?;
        events.push(state(&user, "m.room.member", user.as_str(), json!({"membership": "join"}))?);
    }
    let new = NewRoom {
        version: RoomVersion::V12,
        creator,
        creation_content: CanonicalJsonObject::new(),
        random: [0; 18],
        events,
        is_public: true,
    };
    let writer = writer.clone();
    let created: Result<_, WriteError> =
        database.write(move |txn| writer.create_room(txn, new, now()));
    Ok(created?.room_id)
}

fn member(index: usize) -> Result<OwnedUserId, ruma::IdParseError> {
    UserId::parse(format!("@user{index}:bench"))
}

fn object(value: Value) -> Result<CanonicalJsonObject, serde_json::Error> {
    serde_json::from_value(value)
}

fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(uint!(1_700_000_000))
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

fn wall_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
