//! What scenarios are made of.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::sim::{Host, LinkOptions, World, WorldOptions};
use ropewalk::{Address, Deferred, Factory, ListenOptions, Protocol, Reactor, Transport};

use crate::support::{Diary, Recorder};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// A world in which everything takes exactly ten milliseconds.
pub(crate) fn even_world(seed: u64) -> World {
    let link = LinkOptions {
        latency_min: 10 * MILLISECOND,
        latency_max: 10 * MILLISECOND,
        bytes_per_second: None,
    };
    World::with_options(seed, WorldOptions { link, ..WorldOptions::default() })
}

/// Listens on port 80 with protocols that this makes.
pub(crate) fn serve<P: Protocol + 'static>(reactor: &Reactor, make: impl Fn() -> P + 'static) {
    let factory = move |_: &Address| Some(Box::new(make()) as Box<dyn Protocol>);
    listen(reactor, Rc::new(factory));
}

pub(crate) fn listen(reactor: &Reactor, factory: Rc<dyn Factory>) {
    let address: SocketAddr = "0.0.0.0:80".parse().unwrap();
    reactor.listen_tcp(address, factory, ListenOptions::default()).unwrap();
}

/// Connects one host to another's port 80, with a protocol that notes everything.
pub(crate) fn connect(from: &Host, to: &Host, diary: &Diary) -> Deferred<Transport> {
    from.reactor().connect_tcp(to.at(80), Box::new(Recorder::new(diary)))
}

/// The transports of the connections that a host has accepted.
pub(crate) type Accepted = Rc<RefCell<Vec<Transport>>>;

/// Keeps its transport where the test finds it, and notes everything.
pub(crate) struct Kept {
    pub(crate) accepted: Accepted,
    pub(crate) recorder: Recorder,
}

impl Kept {
    pub(crate) fn new(accepted: &Accepted, diary: &Diary) -> Kept {
        Kept { accepted: Rc::clone(accepted), recorder: Recorder::new(diary) }
    }
}

impl Protocol for Kept {
    fn connection_made(&mut self, transport: &Transport) {
        self.accepted.borrow_mut().push(transport.clone());
        self.recorder.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.recorder.data_received(transport, data);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.recorder.read_connection_lost(transport);
    }

    fn connection_lost(&mut self, reason: ropewalk::ConnectionLost) {
        self.recorder.connection_lost(reason);
    }
}
