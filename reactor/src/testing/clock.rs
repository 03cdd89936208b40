//! [`Clock`]: a reactor whose time is moved by hand.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::backend::Backend;
use crate::backend::manual::ManualBackend;
use crate::clock::Instant;
use crate::files::memory::MemoryFileSystem;
use crate::process::scripted::ScriptedProcess;
use crate::reactor::Reactor;
use crate::resolver::HostTable;
use crate::signals::Signal;
use crate::testing::leaks::NothingLeft;
use crate::turn::{Patience, Turner};

/// A reactor whose time stands still until it is moved, and whose network lies in memory.
///
/// [`reactor`](Clock::reactor) is an ordinary [`Reactor`]; code under test cannot tell the
/// difference. Listening and connecting work between its own ports. Jobs for threads run on the
/// loop's thread. Random bytes come from a seed.
///
/// Dropping the clock stops the reactor and ends what is left on it.
pub struct Clock {
    reactor: Reactor,
    backend: Rc<ManualBackend>,
}

impl Clock {
    /// Makes a clock at [`Instant::START`].
    #[must_use]
    pub fn new() -> Clock {
        Clock::with_seed(0)
    }

    /// Makes a clock whose reactor takes its random bytes from this seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Clock {
        let backend = Rc::new(ManualBackend::new(seed));
        let reactor = Reactor::with_backend(Rc::clone(&backend) as Rc<dyn Backend>);
        Clock { reactor, backend }
    }

    /// Returns the reactor.
    #[must_use]
    pub fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// Returns what the reactor has for a file system, to fill, look into and make trouble.
    #[must_use]
    pub fn file_system(&self) -> &MemoryFileSystem {
        self.backend.files()
    }

    /// Has processes that the reactor starts play by this script: it is called when one is started, and
    /// may keep the process, to have it speak and end later. If it fails, the process cannot be
    /// started.
    ///
    /// ```
    /// use ropewalk::process::Command;
    /// use ropewalk::testing::{Clock, success_result_of};
    ///
    /// let clock = Clock::new();
    /// clock.script_processes(|process| {
    ///     process.write_out(b"42\n");
    ///     process.exit(0);
    ///     Ok(())
    /// });
    /// let output = clock.reactor().process_output(Command::new("answer"), 100);
    /// clock.pump();
    /// assert_eq!(success_result_of(output).stdout, b"42\n");
    /// ```
    pub fn script_processes(
        &self,
        script: impl FnMut(&ScriptedProcess) -> io::Result<()> + 'static,
    ) {
        self.backend.processes().set_script(script);
    }

    /// Returns the time that the clock shows.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.backend.now()
    }

    /// Lets the reactor do what can be done without time passing.
    ///
    /// # Panics
    ///
    /// If it does not come to rest, or if this is called from inside one of its callbacks.
    pub fn pump(&self) {
        let mut turner = Turner::new(&self.reactor)
            .expect("a clock is moved from outside the reactor, not from its callbacks");
        for _ in 0..TURNS_MAX {
            turner.turn(Patience::None).expect("a simulated poll cannot fail");
            if !turner.has_work() && !self.backend.has_events() && !self.is_timer_due() {
                return;
            }
        }
        panic!("the reactor did not come to rest within {TURNS_MAX} turns");
    }

    /// Moves the time on, stopping at each timer on the way. Calls that are made then and set
    /// timers within the same span have those come due, too.
    ///
    /// # Panics
    ///
    /// As [`pump`](Clock::pump).
    pub fn advance(&self, duration: Duration) {
        let target = self.now() + duration;
        self.pump();
        while let Some(deadline) = self.next_deadline()
            && deadline <= target
        {
            self.backend.time().move_to(deadline);
            self.pump();
        }
        self.backend.time().move_to(target);
    }

    /// Lets time pass in the middle of a callback, as if it took this long; nothing else happens
    /// meanwhile.
    pub fn spend(&self, duration: Duration) {
        self.backend.pass_time(duration);
    }

    /// Makes each callback, timer, task's poll and queued call take this long from now on; nothing, as
    /// it is at first.
    ///
    /// With it a test can show who waits for whom, and how long.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ropewalk::testing::Clock;
    /// let clock = Clock::new();
    /// clock.set_cost_of_calls(Duration::from_millis(2));
    /// clock.reactor().call_soon(|| {});
    /// clock.reactor().call_soon(|| {});
    /// clock.pump();
    /// assert_eq!(clock.now().as_nanos(), 4_000_000);
    /// ```
    pub fn set_cost_of_calls(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.reactor.core().cost_of_calls_nanos.set(nanos);
    }

    /// Lets the reactor receive a signal, as if the process had.
    ///
    /// # Panics
    ///
    /// As [`pump`](Clock::pump).
    pub fn raise(&self, signal: Signal) {
        self.backend.raise(signal);
        self.pump();
    }

    /// Returns the exit status with which the process would have been ended by a second signal.
    ///
    /// See [`serve`](crate::serve).
    #[must_use]
    pub fn exit_status(&self) -> Option<i32> {
        self.backend.exit_status()
    }

    /// Sets the time of day, as an administrator or a time server does. The reactor's clock, by which
    /// timers go, is not touched by that.
    pub fn set_wall_clock(&self, time: SystemTime) {
        self.backend.set_wall_clock(time);
    }

    /// Returns the table in which the reactor looks up the names of hosts.
    #[must_use]
    pub fn hosts(&self) -> &HostTable {
        self.backend.hosts()
    }

    /// Lets connections to this address get no answer, neither a yes nor a no.
    pub fn silence(&self, address: IpAddr) {
        self.backend.silence(address);
    }

    /// Returns how many calls are still to be made later.
    #[must_use]
    pub fn pending_calls(&self) -> usize {
        self.reactor.core().timers.borrow().len()
    }

    /// Returns how many tasks have not come to their end.
    #[must_use]
    pub fn pending_tasks(&self) -> usize {
        self.reactor.core().tasks.borrow().len()
    }

    /// Returns how many connections and listening ports are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.reactor.core().sources.borrow().len()
    }

    /// Checks, when the guard is dropped, that what the test began since has come to its end: delayed
    /// calls, tasks, connections and ports, and this thread's deferreds and log contexts.
    ///
    /// A test makes it right behind the clock, so that all else is dropped before. Deferreds and contexts
    /// are known only in builds with debug assertions.
    ///
    /// ```should_panic
    /// use std::time::Duration;
    /// use ropewalk::testing::Clock;
    ///
    /// let clock = Clock::new();
    /// let _check = clock.expect_nothing_left();
    /// clock.reactor().call_later(Duration::from_secs(60), || println!("too late"));
    /// // panics: the test leaves behind: 1 delayed call
    /// ```
    pub fn expect_nothing_left(&self) -> NothingLeft<'_> {
        NothingLeft::watch(self)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.reactor.core().timers.borrow_mut().next_deadline()
    }

    fn is_timer_due(&self) -> bool {
        self.next_deadline().is_some_and(|deadline| deadline <= self.now())
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.reactor.stop();
        // It fails only if somebody has run it to its end before.
        let _ = self.reactor.run();
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).field("reactor", &self.reactor).finish()
    }
}

/// Turns within which a reactor must come to rest.
const TURNS_MAX: usize = 1_000_000;
