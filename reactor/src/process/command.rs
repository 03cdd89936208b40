//! What is to be run, and how: [`Command`].

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Stdio};

use super::running::{Running, Started};

/// A process to be started.
///
/// Its three standard streams are pipes, unless told otherwise. It gets this process's environment, as
/// changed here, and no other descriptor. Signals that this process ignores or handles do
/// what they do by default.
#[derive(Debug)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    /// In order, so that later ones win.
    environment: Vec<(OsString, Option<OsString>)>,
    is_environment_cleared: bool,
    current_folder: Option<PathBuf>,
    user_id: Option<u32>,
    group_id: Option<u32>,
    pub(super) has_own_group: bool,
    pub(super) outlives_reactor: bool,
    pub(super) input: Option<Vec<u8>>,
    pub(super) stdin: Option<StandardStream>,
    stdout: StandardStream,
    stderr: StandardStream,
}

/// What one of a child's standard streams leads to.
#[derive(Debug)]
#[non_exhaustive]
pub enum StandardStream {
    /// To whatever this descriptor is: a file, a socket.
    Descriptor(OwnedFd),
    /// To where this process's own one leads.
    Inherit,
    /// Nowhere.
    Null,
    /// To the reactor.
    Pipe,
}

impl Command {
    /// Names the program: a path, or a name that is looked for in `PATH`.
    pub fn new(program: impl Into<OsString>) -> Command {
        Command {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            is_environment_cleared: false,
            current_folder: None,
            user_id: None,
            group_id: None,
            has_own_group: false,
            outlives_reactor: false,
            input: None,
            stdin: None,
            stdout: StandardStream::Pipe,
            stderr: StandardStream::Pipe,
        }
    }

    /// Adds an argument. It is passed as it is: no shell looks at it.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Command {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Command {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of its environment.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Command {
        self.environment.push((name.into(), None));
        self
    }

    /// Gives it only those variables that are set from now on.
    #[must_use]
    pub fn env_clear(mut self) -> Command {
        self.environment.clear();
        self.is_environment_cleared = true;
        self
    }

    /// Sets the folder that it starts in. A relative path of the program may be looked for
    /// there or here: give an absolute one.
    #[must_use]
    pub fn current_folder(mut self, path: impl Into<PathBuf>) -> Command {
        self.current_folder = Some(path.into());
        self
    }

    /// Has it run as this user. That takes rights which few processes have.
    #[must_use]
    pub fn user_id(mut self, id: u32) -> Command {
        self.user_id = Some(id);
        self
    }

    /// Has it run in this group.
    #[must_use]
    pub fn group_id(mut self, id: u32) -> Command {
        self.group_id = Some(id);
        self
    }

    /// Makes it the first of a process group of its own: signals reach what it starts in turn, and
    /// those of the terminal do not reach it.
    #[must_use]
    pub fn own_process_group(mut self) -> Command {
        self.has_own_group = true;
        self
    }

    /// Leaves it running when the reactor stops. Otherwise it is killed then.
    #[must_use]
    pub fn outlives_reactor(mut self) -> Command {
        self.outlives_reactor = true;
        self
    }

    /// Writes these bytes to its standard input and then closes that.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Command {
        self.input = Some(bytes.into());
        self.stdin = Some(StandardStream::Pipe);
        self
    }

    /// Sets what its standard input leads to.
    #[must_use]
    pub fn stdin(mut self, stream: StandardStream) -> Command {
        self.stdin = Some(stream);
        self
    }

    /// Sets what its standard output leads to.
    #[must_use]
    pub fn stdout(mut self, stream: StandardStream) -> Command {
        self.stdout = stream;
        self
    }

    /// Sets what its standard error leads to.
    #[must_use]
    pub fn stderr(mut self, stream: StandardStream) -> Command {
        self.stderr = stream;
        self
    }

    /// Returns the program.
    #[must_use]
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Returns the arguments, without the program.
    pub fn arguments(&self) -> impl Iterator<Item = &OsStr> {
        self.arguments.iter().map(OsString::as_os_str)
    }

    /// Which of its standard streams are pipes.
    pub(super) fn pipes(&self) -> [bool; 3] {
        let stdin = self.stdin.as_ref().unwrap_or(&StandardStream::Pipe);
        [stdin, &self.stdout, &self.stderr].map(|stream| matches!(stream, StandardStream::Pipe))
    }

    /// Starts it. This may take a while: in a thread.
    pub(super) fn start(self) -> io::Result<Started> {
        let mut command = process::Command::new(&self.program);
        command.args(&self.arguments);
        if self.is_environment_cleared {
            command.env_clear();
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(path) = &self.current_folder {
            command.current_dir(path);
        }
        if let Some(id) = self.group_id {
            command.gid(id);
        }
        if let Some(id) = self.user_id {
            command.uid(id);
        }
        if self.has_own_group {
            command.process_group(0);
        }
        command.stdin(self.stdin.unwrap_or(StandardStream::Pipe).into_stdio());
        command.stdout(self.stdout.into_stdio()).stderr(self.stderr.into_stdio());
        Running::start(&mut command)
    }
}

impl StandardStream {
    fn into_stdio(self) -> Stdio {
        match self {
            StandardStream::Descriptor(descriptor) => descriptor.into(),
            StandardStream::Inherit => Stdio::inherit(),
            StandardStream::Null => Stdio::null(),
            StandardStream::Pipe => Stdio::piped(),
        }
    }
}
