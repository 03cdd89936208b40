//! Clients that hold on to connections: half a request, an answer that is never read, a silent TCP
//! connection. Others must not notice, and the server's memory must stay bounded.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use system_tests::http::{Answer, Connection};
use system_tests::server::{Homeserver, Site};
use system_tests::terminal::Terminal;

use super::Stage;
use crate::HOMESERVER;

const HALF_OPEN: usize = 1_000;

/// Lets this process hold as many connections as the system allows it.
fn raise_own_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may go up to the hard one");
}

/// The most memory that a process has ever held, in bytes.
fn memory_peak_bytes(server: &Homeserver) -> u64 {
    let path = format!("/proc/{}/status", server.terminal().pid());
    let status = std::fs::read_to_string(path).expect("a running process has a status");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says VmHWM");
    let kibibytes = line.trim().trim_end_matches(" kB").parse::<u64>().expect("VmHWM is in kB");
    kibibytes * 1024
}

#[test]
fn a_thousand_half_open_connections_disturb_nobody() {
    raise_own_descriptor_limit();
    let site = Site::new(HOMESERVER);
    // Started with a soft limit far below what follows: the server must raise it itself.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -S -n 256; exec \"$0\" --config open.toml"]);
    command.arg(site.program()).current_dir(site.folder());
    let server = Homeserver::await_ready(Terminal::start(command));
    let [alice, bob] = ["alice", "bob"].map(|name| server.register(name));
    let room = server.create_room_of_two(&alice, &bob);

    let beginnings: [&[u8]; 4] = [
        b"",
        b"GET /_matrix/client/versions HT",
        b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n",
        b"PUT /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ];
    let mut held: Vec<Connection> = Vec::new();
    for number in 0..HALF_OPEN {
        let mut connection = server.connect();
        connection.send(beginnings[number % beginnings.len()]);
        held.push(connection);
        if number % 100 == 0 {
            let sent = server.send_text(&room, &alice, &format!("half{number}"), "still here");
            assert_eq!(sent.outcome(), "200", "with {number} half-open connections");
        }
    }
    let page = server
        .get(&format!("rooms/{}/messages?dir=b", system_tests::matrix::escape(&room)), Some(&bob));
    assert_eq!(page.outcome(), "200");

    // The held ones are still served: the second kind is completed now.
    let mut patient = held.swap_remove(1);
    patient.send(b"TP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(patient.answer().status, 200);
    drop(held);
    assert_eq!(server.outcome("GET", "/_matrix/client/versions", None, ""), "200");
    let said = server.terminal().transcript();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn who_does_not_read_makes_nobody_wait_and_nothing_grow() {
    const READERS: usize = 64;
    const REQUESTS_EACH: usize = 100;
    /// What the server may hold on top: one answer a connection and its buffers, with room to spare.
    const GROWTH_MAX_BYTES: u64 = 160 << 20;

    let stage = Stage::set();
    for number in 0..8 {
        let body = "x".repeat(50_000);
        let sent =
            stage.server.send_text(&stage.room, &stage.alice, &format!("big{number}"), &body);
        assert_eq!(sent.outcome(), "200");
    }
    let target = format!("/_matrix/client/v3/{}/messages?dir=b&limit=10", stage.path);
    let token = Some(stage.alice.token.as_str());
    let is_whole = |answer: &Answer| answer.status == 200 && answer.body.len() > 400_000;
    assert!(is_whole(&stage.server.request("GET", &target, token, b"")));
    let before = memory_peak_bytes(&stage.server);

    // Two and a half gigabytes of answers are asked for, and almost none is taken.
    let mut readers: Vec<Connection> = Vec::new();
    for _ in 0..READERS {
        let mut connection = stage.server.connect();
        for _ in 0..REQUESTS_EACH {
            connection.request("GET", &target, token, b"");
        }
        readers.push(connection);
    }
    for reader in &mut readers {
        assert!(is_whole(&reader.answer()));
    }
    stage.assert_well();
    let growth = memory_peak_bytes(&stage.server).saturating_sub(before);
    assert!(growth < GROWTH_MAX_BYTES, "the server grew by {} MiB", growth >> 20);

    // Bounded is not lost: who reads on gets everything asked for.
    for _ in 1..REQUESTS_EACH {
        assert!(is_whole(&readers[0].answer()));
    }
    drop(readers);
    stage.assert_well();
}

#[test]
fn a_reader_of_single_bytes_gets_its_answer_while_others_go_on() {
    let stage = Stage::set();
    let mut connection = stage.server.connect();
    connection.request("GET", "/_matrix/client/v3/pushrules/", Some(&stage.alice.token), b"");
    for number in 0..200 {
        // Each byte is read only after somebody else has had a whole answer in between.
        let mut byte = [0];
        let length = std::io::Read::read(&mut connection.stream(), &mut byte).unwrap();
        assert_eq!(length, 1);
        if number % 20 == 0 {
            let sent =
                stage.server.send_text(&stage.room, &stage.bob, &format!("b{number}"), "hello");
            assert_eq!(sent.outcome(), "200");
        }
    }
    stage.assert_well();
}

#[test]
fn a_client_that_leaves_takes_its_long_poll_along() {
    let stage = Stage::set();
    let synced = stage.server.get("sync?timeout=0", Some(&stage.bob)).json();
    let since = system_tests::matrix::text(&synced, "next_batch");
    let target = format!("/_matrix/client/v3/sync?timeout=600000&since={since}");
    for _ in 0..200 {
        let mut connection = stage.server.connect();
        connection.request("GET", &target, Some(&stage.bob.token), b"");
        drop(connection);
    }
    // One that stays is answered as soon as there is something to say.
    let mut waiting = stage.server.connect();
    waiting.request("GET", &target, Some(&stage.bob.token), b"");
    let sent = stage.server.send_text(&stage.room, &stage.alice, "wake", "wake up");
    assert_eq!(sent.outcome(), "200");
    let answer = waiting.answer().json();
    let said =
        answer["rooms"]["join"][&stage.room]["timeline"]["events"][0]["content"]["body"].clone();
    assert_eq!(said, json!("wake up"), "{answer}");
    stage.assert_well();
}
