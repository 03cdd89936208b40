//! Waiting for the system's events, and reading what it has written down.

use std::io;
use std::time::Duration;

use super::{Event, Readiness};
use crate::slots::Key;

pub(super) use system::Poller;
pub(crate) use system::SystemEvents;

/// Events taken from the system at a time. More than that wait for the next turn; they are not
/// lost. 1,024 keep the array within three pages.
const EVENTS_PER_TURN: usize = 1024;

/// On Linux `epoll_wait` is called directly: the way through mio and the C library costs more than
/// all else a quiet turn does.
#[cfg(target_os = "linux")]
mod system {
    use mio::{Poll, Registry};
    use rustix::event::Timespec;
    use rustix::event::epoll::{self, EventData, EventFlags};
    use rustix::io::Errno;

    use super::*;

    /// What waits.
    pub(in crate::backend) struct Poller {
        registry: Registry,
    }

    impl Poller {
        pub(in crate::backend) fn new() -> io::Result<Poller> {
            Ok(Poller { registry: Poll::new()?.registry().try_clone()? })
        }

        pub(in crate::backend) fn registry(&self) -> io::Result<Registry> {
            self.registry.try_clone()
        }

        /// Waits for events of what is registered.
        #[inline]
        pub(in crate::backend) fn wait(
            &self,
            timeout: Option<Duration>,
            events: &mut SystemEvents,
        ) -> io::Result<()> {
            // A time too long for the system is as good as none.
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            events.count = 0;
            match epoll::wait(&self.registry, &mut *events.places, timeout.as_ref()) {
                Ok(count) => events.count = count,
                // A signal without a watch interrupted it; the turn goes on with nothing.
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        }
    }

    /// What one wait has brought.
    pub(crate) struct SystemEvents {
        places: Box<[epoll::Event]>,
        count: usize,
    }

    impl SystemEvents {
        pub(crate) fn new() -> SystemEvents {
            let none = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
            SystemEvents { places: vec![none; EVENTS_PER_TURN].into(), count: 0 }
        }

        /// Returns one that can hold nothing.
        pub(crate) fn none() -> SystemEvents {
            SystemEvents { places: Box::default(), count: 0 }
        }

        #[inline]
        pub(crate) fn len(&self) -> usize {
            self.count
        }

        #[inline]
        pub(crate) fn iter(&self) -> impl Iterator<Item = Event> {
            self.places.get(..self.count).unwrap_or_default().iter().map(|event| Event {
                key: Key::from_bits(event.data.u64()),
                readiness: readiness(event.flags),
            })
        }
    }

    #[inline]
    fn readiness(flags: EventFlags) -> Readiness {
        let mut readiness = Readiness::NONE;
        if flags.contains(EventFlags::IN) {
            readiness = readiness.and(Readiness::READABLE);
        }
        if flags.contains(EventFlags::OUT) {
            readiness = readiness.and(Readiness::WRITABLE);
        }
        if flags.intersects(UNUSUAL) { unusual_readiness(readiness, flags) } else { readiness }
    }

    #[cold]
    fn unusual_readiness(mut readiness: Readiness, flags: EventFlags) -> Readiness {
        if flags.contains(EventFlags::PRI) {
            readiness = readiness.and(Readiness::READABLE);
        }
        if flags.intersects(EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR) {
            readiness = readiness.and(Readiness::READABLE).and(Readiness::CLOSING);
        }
        if flags.contains(EventFlags::ERR) {
            readiness = readiness.and(Readiness::FAILED);
        }
        readiness
    }

    const UNUSUAL: EventFlags =
        EventFlags::PRI.union(EventFlags::HUP).union(EventFlags::RDHUP).union(EventFlags::ERR);
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::cell::RefCell;

    use mio::{Events, Poll, Registry};

    use super::*;

    /// What waits.
    pub(in crate::backend) struct Poller {
        poll: RefCell<Poll>,
    }

    impl Poller {
        pub(in crate::backend) fn new() -> io::Result<Poller> {
            Ok(Poller { poll: RefCell::new(Poll::new()?) })
        }

        pub(in crate::backend) fn registry(&self) -> io::Result<Registry> {
            self.poll.borrow().registry().try_clone()
        }

        /// Waits for events of what is registered.
        pub(in crate::backend) fn wait(
            &self,
            timeout: Option<Duration>,
            events: &mut SystemEvents,
        ) -> io::Result<()> {
            match self.poll.borrow_mut().poll(&mut events.0, timeout) {
                // A signal without a watch interrupted it; the turn goes on with nothing.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                result => result,
            }
        }
    }

    /// What one wait has brought.
    pub(crate) struct SystemEvents(Events);

    impl SystemEvents {
        pub(crate) fn new() -> SystemEvents {
            SystemEvents(Events::with_capacity(EVENTS_PER_TURN))
        }

        /// Returns one that can hold nothing.
        pub(crate) fn none() -> SystemEvents {
            SystemEvents(Events::with_capacity(0))
        }

        pub(crate) fn len(&self) -> usize {
            self.0.iter().count()
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = Event> {
            self.0.iter().map(|event| {
                let mut readiness = Readiness::NONE;
                if event.is_readable() {
                    readiness = readiness.and(Readiness::READABLE);
                }
                if event.is_writable() {
                    readiness = readiness.and(Readiness::WRITABLE);
                }
                if event.is_read_closed() || event.is_error() {
                    readiness = readiness.and(Readiness::READABLE).and(Readiness::CLOSING);
                }
                if event.is_error() {
                    readiness = readiness.and(Readiness::FAILED);
                }
                Event { key: Key::from_bits(event.token().0 as u64), readiness }
            })
        }
    }
}
