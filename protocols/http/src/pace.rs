//! How long a peer may take for what: the deadlines of one connection, without a clock. Servers and
//! clients share it.

use std::time::Duration;

use ropewalk::Instant;

use crate::limits::Limits;

/// Time that a closing connection waits for its client to stop sending, so that the last response is
/// read before a reset can overtake it.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the connection is waiting for. One deadline at most holds at a time here; the windows of [`Pace`]
/// come beside it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// A request is being answered, and whoever does that may take their time; or all is said.
    Answering,
    /// A server: the first head of the connection, or the rest of a later one. A client: the response.
    Head,
    /// The next request.
    Idle,
    /// A server: the client's end of a connection that is finished with.
    Linger,
}

/// A stretch of time in which bytes have to flow.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    /// The count of bytes at its start.
    mark: u64,
}

/// What the deadlines of a connection depend on. Holds no time limit: those are in [`Limits`].
///
/// Drive it like this: tell it of each change of phase, ask for [`next_deadline`](Self::next_deadline), and when
/// that has come, ask what is [`overdue`](Self::overdue), if anything.
#[derive(Debug)]
pub(crate) struct Pace {
    phase: Phase,
    since: Instant,
    body: Option<Window>,
    reader: Option<Window>,
}

/// What has taken too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Overdue {
    Body,
    Head,
    Idle,
    Linger,
    Reader,
}

impl Pace {
    /// For a connection that has just been accepted.
    pub(crate) fn new(now: Instant) -> Self {
        Pace { phase: Phase::Head, since: now, body: None, reader: None }
    }

    pub(crate) fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }

    /// When the phase began.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// A body is awaited, of which `received` bytes have come. Goes on with the window that is open.
    pub(crate) fn expect_body(&mut self, received: u64, now: Instant) {
        self.body.get_or_insert(Window { since: now, mark: received });
    }

    /// The body is complete, or nobody is reading it now.
    pub(crate) fn forget_body(&mut self) {
        self.body = None;
    }

    /// The peer has to take what is written; it has taken `sent` bytes so far.
    pub(crate) fn expect_reader(&mut self, sent: u64, now: Instant) {
        self.reader.get_or_insert(Window { since: now, mark: sent });
    }

    pub(crate) fn forget_reader(&mut self) {
        self.reader = None;
    }

    /// Returns when something may become overdue, if anything can.
    pub(crate) fn next_deadline(&self, limits: &Limits) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Answering => None,
            Phase::Head => Some(self.since + limits.head_timeout),
            Phase::Idle => Some(self.since + limits.idle_timeout),
            Phase::Linger => Some(self.since + LINGER_TIMEOUT),
        };
        let windows = [self.body, self.reader].into_iter().flatten();
        phase.into_iter().chain(windows.map(|window| window.since + limits.stall_timeout)).min()
    }

    /// Returns what is overdue at `now`. A window that saw enough bytes starts anew.
    ///
    /// `received` counts the bytes of the body so far, `sent` those that the system took from us, and
    /// `is_unsent` says whether some are left.
    pub(crate) fn overdue(
        &mut self,
        now: Instant,
        limits: &Limits,
        received: u64,
        sent: u64,
        is_unsent: bool,
    ) -> Option<Overdue> {
        if !is_unsent {
            // The peer has all there was; a stream may bring more.
            let is_streaming = self.phase == Phase::Answering;
            self.reader =
                self.reader.filter(|_| is_streaming).map(|_| Window { since: now, mark: sent });
        } else if self.phase == Phase::Linger {
            // The time to read the last answer begins when that has been sent.
            self.since = now;
        }
        if stalls(&mut self.reader, sent, now, limits) {
            return Some(Overdue::Reader);
        }
        if stalls(&mut self.body, received, now, limits) {
            return Some(Overdue::Body);
        }
        let waited = now.since(self.since);
        match self.phase {
            Phase::Head if waited >= limits.head_timeout => Some(Overdue::Head),
            Phase::Idle if waited >= limits.idle_timeout => Some(Overdue::Idle),
            Phase::Linger if waited >= LINGER_TIMEOUT => Some(Overdue::Linger),
            _ => None,
        }
    }
}

fn stalls(window: &mut Option<Window>, count: u64, now: Instant, limits: &Limits) -> bool {
    let Some(open) = window else { return false };
    if now.since(open.since) < limits.stall_timeout {
        return false;
    }
    let is_stalled = count.saturating_sub(open.mark) < limits.progress_bytes_min;
    *open = Window { since: now, mark: count };
    is_stalled
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::START + SECOND * u32::try_from(seconds).unwrap()
    }

    fn limits() -> Limits {
        Limits {
            head_timeout: SECOND * 10,
            idle_timeout: SECOND * 60,
            stall_timeout: SECOND * 30,
            progress_bytes_min: 100,
            ..Limits::default()
        }
    }

    #[test]
    fn each_phase_has_its_deadline() {
        for (phase, seconds, overdue) in [
            (Phase::Head, Some(10), Some(Overdue::Head)),
            (Phase::Idle, Some(60), Some(Overdue::Idle)),
            (Phase::Linger, Some(LINGER_TIMEOUT.as_secs()), Some(Overdue::Linger)),
            (Phase::Answering, None, None),
        ] {
            let mut pace = Pace::new(at(0));
            pace.enter(phase, at(100));
            assert_eq!(pace.next_deadline(&limits()), seconds.map(|after| at(100 + after)));
            let deadline = at(100 + seconds.unwrap_or(100_000));
            let before = deadline - Duration::from_nanos(1);
            assert_eq!(pace.overdue(before, &limits(), 0, 0, false), None, "{phase:?}");
            assert_eq!(pace.overdue(deadline, &limits(), 0, 0, false), overdue, "{phase:?}");
        }
    }

    #[test]
    fn a_body_has_to_advance_in_every_window() {
        let mut pace = Pace::new(at(0));
        pace.enter(Phase::Answering, at(0));
        pace.expect_body(0, at(0));
        assert_eq!(pace.next_deadline(&limits()), Some(at(30)));
        assert_eq!(pace.overdue(at(30), &limits(), 100, 0, false), None, "just enough");
        pace.expect_body(150, at(40));
        assert_eq!(pace.next_deadline(&limits()), Some(at(60)), "an open window stays open");
        assert_eq!(pace.overdue(at(60), &limits(), 199, 0, false), Some(Overdue::Body));
        pace.forget_body();
        assert_eq!(pace.next_deadline(&limits()), None);
    }

    #[test]
    fn a_reader_who_has_everything_owes_nothing() {
        let mut pace = Pace::new(at(0));
        pace.enter(Phase::Answering, at(0));
        pace.expect_reader(0, at(0));
        assert_eq!(pace.overdue(at(30), &limits(), 0, 10, false), None);
        assert_eq!(pace.next_deadline(&limits()), Some(at(60)));
        assert_eq!(pace.overdue(at(60), &limits(), 0, 50, true), Some(Overdue::Reader));
    }
}
