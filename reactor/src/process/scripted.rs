//! Processes that are none: their part is played by a test.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;

use rustix::process::Pid;

use super::Command;
use crate::address::Address;
use crate::backend::{Event, Readiness};
use crate::signals::Signal;
use crate::slots::Key;
use crate::transport::memory::{EventQueue, MemoryStream, PIPE_BYTES};

/// The reactor's ends of a process's pipes.
pub(crate) type Pipes = [Option<MemoryStream>; 3];

/// A process that was started on the reactor of a [`Clock`](crate::testing::Clock), as the test that plays
/// its part sees it: a cheap clone. See [`Clock::script_processes`](crate::testing::Clock::script_processes).
///
/// Let the clock [pump](crate::testing::Clock::pump) for the other side to see what was done here.
#[derive(Clone)]
pub struct ScriptedProcess {
    state: Rc<State>,
}

struct State {
    command: Vec<String>,
    pid: Pid,
    /// The process's ends of its pipes.
    pipes: RefCell<Pipes>,
    input: RefCell<Vec<u8>>,
    signals: RefCell<Vec<Signal>>,
    status: Cell<Option<ExitStatus>>,
    events: EventQueue,
    key: Cell<Key>,
}

impl ScriptedProcess {
    /// Returns the program and its arguments.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.state.command
    }

    /// Writes to its standard output. Nothing is written after its end, or where there is no pipe.
    ///
    /// # Panics
    ///
    /// If the other side leaves more than a megabyte unread.
    pub fn write_out(&self, data: &[u8]) {
        self.write(1, data);
    }

    /// Writes to its standard error, as [`write_out`](ScriptedProcess::write_out).
    ///
    /// # Panics
    ///
    /// As [`write_out`](ScriptedProcess::write_out).
    pub fn write_err(&self, data: &[u8]) {
        self.write(2, data);
    }

    /// Reads what it was given as standard input since the last time, 64 KiB at most.
    #[must_use]
    pub fn take_input(&self) -> Vec<u8> {
        self.read_input();
        self.state.input.take()
    }

    /// Whether its standard input is at its end, and all of it was [taken](ScriptedProcess::take_input).
    #[must_use]
    pub fn is_input_closed(&self) -> bool {
        self.read_input();
        self.state.input.borrow().is_empty()
            && self.state.pipes.borrow()[0].as_ref().is_none_or(MemoryStream::is_at_end)
    }

    /// Closes one of its streams early: 0, 1 or 2.
    pub fn close(&self, stream: usize) {
        let end = self.state.pipes.borrow_mut().get_mut(stream).and_then(Option::take);
        drop(end);
    }

    /// Returns the signals that it was sent. It dies of [`Signal::Kill`] and ignores the others.
    #[must_use]
    pub fn signals(&self) -> Vec<Signal> {
        self.state.signals.borrow().clone()
    }

    /// Exits, with this code.
    pub fn exit(&self, code: u8) {
        self.end(ExitStatus::from_raw(i32::from(code) << 8));
    }

    /// Dies of this signal.
    pub fn die(&self, signal: Signal) {
        self.end(ExitStatus::from_raw(signal.number()));
    }

    /// Whether it has come to its end.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.state.status.get().is_some()
    }

    fn end(&self, status: ExitStatus) {
        if self.has_exited() {
            return;
        }
        self.read_input();
        self.state.status.set(Some(status));
        let pipes = self.state.pipes.take();
        drop(pipes);
        self.tell();
    }

    fn write(&self, stream: usize, data: &[u8]) {
        let pipes = self.state.pipes.borrow();
        let Some(pipe) = &pipes[stream] else { return };
        match pipe.write(data) {
            Ok(count) if count == data.len() => {}
            // Nobody listens: as if it ignored the broken pipe.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {}
            _ => panic!("{:?} has written more than is read", self.state.command),
        }
    }

    fn read_input(&self) {
        let pipes = self.state.pipes.borrow();
        let Some(pipe) = &pipes[0] else { return };
        let mut buffer = vec![0; PIPE_BYTES];
        while let Ok(count) = pipe.read(&mut buffer)
            && count > 0
        {
            self.state.input.borrow_mut().extend_from_slice(&buffer[..count]);
        }
    }

    fn tell(&self) {
        let key = self.state.key.get();
        if key != Key::NONE {
            let readiness = Readiness::READABLE;
            self.state.events.borrow_mut().push(Event { key, readiness });
        }
    }
}

// What the reactor does with it.

impl ScriptedProcess {
    pub(super) fn pid(&self) -> Pid {
        self.state.pid
    }

    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        self.state.status.get()
    }

    /// Reports its end under this key; at once, if it has come already.
    pub(super) fn watch(&self, key: Key) {
        self.state.key.set(key);
        if self.has_exited() {
            self.tell();
        }
    }

    pub(super) fn receive(&self, signal: Signal) {
        self.state.signals.borrow_mut().push(signal);
        if signal == Signal::Kill {
            self.die(signal);
        }
    }
}

impl fmt::Debug for ScriptedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedProcess")
            .field("command", &self.state.command)
            .field("signals", &self.state.signals)
            .field("status", &self.state.status)
            .finish()
    }
}

type Script = Box<dyn FnMut(&ScriptedProcess) -> io::Result<()>>;

/// The processes of one backend that has no system.
#[derive(Default)]
pub(crate) struct ScriptedProcesses {
    /// Out of its place while it runs.
    script: RefCell<Option<Script>>,
    count: Cell<i32>,
}

impl ScriptedProcesses {
    pub(crate) fn set_script(
        &self,
        script: impl FnMut(&ScriptedProcess) -> io::Result<()> + 'static,
    ) {
        let before = self.script.replace(Some(Box::new(script)));
        drop(before);
    }

    pub(crate) fn start(
        &self,
        command: &Command,
        events: &EventQueue,
    ) -> io::Result<(ScriptedProcess, Pipes)> {
        let Some(mut script) = self.script.take() else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a simulated reactor has no processes; have them play by a script, with \
                 Clock::script_processes",
            ));
        };
        self.count.set(self.count.get() + 1);
        let mut near_ends = Pipes::default();
        let mut far_ends = Pipes::default();
        for (which, is_pipe) in command.pipes().into_iter().enumerate() {
            if is_pipe {
                let capacity = if which == 0 { PIPE_BYTES } else { OUTPUT_BYTES_MAX };
                let (near, far) = MemoryStream::pair(Address::Pipe, Address::Pipe, capacity);
                near_ends[which] = Some(near);
                far_ends[which] = Some(far);
            }
        }
        let words = std::iter::once(command.program()).chain(command.arguments());
        let state = State {
            command: words.map(|word| word.to_string_lossy().into_owned()).collect(),
            pid: Pid::from_raw(FIRST_PID + self.count.get()).unwrap_or(Pid::INIT),
            pipes: RefCell::new(far_ends),
            input: RefCell::default(),
            signals: RefCell::default(),
            status: Cell::new(None),
            events: Rc::clone(events),
            key: Cell::new(Key::NONE),
        };
        let process = ScriptedProcess { state: Rc::new(state) };
        let result = script(&process);
        // Unless the script has set another.
        let mut place = self.script.borrow_mut();
        place.get_or_insert(script);
        result.map(|()| (process, near_ends))
    }
}

/// What a scripted process may write before anybody reads.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// The first number of a process.
const FIRST_PID: i32 = 1000;
