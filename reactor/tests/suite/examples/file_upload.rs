//! Uploads, on the clock, to a disk that is slow, or full, or loses its power.

#[path = "../../../examples/file_upload.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use std::net::SocketAddr;
use std::time::Duration;

use ropewalk::Transport;
use ropewalk::files::FileOperation;
use ropewalk::testing::{Clock, success_result_of};

use crate::support::{Diary, Recorder, read};

fn serve(clock: &Clock) -> ropewalk::ListeningPort {
    let address = SocketAddr::from(([127, 0, 0, 1], 7000));
    clock.file_system().write("/uploads/readme", "");
    example::serve(clock.reactor(), address, "/uploads".into()).unwrap()
}

fn connect(clock: &Clock, diary: &Diary) -> Transport {
    let address = SocketAddr::from(([127, 0, 0, 1], 7000));
    let connected = clock.reactor().connect_tcp(address, Box::new(Recorder::new(diary)));
    clock.pump();
    success_result_of(connected)
}

#[test]
fn an_upload_is_on_disk_when_it_is_answered() {
    let clock = Clock::new();
    let _port = serve(&clock);
    clock.file_system().set_pace(|operation, _| match operation {
        FileOperation::Append => Duration::from_millis(1),
        _ => Duration::ZERO,
    });
    let diary = Diary::default();
    let client = connect(&clock, &diary);
    let data = vec![b'x'; 3_000_000];
    client.write(&data);
    client.lose_write_connection();
    clock.advance(Duration::from_millis(1));
    assert!(client.buffered_bytes() > 2_000_000, "the disk is slow, so the client waits");
    clock.advance(Duration::from_secs(1));
    assert_eq!(&read(&diary)[..2], ["made", "data stored 3000000 bytes\n"]);
    clock.file_system().lose_unsynced();
    assert!(clock.file_system().read("/uploads/upload-1").unwrap() == data);
    assert_eq!(clock.open_connections(), 1);
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let clock = Clock::new();
    let _port = serve(&clock);
    let diary = Diary::default();
    let client = connect(&clock, &diary);
    client.write(b"half a fi");
    clock.pump();
    assert_eq!(clock.file_system().read("/uploads/upload-1").unwrap(), b"half a fi");
    client.abort_connection();
    clock.pump();
    assert_eq!(clock.file_system().read("/uploads/upload-1"), None);
}

#[test]
fn a_full_disk_ends_the_upload() {
    let clock = Clock::new();
    let _port = serve(&clock);
    clock.file_system().set_capacity(Some(100_000));
    let diary = Diary::default();
    let client = connect(&clock, &diary);
    client.write(&vec![b'x'; 3_000_000]);
    clock.advance(Duration::from_secs(5));
    assert_eq!(clock.open_connections(), 1);
    assert!(!client.is_connected());
}
