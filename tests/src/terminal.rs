//! A child process whose terminal output is read line by line, with a limit on every wait.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest time that anything may take which is not itself measured. Generous, because a loaded
/// machine is no defect; it only turns a hang into a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Where a line was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stream {
    /// Standard error.
    Err,
    /// Standard output.
    Out,
}

/// A running child process; killed and reaped when dropped.
pub struct Terminal {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(Stream, String)>,
    transcript: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts the program with both outputs piped here.
    ///
    /// # Panics
    ///
    /// If the program cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        let transcript = Arc::new(Mutex::new(String::new()));
        if let Some(out) = child.stdout.take() {
            read_lines(out, Stream::Out, sender.clone(), Arc::clone(&transcript));
        }
        if let Some(err) = child.stderr.take() {
            read_lines(err, Stream::Err, sender, Arc::clone(&transcript));
        }
        let stdin = child.stdin.take();
        Self { child, stdin, lines, transcript }
    }

    /// Returns the next line of either output, or `None` once both are closed.
    ///
    /// # Panics
    ///
    /// If nothing comes in time.
    pub fn next_line(&self) -> Option<(Stream, String)> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line in {PATIENCE:?}; so far:\n{}", self.transcript())
            }
        }
    }

    /// Returns the next line of one output, or `None` once both are closed.
    pub fn next_line_of(&self, stream: Stream) -> Option<String> {
        loop {
            match self.next_line()? {
                (from, line) if from == stream => return Some(line),
                _ => {}
            }
        }
    }

    /// Reads on until `wanted` gives something for a line of standard output.
    ///
    /// # Panics
    ///
    /// If the process ends first, or nothing comes in time.
    pub fn wait_for<T>(&self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        while let Some(line) = self.next_line_of(Stream::Out) {
            if let Some(found) = wanted(&line) {
                return found;
            }
        }
        panic!("the process ended before {what}; it said:\n{}", self.transcript());
    }

    /// Writes a line to the process's standard input.
    ///
    /// # Panics
    ///
    /// If the process has closed it.
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open until `wait_exit`");
        writeln!(stdin, "{line}").expect("the process reads its standard input");
    }

    /// Waits until the process has ended, at most `limit`, and returns how.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        drop(self.stdin.take());
        // Both outputs are closed when the process ends, and each line that is read gives it the
        // whole limit again; a process that talks for ever would be caught by the test runner.
        loop {
            match self.lines.recv_timeout(limit) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still running after {limit:?}; it said:\n{}", self.transcript())
                }
            }
        }
        self.child.wait().expect("a child can be waited for")
    }

    /// Ends the process with SIGKILL and waits for it.
    ///
    /// # Panics
    ///
    /// If the process cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Sends SIGTERM.
    ///
    /// # Panics
    ///
    /// If the process has already been waited for.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Sends SIGINT, as Ctrl-C does.
    ///
    /// # Panics
    ///
    /// If the process has already been waited for.
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("an unreaped child can be signalled");
    }

    /// Returns everything both outputs have said until now.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only if it has ended, and that is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Terminal").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

fn read_lines(
    from: impl Read + Send + 'static,
    stream: Stream,
    sender: Sender<(Stream, String)>,
    transcript: Arc<Mutex<String>>,
) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            {
                let mut transcript = transcript.lock().unwrap_or_else(PoisonError::into_inner);
                transcript.push_str(&line);
                transcript.push('\n');
            }
            // The test may have stopped listening; the pipe is drained all the same.
            let _ = sender.send((stream, line));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Terminal {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Terminal::start(command)
    }

    #[test]
    fn lines_of_both_outputs_are_read_and_kept() {
        let mut terminal = shell("echo out; echo err >&2; read line; echo \"got $line\"; exit 3");
        let mut first = [terminal.next_line(), terminal.next_line()].map(Option::unwrap);
        first.sort_by(|a, b| a.1.cmp(&b.1));
        assert_eq!(first, [(Stream::Err, "err".to_owned()), (Stream::Out, "out".to_owned())]);
        terminal.type_line("this");
        let got = terminal.wait_for("an echo", |line| line.strip_prefix("got ").map(str::to_owned));
        assert_eq!(got, "this");
        assert_eq!(terminal.wait_exit(PATIENCE).code(), Some(3));
        assert!(terminal.transcript().ends_with("got this\n"));
    }

    #[test]
    #[should_panic(expected = "ended before a miracle")]
    fn waiting_ends_with_the_process() {
        shell("echo nothing").wait_for("a miracle", |line| (line == "miracle").then_some(()));
    }

    #[test]
    #[should_panic(expected = "still running")]
    fn an_overlong_life_is_a_failure() {
        let _ = shell("kill -STOP $$").wait_exit(Duration::from_millis(50));
    }

    #[test]
    fn signals_reach_the_process() {
        use std::os::unix::process::ExitStatusExt;
        let mut terminal = shell("echo ready; read line");
        terminal.wait_for("being ready", |line| (line == "ready").then_some(()));
        terminal.terminate();
        assert_eq!(terminal.wait_exit(PATIENCE).signal(), Some(15));
        let mut terminal = shell("echo ready; read line");
        terminal.wait_for("being ready", |line| (line == "ready").then_some(()));
        terminal.kill();
        assert!(terminal.next_line().is_none());
    }
}
