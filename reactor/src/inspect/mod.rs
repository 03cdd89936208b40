//! What a reactor holds at one moment: everything that is pending, and for whom.
//!
//! [`Reactor::inspect`] answers the question why a program does not come to rest, or what it is waiting for.
//! A [`Snapshot`] is shown as text, or as a page of HTML that a program may serve to those who run it (not
//! to everybody: it names log contexts and addresses).
//!
//! ```
//! use std::time::Duration;
//! use ropewalk::{LogContext, Reactor};
//!
//! # fn main() -> std::io::Result<()> {
//! let reactor = Reactor::new()?;
//! LogContext::new("tea").run(|| reactor.call_later(Duration::from_secs(180), || ()));
//! let text = reactor.inspect().to_string();
//! assert!(text.contains("Delayed calls (1)"));
//! assert!(text.contains("tea"));
//! # Ok(())
//! # }
//! ```

mod html;

use std::fmt;

use crate::census;
use crate::core::{Core, Source};
use crate::reactor::Reactor;

/// What a reactor holds at one moment, in tables.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The tables, always the same ones in the same order.
    pub tables: Vec<Table>,
}

/// Everything of one kind.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Table {
    /// What the rows are.
    pub title: &'static str,
    /// What the columns are.
    pub columns: &'static [&'static str],
    /// The first [`ROWS_MAX`] of them.
    pub rows: Vec<Vec<String>>,
    /// How many there are.
    pub count: usize,
}

/// Rows of one table that are shown: a person reads no more, and making them holds the loop.
pub const ROWS_MAX: usize = 500;

impl Table {
    /// Makes a table of the first rows, of `count` in all.
    pub(crate) fn of_all(
        title: &'static str,
        columns: &'static [&'static str],
        count: usize,
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Table {
        Table { title, columns, rows: rows.into_iter().take(ROWS_MAX).collect(), count }
    }
}

impl Reactor {
    /// Lists everything that is pending: delayed calls, tasks, deferreds by where they were made (if they are
    /// [tracked](Reactor::track_deferreds)), connections, listening ports, thread jobs.
    ///
    /// It takes about a microsecond a row.
    #[must_use]
    pub fn inspect(&self) -> Snapshot {
        let core = &**self.core();
        Snapshot {
            tables: vec![
                self.inspect_loop(),
                self.inspect_calls(),
                core.tasks.borrow().inspect(),
                inspect_deferreds(),
                inspect_connections(core),
                inspect_ports(core),
                self.inspect_jobs(),
            ],
        }
    }

    /// Has the deferreds of this thread counted by where they are made, from now on or no longer, for
    /// [`inspect`](Reactor::inspect).
    ///
    /// Counting costs a fraction of a microsecond a deferred. Builds with debug assertions do it from the
    /// start.
    pub fn track_deferreds(&self, is_tracking: bool) {
        census::track(is_tracking);
    }

    fn inspect_loop(&self) -> Table {
        let metrics = self.metrics();
        let rows = [
            ("turns", metrics.turns.to_string()),
            ("callbacks and tasks that are ready", metrics.ready.to_string()),
            ("bytes received", metrics.bytes_received.to_string()),
            ("bytes sent", metrics.bytes_sent.to_string()),
            ("calls that held the loop too long", metrics.overlong_calls.to_string()),
        ];
        let count = rows.len();
        let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
        Table::of_all("Loop", &["what", "how much"], count, rows)
    }

    fn inspect_calls(&self) -> Table {
        let core = self.core();
        let now = self.now();
        let timers = core.timers.borrow();
        let mut calls: Vec<_> = timers.iter().collect();
        calls.sort_by_key(|(due, ..)| *due);
        let rows = calls.iter().map(|(deadline, context, name)| {
            let seconds = deadline.since(now).as_secs_f64();
            vec![format!("{seconds:.3} s"), context.name().to_owned(), (*name).to_owned()]
        });
        Table::of_all("Delayed calls", &["due in", "context", "what"], calls.len(), rows)
    }

    fn inspect_jobs(&self) -> Table {
        let pools = self.thread_pools();
        let jobs: Vec<_> = pools.iter().flat_map(|pool| pool.pending_jobs()).collect();
        let count = jobs.len();
        Table::of_all("Thread jobs", &["pool", "number", "context"], count, jobs)
    }
}

fn inspect_deferreds() -> Table {
    let columns = &["made at", "how many"];
    if !census::is_tracking() {
        return Table::of_all("Deferreds (not tracked)", columns, 0, []);
    }
    let mut places: Vec<_> = census::places().into_iter().collect();
    places.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rows = places.into_iter().map(|(place, count)| vec![place.to_string(), count.to_string()]);
    Table::of_all("Deferreds", columns, census::living(), rows)
}

fn inspect_connections(core: &Core) -> Table {
    let sources = core.sources.borrow();
    let links = || {
        sources.iter().filter_map(|(_, source)| match source {
            Source::Link(transport) => Some(transport.link()),
            _ => None,
        })
    };
    let columns = &["peer", "context", "state", "unsent bytes"];
    Table::of_all("Connections", columns, links().count(), links().map(|link| link.inspect()))
}

fn inspect_ports(core: &Core) -> Table {
    let sources = core.sources.borrow();
    let rows: Vec<_> = sources
        .iter()
        .filter_map(|(_, source)| match source {
            Source::Port(port) => Some(port.inspect()),
            Source::Datagrams(port) => {
                Some(vec![format!("udp-{}", port.address()), "-".to_owned()])
            }
            _ => None,
        })
        .collect();
    Table::of_all("Ports", &["address", "connections so far"], rows.len(), rows)
}

/// As text, in columns.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, table) in self.tables.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            table.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.title, self.count)?;
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!(" {cell:<width$} "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        if self.count > self.rows.len() && self.rows.len() == ROWS_MAX {
            writeln!(f, "  and {} more", self.count - self.rows.len())?;
        }
        Ok(())
    }
}
