//! The sink behind the `log` facade: one line a record, stamped with the current log context.
//!
//! Owns the shape of the line and where it goes. Does not own levels by subsystem beyond a prefix table,
//! files or rotation: standard error is for the service manager to keep.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};

use crate::context::LogContext;

/// What is logged, and how it is stamped.
///
/// Lines read `LEVEL context target: sentence`, with the time in front if there is a clock.
#[derive(Clone)]
pub struct LogOptions {
    /// The least severe level that is written.
    pub level: LevelFilter,
    /// Other levels for some targets: the longest prefix that fits a record's target decides.
    pub target_levels: Vec<(String, LevelFilter)>,
    /// Where the time in front of each line comes from; `None` where somebody else stamps lines (the
    /// journal does).
    pub wall_clock: Option<fn() -> SystemTime>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { level: LevelFilter::Info, target_levels: Vec::new(), wall_clock: None }
    }
}

/// Makes all log records of the process go to standard error.
///
/// Call once, early, on any thread. Does nothing to lines captured by [`capture`].
///
/// # Errors
///
/// If a sink is installed already.
pub fn install(options: LogOptions) -> Result<(), log::SetLoggerError> {
    let loudest = options.target_levels.iter().map(|(_, level)| *level).max();
    let level = options.level.max(loudest.unwrap_or(LevelFilter::Off));
    log::set_boxed_logger(Box::new(Sink { options: Some(options) }))?;
    log::set_max_level(level);
    Ok(())
}

/// Collects this thread's log lines, of all levels and without time, until the collection is dropped.
///
/// For tests; makes sure that there is a sink. Keeps the newest `lines_max` lines.
///
/// ```
/// use ropewalk::{LogContext, logging};
///
/// let lines = logging::capture(100);
/// LogContext::new("GET-3").run(|| log::info!(target: "http", "answered"));
/// assert_eq!(lines.take(), ["INFO GET-3 http: answered"]);
/// ```
pub fn capture(lines_max: usize) -> CapturedLines {
    // Fails if there is one already, which is as good if it is ours.
    let _ = log::set_logger(&CAPTURE_ONLY);
    log::set_max_level(LevelFilter::Trace);
    let captured =
        Arc::new(Captured { thread: thread::current().id(), lines_max, lines: Mutex::default() });
    locked(&CAPTURES).push(Arc::clone(&captured));
    CAPTURE_COUNT.fetch_add(1, Ordering::Relaxed);
    CapturedLines { captured }
}

/// Log lines of one thread. See [`capture`].
pub struct CapturedLines {
    captured: Arc<Captured>,
}

impl CapturedLines {
    /// Takes out what was logged since the last time, oldest first.
    pub fn take(&self) -> Vec<String> {
        locked(&self.captured.lines).drain(..).collect()
    }
}

impl Drop for CapturedLines {
    fn drop(&mut self) {
        locked(&CAPTURES).retain(|other| !Arc::ptr_eq(other, &self.captured));
        CAPTURE_COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Captured {
    thread: ThreadId,
    lines_max: usize,
    lines: Mutex<VecDeque<String>>,
}

static CAPTURE_ONLY: Sink = Sink { options: None };
static CAPTURES: Mutex<Vec<Arc<Captured>>> = Mutex::new(Vec::new());
static CAPTURE_COUNT: AtomicUsize = AtomicUsize::new(0);

struct Sink {
    options: Option<LogOptions>,
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.writes(metadata) || CAPTURE_COUNT.load(Ordering::Relaxed) > 0
    }

    fn log(&self, record: &Record<'_>) {
        let is_written = self.writes(record.metadata());
        let is_captured = CAPTURE_COUNT.load(Ordering::Relaxed) > 0;
        if !is_written && !is_captured {
            return;
        }
        let line = format_line(record);
        if is_captured {
            keep_captured(&line);
        }
        if is_written {
            let clock = self.options.as_ref().and_then(|options| options.wall_clock);
            let stamp = clock.map_or_else(String::new, |clock| format!("{} ", timestamp(clock())));
            // One write a line, so that lines of several threads do not mix. There is nobody left to
            // tell if standard error is gone.
            let _ = std::io::stderr().lock().write_all(format!("{stamp}{line}\n").as_bytes());
        }
    }

    fn flush(&self) {}
}

impl Sink {
    fn writes(&self, metadata: &Metadata<'_>) -> bool {
        let Some(options) = &self.options else { return false };
        let level = options
            .target_levels
            .iter()
            .filter(|(prefix, _)| metadata.target().starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(options.level, |(_, level)| *level);
        metadata.level() <= level
    }
}

/// Makes `LEVEL context target: sentence`. Lines after the first are indented and control characters
/// escaped, so that what a peer sent cannot pass for a record of its own.
fn format_line(record: &Record<'_>) -> String {
    let context = LogContext::current();
    let mut line = format!("{} {} {}: ", record.level(), context.name(), record.target());
    let sentence = record.args().to_string();
    for character in sentence.chars() {
        match character {
            '\n' => line.push_str("\n    "),
            '\t' => line.push('\t'),
            control if control.is_control() => {
                let _ = write!(line, "{}", control.escape_default());
            }
            other => line.push(other),
        }
    }
    line
}

fn keep_captured(line: &str) {
    let thread = thread::current().id();
    for captured in locked(&CAPTURES).iter().filter(|captured| captured.thread == thread) {
        let mut lines = locked(&captured.lines);
        if lines.len() >= captured.lines_max {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }
}

/// Formats a time as RFC 3339 in UTC, to the millisecond.
fn timestamp(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (seconds, millis) = (since_epoch.as_secs(), since_epoch.subsec_millis());
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60
    )
}

/// Returns year, month and day of the day so many days after 1 January 1970.
///
/// Counts from 1 March of year 0, so that the leap day is the last of its year, in eras of 400 years.
fn civil_date(days_since_epoch: u64) -> (u64, u64, u64) {
    let days = days_since_epoch + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// No lock here is held over code that can panic, so a poisoned one is as good as any.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_399, "2000-02-28T23:59:59.250Z"),
            (951_868_799, "2000-02-29T23:59:59.250Z"),
            (1_709_164_800, "2024-02-29T00:00:00.250Z"),
            (4_107_542_399, "2100-02-28T23:59:59.250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.250Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(250);
            assert_eq!(timestamp(time), expected, "{seconds}");
        }
    }

    #[test]
    fn a_line_names_level_context_and_target() {
        let lines = capture(10);
        log::warn!(target: "store", "outside");
        LogContext::new("GET-1").run(|| log::debug!(target: "http", "inside"));
        assert_eq!(lines.take(), ["WARN sentinel store: outside", "DEBUG GET-1 http: inside"]);
    }

    #[test]
    fn what_a_peer_sent_cannot_pass_for_a_line_of_its_own() {
        let lines = capture(10);
        log::info!(target: "http", "path {}", "/a\r\nERROR sentinel http: forged\u{1b}[2J");
        assert_eq!(
            lines.take(),
            ["INFO sentinel http: path /a\\r\n    ERROR sentinel http: forged\\u{1b}[2J"]
        );
    }

    #[test]
    fn captured_lines_are_bounded_and_the_newest_are_kept() {
        let lines = capture(2);
        for n in 0..5 {
            log::info!(target: "t", "{n}");
        }
        assert_eq!(lines.take(), ["INFO sentinel t: 3", "INFO sentinel t: 4"]);
    }

    #[test]
    fn the_longest_fitting_target_decides_the_level() {
        let sink = Sink {
            options: Some(LogOptions {
                level: LevelFilter::Info,
                target_levels: vec![
                    ("rustls".into(), LevelFilter::Warn),
                    ("rustls::server".into(), LevelFilter::Trace),
                ],
                wall_clock: None,
            }),
        };
        for (target, level, is_written) in [
            ("homeserver", log::Level::Info, true),
            ("homeserver", log::Level::Debug, false),
            ("rustls::client", log::Level::Info, false),
            ("rustls::server", log::Level::Trace, true),
        ] {
            let metadata = Metadata::builder().target(target).level(level).build();
            assert_eq!(sink.writes(&metadata), is_written, "{target} {level}");
        }
    }
}
