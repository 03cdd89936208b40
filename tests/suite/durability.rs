//! What was acknowledged is on the disk: counted from outside, and tried with SIGKILL.

use std::process::Command;

use serde_json::json;
use system_tests::http::{Connection, NoAnswer};
use system_tests::matrix::{Person, escape};
use system_tests::server::{Homeserver, Site};
use system_tests::skip::{skip, works};
use system_tests::terminal::Terminal;

use crate::HOMESERVER;

/// The server under strace, which writes the calls that sync or answer to `trace`.
fn start_traced(site: &Site) -> Homeserver {
    let mut command = Command::new("strace");
    // -D: the server is our own child, and strace looks on from the side.
    command.args(["-D", "-f", "-qq", "-s", "400", "-o", "trace", "-e"]);
    command.arg("trace=fsync,fdatasync,write,writev,sendto,sendmsg");
    command.arg(site.program()).args(["--config", "open.toml"]).current_dir(site.folder());
    Homeserver::await_ready(Terminal::start(command))
}

/// What a line of the trace says, if it matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    /// An answer to a sent message was handed to the kernel.
    Answer,
    /// A sync has been completed.
    Sync,
}

/// Reads strace's lines in order. A call that another thread interrupts takes two lines: an answer
/// counts where it begins, a sync where it has ended.
fn calls(trace: &str) -> Vec<Call> {
    let call = |line: &str| {
        let sync = line.contains("fsync(") || line.contains("fdatasync(");
        let resumed = line.contains("fsync resumed") || line.contains("fdatasync resumed");
        if (sync || resumed) && line.trim_end().ends_with("= 0") {
            return vec![Call::Sync];
        }
        let writes = ["write(", "writev(", "sendto(", "sendmsg("];
        if writes.iter().any(|name| line.contains(name)) {
            return vec![Call::Answer; line.matches(r#"{\"event_id\":"#).count()];
        }
        Vec::new()
    };
    trace.lines().flat_map(call).collect()
}

fn can_trace(test: &str) -> bool {
    let can = works("strace", &["-f", "-o", "/dev/null", "true"]);
    if !can {
        skip(test, "there is no strace, or it may not trace; `.ci/run clients` installs it");
    }
    can
}

/// The calls of a traced life in which `work` is done, from its first answer's sync on.
fn trace(work: impl FnOnce(&Homeserver, &Person, &str)) -> Vec<Call> {
    let site = Site::new(HOMESERVER);
    let server = start_traced(&site);
    let alice = server.register("alice");
    let room = server.create_room(&alice, &json!({}));
    work(&server, &alice, &room);
    let (status, said) = server.terminate(crate::process::STOP_MAX);
    assert!(status.success(), "{status}: {said}");
    let trace = std::fs::read_to_string(site.folder().join("trace")).expect("strace wrote a trace");
    calls(&trace)
}

#[test]
fn the_trace_is_read_as_it_is_meant() {
    let trace = r#"10 fdatasync(7) = 0
10 writev(12, [{iov_base="HTTP/1.1 200 OK\r\n\r\n{\"event_id\":\"$a\"}", iov_len=9}], 1) = 9
11 fdatasync(7 <unfinished ...>
10 write(1, "event", 5) = 5
11 <... fdatasync resumed>) = 0
11 fsync(7) = -1 EIO (Input/output error)
10 sendto(12, "{\"event_id\":\"$b\"}{\"event_id\":\"$c\"}", 9, 0, NULL, 0 <unfinished ...>
10 <... sendto resumed>) = 9
"#;
    use Call::{Answer, Sync};
    assert_eq!(calls(trace), [Sync, Answer, Sync, Answer, Answer]);
}

#[test]
fn each_answer_waits_for_its_sync() {
    const SENDS: usize = 25;
    if !can_trace("each_answer_waits_for_its_sync") {
        return;
    }
    let calls = trace(|server, alice, room| {
        for number in 0..SENDS {
            let sent = server.send_text(room, alice, &format!("t{number}"), "hello");
            assert_eq!(sent.outcome(), "200");
        }
    });
    // One at a time: between two answers there must be a sync that the second has waited for.
    let lives: Vec<&[Call]> = calls.split(|call| *call == Call::Answer).collect();
    assert_eq!(lives.len(), SENDS + 1, "{SENDS} answers were seen in {calls:?}");
    for (number, before) in lives[..SENDS].iter().enumerate() {
        assert!(!before.is_empty(), "answer {number} was given without a sync");
    }
}

#[test]
fn many_answers_share_a_sync() {
    const CONNECTIONS: usize = 32;
    const SENDS_EACH: usize = 20;
    const SENDS: usize = CONNECTIONS * SENDS_EACH;
    if !can_trace("many_answers_share_a_sync") {
        return;
    }
    let calls = trace(|server, alice, room| {
        let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| server.connect()).collect();
        for round in 0..SENDS_EACH {
            for (number, connection) in connections.iter_mut().enumerate() {
                let target = format!(
                    "/_matrix/client/v3/rooms/{}/send/m.room.message/t{round}-{number}",
                    escape(room)
                );
                let body = json!({"msgtype": "m.text", "body": "hello"}).to_string();
                connection.request("PUT", &target, Some(&alice.token), body.as_bytes());
            }
            for connection in &mut connections {
                assert_eq!(connection.answer().outcome(), "200");
            }
        }
    });
    let answers = calls.iter().filter(|call| **call == Call::Answer).count();
    let first = calls.iter().position(|call| *call == Call::Answer).unwrap_or_default();
    let syncs = calls[first..].iter().filter(|call| **call == Call::Sync).count();
    println!("{answers} answers, {syncs} syncs from the first of them on");
    assert_eq!(answers, SENDS);
    assert!(syncs * 4 <= answers, "{syncs} syncs for {answers} answers: the writer does not group");
    // Grouping must not mean answering ahead: at least every round has had a sync of its own.
    assert!(syncs >= SENDS_EACH - 1, "{syncs} syncs for {SENDS_EACH} rounds");
}

#[test]
fn a_kill_loses_nothing_acknowledged_and_doubles_nothing() {
    const CONNECTIONS: usize = 16;
    const KILLS: usize = 4;
    let site = Site::new(HOMESERVER);
    let mut server = site.start();
    let alice = server.register("alice");
    let room = server.create_room(&alice, &json!({}));
    let mut acknowledged: Vec<(String, String)> = Vec::new();

    for kill in 0..KILLS {
        let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| server.connect()).collect();
        let send = |connection: &mut Connection, name: &str| {
            let target =
                format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{name}", escape(&room));
            let body = json!({"msgtype": "m.text", "body": name}).to_string();
            connection.request("PUT", &target, Some(&alice.token), body.as_bytes());
        };
        // Three messages on each connection, the kill when a few of the answers have come: some
        // are acknowledged, some written but not acknowledged, some never seen.
        let mut names = Vec::new();
        for round in 0..3 {
            for (number, connection) in connections.iter_mut().enumerate() {
                let name = format!("k{kill}-r{round}-c{number}");
                send(connection, &name);
                names.push((number, name));
            }
        }
        let first = connections[0].answer();
        acknowledged
            .push((names[0].1.clone(), system_tests::matrix::text(&first.json(), "event_id")));
        server.kill();
        let mut unknown = Vec::new();
        for (number, name) in names.into_iter().skip(1) {
            match connections[number].try_answer("PUT") {
                Ok(answer) => {
                    assert_eq!(answer.outcome(), "200");
                    let event = system_tests::matrix::text(&answer.json(), "event_id");
                    acknowledged.push((name, event));
                }
                Err(ended) => {
                    assert_eq!(ended, NoAnswer::Closed);
                    unknown.push(name);
                }
            }
        }

        server = site.start();
        // What is in doubt is sent again under the same transaction id, and so is what is not.
        for name in unknown {
            let event = server.send_text(&room, &alice, &name, &name).json();
            acknowledged.push((name, system_tests::matrix::text(&event, "event_id")));
        }
        for (name, event) in &acknowledged {
            let again = server.send_text(&room, &alice, name, name).json();
            assert_eq!(again["event_id"], event.as_str(), "{name} was sent a second time");
        }
        let path = format!("rooms/{}/messages?dir=b&limit=1000", escape(&room));
        let page = server.get(&path, Some(&alice)).json();
        let mut found: Vec<(String, String)> = page["chunk"]
            .as_array()
            .expect("a page has a chunk")
            .iter()
            .filter_map(|event| {
                let body = event["content"]["body"].as_str()?.to_owned();
                Some((body, event["event_id"].as_str()?.to_owned()))
            })
            .collect();
        found.sort();
        acknowledged.sort();
        assert_eq!(found, acknowledged, "after kill {kill}");
    }
}
