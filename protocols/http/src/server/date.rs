//! The `Date` field, written once a second.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use ropewalk::{Instant, Reactor};

/// What a response begins with in the present second.
#[derive(Debug)]
pub(crate) struct DateCache {
    start: RefCell<ResponseStart>,
    valid_until: Cell<Instant>,
}

/// The first lines of a response, up to where the length stands, ready to be copied.
#[derive(Debug)]
pub(crate) struct ResponseStart {
    lines: String,
}

/// How a response that succeeded begins.
const STATUS_LINE: &str = "HTTP/1.1 200 OK\r\n";

/// What stands in front of the length of a body that has one.
pub(crate) const LENGTH_NAME: &str = "content-length: ";

impl ResponseStart {
    pub(crate) fn new(date: &str) -> Self {
        ResponseStart { lines: format!("{STATUS_LINE}date: {date}\r\n{LENGTH_NAME}") }
    }

    /// Returns status and date line of a response with status 200, and the name of the length behind them.
    #[inline]
    pub(crate) fn ok_lines_and_length_name(&self) -> &[u8] {
        self.lines.as_bytes()
    }

    /// Returns the date line alone.
    pub(crate) fn date_line(&self) -> &[u8] {
        &self.lines.as_bytes()[STATUS_LINE.len()..self.lines.len() - LENGTH_NAME.len()]
    }
}

impl DateCache {
    pub(crate) fn new() -> Self {
        let start = RefCell::new(ResponseStart::new(""));
        DateCache { start, valid_until: Cell::new(Instant::START) }
    }

    /// Calls `f` with the lines for `now`, which has to be the reactor's present time or just before it.
    #[inline]
    pub(crate) fn with<T>(
        &self,
        reactor: &Reactor,
        now: Instant,
        f: impl FnOnce(&ResponseStart) -> T,
    ) -> T {
        if now >= self.valid_until.get() {
            self.refresh(reactor.wall_clock(), now);
        }
        f(&self.start.borrow())
    }

    #[cold]
    fn refresh(&self, wall_clock: SystemTime, now: Instant) {
        // Before 1970 or beyond 9999 the formatting crate panics; a clock that is so wrong gets 1970.
        let since_epoch = wall_clock
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .filter(|time| time.as_secs() < 253_402_300_800)
            .unwrap_or_default();
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since_epoch);
        *self.start.borrow_mut() = ResponseStart::new(&date);
        let left = Duration::from_nanos(1_000_000_000 - u64::from(since_epoch.subsec_nanos()));
        self.valid_until.set(now + left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_far_out_do_no_harm() {
        let cache = DateCache::new();
        for (why, wall_clock, expected) in [
            (
                "as usual",
                SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777),
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            (
                "before 1970",
                SystemTime::UNIX_EPOCH - Duration::from_secs(1),
                "Thu, 01 Jan 1970 00:00:00 GMT",
            ),
            (
                "year 10000",
                SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800),
                "Thu, 01 Jan 1970 00:00:00 GMT",
            ),
        ] {
            cache.refresh(wall_clock, Instant::START);
            let line = format!("date: {expected}\r\n");
            assert_eq!(cache.start.borrow().date_line(), line.as_bytes(), "{why}");
        }
    }

    #[test]
    fn a_text_is_good_until_the_second_ends() {
        let cache = DateCache::new();
        cache.refresh(SystemTime::UNIX_EPOCH + Duration::from_millis(5_250), Instant::START);
        assert_eq!(cache.valid_until.get(), Instant::START + Duration::from_millis(750));
    }
}
