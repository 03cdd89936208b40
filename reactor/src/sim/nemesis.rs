//! Faults that last, as the seed decides: when they begin, whom they hit, when they end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::agenda::Due;
use super::faults::{FAULT_KINDS, FaultKind, Faults};
use super::host::{Host, HostState};
use super::network::CutBy;
use super::world::Shared;

#[derive(Default)]
pub(super) struct Nemesis {
    faults: RefCell<Faults>,
    /// Counts the changes of the faults, so that those of before come to nothing.
    generation: Cell<u64>,
    /// Counts how often the network was made whole, so that cuts of before are not mended twice.
    era: Cell<u64>,
    /// Hosts that it has felled, and the incarnation that fell.
    felled: RefCell<BTreeMap<usize, u64>>,
}

/// The beginning of a fault, or its end.
pub(super) enum Fault {
    Begin(FaultKind, u64),
    Mend(Vec<(usize, usize)>, u64),
    ReadNormally(usize),
    Restart(usize),
    WriteNormally(usize),
}

impl Nemesis {
    /// All cuts are being mended.
    pub(super) fn begin_era(&self) {
        self.era.set(self.era.get() + 1);
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults.borrow().clone()
    }
}

impl Shared {
    pub(super) fn set_faults(&self, faults: Faults) {
        self.nemesis.faults.replace(faults);
        self.nemesis.generation.set(self.nemesis.generation.get() + 1);
        for kind in FAULT_KINDS {
            self.schedule_next(kind);
        }
    }

    pub(super) fn calm(&self) {
        self.set_faults(Faults::none());
        self.mend_all();
        for host in self.all_hosts() {
            let host = Host { state: host };
            host.set_read_rate(None);
            host.set_disk_slowness(1);
        }
        let felled: Vec<usize> = self.nemesis.felled.borrow().keys().copied().collect();
        for number in felled {
            self.raise(number);
        }
    }

    fn schedule_next(&self, kind: FaultKind) {
        let Some(recurrence) = self.nemesis.faults.borrow().recurrence(kind) else { return };
        let wait = self.chance.waiting_time(recurrence.mean_interval);
        self.schedule(wait, Due::Fault(Fault::Begin(kind, self.nemesis.generation.get())));
    }

    pub(super) fn follow_fault(self: &Rc<Shared>, fault: Fault) {
        match fault {
            Fault::Begin(kind, generation) if generation == self.nemesis.generation.get() => {
                self.begin_fault(kind);
                self.schedule_next(kind);
            }
            Fault::Begin(..) => {}
            Fault::Mend(ways, era) if era == self.nemesis.era.get() => {
                for (from, to) in ways {
                    self.mend_once(from, to);
                }
            }
            Fault::Mend(..) => {}
            Fault::ReadNormally(host) => Host { state: self.host(host) }.set_read_rate(None),
            Fault::Restart(host) => self.raise(host),
            Fault::WriteNormally(host) => Host { state: self.host(host) }.set_disk_slowness(1),
        }
    }

    fn begin_fault(self: &Rc<Shared>, kind: FaultKind) {
        let Some(recurrence) = self.faults().recurrence(kind) else { return };
        let duration = self.chance.between(Duration::ZERO, recurrence.duration_max);
        if let FaultKind::OneWayPartition | FaultKind::Partition = kind {
            return self.begin_partition(kind, duration);
        }
        let Some(victim) = self.pick_victim() else { return };
        let number = victim.number;
        let host = Host { state: victim };
        match kind {
            FaultKind::ClockStep if self.chance.happens(0.5) => host.step_wall_clock_back(duration),
            FaultKind::ClockStep => host.step_wall_clock_forward(duration),
            FaultKind::Crash | FaultKind::PowerLoss => {
                self.nemesis.felled.borrow_mut().insert(number, host.incarnation());
                if kind == FaultKind::Crash {
                    host.crash()
                } else {
                    host.power_off()
                }
                self.schedule(duration, Due::Fault(Fault::Restart(number)));
            }
            FaultKind::Freeze => host.freeze(duration),
            FaultKind::SlowDisk => {
                let slowness = 2 + self.chance.below(SLOW_DISK_TIMES_MAX);
                host.set_disk_slowness(u32::try_from(slowness).unwrap_or(u32::MAX));
                self.schedule(duration, Due::Fault(Fault::WriteNormally(number)));
            }
            FaultKind::SlowReader => {
                host.set_read_rate(Some(1 + self.chance.below(SLOW_READER_RATE_MAX)));
                self.schedule(duration, Due::Fault(Fault::ReadNormally(number)));
            }
            FaultKind::OneWayPartition | FaultKind::Partition => {}
        }
    }

    fn begin_partition(&self, kind: FaultKind, duration: Duration) {
        let count = self.all_hosts().len();
        let sides: Vec<bool> = (0..count).map(|_| self.chance.happens(0.5)).collect();
        let mut ways = Vec::new();
        for (from, from_side) in sides.iter().enumerate() {
            for (to, to_side) in sides.iter().enumerate() {
                let is_cut = match kind {
                    FaultKind::Partition => from_side != to_side,
                    _ => *from_side && !*to_side,
                };
                if is_cut {
                    self.cut(from, to, CutBy::Fault);
                    ways.push((from, to));
                }
            }
        }
        self.schedule(duration, Due::Fault(Fault::Mend(ways, self.nemesis.era.get())));
    }

    /// Returns a host whose process runs and that is not spared.
    fn pick_victim(&self) -> Option<Rc<HostState>> {
        let candidates: Vec<_> = self
            .all_hosts()
            .into_iter()
            .filter(|host| host.process().is_some() && !host.is_spared())
            .collect();
        let index = self.chance.below(candidates.len() as u64) as usize;
        candidates.into_iter().nth(index)
    }

    /// Starts a host again that a fault has felled, unless somebody has already.
    fn raise(&self, number: usize) {
        let fallen = self.nemesis.felled.borrow_mut().remove(&number);
        let host = Host { state: self.host(number) };
        if fallen == Some(host.incarnation()) && !host.is_running() {
            host.restart();
        }
    }
}

/// Slow enough to fill the buffers of whoever sends without a thought.
const SLOW_READER_RATE_MAX: u64 = 20_000;

/// A disk that is about to die tries each block so often.
const SLOW_DISK_TIMES_MAX: u64 = 500;
