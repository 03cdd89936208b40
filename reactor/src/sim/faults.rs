//! What a world is like, and what goes wrong in it and how often.

use std::time::Duration;

/// What a world is like.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::sim::{Faults, LinkOptions, WorldOptions};
///
/// let options = WorldOptions {
///     link: LinkOptions { bytes_per_second: Some(1_000_000), ..LinkOptions::default() },
///     clock_offset_max: Duration::from_secs(30),
///     faults: Faults::mild(),
///     ..WorldOptions::default()
/// };
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WorldOptions {
    /// The network between any two hosts, unless [`World::set_link`](super::World::set_link) says
    /// otherwise.
    pub link: LinkOptions,
    /// How long a thread takes at most to begin with the next job.
    pub job_wait_max: Duration,
    /// How long a thread job takes at most.
    pub job_time_max: Duration,
    /// How long an operation on a disk takes.
    pub disk_operation_time: Duration,
    /// How long it takes until something is safe on a disk.
    pub disk_sync_time: Duration,
    /// How much a disk reads or writes in a second.
    pub disk_bytes_per_second: u64,
    /// By how much a host's wall clock differs at most from the world's, either way.
    pub clock_offset_max: Duration,
    /// By how many millionths a host's clocks, the monotonic one too, run fast or slow at most.
    pub clock_gain_ppm_max: u32,
    /// After how long an attempt to connect that is not answered is given up.
    pub connect_timeout: Duration,
    /// After how long a connection is given up whose peer's system does not answer although it should.
    pub silence_timeout: Duration,
    /// How long it takes at most, once the network is whole again, until a system tries again to send.
    pub retransmit_after_max: Duration,
    /// What goes wrong from the start.
    pub faults: Faults,
}

impl Default for WorldOptions {
    /// A local network, quick threads and disks, equal clocks, the time limits of Linux, and no faults.
    fn default() -> WorldOptions {
        WorldOptions {
            link: LinkOptions::default(),
            job_wait_max: Duration::from_millis(1),
            job_time_max: Duration::from_millis(5),
            disk_operation_time: Duration::from_micros(20),
            disk_sync_time: Duration::from_millis(2),
            disk_bytes_per_second: 500_000_000,
            clock_offset_max: Duration::ZERO,
            clock_gain_ppm_max: 0,
            connect_timeout: Duration::from_secs(127),
            silence_timeout: Duration::from_secs(15 * 60),
            retransmit_after_max: Duration::from_secs(1),
            faults: Faults::none(),
        }
    }
}

/// The network from one host to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkOptions {
    /// How long whatever is sent is under way at least.
    pub latency_min: Duration,
    /// And at most. What is sent on one connection arrives in order all the same.
    pub latency_max: Duration,
    /// How much can be sent in a second, by all connections together; `None`: any amount.
    pub bytes_per_second: Option<u64>,
}

impl Default for LinkOptions {
    /// One to three milliseconds, and any amount of bytes.
    fn default() -> LinkOptions {
        LinkOptions {
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(3),
            bytes_per_second: None,
        }
    }
}

/// What goes wrong by chance, and how often.
///
/// Single faults have a probability; those that last have a [`Recurrence`].
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// The probability that an attempt to connect is refused.
    pub refusals: f64,
    /// The probability that sending a piece of data ends in a reset: the peer gets a part of it at most.
    pub resets: f64,
    /// The probability that a piece of data arrives in two parts at different times.
    pub splits: f64,
    /// The probability that a connection, soon after it was made, carries nothing any more, and nobody
    /// is told.
    pub losses: f64,
    /// The probability that a datagram is lost.
    pub datagram_losses: f64,
    /// The probability that a datagram arrives twice.
    pub datagram_duplicates: f64,
    /// The probability that a datagram is overtaken by later ones.
    pub datagram_delays: f64,
    /// Some hosts and the others do not reach each other.
    pub partitions: Option<Recurrence>,
    /// A host does not reach another one, which reaches it.
    pub one_way_partitions: Option<Recurrence>,
    /// A host's process dies, and is started again.
    pub crashes: Option<Recurrence>,
    /// A host's machine loses power, and files what was not synced; it is started again.
    pub power_losses: Option<Recurrence>,
    /// A host's process stands still, as in a suspended virtual machine.
    pub freezes: Option<Recurrence>,
    /// A host receives so slowly that it holds up whoever sends.
    pub slow_readers: Option<Recurrence>,
    /// A host's disk is slow.
    pub slow_disks: Option<Recurrence>,
    /// A host's wall clock jumps, either way, by the duration at most.
    pub clock_steps: Option<Recurrence>,
}

/// How often something happens that lasts for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recurrence {
    /// The time between two beginnings, on average.
    pub mean_interval: Duration,
    /// How long it lasts at most.
    pub duration_max: Duration,
}

impl Recurrence {
    /// Happens so often, and lasts so long at most.
    #[must_use]
    pub const fn new(mean_interval: Duration, duration_max: Duration) -> Recurrence {
        Recurrence { mean_interval, duration_max }
    }
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn none() -> Faults {
        Faults {
            refusals: 0.0,
            resets: 0.0,
            splits: 0.0,
            losses: 0.0,
            datagram_losses: 0.0,
            datagram_duplicates: 0.0,
            datagram_delays: 0.0,
            partitions: None,
            one_way_partitions: None,
            crashes: None,
            power_losses: None,
            freezes: None,
            slow_readers: None,
            slow_disks: None,
            clock_steps: None,
        }
    }

    /// A network on a bad day: everything comes in parts, now and then a reset, a refusal, a partition
    /// of seconds.
    #[must_use]
    pub const fn mild() -> Faults {
        Faults {
            refusals: 0.01,
            resets: 0.001,
            splits: 0.2,
            datagram_losses: 0.01,
            datagram_duplicates: 0.005,
            datagram_delays: 0.01,
            partitions: Some(Recurrence::new(minutes(2), seconds(10))),
            slow_readers: Some(Recurrence::new(minutes(5), seconds(10))),
            slow_disks: Some(Recurrence::new(minutes(5), seconds(10))),
            ..Faults::none()
        }
    }

    /// All of it, often.
    #[must_use]
    pub const fn harsh() -> Faults {
        Faults {
            refusals: 0.1,
            resets: 0.02,
            splits: 0.5,
            losses: 0.02,
            datagram_losses: 0.1,
            datagram_duplicates: 0.05,
            datagram_delays: 0.1,
            partitions: Some(Recurrence::new(seconds(40), seconds(30))),
            one_way_partitions: Some(Recurrence::new(seconds(40), seconds(30))),
            crashes: Some(Recurrence::new(minutes(1), seconds(10))),
            power_losses: Some(Recurrence::new(minutes(2), seconds(20))),
            freezes: Some(Recurrence::new(minutes(1), seconds(5))),
            slow_readers: Some(Recurrence::new(minutes(1), seconds(20))),
            slow_disks: Some(Recurrence::new(minutes(1), seconds(20))),
            clock_steps: Some(Recurrence::new(minutes(1), minutes(1))),
        }
    }

    pub(super) fn recurrence(&self, kind: FaultKind) -> Option<Recurrence> {
        match kind {
            FaultKind::ClockStep => self.clock_steps,
            FaultKind::Crash => self.crashes,
            FaultKind::Freeze => self.freezes,
            FaultKind::OneWayPartition => self.one_way_partitions,
            FaultKind::Partition => self.partitions,
            FaultKind::PowerLoss => self.power_losses,
            FaultKind::SlowDisk => self.slow_disks,
            FaultKind::SlowReader => self.slow_readers,
        }
    }
}

impl Default for Faults {
    /// [`Faults::none`].
    fn default() -> Faults {
        Faults::none()
    }
}

/// A fault that lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FaultKind {
    ClockStep,
    Crash,
    Freeze,
    OneWayPartition,
    Partition,
    PowerLoss,
    SlowDisk,
    SlowReader,
}

pub(super) const FAULT_KINDS: [FaultKind; 8] = [
    FaultKind::ClockStep,
    FaultKind::Crash,
    FaultKind::Freeze,
    FaultKind::OneWayPartition,
    FaultKind::Partition,
    FaultKind::PowerLoss,
    FaultKind::SlowDisk,
    FaultKind::SlowReader,
];

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}
