//! Unix sockets: in memory, and the files and descriptors of real ones.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::rc::Rc;

use ropewalk::testing::{Clock, failure_result_of, success_result_of};
use ropewalk::{
    Address, ConnectError, ConnectionLost, Deferred, Factory, Protocol, Reactor, Resolver,
    SendDescriptorError, Transport, UnixAddress, UnixListenOptions,
};

use crate::support::{Counter, Diary, Echo, note, read};

fn echo_factory() -> Rc<dyn Factory> {
    Rc::new(|_: &Address| -> Option<Box<dyn Protocol>> { Some(Box::new(Echo)) })
}

/// Sends a question, fires with the answer of that length.
struct Asker(&'static [u8], Vec<u8>, Option<Resolver<Vec<u8>>>);

impl Asker {
    fn new(question: &'static [u8]) -> (Box<Asker>, Deferred<Vec<u8>>) {
        let (deferred, resolver) = Deferred::new();
        (Box::new(Asker(question, Vec::new(), Some(resolver))), deferred)
    }
}

impl Protocol for Asker {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(self.0);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.1.extend_from_slice(data);
        if self.1.len() == self.0.len() {
            transport.lose_connection();
            self.2.take().unwrap().callback(std::mem::take(&mut self.1));
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        if let Some(resolver) = self.2.take() {
            resolver.errback(reason);
        }
    }
}

/// Keeps the files that it is passed, and notes in which order things came.
struct Keeper {
    diary: Diary,
    kept: Rc<RefCell<Vec<File>>>,
    finished: Option<Resolver<()>>,
}

impl Protocol for Keeper {
    fn file_descriptor_received(&mut self, _: &Transport, descriptor: OwnedFd) {
        note(&self.diary, "descriptor");
        self.kept.borrow_mut().push(File::from(descriptor));
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        note(&self.diary, format!("data {}", String::from_utf8_lossy(data)));
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        if let Some(finished) = self.finished.take() {
            finished.callback(());
        }
    }
}

/// Fires when it is over; knows nothing of descriptors.
struct Unconcerned(Option<Resolver<()>>);

impl Protocol for Unconcerned {
    fn data_received(&mut self, _: &Transport, _: &[u8]) {}

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.0.take().unwrap().callback(());
    }
}

/// Gives its protocol to the first connection, and refuses the others.
fn once(protocol: impl Protocol + 'static) -> Rc<dyn Factory> {
    let protocol = RefCell::new(Some(Box::new(protocol) as Box<dyn Protocol>));
    Rc::new(move |_: &Address| protocol.take())
}

#[test]
fn unix_sockets_in_memory_are_found_by_path() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let port = reactor.listen_unix("/run/echo", echo_factory(), Default::default()).unwrap();
    assert_eq!(*port.local(), Address::Unix(UnixAddress::from("/run/echo")));
    assert_eq!(port.local_address().port(), 0);
    let again = reactor.listen_unix("/run/echo", echo_factory(), Default::default());
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);

    let (asker, answer) = Asker::new(b"hello");
    let connected = reactor.connect_unix("/run/echo", asker);
    clock.pump();
    let transport = success_result_of(connected);
    assert_eq!(success_result_of(answer), b"hello");
    assert_eq!(transport.peer().to_string(), "/run/echo");
    assert_eq!(*transport.local(), Address::Unix(UnixAddress::Unnamed));

    let (asker, _answer) = Asker::new(b"hello");
    let failure = failure_result_of(reactor.connect_unix("/run/other", asker));
    let error = failure.downcast_ref::<ConnectError>().unwrap();
    assert_eq!(error.to_string(), "cannot connect to /run/other");
    assert_eq!(error.source.io_error().unwrap().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn descriptors_travel_in_memory_with_the_bytes_behind_them() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let (diary, kept) = (Diary::default(), Rc::default());
    let keeper = Keeper { diary: diary.clone(), kept: Rc::clone(&kept), finished: None };
    reactor.listen_unix("/run/keeper", once(keeper), Default::default()).unwrap();
    let connected = reactor.connect_unix("/run/keeper", Box::new(Counter::default()));
    clock.pump();
    let transport = success_result_of(connected);
    assert!(transport.peer_credentials().is_some_and(|peer| peer.process_id.is_none()));

    let (mut far, near) = std::io::pipe().unwrap();
    transport.send_file_descriptor(near.into()).unwrap();
    clock.pump();
    assert_eq!(read(&diary), [""; 0], "not without a byte");
    transport.write(b"take it");
    clock.pump();
    assert_eq!(read(&diary), ["descriptor", "data take it"]);
    kept.borrow_mut()[0].write_all(b"inked").unwrap();
    kept.borrow_mut().clear();
    let mut text = String::new();
    far.read_to_string(&mut text).unwrap();
    assert_eq!(text, "inked", "and closed, or this would not end");
}

#[test]
fn descriptors_that_wait_are_bounded_and_closed_with_the_connection() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    reactor.listen_unix("/run/echo", echo_factory(), Default::default()).unwrap();
    let connected = reactor.connect_unix("/run/echo", Box::new(Counter::default()));
    clock.pump();
    let transport = success_result_of(connected);
    let (mut far, near) = std::io::pipe().unwrap();
    for _ in 0..64 {
        transport.send_file_descriptor(near.try_clone().unwrap().into()).unwrap();
    }
    let refused = transport.send_file_descriptor(near.into());
    assert_eq!(refused, Err(SendDescriptorError::TooMany { limit: 64 }));
    transport.abort_connection();
    clock.pump();
    assert_eq!(far.read_to_end(&mut Vec::new()).unwrap(), 0, "all are closed");
    let (_far, near) = std::io::pipe().unwrap();
    assert_eq!(transport.send_file_descriptor(near.into()), Ok(()), "dropped, as bytes would be");
}

#[test]
fn tcp_connections_carry_no_descriptors_and_vouch_for_nobody() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    let address = "127.0.0.1:7".parse().unwrap();
    reactor.listen_tcp(address, echo_factory(), Default::default()).unwrap();
    let connected = reactor.connect_tcp(address, Box::new(Counter::default()));
    clock.pump();
    let transport = success_result_of(connected);
    let (_far, near) = std::io::pipe().unwrap();
    let refused = transport.send_file_descriptor(near.into());
    assert_eq!(refused, Err(SendDescriptorError::NotUnix));
    assert_eq!(transport.peer_credentials(), None);
}

#[test]
fn names_that_no_socket_can_have_are_refused() {
    let clock = Clock::new();
    for (why, address) in [
        ("empty", UnixAddress::from("")),
        ("too long", UnixAddress::from("/".repeat(200))),
        ("a zero byte", UnixAddress::from("/run/a\0b")),
        ("no name", UnixAddress::Unnamed),
    ] {
        let result = clock.reactor().listen_unix(address, echo_factory(), Default::default());
        assert!(result.is_err(), "{why}");
    }
}

#[test]
fn a_real_socket_has_the_mode_that_was_asked_for_and_its_file_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let reactor = Reactor::new().unwrap();
    for mode in [0o600, 0o666] {
        let options = UnixListenOptions { mode, ..UnixListenOptions::default() };
        let port = reactor.listen_unix(path.as_path(), echo_factory(), options).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, mode);

        let (asker, answer) = Asker::new(b"hello");
        let connected = reactor.connect_unix(path.as_path(), asker);
        let transport = reactor.run_until(connected).unwrap();
        let peer = transport.peer_credentials().unwrap();
        assert_eq!(peer.process_id, Some(std::process::id()));
        assert_eq!(peer.user_id, rustix::process::geteuid().as_raw());
        assert_eq!(reactor.run_until(answer).unwrap(), b"hello");

        port.stop_listening();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "not even a lock");
    }
}

#[test]
fn a_stale_socket_is_replaced_a_living_one_and_other_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let reactor = Reactor::new().unwrap();
    let listen = || reactor.listen_unix(path.as_path(), echo_factory(), Default::default());

    // As a process that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let port = listen().unwrap();

    let error = listen().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("somebody listens there already"), "{error}");
    port.stop_listening();

    fs::write(&path, "precious").unwrap();
    let error = listen().unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no lock is left");

    // Somebody who holds the lock is about to listen.
    fs::remove_file(&path).unwrap();
    let lock = File::create(folder.path().join("echo.sock.lock")).unwrap();
    lock.lock().unwrap();
    assert!(listen().unwrap_err().to_string().contains("is beginning to listen"));
    drop(lock);
    listen().unwrap();
}

#[test]
fn a_socket_that_has_taken_the_place_of_ours_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let reactor = Reactor::new().unwrap();
    let port = reactor.listen_unix(path.as_path(), echo_factory(), Default::default()).unwrap();
    fs::rename(&path, folder.path().join("old")).unwrap();
    let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    port.stop_listening();
    assert!(path.exists());
}

#[test]
#[cfg(target_os = "linux")]
fn abstract_names_work_without_a_file() {
    let reactor = Reactor::new().unwrap();
    let address = UnixAddress::Abstract(format!("ropewalk-{}", std::process::id()).into_bytes());
    let port = reactor.listen_unix(address.clone(), echo_factory(), Default::default()).unwrap();
    assert_eq!(*port.local(), Address::Unix(address.clone()));
    let (asker, answer) = Asker::new(b"hello");
    let connected = reactor.connect_unix(address, asker);
    reactor.run_until(connected).unwrap();
    assert_eq!(reactor.run_until(answer).unwrap(), b"hello");
}

#[test]
fn nobody_at_the_other_end_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody.sock");
    let reactor = Reactor::new().unwrap();
    let (asker, _answer) = Asker::new(b"hello");
    let failure = reactor.run_until(reactor.connect_unix(path.as_path(), asker)).unwrap_err();
    let error = failure.downcast_ref::<ConnectError>().unwrap();
    assert_eq!(error.source.io_error().unwrap().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn real_descriptors_arrive_in_order_are_not_inherited_and_are_closed_when_unwanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keeper.sock");
    let reactor = Reactor::new().unwrap();
    for is_wanted in [true, false] {
        let (diary, kept) = (Diary::default(), Rc::default());
        let (finished, resolver) = Deferred::new();
        let finished_resolver = Some(resolver);
        let factory = if is_wanted {
            let (diary, kept) = (diary.clone(), Rc::clone(&kept));
            once(Keeper { diary, kept, finished: finished_resolver })
        } else {
            once(Unconcerned(finished_resolver))
        };
        let port = reactor.listen_unix(path.as_path(), factory, Default::default()).unwrap();
        let connected = reactor.connect_unix(path.as_path(), Box::new(Counter::default()));
        let transport = reactor.run_until(connected).unwrap();
        let mut far_ends = Vec::new();
        for text in ["one", "two"] {
            let (far, near) = std::io::pipe().unwrap();
            far_ends.push(far);
            transport.send_file_descriptor(near.into()).unwrap();
            transport.write(text.as_bytes());
        }
        transport.lose_connection();
        reactor.run_until(finished).unwrap();
        if is_wanted {
            assert_eq!(read(&diary), ["descriptor", "descriptor", "data onetwo"]);
        }
        for (number, file) in kept.borrow_mut().iter_mut().enumerate() {
            let flags = rustix::io::fcntl_getfd(&*file).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            write!(file, "{number}").unwrap();
        }
        kept.borrow_mut().clear();
        for (number, mut far) in far_ends.into_iter().enumerate() {
            let mut text = String::new();
            far.read_to_string(&mut text).unwrap();
            assert_eq!(text, if is_wanted { number.to_string() } else { String::new() });
        }
        port.stop_listening();
    }
}

#[test]
fn a_listener_whose_backlog_is_full_is_told_from_one_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("busy.sock");
    let busy = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    busy.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    busy.listen(0).unwrap();
    let reactor = Reactor::new().unwrap();
    let mut connected = Vec::new();
    let failure = loop {
        let attempt = reactor.connect_unix(path.as_path(), Box::new(Counter::default()));
        match reactor.run_until(attempt) {
            Ok(transport) => connected.push(transport),
            Err(failure) => break failure,
        }
        assert!(connected.len() < 10, "the backlog of this system has no bound");
    };
    let error = failure.downcast_ref::<ConnectError>().unwrap();
    let error = error.source.io_error().unwrap();
    assert!(error.to_string().contains("are waiting to be accepted; try again later"), "{error}");
}
