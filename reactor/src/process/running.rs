//! A process below its handle: one of the system's, or one that plays by a test's script.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, ExitStatus};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::scripted::ScriptedProcess;
use crate::signals::Signal;

/// A process that has not been waited for.
pub(super) enum Process {
    Scripted(ScriptedProcess),
    System(Running),
}

impl Process {
    pub(super) fn pid(&self) -> Pid {
        match self {
            Process::Scripted(process) => process.pid(),
            Process::System(process) => process.pid,
        }
    }

    /// Waits for it, if it has exited.
    pub(super) fn try_wait(&mut self) -> Option<ExitStatus> {
        match self {
            Process::Scripted(process) => process.exit_status(),
            Process::System(process) => process.try_wait(),
        }
    }

    /// Waits for a process that was killed, for a moment.
    pub(super) fn wait_for_the_killed(&mut self) -> Option<ExitStatus> {
        match self {
            Process::Scripted(process) => process.exit_status(),
            Process::System(process) => process.wait_for_the_killed(),
        }
    }

    /// Sends a signal to it, or to the group of its own.
    pub(super) fn signal(&self, signal: Signal, has_own_group: bool) -> io::Result<()> {
        match self {
            Process::Scripted(process) => process.receive(signal),
            Process::System(process) if has_own_group => {
                rustix::process::kill_process_group(process.pid, signal.to_system())?;
            }
            Process::System(process) => {
                rustix::process::kill_process(process.pid, signal.to_system())?;
            }
        }
        Ok(())
    }

    /// Lets it run, with a thread that waits for it.
    pub(super) fn leave(self) {
        if let Process::System(process) = self {
            process.leave();
        }
    }
}

/// What starting a process gives.
pub(super) struct Started {
    pub(super) running: Running,
    /// This process's ends of its pipes.
    pub(super) streams: [Option<OwnedFd>; 3],
}

/// A process that has not been waited for. Dropping it kills it, and has a thread wait for it.
pub(super) struct Running {
    /// `None` once it was waited for.
    child: Option<process::Child>,
    pid: Pid,
    pub(super) pidfd: Option<OwnedFd>,
    is_left: bool,
}

impl Running {
    pub(super) fn start(command: &mut process::Command) -> io::Result<Started> {
        let mut child = command.spawn()?;
        let streams = [
            child.stdin.take().map(OwnedFd::from),
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ];
        let pid = Pid::from_child(&child);
        // Linux before 5.3 and other systems have none; a thread waits then.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        let running = Running { child: Some(child), pid, pidfd, is_left: false };
        Ok(Started { running, streams })
    }

    /// Waits for it, if it has exited.
    fn try_wait(&mut self) -> Option<ExitStatus> {
        let status = match self.child.as_mut()?.try_wait() {
            Ok(status) => status?,
            Err(error) => {
                log::error!(
                    "somebody else has waited for process {}, whose exit status is unknown now and \
                     taken to be {UNKNOWN_EXIT_CODE}: {error}",
                    self.pid.as_raw_nonzero()
                );
                ExitStatus::from_raw(UNKNOWN_EXIT_CODE << 8)
            }
        };
        self.child = None;
        Some(status)
    }

    /// Waits for a process that was killed, for a moment.
    fn wait_for_the_killed(&mut self) -> Option<ExitStatus> {
        if let Some(pidfd) = &self.pidfd {
            let limit = Timespec { tv_sec: KILLED_WAIT_SECONDS, tv_nsec: 0 };
            let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
            let _ = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&limit)));
        }
        self.try_wait()
    }

    /// Lets it run, with a thread that waits for it.
    fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if !self.is_left {
            // It fails if it has exited, and then waiting for it is all there is to do.
            let _ = child.kill();
        }
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        let waiter = thread::Builder::new().name("process-waiter".to_owned());
        let waiting = waiter.spawn(move || {
            // Nobody is left to be told of an error.
            let _ = child.wait();
        });
        if let Err(error) = waiting {
            log::warn!("process {} stays a zombie: {error}", self.pid.as_raw_nonzero());
        }
    }
}

/// What others take, too, for the exit code of a process that somebody else has waited for.
const UNKNOWN_EXIT_CODE: i32 = 255;

/// How long the end of the reactor waits for a process that it has killed: as good as always that takes
/// no time, but one in the midst of a call to a broken disk does not die.
const KILLED_WAIT_SECONDS: i64 = 1;
