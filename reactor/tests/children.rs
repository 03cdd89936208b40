//! What is left of child processes: nothing. In a process of its own, whose descriptors and children
//! can be counted.

#![cfg(target_os = "linux")]

use std::time::Duration;

use ropewalk::process::Command;
use ropewalk::{Deferred, Reactor};
use rustix::process::{WaitId, WaitIdOptions, waitid};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn shell(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

#[test]
fn no_descriptor_and_no_zombie_stays_behind() {
    let before = open_descriptors();
    let reactor = Reactor::new().unwrap();
    // So that the threads' own descriptors, if any, are there.
    reactor.run_until(reactor.process_output(shell("true"), 0)).unwrap();
    let idle = open_descriptors();
    for round in 0..3 {
        let mut runs = Vec::new();
        for number in 0..8 {
            let output = match number % 4 {
                0 => reactor.process_output(shell("echo hello; exit 1"), 1024),
                1 => reactor.process_output(Command::new("yes"), 1024),
                2 => reactor.process_output(Command::new("/nowhere"), 1024),
                _ => reactor
                    .process_output(shell("exec sleep 1000"), 1024)
                    .with_timeout(&reactor, Duration::from_millis(20 * round)),
            };
            runs.push(output.add_both(|_| Ok(())));
        }
        for run in runs {
            reactor.run_until(run).unwrap();
        }
    }
    // Those that were killed are still to be waited for, which is up to the loop or a thread.
    while waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG)
        .is_ok()
    {
        let (turned, resolver) = Deferred::new();
        reactor.call_later(Duration::from_millis(1), || resolver.callback(()));
        reactor.run_until(turned).unwrap();
    }
    assert_eq!(open_descriptors(), idle);
    reactor.stop();
    reactor.run().unwrap();
    drop(reactor);
    // The threads of the pool end when they get to it, and have hold of the loop's alarm so long.
    let is_clean = (0..100_000).any(|_| {
        std::thread::yield_now();
        open_descriptors() == before
    });
    assert!(is_clean, "{} descriptors, {before} before", open_descriptors());
}
