//! Transports as futures' readers, writers, streams and sinks.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use asynchronous_codec::{Framed, LengthCodec, LinesCodec};
use bytes::Bytes;
use futures_util::{AsyncReadExt, AsyncWriteExt, SinkExt, StreamExt, TryStreamExt};
use ropewalk::adapters::{self, AsyncTransport};
use ropewalk::testing::{
    Clock, MemoryTransport, NoDeferredLeaks, UnhandledErrors, assert_no_result, failure_result_of,
    success_result_of,
};
use ropewalk::{Deferred, Failure, ListenOptions, LogContext, Reactor, logging};

/// Puts a stream on a connection whose other end the test has.
fn wire(clock: &Clock) -> (AsyncTransport, MemoryTransport<'_>) {
    let (stream, protocol) = AsyncTransport::new();
    (stream, MemoryTransport::connect(clock, protocol))
}

/// Has a task do something, and lets the reactor come to rest.
fn run<T: 'static>(
    clock: &Clock,
    work: impl Future<Output = Result<T, Failure>> + 'static,
) -> Deferred<T> {
    let task = clock.reactor().spawn(work);
    clock.pump();
    task
}

fn address() -> SocketAddr {
    "127.0.0.1:7".parse().unwrap()
}

/// Serves connections with an `async` function.
fn serve<F: Future<Output = Result<(), Failure>> + 'static>(
    clock: &Clock,
    f: impl Fn(AsyncTransport) -> F + 'static,
) {
    let factory = adapters::factory(clock.reactor(), f);
    clock.reactor().listen_tcp(address(), factory, ListenOptions::default()).unwrap();
}

async fn connect(reactor: &Reactor) -> Result<AsyncTransport, Failure> {
    let (stream, protocol) = AsyncTransport::new();
    reactor.connect_tcp(address(), Box::new(protocol)).await?;
    Ok(stream)
}

fn io_kind(failure: &Failure) -> Option<io::ErrorKind> {
    failure.downcast_ref::<io::Error>().map(io::Error::kind)
}

#[test]
fn a_task_reads_what_arrives_and_the_end_after_it() {
    let clock = Clock::new();
    let (mut stream, far_end) = wire(&clock);
    let read = run(&clock, async move {
        let mut first = [0; 3];
        stream.read_exact(&mut first).await?;
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await?;
        Ok((first, rest))
    });
    far_end.deliver(b"ab");
    assert_no_result(&read);
    far_end.deliver(b"cde");
    far_end.deliver(b"f");
    far_end.finish();
    assert_eq!(success_result_of(read), (*b"abc", "def".to_owned()));
}

#[test]
fn what_was_written_is_sent_when_the_stream_is_dropped() {
    let leaks = NoDeferredLeaks::watch();
    let clock = Clock::new();
    let (mut stream, far_end) = wire(&clock);
    success_result_of(run(&clock, async move {
        stream.write_all(b"good").await?;
        stream.flush().await?;
        stream.write_all(b"bye").await?;
        Ok(())
    }));
    assert_eq!(far_end.take_written(), b"goodbye");
    assert!(far_end.has_finished());
    far_end.close();
    assert_eq!(clock.open_connections(), 0);
    drop(far_end);
    drop(clock);
    assert_eq!(leaks.living(), 0);
}

#[test]
fn closing_finishes_sending_and_reading_goes_on() {
    let clock = Clock::new();
    let (mut stream, far_end) = wire(&clock);
    let answer = run(&clock, async move {
        stream.write_all(b"question").await?;
        stream.close().await?;
        stream.close().await?;
        stream.flush().await?;
        let refused = stream.write_all(b"more").await.unwrap_err().kind();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok((answer, refused))
    });
    assert_eq!(far_end.take_written(), b"question");
    assert!(far_end.has_finished());
    far_end.deliver(b"answer");
    far_end.finish();
    let expected = ("answer".to_owned(), io::ErrorKind::BrokenPipe);
    assert_eq!(success_result_of(answer), expected);
}

#[test]
fn a_writer_waits_while_the_peer_takes_nothing_and_memory_is_bounded() {
    const TOTAL: usize = 4 * 1024 * 1024;
    let clock = Clock::new();
    let written = Rc::new(Cell::new(0));
    let counted = written.clone();
    let (mut stream, far_end) = wire(&clock);
    let wrote = run(&clock, async move {
        let piece = vec![b'x'; 10_000];
        while counted.get() < TOTAL {
            stream.write_all(&piece).await?;
            counted.set(counted.get() + piece.len());
        }
        Ok(())
    });
    assert_no_result(&wrote);
    // The pipe of the memory transport, the high-water mark and one write.
    assert!(written.get() <= (64 + 64 + 64) * 1024, "{}", written.get());
    let mut taken = 0;
    while taken < TOTAL {
        let count = far_end.take_written().len();
        assert!(count > 0);
        taken += count;
    }
    success_result_of(wrote);
    assert_eq!(taken, written.get());
}

#[test]
fn the_peer_waits_while_nobody_reads_and_memory_is_bounded() {
    const TOTAL: usize = 4 * 1024 * 1024;
    let clock = Clock::new();
    let (gate, resolver) = Deferred::<()>::new();
    let gate = Cell::new(Some(gate));
    let sum = Rc::new(Cell::new(0));
    let summed = sum.clone();
    serve(&clock, move |mut stream| {
        let (gate, summed) = (gate.take().unwrap(), summed.clone());
        async move {
            gate.await?;
            let mut buffer = [0; 5000];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    count => summed.set(summed.get() + count),
                }
            }
        }
    });
    let written = Rc::new(Cell::new(0));
    let (reactor, counted) = (clock.reactor().clone(), written.clone());
    let wrote = run(&clock, async move {
        let mut stream = connect(&reactor).await?;
        while counted.get() < TOTAL {
            stream.write_all(&[b'x'; 8192]).await?;
            counted.set(counted.get() + 8192);
        }
        Ok(())
    });
    assert_no_result(&wrote);
    // Besides what the writer may have unsent and the pipe holds: what the reader's side takes in.
    assert!(written.get() <= (128 + 64 + 128) * 1024, "{}", written.get());
    resolver.callback(());
    clock.pump();
    success_result_of(wrote);
    assert_eq!(sum.get(), TOTAL);
}

#[test]
fn a_connection_that_breaks_is_told_to_the_reader_after_what_had_arrived() {
    let clock = Clock::new();
    let (mut stream, far_end) = wire(&clock);
    far_end.deliver(b"last words");
    far_end.reset();
    let read = run(&clock, async move {
        let mut words = [0; 10];
        stream.read_exact(&mut words).await?;
        let error = stream.read(&mut words).await.unwrap_err();
        let writing = stream.write(b"hello?").await.unwrap_err();
        assert_eq!(stream.flush().await.unwrap_err().kind(), error.kind());
        assert_eq!(stream.close().await.unwrap_err().kind(), error.kind());
        assert!(stream.peer().is_none());
        Ok((words, error.kind(), writing.kind()))
    });
    let reset = io::ErrorKind::ConnectionReset;
    assert_eq!(success_result_of(read), (*b"last words", reset, reset));
}

#[test]
fn a_writer_that_waits_hears_of_the_end() {
    let clock = Clock::new();
    let (mut stream, far_end) = wire(&clock);
    let wrote = run(&clock, async move { Ok(stream.write_all(&[0; 1_000_000]).await?) });
    assert_no_result(&wrote);
    far_end.reset();
    assert_eq!(io_kind(&failure_result_of(wrote)), Some(io::ErrorKind::ConnectionReset));
}

#[test]
fn reading_and_writing_wait_for_the_connection_and_fail_without_one() {
    let clock = Clock::new();
    let (mut stream, protocol) = AsyncTransport::new();
    let wrote = run(&clock, async move {
        stream.write_all(b"early").await?;
        stream.close().await?;
        Ok(())
    });
    assert_no_result(&wrote);
    let far_end = MemoryTransport::connect(&clock, protocol);
    success_result_of(wrote);
    assert_eq!(far_end.take_written(), b"early");
    for read in [true, false] {
        let (mut stream, protocol) = AsyncTransport::new();
        let failed = run(&clock, async move {
            match read {
                true => stream.read(&mut [0]).await?,
                false => stream.write(b"x").await?,
            };
            Ok(())
        });
        drop(protocol);
        clock.pump();
        assert_eq!(io_kind(&failure_result_of(failed)), Some(io::ErrorKind::NotConnected));
    }
}

#[test]
fn a_stream_that_is_dropped_before_its_connection_is_made_closes_it() {
    let clock = Clock::new();
    let (stream, protocol) = AsyncTransport::new();
    drop(stream);
    let far_end = MemoryTransport::connect(&clock, protocol);
    assert!(far_end.has_finished());
}

#[test]
fn aborting_drops_what_was_not_sent() {
    let clock = Clock::new();
    let (mut stream, far_end) = wire(&clock);
    let aborted = run(&clock, async move {
        // The second of these waits until the pipe is full.
        let _ = futures_util::poll!(Box::pin(stream.write_all(&[0; 100_000])));
        stream.abort();
        Ok(())
    });
    success_result_of(aborted);
    assert!(far_end.is_closed());
}

#[test]
fn cancelling_a_task_that_reads_closes_its_connection() {
    let clock = Clock::new();
    let (mut stream, far_end) = wire(&clock);
    let read = run(&clock, async move { Ok(stream.read(&mut [0]).await?) });
    read.cancel();
    clock.pump();
    failure_result_of(read);
    assert!(far_end.has_finished());
}

#[test]
fn one_task_may_read_while_another_writes() {
    let clock = Clock::new();
    let (stream, far_end) = wire(&clock);
    let (mut reader, mut writer) = stream.split();
    let read = run(&clock, async move {
        let mut text = String::new();
        reader.read_to_string(&mut text).await?;
        Ok(text)
    });
    let wrote = run(&clock, async move {
        writer.write_all(&[b'x'; 300_000]).await?;
        writer.close().await?;
        Ok(())
    });
    far_end.deliver(b"meanwhile");
    far_end.finish();
    assert_eq!(success_result_of(read), "meanwhile");
    assert_no_result(&wrote);
    let mut count = 0;
    while count < 300_000 {
        count += far_end.take_written().len();
    }
    success_result_of(wrote);
}

#[test]
fn codecs_of_others_work() {
    let clock = Clock::new();
    serve(&clock, |stream| async move {
        let mut lines = Framed::new(stream, LinesCodec);
        while let Some(line) = lines.try_next().await? {
            lines.send(line.to_uppercase()).await?;
        }
        Ok(())
    });
    let reactor = clock.reactor().clone();
    let answers = run(&clock, async move {
        let mut lines = Framed::new(connect(&reactor).await?, LinesCodec);
        for line in ["one\n", "two\n"] {
            lines.send(line.to_owned()).await?;
        }
        lines.close().await?;
        Ok(lines.try_collect::<Vec<String>>().await?)
    });
    assert_eq!(success_result_of(answers), ["ONE\n", "TWO\n"]);
    assert_eq!(clock.open_connections(), 1, "the port is left");
}

#[test]
fn a_codec_gets_frames_however_they_are_cut() {
    let clock = Clock::new();
    let (stream, far_end) = wire(&clock);
    let frames = run(&clock, async move {
        Ok(Framed::new(stream, LengthCodec).try_collect::<Vec<Bytes>>().await?)
    });
    let mut bytes = Vec::new();
    for frame in [&b"first"[..], b"", b"third"] {
        bytes.extend((frame.len() as u64).to_be_bytes());
        bytes.extend(frame);
    }
    for byte in bytes {
        far_end.deliver(&[byte]);
    }
    far_end.finish();
    assert_eq!(success_result_of(frames), [&b"first"[..], b"", b"third"]);
}

#[test]
fn pieces_of_bytes_are_streamed_from_one_to_the_other() {
    const PIECE_BYTES: usize = 50_000;
    let clock = Clock::new();
    serve(&clock, |stream| async move {
        let (sink, pieces) = stream.into_byte_stream().split();
        Ok(pieces.forward(sink).await?)
    });
    let reactor = clock.reactor().clone();
    let echoed = run(&clock, async move {
        let (mut sink, pieces) = connect(&reactor).await?.into_byte_stream().split();
        let sender = reactor.spawn(async move {
            for number in 0..40 {
                sink.send(Bytes::from(vec![number; PIECE_BYTES])).await?;
            }
            Ok(sink.close().await?)
        });
        let echoed = pieces.try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        });
        let echoed = echoed.await?;
        sender.await?;
        Ok(echoed)
    });
    let echoed = success_result_of(echoed);
    assert_eq!(echoed.len(), 40 * PIECE_BYTES);
    assert!(
        echoed.chunks(PIECE_BYTES).zip(0..).all(|(piece, number)| piece == [number; PIECE_BYTES])
    );
}

#[test]
fn an_error_is_the_last_item_of_a_stream_and_a_sink_wants_to_be_asked_first() {
    let clock = Clock::new();
    let (stream, protocol) = AsyncTransport::new();
    let mut stream = stream.into_byte_stream();
    let early = stream.start_send_unpin(Bytes::from_static(b"early")).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::NotConnected);
    let far_end = MemoryTransport::connect(&clock, protocol);
    far_end.deliver(b"piece");
    far_end.reset();
    let items = run(&clock, async move {
        let piece = stream.next().await.unwrap()?;
        let error = stream.next().await.unwrap().unwrap_err().kind();
        Ok((piece, error, stream.next().await.is_none()))
    });
    let expected = (Bytes::from_static(b"piece"), io::ErrorKind::ConnectionReset, true);
    assert_eq!(success_result_of(items), expected);
}

#[test]
fn each_connection_is_served_in_its_own_context_and_peers_cannot_fill_the_log() {
    let unhandled = UnhandledErrors::trap();
    let lines = logging::capture(1000);
    let clock = Clock::new();
    let names: Rc<RefCell<Vec<String>>> = Rc::default();
    let noted = names.clone();
    serve(&clock, move |mut stream| {
        let noted = noted.clone();
        async move {
            noted.borrow_mut().push(LogContext::current().name().to_owned());
            let mut command = [0];
            stream.read_exact(&mut command).await?;
            match command[0] {
                b'?' => Err(std::fmt::Error.into()),
                _ => Ok(()),
            }
        }
    });
    for command in [&b"x"[..], b"?", b""] {
        let reactor = clock.reactor().clone();
        success_result_of(run(&clock, async move {
            let mut stream = connect(&reactor).await?;
            stream.write_all(command).await?;
            Ok(())
        }));
    }
    assert_eq!(*names.borrow(), ["tcp-7-1", "tcp-7-2", "tcp-7-3"]);
    let unhandled = unhandled.take();
    assert_eq!(unhandled.len(), 1, "only what is no peer's doing");
    assert!(unhandled[0].failure.is::<std::fmt::Error>());
    let lines = lines.take();
    assert!(!lines.iter().any(|line| line.starts_with("ERROR") || line.starts_with("WARN")));
}

#[test]
fn a_task_awaits_futures_that_know_nothing_of_the_reactor() {
    struct Bell {
        ringer: std::sync::Arc<std::sync::Mutex<(bool, Option<Waker>)>>,
    }
    impl Future for Bell {
        type Output = &'static str;

        fn poll(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<&'static str> {
            let mut ringer = self.ringer.lock().unwrap();
            if ringer.0 {
                return std::task::Poll::Ready("rung");
            }
            ringer.1 = Some(cx.waker().clone());
            std::task::Poll::Pending
        }
    }
    let reactor = Reactor::new().unwrap();
    let ringer = std::sync::Arc::new(std::sync::Mutex::new((false, None::<Waker>)));
    let bell = Bell { ringer: ringer.clone() };
    let handle = reactor.clone();
    let task = reactor.spawn(async move {
        let other = handle.spawn(async { Ok("deferred") });
        // Two worlds in one combinator: the deferred is a future like any other.
        let (rung, other) = futures_util::future::join(bell, other).await;
        Ok((rung, other?))
    });
    let ringing = std::thread::spawn(move || {
        let waker = loop {
            let mut ringer = ringer.lock().unwrap();
            if let Some(waker) = ringer.1.take() {
                ringer.0 = true;
                break waker;
            }
            drop(ringer);
            std::thread::yield_now();
        };
        waker.wake();
    });
    assert_eq!(reactor.run_until(task).unwrap(), ("rung", "deferred"));
    ringing.join().unwrap();
}
