//! Sockets that this process was started with, as `systemd` and its like do it (`sd_listen_fds(3)`).

use std::env;
use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;

use crate::reactor::Reactor;

/// The sockets that a service manager has opened for this process.
///
/// They are there before the process is, so that no connection is refused while it restarts, and a port
/// below 1024 takes no rights. Those that are not taken stay open.
///
/// ```no_run
/// # use std::rc::Rc;
/// # use ropewalk::{Factory, Reactor};
/// # fn serve(reactor: &Reactor, factory: Rc<dyn Factory>) -> std::io::Result<()> {
/// let mut inherited = reactor.inherited_sockets();
/// if let Some(socket) = inherited.take_named("http")? {
///     reactor.adopt_listener(socket, factory)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct InheritedSockets {
    sockets: Vec<Option<OwnedFd>>,
    names: Vec<String>,
    /// Those that are no sockets which could be used.
    errors: Vec<Option<io::Error>>,
}

impl Reactor {
    /// Takes over the sockets that this process was started with: those that `LISTEN_FDS` counts, if
    /// `LISTEN_PID` names this process or nothing does. The variables are removed, so that children do
    /// not believe that they are meant, and a second call finds nothing.
    ///
    /// Call it early, before there are threads that look at the environment. On a reactor of the test
    /// kit there are none.
    #[must_use]
    pub fn inherited_sockets(&self) -> InheritedSockets {
        let mut inherited =
            InheritedSockets { sockets: Vec::new(), names: Vec::new(), errors: Vec::new() };
        if self.check_has_descriptors().is_err() {
            return inherited;
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut manager = ListenFd::from_env();
        for index in 0..manager.len() {
            let (socket, error) = match take(&mut manager, index) {
                Ok(socket) => (socket, None),
                Err(error) => (None, Some(error)),
            };
            inherited.sockets.push(socket);
            inherited.errors.push(error);
            inherited.names.push(names.next().unwrap_or_default());
        }
        inherited
    }
}

impl InheritedSockets {
    /// Returns how many there were, taken ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Returns the names that were given to them, in order; empty ones for those without.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes the one at this place, counted from 0. `None` if it was taken, or there never was one.
    ///
    /// # Errors
    ///
    /// If there is something else than a TCP, UDP or Unix socket.
    pub fn take(&mut self, index: usize) -> io::Result<Option<OwnedFd>> {
        if let Some(error) = self.errors.get_mut(index).and_then(Option::take) {
            return Err(error);
        }
        Ok(self.sockets.get_mut(index).and_then(Option::take))
    }

    /// Takes the first of this name that was not taken. `FileDescriptorName=` sets it in a unit of
    /// `systemd`.
    ///
    /// # Errors
    ///
    /// As [`take`](InheritedSockets::take).
    pub fn take_named(&mut self, name: &str) -> io::Result<Option<OwnedFd>> {
        let is_there = |index: &usize| {
            self.names[*index] == name
                && (self.sockets[*index].is_some() || self.errors[*index].is_some())
        };
        match (0..self.len()).find(is_there) {
            Some(index) => self.take(index),
            None => Ok(None),
        }
    }
}

/// Takes a socket of whichever kind, checked and closed on `exec`.
fn take(manager: &mut ListenFd, index: usize) -> io::Result<Option<OwnedFd>> {
    if let Ok(socket) = manager.take_tcp_listener(index) {
        return Ok(socket.map(OwnedFd::from));
    }
    if let Ok(socket) = manager.take_unix_listener(index) {
        return Ok(socket.map(OwnedFd::from));
    }
    if let Ok(socket) = manager.take_udp_socket(index) {
        return Ok(socket.map(OwnedFd::from));
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("inherited descriptor {index} is no TCP, UDP or Unix stream socket"),
    ))
}
