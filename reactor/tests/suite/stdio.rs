//! Streams over descriptors of all kinds: pipes, files, devices, sockets.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ropewalk::testing::Clock;
use ropewalk::{ConnectionLost, Deferred, Protocol, Reactor, Resolver, Transport};
use rustix::fs::OFlags;

/// Sends back what it gets in capitals; fires with how it ended.
struct Shouter {
    pauses: bool,
    ended: Option<Resolver<ConnectionLost>>,
}

impl Shouter {
    fn new() -> (Box<Shouter>, Deferred<ConnectionLost>) {
        let (deferred, resolver) = Deferred::new();
        (Box::new(Shouter { pauses: false, ended: Some(resolver) }), deferred)
    }
}

impl Protocol for Shouter {
    fn connection_made(&mut self, transport: &Transport) {
        if self.pauses {
            transport.pause_producing();
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(&data.to_ascii_uppercase());
        if self.pauses {
            transport.pause_producing();
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.ended.take().unwrap().callback(reason);
    }
}

#[test]
fn pipes_are_shared_without_being_changed_for_others() {
    let reactor = Reactor::new().unwrap();
    let (input, mut far_input) = std::io::pipe().unwrap();
    let (mut far_output, output) = std::io::pipe().unwrap();
    let (shouter, ended) = Shouter::new();
    let (reader, writer) = (input.try_clone().unwrap(), output.try_clone().unwrap());
    reactor.connect_descriptors(Some(reader.into()), Some(writer.into()), shouter).unwrap();
    far_input.write_all(b"hello").unwrap();
    drop(far_input);
    assert!(reactor.run_until(ended).unwrap().is_clean());
    for flags in [rustix::fs::fcntl_getfl(&input), rustix::fs::fcntl_getfl(&output)] {
        assert!(!flags.unwrap().contains(OFlags::NONBLOCK));
    }
    drop(output);
    let mut text = String::new();
    far_output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "HELLO", "and closed, or this would not end");
}

#[test]
fn files_are_read_to_their_end_and_written_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let text = "all work and no play\n".repeat(20_000);
    fs::write(&from, &text).unwrap();
    let reactor = Reactor::new().unwrap();
    for length in [text.len(), 0, 70_000] {
        File::options().write(true).open(&from).unwrap().set_len(length as u64).unwrap();
        let (shouter, ended) = Shouter::new();
        let (reader, writer) = (File::open(&from).unwrap(), File::create(&to).unwrap());
        reactor.connect_descriptors(Some(reader.into()), Some(writer.into()), shouter).unwrap();
        assert!(reactor.run_until(ended).unwrap().is_clean());
        let expected = fs::read_to_string(&from).unwrap().to_uppercase();
        assert!(fs::read_to_string(&to).unwrap() == expected, "{length} bytes");
    }
}

#[test]
fn a_file_waits_while_reading_is_paused() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, "x".repeat(200_000)).unwrap();
    let reactor = Reactor::new().unwrap();
    let (mut shouter, ended) = Shouter::new();
    shouter.pauses = true;
    let (reader, writer) = (File::open(&from).unwrap(), File::create(&to).unwrap());
    let transport =
        reactor.connect_descriptors(Some(reader.into()), Some(writer.into()), shouter).unwrap();
    let (waited, resolver) = Deferred::new();
    reactor.call_later(Duration::from_millis(10), || resolver.callback(()));
    reactor.run_until(waited).unwrap();
    assert_eq!(fs::metadata(&to).unwrap().len(), 0);
    fn go_on(reactor: &Reactor, transport: Transport) {
        transport.resume_producing();
        let handle = reactor.clone();
        reactor.call_later(Duration::from_millis(1), move || go_on(&handle, transport));
    }
    go_on(&reactor, transport);
    assert!(reactor.run_until(ended).unwrap().is_clean());
    assert_eq!(fs::metadata(&to).unwrap().len(), 200_000);
}

#[test]
fn devices_and_sockets_work_too() {
    let reactor = Reactor::new().unwrap();
    let (shouter, ended) = Shouter::new();
    let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    reactor.connect_descriptors(Some(null()), Some(null()), shouter).unwrap();
    assert!(reactor.run_until(ended).unwrap().is_clean(), "at its end at once");

    let (near, mut far) = UnixStream::pair().unwrap();
    let (shouter, ended) = Shouter::new();
    let clone = near.try_clone().unwrap();
    let kept = near.try_clone().unwrap();
    reactor.connect_descriptors(Some(near.into()), Some(clone.into()), shouter).unwrap();
    far.write_all(b"hello").unwrap();
    far.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(reactor.run_until(ended).unwrap().is_clean());
    assert!(!rustix::fs::fcntl_getfl(&kept).unwrap().contains(OFlags::NONBLOCK));
    drop(kept);
    let mut text = String::new();
    far.read_to_string(&mut text).unwrap();
    assert_eq!(text, "HELLO");
}

#[test]
fn a_reader_that_goes_away_ends_a_stream_that_only_writes() {
    let reactor = Reactor::new().unwrap();
    let (far, near) = std::io::pipe().unwrap();
    let (shouter, ended) = Shouter::new();
    let transport = reactor.connect_descriptors(None, Some(near.into()), shouter).unwrap();
    transport.write(&[b'x'; 1_000_000]);
    reactor.call_soon(move || drop(far));
    let reason = reactor.run_until(ended).unwrap();
    assert_eq!(reason.io_error().unwrap().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn what_cannot_be_a_stream_is_refused() {
    let reactor = Reactor::new().unwrap();
    let folder = File::open(std::env::temp_dir()).unwrap();
    let result = reactor.connect_descriptors(Some(folder.into()), None, Shouter::new().0);
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::IsADirectory);
    let clock = Clock::new();
    let result = clock.reactor().connect_stdio(Shouter::new().0);
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn what_was_not_read_is_left_for_others() {
    struct FirstLine(Option<Resolver<Vec<u8>>>);

    impl Protocol for FirstLine {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            if let Some(first) = self.0.take() {
                first.callback(data.to_vec());
            }
            transport.lose_connection();
        }
    }

    let reactor = Reactor::new().unwrap();
    let (mut input, mut far_input) = std::io::pipe().unwrap();
    let (first, resolver) = Deferred::new();
    let reader = input.try_clone().unwrap();
    let protocol = Box::new(FirstLine(Some(resolver)));
    let transport = reactor.connect_descriptors(Some(reader.into()), None, protocol).unwrap();
    far_input.write_all(b"mine").unwrap();
    assert_eq!(reactor.run_until(first).unwrap(), b"mine");
    far_input.write_all(b"yours").unwrap();
    // The connection ends with this turn or the next.
    while transport.is_connected() {
        let (turned, resolver) = Deferred::new();
        reactor.call_soon(|| resolver.callback(()));
        reactor.run_until(turned).unwrap();
    }
    drop(far_input);
    let mut text = String::new();
    input.read_to_string(&mut text).unwrap();
    assert_eq!(text, "yours");
}
