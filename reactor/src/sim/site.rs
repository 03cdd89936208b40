//! The world as one host's backend sees it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::faults::WorldOptions;
use super::host::HostState;
use super::network::time_for;
use super::trace::Happening;
use super::world::Shared;
use crate::backend::Alarm;
use crate::backend::manual::Surroundings;
use crate::files::FileOperation;
use crate::resolver::{HostResolver, HostTable};
use crate::transport::memory::MemoryStream;

/// Where a host is in the world.
pub(super) struct Site {
    pub(super) world: Weak<Shared>,
    pub(super) host: Weak<HostState>,
}

impl Site {
    fn find(&self) -> Option<(Rc<Shared>, Rc<HostState>)> {
        Some((self.world.upgrade()?, self.host.upgrade()?))
    }
}

impl Surroundings for Site {
    fn wall_clock(&self) -> SystemTime {
        match self.find() {
            Some((world, host)) => host.wall_time(world.now()),
            None => SystemTime::UNIX_EPOCH,
        }
    }

    fn alarm(&self) -> Alarm {
        Alarm::World(match self.world.upgrade() {
            Some(world) => Arc::clone(&world.is_ringing),
            None => Arc::new(AtomicBool::new(false)),
        })
    }

    fn has_address(&self, address: IpAddr) -> bool {
        self.host.upgrade().is_some_and(|host| host.has_address(address))
    }

    fn job_wait(&self) -> Duration {
        let Some(world) = self.world.upgrade() else { return Duration::ZERO };
        world.chance.between(Duration::ZERO, world.options.job_wait_max)
    }

    fn job_time(&self) -> Duration {
        let Some((world, host)) = self.find() else { return Duration::ZERO };
        let time = world.chance.between(Duration::ZERO, world.options.job_time_max);
        world.record(Happening::JobRan { host: host.name(), time });
        time
    }

    fn host_resolver(&self) -> Rc<dyn HostResolver> {
        Rc::new(self.world.upgrade().map_or_else(HostTable::new, |world| world.names().clone()))
    }

    fn connect(&self, local_port: u16, address: SocketAddr) -> io::Result<MemoryStream> {
        let (world, host) = self.find().ok_or(io::ErrorKind::NetworkUnreachable)?;
        world.connect(&host, local_port, address)
    }

    fn send_datagram(&self, local_port: u16, to: SocketAddr, data: &[u8]) {
        if let Some((world, host)) = self.find() {
            world.send_datagram(&host, local_port, to, data);
        }
    }
}

/// Says how long operations on a disk take.
pub(super) fn disk_pace(
    options: &WorldOptions,
    slowness: Arc<AtomicU32>,
) -> impl Fn(FileOperation, u64) -> Duration + Send + Sync + 'static {
    let (operation_time, sync_time) = (options.disk_operation_time, options.disk_sync_time);
    let rate = options.disk_bytes_per_second;
    move |operation, bytes| {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut time = operation_time + time_for(bytes, rate);
        if operation == FileOperation::Sync {
            time += sync_time;
        }
        time.saturating_mul(slowness.load(Ordering::Relaxed))
    }
}
