//! Thousands of connections whose two ends do at random what ends of connections do, from one seed. At the
//! end no descriptor, timer, deferred or byte may be unaccounted for.
//!
//! In a process of its own, whose descriptors can be counted. `ROPEWALK_SOAK_SEED` picks another seed;
//! the order in which the system reports things is its own, so that a seed repeats what is done and not
//! what comes of it.

#![cfg(target_os = "linux")]

mod ends;

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ropewalk::{
    Address, Deferred, Factory, ListeningPort, Protocol, Reactor, Streaming, Transport,
    UnixListenOptions,
};
use rustix::process::{Resource, getrlimit};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use ends::{Accepted, Dialled, Kind, Pair, Tally};

/// Connections that are open at once, both ends in this process.
const CONNECTIONS: usize = 4_000;

/// How often an end is told to do something once so many are open. While they are opened, the dice roll too.
const STEPS: usize = 40_000;

const STEPS_PER_TURN: usize = 100;

/// What is opened before the loop turns again; a port's backlog holds it.
const OPENED_PER_TURN: usize = 60;

/// Descriptors that are no connection's: the loop's, the ports', the test runner's, and some to spare.
const OTHER_DESCRIPTORS: u64 = 100;

/// Turns of a millisecond in which everything must have come to its end.
const LAST_TURNS: usize = 20_000;

const SEED: u64 = 20_261_120;

/// A generator that needs no crate: what it lacks in quality does not matter here.
pub(crate) struct Dice(u64);

impl Dice {
    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % bound as u64).unwrap()
    }
}

#[test]
fn thousands_of_connections_leave_nothing_behind() {
    let seed = std::env::var("ROPEWALK_SOAK_SEED").map_or(SEED, |text| text.parse().unwrap());
    println!("ROPEWALK_SOAK_SEED={seed}");
    let before = open_descriptors();
    let (server, client) = tls_configs();
    let reactor = Reactor::new().unwrap();
    let pairs_max = connections_that_fit();
    // A turn may take its time here.
    reactor.set_hold_limit(Duration::from_secs(60));

    let mut soak = Soak::new(&reactor, server, client, seed);
    soak.fill(pairs_max);
    for _ in 0..STEPS / STEPS_PER_TURN {
        soak.steps();
        soak.turn(Duration::ZERO);
    }
    let most = soak.open_pairs();
    soak.come_to_an_end();
    println!("{:?}, {most} connections open at the end of the steps", soak.tally);
    soak.check_books();
    drop(soak);

    let metrics = reactor.metrics();
    let left = (metrics.connections, metrics.pending_calls, metrics.ready, metrics.tasks);
    assert_eq!(left, (0, 0, 0, 0), "connections, delayed calls, callbacks and tasks");
    for table in reactor.inspect().tables.iter().filter(|table| table.title != "Loop") {
        assert_eq!(table.count, 0, "{table}");
    }
    assert!(metrics.bytes_received <= metrics.bytes_sent, "nothing comes from nowhere");
    reactor.stop();
    reactor.run().unwrap();
    drop(reactor);
    assert_eq!(open_descriptors(), before);
}

/// The world in which it happens, and the books.
struct Soak {
    reactor: Reactor,
    dice: Dice,
    tally: Rc<Tally>,
    pairs: Rc<RefCell<Vec<Rc<Pair>>>>,
    /// Those that still have an open end, by number.
    open: Vec<usize>,
    connecting: Rc<Cell<usize>>,
    tcp: ListeningPort,
    tls: ListeningPort,
    unix: ListeningPort,
    client_config: Arc<ClientConfig>,
    _folder: tempfile::TempDir,
}

impl Soak {
    fn new(
        reactor: &Reactor,
        server: Arc<ServerConfig>,
        client_config: Arc<ClientConfig>,
        seed: u64,
    ) -> Soak {
        let folder = tempfile::tempdir().unwrap();
        let pairs = Rc::<RefCell<Vec<Rc<Pair>>>>::default();
        let tally = Rc::<Tally>::default();
        let known = Rc::clone(&pairs);
        let counted = Rc::clone(&tally);
        let factory: Rc<dyn Factory> = Rc::new(move |_: &Address| {
            let accepted = Accepted::new(Rc::clone(&known), Rc::clone(&counted));
            Some(Box::new(accepted) as Box<dyn Protocol>)
        });
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let path = folder.path().join("soak.sock");
        let options = UnixListenOptions::default();
        let shared = || Rc::clone(&factory);
        Soak {
            tcp: reactor.listen_tcp(any, shared(), Default::default()).unwrap(),
            tls: reactor.listen_tls(any, shared(), server, Default::default()).unwrap(),
            unix: reactor.listen_unix(path, shared(), options).unwrap(),
            reactor: reactor.clone(),
            dice: Dice(seed.max(1)),
            open: Vec::new(),
            connecting: Rc::default(),
            tally,
            pairs,
            client_config,
            _folder: folder,
        }
    }

    fn turn(&mut self, delay: Duration) {
        let (turned, resolver) = Deferred::new();
        self.reactor.call_later(delay, || resolver.callback(()));
        self.reactor.run_until(turned).unwrap();
        let pairs = self.pairs.borrow();
        self.open.retain(|&number| !pairs[number].is_over());
    }

    fn open_pairs(&self) -> usize {
        self.open.len()
    }

    /// Opens connections, whose ends get busy at once, until so many are open at the same time.
    fn fill(&mut self, pairs_max: usize) {
        while self.open.len() < pairs_max {
            // What is on its way is bounded by what the ports' backlogs hold.
            while self.connecting.get() < OPENED_PER_TURN && self.open.len() < pairs_max {
                self.connect();
            }
            self.steps();
            self.turn(Duration::ZERO);
        }
    }

    fn connect(&mut self) {
        let number = self.pairs.borrow().len();
        let pair = Rc::new(Pair::new(number, &self.tally));
        let kind = pair.kind;
        let protocol = Box::new(Dialled::new(pair.end(0)));
        self.pairs.borrow_mut().push(pair);
        self.open.push(number);
        let connected = match kind {
            Kind::Tls => {
                let name = ServerName::try_from("soak.example").unwrap();
                let config = Arc::clone(&self.client_config);
                self.reactor.connect_tls(self.tls.local_address(), name, config, protocol)
            }
            Kind::Unix => {
                let Address::Unix(address) = self.unix.local() else { unreachable!() };
                self.reactor.connect_unix(address.clone(), protocol)
            }
            Kind::Tcp => self.reactor.connect_tcp(self.tcp.local_address(), protocol),
        };
        self.connecting.set(self.connecting.get() + 1);
        let connecting = Rc::clone(&self.connecting);
        let tally = Rc::clone(&self.tally);
        connected
            .add_both(move |result: Result<Transport, _>| {
                connecting.set(connecting.get() - 1);
                if let Err(failure) = result {
                    tally.complain(format!("connection {number} was not made: {failure:#}"));
                }
                Ok(())
            })
            .detach();
    }

    fn steps(&mut self) {
        for _ in 0..STEPS_PER_TURN {
            self.step();
        }
    }

    /// Has one end do something.
    fn step(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let number = self.open[self.dice.below(self.open.len())];
        let pair = Rc::clone(&self.pairs.borrow()[number]);
        let end = pair.end(self.dice.below(2));
        let Some(transport) = end.transport() else { return };
        match self.dice.below(1_000) {
            0..430 => end.write(&transport, 1 + self.dice.below(1_000)),
            430..470 => end.write(&transport, 1 + self.dice.below(100_000)),
            470..560 => transport.pause_producing(),
            560..700 => transport.resume_producing(),
            700..750 => end.feed(&transport, Streaming::Pull, 1 + self.dice.below(200_000)),
            750..800 => end.feed(&transport, Streaming::Push, 1 + self.dice.below(200_000)),
            800..920 => end.push(&transport),
            920..950 => {
                let high = self.dice.below(100_000);
                transport.set_watermarks(high, high / 2);
            }
            950..975 => end.finish_sending(&transport),
            975..990 => end.close(&transport),
            990..997 => end.abort(&transport),
            _ => {
                // As both at once, whatever the other side is doing.
                pair.end(0).abort_if_open();
                pair.end(1).close_if_open();
            }
        }
    }

    /// Has all ends read and finish what they are at, until the loop holds nothing more.
    fn come_to_an_end(&mut self) {
        self.tally.is_ending.set(true);
        let pairs: Vec<_> = self.pairs.borrow().iter().map(Rc::clone).collect();
        for pair in &pairs {
            pair.end(0).come_to_an_end();
            pair.end(1).come_to_an_end();
        }
        for turn in 0.. {
            let metrics = self.reactor.metrics();
            let is_quiet = metrics.connections == 0 && metrics.pending_calls == 0;
            if is_quiet && self.tally.made.get() == self.tally.lost.get() && self.open.is_empty() {
                break;
            }
            assert!(turn < LAST_TURNS, "no end comes: {}", self.reactor.inspect());
            self.turn(Duration::from_millis(1));
        }
        for port in [&self.tcp, &self.tls, &self.unix] {
            port.stop_listening();
        }
    }

    fn check_books(&self) {
        let tally = &self.tally;
        let complaints = tally.complaints.borrow();
        assert!(complaints.is_empty(), "{} complaints: {:#?}", complaints.len(), &complaints[..1]);
        let pairs = self.pairs.borrow();
        for pair in &*pairs {
            pair.check();
        }
        let metrics = self.reactor.metrics();
        assert_eq!(metrics.connections_opened, tally.made.get() as u64);
        assert_eq!(metrics.accepts, pairs.len() as u64);
        // That the dice gave everything a chance.
        let kinds = [&tally.clean, &tally.aborted, &tally.failed, &tally.ends_of_stream];
        assert!(kinds.iter().all(|count| count.get() > pairs.len() / 100), "{tally:?}");
        assert!(tally.pauses.get() > 0 && tally.stops.get() > 0, "{tally:?}");
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Returns how many connections there may be with both ends here.
fn connections_that_fit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / 2).unwrap_or(usize::MAX);
    if room < CONNECTIONS {
        // Past the test runner's capture: who reads that it passed is to know what did.
        let note = format!("only {room} connections instead of {CONNECTIONS}: raise `ulimit -n`\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes());
    }
    room.min(CONNECTIONS)
}

fn tls_configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let names = vec!["soak.example".to_owned()];
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(names).unwrap();
    let certificate = parameters.self_signed(&signing_key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}
