//! The network between hosts: links that take their time and can be cut, and the connections that
//! run over them.
//!
//! Everything that one end of a connection tells the other travels in a *lane*, in order. If the way
//! is cut, or the other machine is down, the lane stalls: its parcels wait, as in a system that tries
//! again and again, until the way is free or the sender gives up.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::agenda::Due;
use super::faults::LinkOptions;
use super::host::Voice;
use super::trace::{Ends, Happening, digest};
use super::world::Shared;
use crate::clock::Instant;
use crate::transport::memory::{self, MemoryStream, News, PIPE_BYTES, Seal, Socket};

/// The links, by the numbers of the hosts that they lead from and to.
#[derive(Default)]
pub(super) struct Links {
    links: RefCell<BTreeMap<(usize, usize), Link>>,
}

#[derive(Default)]
struct Link {
    options: Option<LinkOptions>,
    /// Cut by the test.
    is_cut: bool,
    /// Cut so many times over by faults.
    fault_cuts: u32,
    /// When what was sent so far will have been sent.
    busy_until: Instant,
    /// Lanes that wait for the link to be whole, or the host behind it to be up.
    stalled: Vec<(Weak<Connection>, Side)>,
}

/// A connection between two hosts, or one that is being made.
pub(super) struct Connection {
    world: Weak<Shared>,
    /// Set when nothing passes any more, and nobody was told.
    is_lost: Cell<bool>,
    ends: [End; 2],
    /// What each end has sent.
    lanes: [Lane; 2],
}

struct End {
    host: usize,
    address: SocketAddr,
    /// Empty before and after the socket's life.
    socket: RefCell<Weak<Socket>>,
}

#[derive(Default)]
struct Lane {
    parcels: RefCell<VecDeque<Parcel>>,
    last_arrival: Cell<Instant>,
    stalled_since: Cell<Option<Instant>>,
}

struct Parcel {
    arrives: Instant,
    load: Load,
}

enum Load {
    News(News),
    Open,
    Opened,
    Refused,
}

/// Which end of a connection; as a lane, that which leads away from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Client = 0,
    Server = 1,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// What a socket sends over.
struct Way {
    connection: Rc<Connection>,
    side: Side,
}

impl memory::Network for Way {
    fn carry(&self, news: News) {
        let Some(world) = self.connection.world.upgrade() else { return };
        let news = match (world.host(self.connection.end(self.side).host).voice(), news) {
            (Voice::Silent, _) => return,
            // Whoever dies in the middle of everything has nothing to finish.
            (Voice::Dying, News::Closed | News::Finished) => News::Reset,
            (_, news) => news,
        };
        self.connection.send_news(&world, self.side, news);
    }
}

impl Connection {
    /// Begins to connect; returns the client's end.
    pub(super) fn open(
        world: &Rc<Shared>,
        client: (usize, SocketAddr),
        server: (usize, SocketAddr),
    ) -> MemoryStream {
        let end = |(host, address)| End { host, address, socket: RefCell::default() };
        let connection = Rc::new(Connection {
            world: Rc::downgrade(world),
            is_lost: Cell::new(false),
            ends: [end(client), end(server)],
            lanes: Default::default(),
        });
        world.record(Happening::Connecting { at: connection.label(world, Side::Client) });
        let socket = Rc::new(Socket::connecting(client.1, server.1, PIPE_BYTES));
        connection.put_socket(Side::Client, &socket);
        connection.send(world, Side::Client, Load::Open, 0);
        let timeout = Due::ConnectTimeout(Rc::downgrade(&socket), client.0);
        world.schedule(world.options.connect_timeout, timeout);
        if connection.is_remote() && world.chance.happens(world.faults().losses) {
            let delay = world.chance.between(Duration::ZERO, LOSS_DELAY_MAX);
            let weak = Rc::downgrade(&connection);
            world.schedule(
                delay,
                Due::Call(Box::new(move |world| {
                    if let Some(connection) = weak.upgrade() {
                        connection.lose(world.shared());
                    }
                })),
            );
        }
        MemoryStream::new(socket)
    }

    fn put_socket(self: &Rc<Connection>, side: Side, socket: &Rc<Socket>) {
        self.end(side).socket.replace(Rc::downgrade(socket));
        socket.lead_over(Rc::new(Way { connection: Rc::clone(self), side }));
    }

    fn lose(&self, world: &Shared) {
        if self.lanes.iter().all(|lane| lane.stalled_since.get().is_none()) {
            self.is_lost.set(true);
            world.record(Happening::LinkLost { at: self.label(world, Side::Client) });
        }
    }

    fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    fn lane(&self, side: Side) -> &Lane {
        &self.lanes[side as usize]
    }

    fn is_remote(&self) -> bool {
        self.ends[0].host != self.ends[1].host
    }

    /// Names the lane that leads away from this side.
    fn label(&self, world: &Shared, side: Side) -> Ends {
        let (from, to) = (self.end(side), self.end(side.other()));
        Ends {
            from: world.host(from.host).name(),
            from_port: from.address.port(),
            to: world.host(to.host).name(),
            to_port: to.address.port(),
        }
    }

    // Sending.

    fn send_news(self: &Rc<Connection>, world: &Rc<Shared>, side: Side, news: News) {
        let News::Bytes(bytes, seal) = news else {
            return self.send(world, side, Load::News(news), 0);
        };
        if self.is_remote() && world.chance.happens(world.faults().resets) {
            self.break_off(world, side, bytes, seal);
        } else if seal == Seal::Handshake {
            self.send(world, side, Load::News(News::Bytes(bytes, seal)), HANDSHAKE_BYTES);
        } else {
            self.send_in_parts(world, side, bytes, seal);
        }
    }

    /// Resets the connection in the middle of a write.
    fn break_off(
        self: &Rc<Connection>,
        world: &Rc<Shared>,
        side: Side,
        mut bytes: Vec<u8>,
        seal: Seal,
    ) {
        if seal != Seal::Handshake {
            bytes.truncate(world.chance.below(bytes.len() as u64 + 1) as usize);
            self.send_bytes(world, side, &bytes, seal);
        }
        self.send(world, side, Load::News(News::Reset), 0);
        self.send(world, side.other(), Load::News(News::Reset), 0);
    }

    fn send_in_parts(
        self: &Rc<Connection>,
        world: &Rc<Shared>,
        side: Side,
        bytes: Vec<u8>,
        seal: Seal,
    ) {
        let is_split =
            self.is_remote() && bytes.len() > 1 && world.chance.happens(world.faults().splits);
        let at = match is_split {
            true => 1 + world.chance.below(bytes.len() as u64 - 1) as usize,
            false => bytes.len(),
        };
        let (first, second) = bytes.split_at(at);
        let parts = [first, second];
        // What is sent slowly also arrives little by little.
        let is_slow = world.is_slow(self.end(side).host, self.end(side.other()).host);
        let segment_bytes = if is_slow { SEGMENT_BYTES } else { usize::MAX };
        for segment in parts.into_iter().flat_map(|part| part.chunks(segment_bytes)) {
            self.send_bytes(world, side, segment, seal);
        }
    }

    fn send_bytes(self: &Rc<Connection>, world: &Rc<Shared>, side: Side, bytes: &[u8], seal: Seal) {
        if !bytes.is_empty() {
            let load = Load::News(News::Bytes(bytes.to_vec(), seal));
            self.send(world, side, load, bytes.len());
        }
    }

    fn send(self: &Rc<Connection>, world: &Rc<Shared>, side: Side, load: Load, bytes: usize) {
        let (from, to) = (self.end(side).host, self.end(side.other()).host);
        let lane = self.lane(side);
        let arrives = world.arrival_time(from, to, bytes).max(lane.last_arrival.get());
        lane.last_arrival.set(arrives);
        lane.parcels.borrow_mut().push_back(Parcel { arrives, load });
        if lane.stalled_since.get().is_none() {
            world.schedule_at(arrives, Due::Arrival(Rc::clone(self), side));
        }
    }

    // Arriving.

    /// Delivers the next parcel of this side's lane, if it has come so far. Returns the host that may
    /// have something to do now.
    pub(super) fn arrive(self: &Rc<Connection>, world: &Rc<Shared>, side: Side) -> Option<usize> {
        let lane = self.lane(side);
        let (from, to) = (self.end(side).host, self.end(side.other()).host);
        if lane.stalled_since.get().is_some() {
            return None;
        }
        if lane.parcels.borrow().front()?.arrives > world.now() {
            // It was put off; another arrival is scheduled.
            return None;
        }
        if self.is_lost.get() || world.is_blocked(from, to) {
            self.stall(world, side);
            return None;
        }
        let parcel = lane.parcels.borrow_mut().pop_front()?;
        self.deliver(world, side, parcel.load);
        Some(to)
    }

    fn stall(self: &Rc<Connection>, world: &Shared, side: Side) {
        self.lane(side).stalled_since.set(Some(world.now()));
        let way = (self.end(side).host, self.end(side.other()).host);
        if !self.is_lost.get() {
            let mut links = world.links.links.borrow_mut();
            links.entry(way).or_default().stalled.push((Rc::downgrade(self), side));
        }
        let due = Due::GiveUp(Rc::downgrade(self), side, world.now());
        world.schedule(world.options.silence_timeout, due);
    }

    /// Sends again what waits in this side's lane.
    fn resume(self: &Rc<Connection>, world: &Shared, side: Side) {
        let lane = self.lane(side);
        let Some(since) = lane.stalled_since.take() else { return };
        let (from, to) = (self.end(side).host, self.end(side.other()).host);
        let wait_max = world.now().since(since).min(world.options.retransmit_after_max);
        let pause = world.chance.between(Duration::ZERO, wait_max);
        let arrives = world.arrival_time(from, to, 0) + pause;
        let mut last = arrives;
        for parcel in &mut *lane.parcels.borrow_mut() {
            parcel.arrives = parcel.arrives.max(last);
            last = parcel.arrives;
            world.schedule_at(last, Due::Arrival(Rc::clone(self), side));
        }
        lane.last_arrival.set(lane.last_arrival.get().max(last));
    }

    /// Ends a connection whose lane has stalled for too long. Returns the hosts that are told.
    pub(super) fn give_up(&self, world: &Shared, side: Side, since: Instant) -> Vec<usize> {
        let lane = self.lane(side);
        if lane.stalled_since.get() != Some(since) {
            return Vec::new();
        }
        lane.stalled_since.set(None);
        let parcels = lane.parcels.take();
        // Answers that do not come through leave the other side waiting for them.
        let is_answer = |parcel: &Parcel| {
            matches!(parcel.load, Load::News(News::Read(_)) | Load::Opened | Load::Refused)
        };
        let mut told = Vec::new();
        if !parcels.iter().all(is_answer) {
            told.push(side);
        }
        if parcels.iter().any(is_answer) {
            told.push(side.other());
        }
        told.retain(|&side| self.time_out(world, side));
        told.into_iter().map(|side| self.end(side).host).collect()
    }

    fn time_out(&self, world: &Shared, side: Side) -> bool {
        let socket = self.end(side).socket.borrow().upgrade();
        let Some(socket) = socket.filter(|socket| !socket.has_failed()) else { return false };
        world.record(Happening::GaveUp { at: self.label(world, side) });
        socket.fail(io::ErrorKind::TimedOut);
        true
    }

    fn deliver(self: &Rc<Connection>, world: &Rc<Shared>, side: Side, load: Load) {
        let receiver = side.other();
        let socket = self.end(receiver).socket.borrow().upgrade();
        let socket = socket.filter(|socket| !socket.has_failed());
        match load {
            Load::Open => self.accept(world),
            Load::Opened => match socket {
                Some(socket) => {
                    world.record(Happening::Established { at: self.label(world, receiver) });
                    socket.establish();
                }
                // It has been given up meanwhile.
                None => self.send(world, receiver, Load::News(News::Reset), 0),
            },
            Load::Refused => {
                world.record(Happening::Refused { at: self.label(world, receiver) });
                if let Some(socket) = socket {
                    socket.fail(io::ErrorKind::ConnectionRefused);
                }
            }
            Load::News(news) => {
                self.record_news(world, side, &news);
                match socket {
                    // Only this side of the peer has ended, for all that the network tells.
                    Some(socket) if matches!(news, News::Closed) => {
                        socket.receive(News::Finished);
                    }
                    Some(socket) => socket.receive(news),
                    None if matches!(news, News::Bytes(..)) => {
                        self.send(world, receiver, Load::News(News::Reset), 0);
                    }
                    None => {}
                }
            }
        }
    }

    fn record_news(&self, world: &Shared, side: Side, news: &News) {
        let at = self.label(world, side);
        world.record(match news {
            News::Bytes(bytes, Seal::None) => {
                Happening::Arrived { at, bytes: bytes.len(), digest: digest(bytes) }
            }
            News::Bytes(bytes, Seal::Ciphertext) => {
                Happening::Arrived { at, bytes: bytes.len(), digest: 0 }
            }
            News::Bytes(..) => Happening::HandshakeWentOn { at },
            News::Closed => Happening::Closed { at },
            News::Finished => Happening::Finished { at },
            News::Read(_) => return,
            News::Reset => Happening::Reset { at },
        });
    }

    /// The client's request has come to the server.
    fn accept(self: &Rc<Connection>, world: &Rc<Shared>) {
        let client = self.end(Side::Client).socket.borrow().upgrade();
        if !client.is_some_and(|client| client.is_connecting()) {
            // A system does not ask again for a connection that nobody wants any more.
            return;
        }
        let end = self.end(Side::Server);
        let backlog = world.host(end.host).listener(end.address);
        let is_refused = self.is_remote() && world.chance.happens(world.faults().refusals);
        match backlog {
            Some(backlog) if !backlog.is_full() && !is_refused => {
                let client = self.end(Side::Client).address;
                let socket = Rc::new(Socket::connected(end.address, client, PIPE_BYTES));
                self.put_socket(Side::Server, &socket);
                self.send(world, Side::Server, Load::Opened, 0);
                backlog.push(MemoryStream::new(socket));
            }
            _ => self.send(world, Side::Server, Load::Refused, 0),
        }
    }
}

impl Shared {
    /// Returns when so many bytes arrive that are sent now.
    pub(super) fn arrival_time(&self, from: usize, to: usize, bytes: usize) -> Instant {
        if from == to {
            return self.now() + LOOPBACK_LATENCY;
        }
        let mut links = self.links.links.borrow_mut();
        let link = links.entry((from, to)).or_default();
        let options = link.options.as_ref().unwrap_or(&self.options.link);
        let mut sent = self.now();
        if let Some(rate) = options.bytes_per_second {
            link.busy_until = sent.max(link.busy_until) + time_for(bytes, rate);
            sent = link.busy_until;
        }
        let arrives = sent + self.chance.between(options.latency_min, options.latency_max);
        self.host(to).received_by(arrives, bytes)
    }

    /// Whether the number of bytes matters for when they arrive.
    fn is_slow(&self, from: usize, to: usize) -> bool {
        let links = self.links.links.borrow();
        let options = links.get(&(from, to)).and_then(|link| link.options.as_ref());
        let is_link_slow = options.unwrap_or(&self.options.link).bytes_per_second.is_some();
        from != to && (is_link_slow || self.host(to).reads_slowly())
    }

    /// Whether nothing comes through now.
    pub(super) fn is_blocked(&self, from: usize, to: usize) -> bool {
        if !self.host(to).is_up() {
            return true;
        }
        let links = self.links.links.borrow();
        let link = links.get(&(from, to));
        from != to && link.is_some_and(|link| link.is_cut || link.fault_cuts > 0)
    }

    pub(super) fn set_link(&self, from: usize, to: usize, options: LinkOptions) {
        self.links.links.borrow_mut().entry((from, to)).or_default().options = Some(options);
    }

    pub(super) fn cut(&self, from: usize, to: usize, by: CutBy) {
        if from == to {
            return;
        }
        let mut links = self.links.links.borrow_mut();
        let link = links.entry((from, to)).or_default();
        match by {
            CutBy::Fault => link.fault_cuts += 1,
            CutBy::Test => link.is_cut = true,
        }
        drop(links);
        let (from, to) = (self.host(from).name(), self.host(to).name());
        self.record(Happening::Cut { from, to });
    }

    pub(super) fn mend(&self, from: usize, to: usize, by: CutBy) {
        let mut links = self.links.links.borrow_mut();
        let Some(link) = links.get_mut(&(from, to)) else { return };
        let was_cut = match by {
            CutBy::Fault => std::mem::take(&mut link.fault_cuts),
            CutBy::Test => u32::from(std::mem::take(&mut link.is_cut)),
        };
        drop(links);
        if was_cut > 0 {
            let names = (self.host(from).name(), self.host(to).name());
            self.record(Happening::Healed { from: names.0, to: names.1 });
            self.resume(from, to);
        }
    }

    /// Takes back one of a fault's cuts.
    pub(super) fn mend_once(&self, from: usize, to: usize) {
        let mut links = self.links.links.borrow_mut();
        let Some(link) = links.get_mut(&(from, to)) else { return };
        // All of them may have been taken back already.
        let Some(left) = link.fault_cuts.checked_sub(1) else { return };
        link.fault_cuts = left;
        drop(links);
        if left == 0 {
            let names = (self.host(from).name(), self.host(to).name());
            self.record(Happening::Healed { from: names.0, to: names.1 });
            self.resume(from, to);
        }
    }

    pub(super) fn mend_all(&self) {
        self.nemesis.begin_era();
        let ways: Vec<(usize, usize)> = self.links.links.borrow().keys().copied().collect();
        for (from, to) in ways {
            self.mend(from, to, CutBy::Fault);
            self.mend(from, to, CutBy::Test);
        }
    }

    /// Lets everything pass that waits for this host to be up.
    pub(super) fn resume_all_to(&self, to: usize) {
        let ways: Vec<(usize, usize)> = self.links.links.borrow().keys().copied().collect();
        for way in ways {
            if way.1 == to {
                self.resume(way.0, way.1);
            }
        }
    }

    fn resume(&self, from: usize, to: usize) {
        if self.is_blocked(from, to) {
            return;
        }
        let stalled = match self.links.links.borrow_mut().get_mut(&(from, to)) {
            Some(link) => std::mem::take(&mut link.stalled),
            None => return,
        };
        for (connection, side) in stalled {
            if let Some(connection) = connection.upgrade() {
                connection.resume(self, side);
            }
        }
    }
}

/// Who has cut a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CutBy {
    Fault,
    Test,
}

/// Returns how long it takes to send so many bytes.
pub(super) fn time_for(bytes: usize, bytes_per_second: u64) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What a host sends to itself does not leave the machine.
const LOOPBACK_LATENCY: Duration = Duration::from_micros(20);

/// What a part of a handshake counts, however long it is.
const HANDSHAKE_BYTES: usize = 1_460;

/// What one packet of an Ethernet holds.
const SEGMENT_BYTES: usize = 1_460;

/// A connection that is lost is lost within this time after it was asked for.
const LOSS_DELAY_MAX: Duration = Duration::from_secs(60);
