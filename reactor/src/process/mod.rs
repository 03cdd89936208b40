//! Child processes: starting them, talking to them through pipes, hearing of their end. And this
//! process's own standard streams, and the sockets that it was started with:
//! [`Reactor::connect_stdio`], [`Reactor::inherited_sockets`].
//!
//! A child is started in a thread; its pipes are [`Transport`](crate::Transport)s, with all that goes
//! with those; its end is reported by the system, not asked for. Whatever becomes of it, it is waited
//! for, so that none stays behind as a zombie.
//!
//! For a program that just has to run and say something, [`Reactor::process_output`]:
//!
//! ```
//! use ropewalk::Reactor;
//! use ropewalk::process::Command;
//!
//! # fn main() -> Result<(), ropewalk::Failure> {
//! let reactor = Reactor::new()?;
//! let command = Command::new("tr").args(["a-z", "A-Z"]).input("hello");
//! let output = reactor.run_until(reactor.process_output(command, 1024))?;
//! assert!(output.status.success());
//! assert_eq!(output.stdout, b"HELLO");
//! # Ok(())
//! # }
//! ```
//!
//! Only the three standard streams can be given to a child. Twisted's further ones (`childFDs`) would need
//! code that runs between `fork` and `exec`, which cannot be written in safe Rust; a child that wants
//! more gets a Unix socket as its standard input, and
//! [descriptors through that](crate::Transport::send_file_descriptor).

mod child;
mod command;
mod inherited;
mod output;
mod running;
pub(crate) mod scripted;
mod stdio;

use std::io;
use std::process::ExitStatus;

pub use child::ProcessTransport;
pub use command::{Command, StandardStream};
pub use inherited::InheritedSockets;
pub use output::OutputTooLong;

pub(crate) use child::Child;

use crate::deferred::Deferred;
use crate::reactor::Reactor;

/// What to do with what a child process says.
///
/// [`connection_made`](ProcessProtocol::connection_made) comes first, and
/// [`process_ended`](ProcessProtocol::process_ended) last. The calls never nest, and run in a child of the
/// log context in which the process was started. If one panics, the process is killed, and nothing but
/// `process_ended` is called any more.
pub trait ProcessProtocol {
    /// The process runs.
    fn connection_made(&mut self, process: &ProcessTransport) {
        let _ = process;
    }

    /// The process has written this to its standard output.
    fn out_received(&mut self, process: &ProcessTransport, data: &[u8]);

    /// The process has written this to its standard error.
    fn err_received(&mut self, process: &ProcessTransport, data: &[u8]) {
        let _ = (process, data);
    }

    /// The pipe to its standard input is closed, by whichever side.
    fn in_connection_lost(&mut self, process: &ProcessTransport) {
        let _ = process;
    }

    /// The pipe from its standard output is closed, by whichever side.
    fn out_connection_lost(&mut self, process: &ProcessTransport) {
        let _ = process;
    }

    /// The pipe from its standard error is closed, by whichever side.
    fn err_connection_lost(&mut self, process: &ProcessTransport) {
        let _ = process;
    }

    /// The process has exited. What it wrote may still be in the pipes, and others may have inherited
    /// those and go on writing.
    fn process_exited(&mut self, process: &ProcessTransport, status: ExitStatus) {
        let _ = (process, status);
    }

    /// The process has exited and all its pipes are closed. Nothing is called on this protocol any more;
    /// it is dropped next.
    fn process_ended(&mut self, status: ExitStatus) {
        let _ = status;
    }
}

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program:?}")]
pub struct SpawnError {
    /// What was to be run.
    pub program: String,
    /// What the system said.
    pub source: io::Error,
}

impl Reactor {
    /// Starts a process.
    ///
    /// The deferred gets the handle after `connection_made` has returned. It is started in a thread of the
    /// default pool; cancelling meanwhile ends it, if it comes to be. Once it runs it is not ended
    /// by dropping handles, but it is [killed when the reactor stops](Command::outlives_reactor).
    ///
    /// # Errors
    ///
    /// [`SpawnError`]: there is no such program, or the system has no room for it. On a reactor of the
    /// test kit processes play by a [script](crate::testing::Clock::script_processes), if there is one.
    #[track_caller]
    pub fn spawn_process(
        &self,
        command: Command,
        protocol: Box<dyn ProcessProtocol>,
    ) -> Deferred<ProcessTransport> {
        child::spawn(self, command, protocol)
    }

    /// Runs a process to its end and gives what it has written and its exit status; a status other than
    /// success is not a failure.
    ///
    /// What [`Command::input`] names is its standard input; without that, it has none. Cancelling, which a
    /// [limit in time](Deferred::with_timeout) does, kills it.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; [`OutputTooLong`] if it writes more than `bytes_max` bytes to its two outputs
    /// together, and then it is killed.
    #[track_caller]
    pub fn process_output(
        &self,
        command: Command,
        bytes_max: usize,
    ) -> Deferred<std::process::Output> {
        output::run(self, command, bytes_max)
    }
}
