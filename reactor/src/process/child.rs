//! A process that runs: its pipes, its signals, its end.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::running::{Process, Running, Started};
use super::{Command, ProcessProtocol, SpawnError};
use crate::address::Address;
use crate::context::LogContext;
use crate::core::{Core, Source};
use crate::deferred::{Deferred, Resolver};
use crate::failure::Failure;
use crate::protocol::{ConnectionLost, Protocol};
use crate::reactor::Reactor;
use crate::signals::Signal;
use crate::slots::Key;
use crate::threads::ThreadPoolOptions;
use crate::transport::Transport;
use crate::transport::descriptor::DescriptorStream;
use crate::transport::link::{Link, Setup};
use crate::transport::memory::MemoryStream;
use crate::transport::stream::Stream;

/// A child process: a cheap clone, whoever holds it.
///
/// Every method may be called at any time, from inside any [`ProcessProtocol`] method or from elsewhere on
/// the loop's thread. None of them calls back before it returns.
#[derive(Clone)]
pub struct ProcessTransport {
    child: Rc<Child>,
}

impl ProcessTransport {
    /// Sends these bytes to its standard input; see [`Transport::write`].
    pub fn write(&self, data: &[u8]) {
        if let Some(stdin) = self.stdin() {
            stdin.write(data);
        }
    }

    /// Sends these bytes to its standard input without copying them if they are many.
    pub fn write_bytes(&self, data: Bytes) {
        if let Some(stdin) = self.stdin() {
            stdin.write_bytes(data);
        }
    }

    /// Closes its standard input once everything that was written has been sent.
    pub fn close_stdin(&self) {
        if let Some(stdin) = self.stdin() {
            stdin.lose_connection();
        }
    }

    /// Returns the pipe to its standard input, if it is one: to register a producer, or to look at what
    /// waits.
    #[must_use]
    pub fn stdin(&self) -> Option<&Transport> {
        self.child.pipes[STDIN].get()
    }

    /// Returns the pipe from its standard output, if it is one: to pause it, or close it.
    #[must_use]
    pub fn stdout(&self) -> Option<&Transport> {
        self.child.pipes[STDOUT].get()
    }

    /// Returns the pipe from its standard error, if it is one.
    #[must_use]
    pub fn stderr(&self) -> Option<&Transport> {
        self.child.pipes[STDERR].get()
    }

    /// Stops reading both its outputs, so that it is slowed down once the pipes are full.
    pub fn pause_producing(&self) {
        for pipe in [self.stdout(), self.stderr()].into_iter().flatten() {
            pipe.pause_producing();
        }
    }

    /// Goes on reading both its outputs.
    pub fn resume_producing(&self) {
        for pipe in [self.stdout(), self.stderr()].into_iter().flatten() {
            pipe.resume_producing();
        }
    }

    /// Closes all pipes, that to its standard input once everything that was written has been sent. Most
    /// programs end then, at the latest when they write; none has to.
    pub fn lose_connection(&self) {
        for pipe in self.child.pipes.iter().filter_map(OnceCell::get) {
            pipe.lose_connection();
        }
    }

    /// Sends it a signal; if it has a process group of its own, to that.
    ///
    /// # Errors
    ///
    /// If it has exited already, which it may have before its end is told; and those of the system, if it
    /// runs as another user.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.child.signal(signal)
    }

    /// Kills it, if it still runs, and closes the pipes.
    pub fn kill(&self) {
        self.child.kill();
    }

    /// Returns its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until it has exited. Any number may wait; giving up does nothing to the process.
    ///
    /// # Errors
    ///
    /// If the reactor stops before, and the process [outlives](Command::outlives_reactor) it.
    #[track_caller]
    pub fn exited(&self) -> Deferred<ExitStatus> {
        match self.exit_status() {
            Some(status) => Deferred::succeed(status),
            None => {
                let (deferred, resolver) = Deferred::new();
                self.child.waiting.borrow_mut().push(resolver);
                deferred
            }
        }
    }

    /// Returns its exit status, if it is known to have exited.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.status.get()
    }
}

impl fmt::Debug for ProcessTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessTransport")
            .field("program", &self.child.program)
            .field("id", &self.id())
            .field("exit_status", &self.exit_status())
            .finish()
    }
}

/// The inside of a child process.
pub(crate) struct Child {
    core: Weak<Core>,
    key: Cell<Key>,
    context: LogContext,
    program: String,
    pid: Pid,
    has_own_group: bool,
    outlives_reactor: bool,
    /// Until it has been waited for: so long its number is its own.
    running: RefCell<Option<Process>>,
    /// Out of its place while one of its methods runs, and once it has been told of the end.
    protocol: Cell<Option<Box<dyn ProcessProtocol>>>,
    has_panicked: Cell<bool>,
    pipes: [OnceCell<Transport>; 3],
    open_pipes: Cell<usize>,
    status: Cell<Option<ExitStatus>>,
    waiting: RefCell<Vec<Resolver<ExitStatus>>>,
}

const STDIN: usize = 0;
const STDOUT: usize = 1;
const STDERR: usize = 2;

/// Starts a process in a thread and takes it over on the loop.
#[track_caller]
pub(super) fn spawn(
    reactor: &Reactor,
    command: Command,
    protocol: Box<dyn ProcessProtocol>,
) -> Deferred<ProcessTransport> {
    let program = command.program().to_string_lossy().into_owned();
    let mut plan = Plan {
        core: Rc::downgrade(reactor.core()),
        context: LogContext::current().child(short_name(&program)),
        program,
        has_own_group: command.has_own_group,
        outlives_reactor: command.outlives_reactor,
        input: None,
    };
    let mut command = command;
    plan.input = command.input.take();
    if !reactor.core().backend.has_processes() {
        return spawn_scripted(reactor, command, plan, protocol);
    }
    let started = reactor.defer_to_thread(move || command.start());
    started.add_both(move |started| match started {
        Ok(Started { running, streams }) => {
            let streams = streams.map(|stream| stream.map(PipeEnd::System));
            plan.carry_out(Process::System(running), streams, protocol)
        }
        Err(failure) => match failure.downcast_ref::<io::Error>() {
            Some(error) => {
                Err(SpawnError { program: plan.program, source: same_error(error) }.into())
            }
            None => Err(failure),
        },
    })
}

/// Has a process play by the script that the test kit was given, after the current callback.
#[track_caller]
fn spawn_scripted(
    reactor: &Reactor,
    command: Command,
    plan: Plan,
    protocol: Box<dyn ProcessProtocol>,
) -> Deferred<ProcessTransport> {
    let (deferred, resolver) = Deferred::new();
    let backend = Rc::clone(&reactor.core().backend);
    let is_cancelled = Rc::new(Cell::new(false));
    let cancelled = Rc::clone(&is_cancelled);
    resolver.set_canceller(move || cancelled.set(true));
    reactor.call_soon(move || {
        if is_cancelled.get() {
            return;
        }
        resolver.fire(match backend.start_scripted(&command) {
            Ok((process, streams)) => {
                let streams = streams.map(|stream| stream.map(PipeEnd::Memory));
                plan.carry_out(Process::Scripted(process), streams, protocol)
            }
            Err(source) => Err(SpawnError { program: plan.program, source }.into()),
        });
    });
    deferred
}

/// This process's end of a child's pipe.
enum PipeEnd {
    Memory(MemoryStream),
    System(OwnedFd),
}

/// Failures are shared, errors of the system are not: makes another one of the same number.
fn same_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn short_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// What is known of a child before it runs.
struct Plan {
    core: Weak<Core>,
    context: LogContext,
    program: String,
    has_own_group: bool,
    outlives_reactor: bool,
    input: Option<Vec<u8>>,
}

impl Plan {
    /// Takes over a process that was started. If that fails, it is ended.
    fn carry_out(
        self,
        process: Process,
        streams: [Option<PipeEnd>; 3],
        protocol: Box<dyn ProcessProtocol>,
    ) -> Result<ProcessTransport, Failure> {
        let core = self.core.upgrade().ok_or_else(crate::core::stopped)?;
        core.check_open()?;
        let child = Rc::new(Child {
            core: self.core,
            key: Cell::new(Key::NONE),
            context: self.context,
            program: self.program,
            pid: process.pid(),
            has_own_group: self.has_own_group,
            outlives_reactor: self.outlives_reactor,
            running: RefCell::new(Some(process)),
            protocol: Cell::new(Some(protocol)),
            has_panicked: Cell::new(false),
            pipes: Default::default(),
            open_pipes: Cell::new(0),
            status: Cell::new(None),
            waiting: RefCell::default(),
        });
        child.watch(&core)?;
        for (which, end) in streams.into_iter().enumerate() {
            if let Some(end) = end
                && let Err(error) = child.open_pipe(&core, which, end)
            {
                child.kill();
                return Err(error.into());
            }
        }
        child.call(&core, "connection_made", |protocol, process| {
            protocol.connection_made(process);
        });
        if let (Some(input), Some(stdin)) = (self.input, child.pipes[STDIN].get()) {
            stdin.write_bytes(input.into());
            stdin.lose_connection();
        }
        Ok(ProcessTransport { child })
    }
}

impl Child {
    /// Has the end of the process reported.
    fn watch(self: &Rc<Child>, core: &Rc<Core>) -> io::Result<()> {
        let key = core.sources.borrow_mut().insert(Source::Child(Rc::clone(self)));
        self.key.set(key);
        let registered = match &*self.running.borrow() {
            Some(Process::Scripted(process)) => {
                process.watch(key);
                Ok(())
            }
            Some(Process::System(Running { pidfd: Some(pidfd), .. })) => {
                core.backend.register_child(pidfd.as_fd(), key)
            }
            _ => {
                self.wait_in_a_thread(core);
                Ok(())
            }
        };
        if registered.is_err() {
            let source = core.sources.borrow_mut().remove(key);
            drop(source);
        }
        registered
    }

    /// Where the system has no descriptors for processes.
    fn wait_in_a_thread(self: &Rc<Child>, core: &Rc<Core>) {
        let pid = self.pid;
        let options = ThreadPoolOptions::new(format!("{}-waiter", self.program)).threads(1);
        let pool = Reactor::from_core(Rc::clone(core)).thread_pool(options);
        let exited = pool.defer(move || {
            // Left to be waited for by the loop, so that its number stays its own until then.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), options))
                .map(drop)
                .map_err(io::Error::from)
        });
        let child = Rc::downgrade(self);
        let told = exited.add_both(move |_| {
            if let Some(child) = child.upgrade()
                && let Some(core) = child.core.upgrade()
            {
                child.serve(&core);
            }
            Ok(())
        });
        drop(told);
    }

    fn open_pipe(self: &Rc<Child>, core: &Rc<Core>, which: usize, end: PipeEnd) -> io::Result<()> {
        let stream = match end {
            PipeEnd::Memory(stream) => Stream::Memory(stream),
            PipeEnd::System(descriptor) => Stream::Descriptor(Box::new(match which {
                STDIN => DescriptorStream::writer(descriptor)?,
                _ => DescriptorStream::reader(descriptor)?,
            })),
        };
        let setup = Setup {
            stream,
            peer: Address::Pipe,
            protocol: Box::new(Pipe { child: Rc::clone(self), which }),
            context: self.context.clone(),
            session: None,
        };
        let link = Link::establish_in_shared_context(core, setup)?;
        self.open_pipes.set(self.open_pipes.get() + 1);
        let _ = self.pipes[which].set(Transport::new(link));
        Ok(())
    }

    /// Sees whether the process has exited.
    #[inline(never)]
    pub(crate) fn serve(self: &Rc<Child>, core: &Rc<Core>) {
        let status = match &mut *self.running.borrow_mut() {
            Some(running) => running.try_wait(),
            None => return,
        };
        if let Some(status) = status {
            self.exit(core, status);
        }
    }

    /// The process has been waited for.
    fn exit(self: &Rc<Child>, core: &Core, status: ExitStatus) {
        drop(self.running.take());
        let source = core.sources.borrow_mut().remove(self.key.get());
        drop(source);
        self.status.set(Some(status));
        self.call(core, "process_exited", |protocol, process| {
            protocol.process_exited(process, status);
        });
        for resolver in self.waiting.take() {
            resolver.callback(status);
        }
        self.tell_if_ended(core);
    }

    fn pipe_lost(self: &Rc<Child>, which: usize) {
        let Some(core) = self.core.upgrade() else { return };
        self.open_pipes.set(self.open_pipes.get() - 1);
        self.call(&core, "a pipe's connection_lost", |protocol, process| match which {
            STDIN => protocol.in_connection_lost(process),
            STDOUT => protocol.out_connection_lost(process),
            _ => protocol.err_connection_lost(process),
        });
        self.tell_if_ended(&core);
    }

    fn tell_if_ended(self: &Rc<Child>, core: &Core) {
        let Some(status) = self.status.get().filter(|_| self.open_pipes.get() == 0) else { return };
        let Some(mut protocol) = self.protocol.take() else { return };
        // A panic has been logged; nobody else needs to know.
        let _ = core.call("process_ended", &self.context, || protocol.process_ended(status));
        // What it owns may be anything, too.
        let _ = core.call("dropping a process protocol", &self.context, || drop(protocol));
        self.context.finish();
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match &*self.running.borrow() {
            Some(process) => process.signal(signal, self.has_own_group),
            None => {
                let text = format!("{} has exited already", self.program);
                Err(io::Error::new(io::ErrorKind::NotFound, text))
            }
        }
    }

    fn kill(&self) {
        // It fails if it has exited, and then there is nothing to do.
        let _ = self.signal(Signal::Kill);
        for pipe in self.pipes.iter().filter_map(OnceCell::get) {
            pipe.abort_connection();
        }
    }

    /// Ends it because the reactor ends.
    pub(crate) fn shut_down(self: &Rc<Child>, core: &Core) {
        if self.outlives_reactor {
            let source = core.sources.borrow_mut().remove(self.key.get());
            drop(source);
            if let Some(running) = self.running.take() {
                running.leave();
            }
            for resolver in self.waiting.take() {
                resolver.errback(ConnectionLost::ReactorStopped);
            }
            return;
        }
        self.kill();
        let status = match &mut *self.running.borrow_mut() {
            Some(running) => running.wait_for_the_killed(),
            None => return,
        };
        // If even that does not end it, a thread waits for it on; see `Running`.
        self.exit(core, status.unwrap_or(ExitStatus::from_raw(libc::SIGKILL)));
    }

    /// Calls the protocol. Should it panic, the process is killed.
    fn call(
        self: &Rc<Child>,
        core: &Core,
        what: &'static str,
        f: impl FnOnce(&mut dyn ProcessProtocol, &ProcessTransport),
    ) {
        if self.has_panicked.get() {
            return;
        }
        let Some(mut protocol) = self.protocol.take() else { return };
        let process = ProcessTransport { child: Rc::clone(self) };
        let result = core.call(what, &self.context, || f(&mut *protocol, &process));
        self.protocol.set(Some(protocol));
        if result.is_err() {
            self.has_panicked.set(true);
            self.kill();
        }
    }
}

/// One of a child's pipes, as the loop serves it.
struct Pipe {
    child: Rc<Child>,
    which: usize,
}

impl Protocol for Pipe {
    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        let Some(core) = self.child.core.upgrade() else { return };
        self.child.call(&core, "out_received or err_received", |protocol, process| {
            match self.which {
                STDOUT => protocol.out_received(process, data),
                _ => protocol.err_received(process, data),
            }
        });
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.child.pipe_lost(self.which);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ended(Option<Resolver<ExitStatus>>);

    impl ProcessProtocol for Ended {
        fn out_received(&mut self, _: &ProcessTransport, _: &[u8]) {}

        fn process_ended(&mut self, status: ExitStatus) {
            self.0.take().unwrap().callback(status);
        }
    }

    #[test]
    fn without_descriptors_for_processes_a_thread_waits() {
        let reactor = Reactor::new().unwrap();
        let command = Command::new("/bin/sh").args(["-c", "read line; exit 5"]);
        let Started { mut running, streams } = command.start().unwrap();
        running.pidfd = None;
        let plan = Plan {
            core: Rc::downgrade(reactor.core()),
            context: LogContext::new("test"),
            program: "sh".to_owned(),
            has_own_group: false,
            outlives_reactor: false,
            input: None,
        };
        let (ended, resolver) = Deferred::new();
        let streams = streams.map(|stream| stream.map(PipeEnd::System));
        let protocol = Box::new(Ended(Some(resolver)));
        let process = plan.carry_out(Process::System(running), streams, protocol).unwrap();
        process.close_stdin();
        assert_eq!(reactor.run_until(ended).unwrap().code(), Some(5));
    }
}
