//! Child processes: what they say, how they end, and what becomes of them when nobody cares.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::process::{
    Command, OutputTooLong, ProcessProtocol, ProcessTransport, SpawnError, StandardStream,
};
use ropewalk::testing::{Clock, ScriptedProcess, failure_result_of, success_result_of};
use ropewalk::{CancelledError, Deferred, LogContext, Reactor, Resolver, Signal, TimeoutError};
use rustix::process::{Pid, test_kill_process};

use crate::support::{Diary, note, read};

fn shell(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

type Action = Box<dyn FnMut(&ProcessTransport)>;

/// Notes what happens; does something once the process says anything; fires when it has ended.
struct Recorder {
    diary: Diary,
    on_output: Action,
    ended: Option<Resolver<ExitStatus>>,
}

impl Recorder {
    fn new(
        on_output: impl FnMut(&ProcessTransport) + 'static,
    ) -> (Box<Recorder>, Diary, Deferred<ExitStatus>) {
        let (deferred, resolver) = Deferred::new();
        let diary = Diary::default();
        let recorder = Recorder {
            diary: Rc::clone(&diary),
            on_output: Box::new(on_output),
            ended: Some(resolver),
        };
        (Box::new(recorder), diary, deferred)
    }
}

impl ProcessProtocol for Recorder {
    fn connection_made(&mut self, _: &ProcessTransport) {
        note(&self.diary, "made");
    }

    fn out_received(&mut self, process: &ProcessTransport, data: &[u8]) {
        note(&self.diary, format!("out {}", String::from_utf8_lossy(data).trim_end()));
        (self.on_output)(process);
    }

    fn err_received(&mut self, _: &ProcessTransport, data: &[u8]) {
        note(&self.diary, format!("err {}", String::from_utf8_lossy(data).trim_end()));
    }

    fn in_connection_lost(&mut self, _: &ProcessTransport) {
        note(&self.diary, "in lost");
    }

    fn out_connection_lost(&mut self, _: &ProcessTransport) {
        note(&self.diary, "out lost");
    }

    fn err_connection_lost(&mut self, _: &ProcessTransport) {
        note(&self.diary, "err lost");
    }

    fn process_exited(&mut self, _: &ProcessTransport, _: ExitStatus) {
        note(&self.diary, "exited");
    }

    fn process_ended(&mut self, status: ExitStatus) {
        note(&self.diary, "ended");
        self.ended.take().unwrap().callback(status);
    }
}

fn pause(reactor: &Reactor, time: Duration) {
    let (waited, resolver) = Deferred::new();
    reactor.call_later(time, || resolver.callback(()));
    reactor.run_until(waited).unwrap();
}

#[test]
fn output_and_status_are_given_when_it_has_ended() {
    let reactor = Reactor::new().unwrap();
    let command = shell("echo out; echo err >&2; exit 3");
    let output = reactor.run_until(reactor.process_output(command, 1024)).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));

    let input: Vec<u8> = (0..1_000_000).map(|n| (n % 251) as u8).collect();
    let command = Command::new("cat").input(input.clone());
    let output = reactor.run_until(reactor.process_output(command, 1_000_000)).unwrap();
    assert!(output.stdout == input, "a megabyte through two pipes");
}

#[test]
fn environment_folder_and_arguments_are_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let reactor = Reactor::new().unwrap();
    let command = Command::new("/bin/sh")
        .arg("-c")
        .arg("pwd; echo \"$GREETING:${GONE-unset}:$1\"")
        .args(["sh", "a b; echo injected"])
        .env_clear()
        .env("GREETING", "hello")
        .env("GONE", "here")
        .env_remove("GONE")
        .current_folder(folder.path());
    let output = reactor.run_until(reactor.process_output(command, 1024)).unwrap();
    let path = folder.path().canonicalize().unwrap();
    let expected = format!("{}\nhello:unset:a b; echo injected\n", path.display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn streams_can_lead_to_files_or_nowhere() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let reactor = Reactor::new().unwrap();
    let descriptor = file.reopen().unwrap().into();
    let command = shell("cat; echo to the file; echo nowhere >&2")
        .stdout(StandardStream::Descriptor(descriptor))
        .stderr(StandardStream::Null);
    let output = reactor.run_until(reactor.process_output(command, 0)).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "to the file\n");
}

#[test]
fn what_cannot_be_started_says_why() {
    let reactor = Reactor::new().unwrap();
    let command = Command::new("/nowhere/to/be/found");
    let failure = reactor.run_until(reactor.process_output(command, 1024)).unwrap_err();
    let error = failure.downcast_ref::<SpawnError>().unwrap();
    assert_eq!(error.to_string(), "cannot start \"/nowhere/to/be/found\"");
    assert_eq!(error.source.kind(), io::ErrorKind::NotFound);

    let clock = Clock::new();
    let output = clock.reactor().process_output(shell("true"), 1024);
    clock.pump();
    let failure = failure_result_of(output);
    let error = failure.downcast_ref::<SpawnError>().unwrap();
    assert_eq!(error.source.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn too_much_output_is_cut_short() {
    let reactor = Reactor::new().unwrap();
    let output = reactor.process_output(Command::new("yes"), 100_000);
    let failure = reactor.run_until(output).unwrap_err();
    assert_eq!(failure.downcast_ref::<OutputTooLong>().unwrap().bytes_max, 100_000);
}

#[test]
fn a_limit_in_time_and_giving_up_kill_it() {
    let reactor = Reactor::new().unwrap();
    let output = reactor.process_output(shell("exec sleep 1000"), 0);
    let output = output.with_timeout(&reactor, Duration::from_millis(30));
    assert!(reactor.run_until(output).unwrap_err().is::<TimeoutError>());

    // Before it has been started.
    let output = reactor.process_output(shell("exec sleep 1000"), 0);
    output.cancel();
    assert!(failure_result_of(output).is::<CancelledError>());
}

#[test]
fn the_protocol_hears_of_everything_in_order() {
    let reactor = Reactor::new().unwrap();
    let (recorder, diary, ended) = Recorder::new(ProcessTransport::close_stdin);
    let process = reactor.run_until(reactor.spawn_process(Command::new("cat"), recorder)).unwrap();
    assert!(process.id() > 1 && process.exit_status().is_none());
    let watchers = [process.exited(), process.exited()];
    process.write(b"hello\n");
    let status = reactor.run_until(ended).unwrap();
    assert!(status.success());
    for watcher in watchers {
        assert_eq!(reactor.run_until(watcher).unwrap(), status);
    }
    assert_eq!(process.exit_status(), Some(status));
    assert_eq!(process.signal(Signal::Hangup).unwrap_err().kind(), io::ErrorKind::NotFound);
    let mut lines = read(&diary);
    assert_eq!(lines[..2], ["made", "out hello"]);
    assert_eq!(lines.pop().unwrap(), "ended");
    lines[2..].sort();
    assert_eq!(lines[2..], ["err lost", "exited", "in lost", "out lost"]);
}

#[test]
fn signals_reach_it() {
    let reactor = Reactor::new().unwrap();
    let (recorder, diary, ended) = Recorder::new(|process| {
        // The second time it has caught it.
        let _ = process.signal(Signal::Terminate);
    });
    let command =
        shell("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    reactor.run_until(reactor.spawn_process(command, recorder)).unwrap();
    assert_eq!(reactor.run_until(ended).unwrap().code(), Some(7));
    assert!(read(&diary).contains(&"out caught".to_owned()));
}

#[test]
fn a_group_of_its_own_is_signalled_as_a_whole() {
    let reactor = Reactor::new().unwrap();
    let (recorder, _, ended) = Recorder::new(|process| process.signal(Signal::Kill).unwrap());
    // The end comes only when the inner one, which has the pipes, too, is dead.
    let command = shell("sleep 1000 & echo ready; wait").own_process_group();
    reactor.run_until(reactor.spawn_process(command, recorder)).unwrap();
    assert_eq!(reactor.run_until(ended).unwrap().signal(), Some(Signal::Kill.number()));
}

#[test]
fn pipes_slow_down_whoever_writes() {
    let reactor = Reactor::new().unwrap();
    let (recorder, diary, ended) = Recorder::new(|_| {});
    let command = shell("head -c 300000 /dev/zero; echo done >&2; exec cat > /dev/null");
    let process = reactor.run_until(reactor.spawn_process(command, recorder)).unwrap();
    process.stdout().unwrap().pause_producing();
    process.write(&vec![0; 1_000_000]);
    pause(&reactor, Duration::from_millis(20));
    assert!(!read(&diary).iter().any(|line| line.starts_with("out") || line.starts_with("err")));
    assert!(process.stdin().unwrap().buffered_bytes() > 500_000, "it does not read yet");
    process.stdout().unwrap().resume_producing();
    process.close_stdin();
    assert!(reactor.run_until(ended).unwrap().success());
    assert!(read(&diary).contains(&"err done".to_owned()));
}

#[test]
fn one_that_does_not_listen_is_no_trouble() {
    let reactor = Reactor::new().unwrap();
    let command = Command::new("true").input(vec![0; 1_000_000]);
    let output = reactor.run_until(reactor.process_output(command, 1024)).unwrap();
    assert!(output.status.success(), "and the broken pipe is not an error");
}

#[test]
fn a_protocol_that_panics_has_its_process_killed() {
    let reactor = Reactor::new().unwrap();
    let (recorder, diary, ended) = Recorder::new(|_| panic!("not what I had expected"));
    let command = shell("echo boo; exec sleep 1000");
    reactor.run_until(reactor.spawn_process(command, recorder)).unwrap();
    assert_eq!(reactor.run_until(ended).unwrap().signal(), Some(Signal::Kill.number()));
    assert_eq!(read(&diary), ["made", "out boo", "ended"]);
}

#[test]
fn the_reactors_end_is_its_end_unless_it_was_told_otherwise() {
    let reactor = Reactor::new().unwrap();
    let (recorder, diary, _ended) = Recorder::new(|_| {});
    let command = shell("exec sleep 1000");
    let doomed = reactor.run_until(reactor.spawn_process(command, recorder)).unwrap();
    let (recorder, _, _ended_never) = Recorder::new(|_| {});
    let command = shell("exec sleep 1000").outlives_reactor();
    let survivor = reactor.run_until(reactor.spawn_process(command, recorder)).unwrap();
    let exited = survivor.exited();
    reactor.stop();
    reactor.run().unwrap();
    assert_eq!(doomed.exit_status().unwrap().signal(), Some(Signal::Kill.number()));
    assert_eq!(*read(&diary).last().unwrap(), "ended");
    assert!(exited.into_result().unwrap().is_err());
    let survivor = Pid::from_raw(survivor.id() as i32).unwrap();
    test_kill_process(survivor).unwrap();
    rustix::process::kill_process(survivor, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn its_callbacks_run_in_a_child_of_the_context_that_started_it() {
    struct Namer(Rc<RefCell<Vec<String>>>, Option<Resolver<()>>);

    impl ProcessProtocol for Namer {
        fn out_received(&mut self, _: &ProcessTransport, _: &[u8]) {
            self.0.borrow_mut().push(LogContext::current().name().to_owned());
        }

        fn process_ended(&mut self, _: ExitStatus) {
            self.0.borrow_mut().push(LogContext::current().name().to_owned());
            self.1.take().unwrap().callback(());
        }
    }

    let reactor = Reactor::new().unwrap();
    let names = Rc::default();
    let (ended, resolver) = Deferred::new();
    let namer = Box::new(Namer(Rc::clone(&names), Some(resolver)));
    let context = LogContext::new("request-1");
    let started = context.run(|| reactor.spawn_process(shell("echo hello"), namer));
    reactor.run_until(started).unwrap();
    reactor.run_until(ended).unwrap();
    assert_eq!(*names.borrow(), ["request-1-sh", "request-1-sh"]);
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn signals_that_nobody_can_watch_are_refused() {
    let reactor = Reactor::new().unwrap();
    for signal in [Signal::Kill, Signal::Stop] {
        let error = reactor.on_signal(signal, || {}).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

/// Has the clock's processes do nothing by themselves, and returns where they are found.
fn stage(clock: &Clock) -> Rc<RefCell<Vec<ScriptedProcess>>> {
    let processes = Rc::new(RefCell::new(Vec::new()));
    let started = Rc::clone(&processes);
    clock.script_processes(move |process| {
        started.borrow_mut().push(process.clone());
        Ok(())
    });
    processes
}

#[test]
fn a_scripted_process_is_heard_in_a_certain_order() {
    let clock = Clock::new();
    let processes = stage(&clock);
    let (recorder, diary, ended) = Recorder::new(|process| process.write(b"thanks"));
    let command = Command::new("talker").args(["-v", "loud"]);
    let process = clock.reactor().spawn_process(command, recorder);
    assert_eq!(read(&diary), [""; 0], "after the caller has returned");
    clock.pump();
    let process = success_result_of(process);
    let talker = processes.borrow()[0].clone();
    assert_eq!(talker.command(), ["talker", "-v", "loud"]);
    talker.write_out(b"hello");
    clock.pump();
    talker.write_err(b"hm");
    clock.pump();
    assert_eq!(talker.take_input(), b"thanks");
    process.close_stdin();
    clock.pump();
    assert!(talker.is_input_closed());
    talker.close(1);
    clock.pump();
    process.signal(Signal::User1).unwrap();
    assert_eq!(talker.signals(), [Signal::User1]);
    assert_eq!(process.exit_status(), None);
    talker.exit(3);
    clock.pump();
    assert_eq!(success_result_of(ended).code(), Some(3));
    let expected =
        ["made", "out hello", "err hm", "in lost", "out lost", "exited", "err lost", "ended"];
    let mut lines = read(&diary);
    lines[5..7].sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(lines, expected);
    assert_eq!(clock.open_connections(), 0);
    assert_eq!(process.signal(Signal::Kill).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_limit_in_time_kills_a_scripted_process() {
    let clock = Clock::new();
    let processes = stage(&clock);
    let output = clock
        .reactor()
        .process_output(Command::new("sleeper"), 100)
        .with_timeout(clock.reactor(), Duration::from_secs(60));
    clock.advance(Duration::from_secs(59));
    assert!(!processes.borrow()[0].has_exited());
    clock.advance(Duration::from_secs(1));
    assert!(failure_result_of(output).is::<TimeoutError>());
    assert_eq!(processes.borrow()[0].signals(), [Signal::Kill]);
    clock.pump();
    assert_eq!((clock.open_connections(), clock.pending_calls()), (0, 0));

    let output = clock.reactor().process_output(Command::new("never"), 100);
    output.cancel();
    clock.pump();
    assert!(failure_result_of(output).is::<CancelledError>());
    assert_eq!(processes.borrow().len(), 1, "it was not started");
}

#[test]
fn much_input_waits_until_a_scripted_process_reads() {
    let clock = Clock::new();
    let processes = stage(&clock);
    let command = Command::new("reader").input(vec![7; 300_000]);
    let output = clock.reactor().process_output(command, 100);
    clock.pump();
    let reader = processes.borrow()[0].clone();
    // However long it takes before it reads: nobody is in a hurry with a child.
    clock.advance(Duration::from_secs(3600));
    let mut count = 0;
    while !reader.is_input_closed() {
        let piece = reader.take_input().len();
        assert!(piece <= 64 * 1024, "{piece} at a time");
        count += piece;
        clock.pump();
    }
    assert_eq!(count, 300_000);
    reader.die(Signal::Terminate);
    clock.pump();
    assert_eq!(success_result_of(output).status.signal(), Some(Signal::Terminate.number()));
}

#[test]
fn a_script_may_refuse_to_start() {
    let clock = Clock::new();
    clock.script_processes(|_| Err(io::ErrorKind::PermissionDenied.into()));
    let output = clock.reactor().process_output(Command::new("forbidden"), 100);
    clock.pump();
    let failure = failure_result_of(output);
    let error = failure.downcast_ref::<SpawnError>().unwrap();
    assert_eq!(error.source.kind(), io::ErrorKind::PermissionDenied);
}

type Prod = fn(&ProcessTransport);

/// What is done with a process; all its methods are among these.
const ACTIONS: [(&str, Prod); 9] = [
    ("write", |p| p.write(b"abc")),
    ("write_bytes", |p| p.write_bytes(vec![7; 300_000].into())),
    ("close_stdin", ProcessTransport::close_stdin),
    ("pause and resume", |p| {
        p.pause_producing();
        p.resume_producing();
    }),
    ("lose_connection", ProcessTransport::lose_connection),
    ("signal", |p| drop(p.signal(Signal::User2))),
    ("kill", ProcessTransport::kill),
    ("abort the pipes", |p| {
        for pipe in [p.stdin(), p.stdout(), p.stderr()].into_iter().flatten() {
            pipe.abort_connection();
        }
    }),
    ("ask", |p| {
        let _ = (p.id(), p.exit_status(), format!("{p:?}"));
        p.exited().detach();
    }),
];

#[test]
fn every_method_works_from_inside_every_method() {
    struct Prodder {
        method: usize,
        action: Prod,
        process: Option<ProcessTransport>,
        counts: Rc<RefCell<[usize; 8]>>,
    }

    impl Prodder {
        fn called(&mut self, method: usize) {
            let mut counts = self.counts.try_borrow_mut().expect("the reactor's calls do not nest");
            counts[method] += 1;
            if self.method == method
                && let Some(process) = &self.process
            {
                (self.action)(process);
                (self.action)(process);
            }
        }
    }

    impl ProcessProtocol for Prodder {
        fn connection_made(&mut self, process: &ProcessTransport) {
            self.process = Some(process.clone());
            self.called(0);
        }

        fn out_received(&mut self, _: &ProcessTransport, _: &[u8]) {
            self.called(1);
        }

        fn err_received(&mut self, _: &ProcessTransport, _: &[u8]) {
            self.called(2);
        }

        fn in_connection_lost(&mut self, _: &ProcessTransport) {
            self.called(3);
        }

        fn out_connection_lost(&mut self, _: &ProcessTransport) {
            self.called(4);
        }

        fn err_connection_lost(&mut self, _: &ProcessTransport) {
            self.called(5);
        }

        fn process_exited(&mut self, _: &ProcessTransport, _: ExitStatus) {
            self.called(6);
        }

        fn process_ended(&mut self, _: ExitStatus) {
            self.called(7);
        }
    }

    for method in 0..8 {
        for (name, action) in ACTIONS {
            let clock = Clock::new();
            let processes = stage(&clock);
            let counts: Rc<RefCell<[usize; 8]>> = Rc::default();
            let prodder = Prodder { method, action, process: None, counts: Rc::clone(&counts) };
            let process = clock.reactor().spawn_process(Command::new("x"), Box::new(prodder));
            clock.pump();
            drop(success_result_of(process));
            let played = processes.borrow()[0].clone();
            played.write_out(b"out");
            played.write_err(b"err");
            clock.pump();
            played.exit(0);
            clock.pump();
            let why = format!("{name} from inside method {method}");
            let counts = *counts.borrow();
            assert_eq!((counts[0], counts[6], counts[7]), (1, 1, 1), "{why}");
            assert_eq!(counts[3..6], [1, 1, 1], "each pipe is lost once: {why}");
            assert_eq!(clock.open_connections(), 0, "{why}");
            assert!(LogContext::current().is_sentinel(), "{why}");
        }
    }
}
