//! A process that runs to its end, and what it has written.

use std::cell::{Cell, RefCell};
use std::process::{ExitStatus, Output};
use std::rc::Rc;

use super::{Command, ProcessProtocol, ProcessTransport, StandardStream, child};
use crate::deferred::{CancelHandle, Deferred, Resolver};
use crate::failure::Failure;
use crate::reactor::Reactor;

/// A process has written more than it was allowed to, and was killed.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{program:?} has written more than {bytes_max} bytes; raise the limit, or have it write less"
)]
pub struct OutputTooLong {
    /// What was run.
    pub program: String,
    /// What it was allowed.
    pub bytes_max: usize,
}

#[track_caller]
pub(super) fn run(reactor: &Reactor, mut command: Command, bytes_max: usize) -> Deferred<Output> {
    let program = command.program().to_string_lossy().into_owned();
    command.stdin.get_or_insert(StandardStream::Null);
    let (output, resolver) = Deferred::new();
    let run = Rc::new(Run {
        program,
        bytes_max,
        resolver: Cell::new(None),
        process: RefCell::new(None),
        starting: RefCell::new(CancelHandle::default()),
    });
    let cancelled = Rc::clone(&run);
    resolver.set_canceller(move || cancelled.stop());
    run.resolver.set(Some(resolver));
    let collector = Collector { run: Rc::clone(&run), stdout: Vec::new(), stderr: Vec::new() };
    let starting = child::spawn(reactor, command, Box::new(collector));
    run.starting.replace(starting.cancel_handle());
    let told = starting.add_both(move |started| {
        if let Err(failure) = started {
            run.finish(Err(failure));
        }
        Ok(())
    });
    // Dropping it leaves it going.
    drop(told);
    output
}

struct Run {
    program: String,
    bytes_max: usize,
    resolver: Cell<Option<Resolver<Output>>>,
    process: RefCell<Option<ProcessTransport>>,
    starting: RefCell<CancelHandle>,
}

impl Run {
    fn finish(&self, result: Result<Output, Failure>) {
        self.process.take();
        if let Some(resolver) = self.resolver.take() {
            resolver.fire(result);
        }
    }

    /// Ends it, however far it has come.
    fn stop(&self) {
        let process = self.process.take();
        match process {
            Some(process) => process.kill(),
            None => {
                let starting = self.starting.take();
                starting.cancel();
            }
        }
    }
}

struct Collector {
    run: Rc<Run>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Collector {
    fn check(&self) {
        let run = &self.run;
        if self.stdout.len() + self.stderr.len() > run.bytes_max {
            run.stop();
            let error = OutputTooLong { program: run.program.clone(), bytes_max: run.bytes_max };
            run.finish(Err(error.into()));
        }
    }
}

impl ProcessProtocol for Collector {
    fn connection_made(&mut self, process: &ProcessTransport) {
        self.run.process.replace(Some(process.clone()));
    }

    fn out_received(&mut self, _: &ProcessTransport, data: &[u8]) {
        self.stdout.extend_from_slice(data);
        self.check();
    }

    fn err_received(&mut self, _: &ProcessTransport, data: &[u8]) {
        self.stderr.extend_from_slice(data);
        self.check();
    }

    fn process_ended(&mut self, status: ExitStatus) {
        let stdout = std::mem::take(&mut self.stdout);
        let stderr = std::mem::take(&mut self.stderr);
        self.run.finish(Ok(Output { status, stdout, stderr }));
    }
}
