//! `FileSender`: files to consumers, in memory and over real connections.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::files::{FileError, FileOperation, FileSender, FileSenderError, Files, OpenMode};
use ropewalk::testing::{
    Clock, MemoryTransport, NoDeferredLeaks, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{
    Address, CancelledError, ConnectionLost, Consumer, Deferred, ListenOptions, Protocol, Reactor,
    Resolver, Transport,
};

use super::{Sink, open};
use crate::support::{Diary, OnData, Recorder};

/// Larger than what is read at a time.
const LARGE: usize = 1_000_000;

fn contents() -> Vec<u8> {
    (0..LARGE).map(|number| (number % 251) as u8).collect()
}

fn sender(clock: &Clock, contents: &[u8]) -> FileSender {
    clock.file_system().write("f", contents);
    FileSender::new(open(clock, "f", OpenMode::Read))
}

#[test]
fn a_file_is_sent_piece_by_piece_as_it_is_asked_for() {
    let _leaks = NoDeferredLeaks::watch();
    let clock = Clock::new();
    let sink = Rc::new(Sink::default());
    let sent = sender(&clock, &contents()).send_to(Rc::clone(&sink) as Rc<dyn Consumer>);
    clock.pump();
    assert_eq!(sink.writes.get(), 0, "not before it is asked for");
    for pieces in 1..=4 {
        assert_no_result(&sent);
        sink.producer().resume_producing();
        clock.pump();
        assert_eq!(sink.writes.get(), pieces);
    }
    assert!(!sink.is_fed());
    assert_eq!(success_result_of(sent), LARGE as u64);
    assert!(sink.received.take() == contents());
}

#[test]
fn an_empty_file_and_an_empty_range_end_without_a_write() {
    let clock = Clock::new();
    for sender in [sender(&clock, b""), sender(&clock, b"abc").with_range(1..1)] {
        let sink = Rc::new(Sink::default());
        let sent = sender.send_to(Rc::clone(&sink) as Rc<dyn Consumer>);
        clock.pump();
        assert_eq!(success_result_of(sent), 0);
        assert_eq!(sink.writes.get(), 0);
        assert!(!sink.is_fed());
    }
}

#[test]
fn a_range_is_sent_and_one_that_is_not_there_is_refused_before_a_byte() {
    let clock = Clock::new();
    let sink = Rc::new(Sink::default());
    let sent = sender(&clock, b"0123456789").with_range(3..7).send_to(Rc::clone(&sink) as _);
    sink.producer().resume_producing();
    clock.pump();
    assert_eq!(success_result_of(sent), 4);
    assert_eq!(sink.take(), "3456");

    let sent = sender(&clock, b"0123456789").with_range(3..11).send_to(Rc::clone(&sink) as _);
    sink.producer().resume_producing();
    clock.pump();
    let error = FileSenderError::TooShort { sent_bytes: 0, expected_bytes: 8 };
    assert_eq!(failure_result_of(sent).downcast_ref(), Some(&error));
    assert_eq!(sink.take(), "");
    assert!(!sink.is_fed());
}

#[test]
fn a_file_that_shrinks_and_a_disk_that_fails_end_it() {
    let clock = Clock::new();
    let sink = Rc::new(Sink::default());
    let sent = sender(&clock, &contents()).send_to(Rc::clone(&sink) as _);
    sink.producer().resume_producing();
    clock.pump();
    let shrinking = open(&clock, "f", OpenMode::Update).truncate(600_000);
    clock.pump();
    success_result_of(shrinking);
    while sink.is_fed() {
        sink.producer().resume_producing();
        clock.pump();
    }
    let failure = failure_result_of(sent);
    let expected = FileSenderError::TooShort { sent_bytes: 600_000, expected_bytes: LARGE as u64 };
    assert_eq!(failure.downcast_ref(), Some(&expected));

    let sent = sender(&clock, &contents()).send_to(Rc::clone(&sink) as _);
    let _fault = clock.file_system().inject(|operation, _| match operation {
        FileOperation::Read => Err(std::io::Error::other("bad sector")),
        _ => Ok(()),
    });
    sink.producer().resume_producing();
    clock.pump();
    assert!(failure_result_of(sent).is::<FileError>());
    assert!(!sink.is_fed());
}

#[test]
fn a_consumer_that_stops_and_a_cancel_end_it() {
    let _leaks = NoDeferredLeaks::watch();
    let clock = Clock::new();
    let sink = Rc::new(Sink::default());
    let sent = sender(&clock, &contents()).send_to(Rc::clone(&sink) as _);
    sink.producer().resume_producing();
    clock.pump();
    sink.producer().stop_producing();
    let sent_bytes = sink.received.borrow().len() as u64;
    let error = FileSenderError::ConsumerStopped { sent_bytes };
    assert_eq!(failure_result_of(sent).downcast_ref(), Some(&error));

    let sent = sender(&clock, &contents()).send_to(Rc::clone(&sink) as _);
    sink.producer().resume_producing();
    sent.cancel();
    assert!(failure_result_of(sent).is::<CancelledError>());
    assert!(!sink.is_fed());
    sink.received.take();
    clock.pump();
    assert_eq!(sink.take(), "", "a piece that was being read goes nowhere");
}

#[test]
fn a_connection_gets_a_file_while_a_slow_disk_holds_up_nobody() {
    let clock = Clock::new();
    clock.file_system().set_pace(|_, _| Duration::from_millis(1));
    let memory = MemoryTransport::connect(&clock, Recorder::new(&Diary::default()));
    clock.file_system().write("f", contents());
    let opened = clock.reactor().files().open("f", OpenMode::Read);
    clock.advance(Duration::from_millis(1));
    let sender = FileSender::new(success_result_of(opened));
    let transport = memory.transport().clone();
    transport.write(b"head ");
    let sent = sender.send_to(Rc::new(transport.clone()));
    transport.lose_connection();
    let mut received = Vec::new();
    for _ in 0..100 {
        clock.advance(Duration::from_millis(1));
        received.extend_from_slice(&memory.take_written());
    }
    assert!(received == [b"head ", &contents()[..]].concat());
    assert_eq!(success_result_of(sent), LARGE as u64);
    assert!(memory.is_closed(), "losing the connection waited for the file");
}

/// Keeps what it gets, and tells it at the end.
struct Collector(Vec<u8>, Option<Resolver<Vec<u8>>>);

impl Protocol for Collector {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        if self.0.is_empty() {
            transport.write(b"a question in the middle of it");
        }
        self.0.extend_from_slice(data);
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        if let Some(resolver) = self.1.take() {
            resolver.callback(std::mem::take(&mut self.0));
        }
    }
}

/// Sends a head, the file, and a tail to whoever connects; then closes.
struct Page {
    files: Files,
    path: std::path::PathBuf,
    sent: Rc<RefCell<Vec<Deferred<u64>>>>,
}

impl Protocol for Page {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b"head ");
        let transport = transport.clone();
        let sent = self.files.open(&self.path, OpenMode::Read).add_callback(move |file| {
            let sent = FileSender::new(file).send_to(Rc::new(transport.clone()));
            sent.add_callback(move |count| {
                transport.write(b" tail");
                transport.lose_connection();
                Ok(count)
            })
        });
        self.sent.borrow_mut().push(sent);
    }

    fn data_received(&mut self, transport: &Transport, _: &[u8]) {
        transport.write(NOTE);
    }
}

/// What somebody who does not wait for the file's end writes.
const NOTE: &[u8] = b"[an answer in the middle of it]";

#[test]
fn the_system_sends_a_real_file_over_a_real_connection() {
    // More than a socket takes at once, so that the sender has to wait for the reader.
    let contents = contents().repeat(12);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page");
    std::fs::write(&path, &contents).unwrap();
    let reactor = Reactor::new().unwrap();
    let sent = Rc::<RefCell<Vec<Deferred<u64>>>>::default();
    let (files, all) = (reactor.files(), Rc::clone(&sent));
    let factory = move |_: &Address| {
        let page = Page { files: files.clone(), path: path.clone(), sent: Rc::clone(&all) };
        Some(Box::new(page) as Box<dyn Protocol>)
    };
    let any_port = "127.0.0.1:0".parse().unwrap();
    let port = reactor.listen_tcp(any_port, Rc::new(factory), ListenOptions::default()).unwrap();
    let received: Vec<_> = (0..3)
        .map(|_| {
            let (received, resolver) = Deferred::new();
            let collector = Box::new(Collector(Vec::new(), Some(resolver)));
            reactor.connect_tcp(port.local_address(), collector).detach();
            received
        })
        .collect();
    for received in received {
        let mut received = reactor.run_until(received).unwrap();
        let note = received.windows(NOTE.len()).position(|window| window == NOTE);
        received.drain(note.unwrap()..note.unwrap() + NOTE.len());
        assert!(received == [b"head ", &contents[..], b" tail"].concat(), "note at {note:?}");
    }
    for sent in sent.take() {
        assert_eq!(success_result_of(sent), contents.len() as u64);
    }
}

#[test]
fn a_reader_that_goes_away_in_the_middle_ends_a_real_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page");
    std::fs::write(&path, contents().repeat(40)).unwrap();
    let reactor = Reactor::new().unwrap();
    let sent = Rc::<RefCell<Vec<Deferred<u64>>>>::default();
    let (files, all) = (reactor.files(), Rc::clone(&sent));
    let factory = move |_: &Address| {
        let page = Page { files: files.clone(), path: path.clone(), sent: Rc::clone(&all) };
        Some(Box::new(page) as Box<dyn Protocol>)
    };
    let any_port = "127.0.0.1:0".parse().unwrap();
    let port = reactor.listen_tcp(any_port, Rc::new(factory), ListenOptions::default()).unwrap();
    let impatient = OnData(|transport: &Transport, _: &[u8]| transport.abort_connection());
    reactor.run_until(reactor.connect_tcp(port.local_address(), Box::new(impatient))).unwrap();
    let sent = reactor.spawn({
        let reactor = reactor.clone();
        async move {
            while sent.borrow().is_empty() {
                reactor.defer_later(Duration::ZERO, || Ok(())).await?;
            }
            let sent = sent.borrow_mut().remove(0);
            sent.await
        }
    });
    let failure = reactor.run_until(sent).unwrap_err();
    let error = failure.downcast_ref::<FileSenderError>();
    assert!(matches!(error, Some(FileSenderError::ConsumerStopped { .. })), "{failure:?}");
}
