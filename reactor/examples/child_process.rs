//! Has another program do the work: sorts the lines of a file by `sort`, and counts them by `wc`.
//!
//! `cargo run --example child_process Cargo.toml`

use std::process::ExitStatus;
use std::time::Duration;

use ropewalk::process::{Command, ProcessProtocol, ProcessTransport};
use ropewalk::{Deferred, Failure, Reactor, Resolver};

/// Collects lines; the process is told when there is nothing more to come.
struct Sorter {
    text: Vec<u8>,
    sorted: Vec<u8>,
    done: Option<Resolver<String>>,
}

impl ProcessProtocol for Sorter {
    fn connection_made(&mut self, process: &ProcessTransport) {
        process.write(&self.text);
        process.close_stdin();
    }

    fn out_received(&mut self, _: &ProcessTransport, data: &[u8]) {
        self.sorted.extend_from_slice(data);
    }

    fn process_ended(&mut self, status: ExitStatus) {
        let Some(done) = self.done.take() else { return };
        match status.success() {
            true => done.callback(String::from_utf8_lossy(&self.sorted).into_owned()),
            false => done.errback(std::io::Error::other(format!("sort failed: {status}"))),
        }
    }
}

/// Talks to a process while it runs.
pub(crate) fn sorted(reactor: &Reactor, text: &str) -> Deferred<String> {
    let (deferred, resolver) = Deferred::new();
    let sorter = Sorter { text: text.into(), sorted: Vec::new(), done: Some(resolver) };
    let command = Command::new("sort").env("LC_ALL", "C");
    reactor.spawn_process(command, Box::new(sorter)).add_callback(|_| deferred)
}

/// Runs a process to its end, within ten seconds.
pub(crate) fn line_count(reactor: &Reactor, text: &str) -> Deferred<usize> {
    let command = Command::new("wc").arg("-l").input(text);
    reactor
        .process_output(command, 1024)
        .with_timeout(reactor, Duration::from_secs(10))
        .add_callback(|output| Ok(String::from_utf8(output.stdout)?.trim().parse()?))
}

fn main() -> Result<(), Failure> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "Cargo.toml".to_owned());
    let text = std::fs::read_to_string(path)?;
    let reactor = Reactor::new()?;
    print!("{}", reactor.run_until(sorted(&reactor, &text))?);
    println!("{} lines", reactor.run_until(line_count(&reactor, &text))?);
    Ok(())
}
