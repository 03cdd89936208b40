//! What a reactor tells of itself in numbers, in the form that Prometheus reads.
//!
//! [`Reactor::metrics`] takes the numbers at one moment. They are plain data, which may go to a thread; as a
//! [`Collector`] they can be registered beside a program's own metrics, and [`ReactorMetrics::write`]
//! spells them out:
//!
//! ```
//! use ropewalk::Reactor;
//!
//! # fn main() -> std::io::Result<()> {
//! let reactor = Reactor::new()?;
//! let mut page = String::new();
//! reactor.metrics().write(&mut page).expect("strings take everything");
//! assert!(page.contains("ropewalk_turns_total 0"));
//! # Ok(())
//! # }
//! ```

use std::fmt::{self, Write};

pub use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::census;
use crate::context::{self, LogContext};
use crate::counters::Histogram;
use crate::reactor::Reactor;
use crate::threads::ThreadPoolStatistics;

/// A reactor's numbers at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReactorMetrics {
    /// Turns of the loop so far.
    pub turns: u64,
    /// Things that the system has reported as ready so far.
    pub events: u64,
    /// Reads of connections that brought something so far.
    pub reads: u64,
    /// Bytes received so far, before decryption.
    pub bytes_received: u64,
    /// Bytes sent so far, after encryption.
    pub bytes_sent: u64,
    /// Connections accepted so far.
    pub accepts: u64,
    /// Connections accepted and made so far.
    pub connections_opened: u64,
    /// Connections that are open.
    pub connections: u64,
    /// Calls that have held the loop for longer than they may, so far, on this thread.
    pub overlong_calls: u64,
    /// Delayed calls to come.
    pub pending_calls: usize,
    /// Callbacks and tasks that are ready.
    pub ready: usize,
    /// Tasks that have not come to their end.
    pub tasks: usize,
    /// Deferreds of this thread that live; 0 unless they are [tracked](Reactor::track_deferreds).
    pub deferreds: usize,
    /// Log contexts of this thread that live.
    pub contexts: usize,
    /// How long turns took that did something in a log context: how many took at most so many seconds (not
    /// cumulative), and all of them together.
    pub turn_seconds: Durations,
    /// How late the first delayed call of a turn was.
    pub lag_seconds: Durations,
    /// The thread pools, by name.
    pub pools: Vec<(String, ThreadPoolStatistics)>,
}

/// How many durations were at most so long.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Durations {
    /// Each bucket's upper bound in seconds, and what is in it and in none before.
    pub buckets: Vec<(f64, u64)>,
    /// The sum in seconds.
    pub sum: f64,
}

impl Durations {
    fn read(histogram: &Histogram) -> Durations {
        let (buckets, sum) = histogram.read();
        Durations { buckets, sum }
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Reactor {
    /// Returns what this reactor is doing and has done, in numbers.
    #[must_use]
    pub fn metrics(&self) -> ReactorMetrics {
        let core = self.core();
        let counters = &core.counters;
        ReactorMetrics {
            turns: counters.turns.get(),
            events: counters.events.get(),
            reads: counters.reads.get(),
            bytes_received: counters.bytes_in.get(),
            bytes_sent: counters.bytes_out.get(),
            accepts: counters.accepts.get(),
            connections_opened: counters.connections_opened.get(),
            connections: counters.connections_opened.get() - counters.connections_closed.get(),
            overlong_calls: context::overlong_count(),
            pending_calls: core.timers.borrow().len(),
            ready: core.ready.len(),
            tasks: core.tasks.borrow().len(),
            deferreds: census::living(),
            contexts: LogContext::living_count(),
            turn_seconds: Durations::read(&counters.turn_nanos),
            lag_seconds: Durations::read(&counters.timer_lag_nanos),
            pools: self
                .thread_pools()
                .iter()
                .map(|pool| (pool.name().to_owned(), pool.statistics()))
                .collect(),
        }
    }
}

impl ReactorMetrics {
    /// Writes the numbers as Prometheus' text format has it, without the line that ends a page.
    ///
    /// # Errors
    ///
    /// Those of `page`.
    pub fn write(&self, page: &mut impl Write) -> fmt::Result {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        encode_registry(page, &registry)
    }
}

impl Collector for ReactorMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, count) in [
            ("ropewalk_turns", "Turns of the loop", self.turns),
            ("ropewalk_events", "Things that the system has reported as ready", self.events),
            ("ropewalk_reads", "Reads of connections that brought something", self.reads),
            ("ropewalk_accepts", "Connections accepted", self.accepts),
            (
                "ropewalk_connections_opened",
                "Connections accepted and made",
                self.connections_opened,
            ),
            (
                "ropewalk_overlong_calls",
                "Calls that have held the loop for longer than they may",
                self.overlong_calls,
            ),
        ] {
            write_counter(&mut encoder, name, help, None, count)?;
        }
        for (name, help, bytes) in [
            ("ropewalk_received", "Bytes received, before decryption", self.bytes_received),
            ("ropewalk_sent", "Bytes sent, after encryption", self.bytes_sent),
        ] {
            write_counter(&mut encoder, name, help, Some(&Unit::Bytes), bytes)?;
        }
        for (name, help, value) in [
            ("ropewalk_connections", "Connections that are open", self.connections as usize),
            ("ropewalk_pending_calls", "Delayed calls to come", self.pending_calls),
            ("ropewalk_ready", "Callbacks and tasks that are ready", self.ready),
            ("ropewalk_tasks", "Tasks that have not come to their end", self.tasks),
            ("ropewalk_deferreds", "Deferreds that live, if they are tracked", self.deferreds),
            ("ropewalk_contexts", "Log contexts that live", self.contexts),
        ] {
            let gauge = ConstGauge::new(as_gauge(value));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, durations) in [
            (
                "ropewalk_turn_duration",
                "How long turns took that did something",
                &self.turn_seconds,
            ),
            ("ropewalk_lag", "How late the first delayed call of a turn was", &self.lag_seconds),
        ] {
            let unit = Some(&Unit::Seconds);
            let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
            let Durations { buckets, sum } = durations;
            metric.encode_histogram::<NoLabelSet>(*sum, durations.count(), buckets, None)?;
        }
        self.encode_pools(&mut encoder)
    }
}

/// One number of a pool: its name, what it is, how it is read, and whether it only grows.
type PoolFact = (&'static str, &'static str, fn(&ThreadPoolStatistics) -> f64, bool);

const POOL_FACTS: &[PoolFact] = &[
    ("ropewalk_threads", "Threads of a pool", |pool| pool.threads as f64, false),
    (
        "ropewalk_thread_jobs_queued",
        "Jobs that wait for a thread",
        |pool| pool.queued as f64,
        false,
    ),
    ("ropewalk_thread_jobs_running", "Jobs that run", |pool| pool.running as f64, false),
    ("ropewalk_thread_jobs_completed", "Jobs that have run", |pool| pool.completed as f64, true),
    ("ropewalk_thread_jobs_failed", "Jobs that have failed", |pool| pool.failed as f64, true),
    (
        "ropewalk_thread_jobs_cancelled",
        "Jobs that were cancelled",
        |pool| pool.cancelled as f64,
        true,
    ),
    (
        "ropewalk_thread_job_wait_seconds",
        "How long jobs have waited for a thread",
        |pool| pool.wait_time.as_secs_f64(),
        true,
    ),
    (
        "ropewalk_thread_job_run_seconds",
        "How long jobs have run",
        |pool| pool.run_time.as_secs_f64(),
        true,
    ),
];

impl ReactorMetrics {
    fn encode_pools(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read, only_grows) in POOL_FACTS {
            let kind = if *only_grows { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (pool, statistics) in &self.pools {
                let labels = [("pool", pool.as_str())];
                let family = metric.encode_family(&labels)?;
                match only_grows {
                    true => ConstCounter::new(read(statistics)).encode(family)?,
                    false => ConstGauge::new(read(statistics)).encode(family)?,
                }
            }
        }
        Ok(())
    }
}

fn write_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    count: u64,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
    ConstCounter::new(count).encode(metric)
}

fn as_gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
