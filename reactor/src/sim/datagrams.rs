//! Datagrams between hosts: each on its own, and each may get lost, come twice, or be overtaken.

use std::net::SocketAddr;
use std::time::Duration;

use super::agenda::Due;
use super::host::HostState;
use super::trace::{Ends, Happening, digest};
use super::world::Shared;

/// A datagram under way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    from_host: usize,
    to_host: usize,
    from: SocketAddr,
    to: SocketAddr,
    load: Load,
}

#[derive(Clone, Debug)]
enum Load {
    Data(Vec<u8>),
    /// The answer to one that found nobody.
    NobodyThere,
}

impl Shared {
    /// Sends a datagram, or to a multicast group as many as there are hosts.
    pub(super) fn send_datagram(
        &self,
        sender: &HostState,
        local_port: u16,
        to: SocketAddr,
        data: &[u8],
    ) {
        let receivers: Vec<usize> = match to.ip().is_multicast() {
            true => self.all_hosts().iter().map(|host| host.number).collect(),
            // To an address that nobody has, it goes for nothing.
            false => self.number_at(to.ip()).into_iter().collect(),
        };
        let from = SocketAddr::new(sender.source_address(to.ip()), local_port);
        for to_host in receivers {
            let load = Load::Data(data.to_vec());
            let datagram = Datagram { from_host: sender.number, to_host, from, to, load };
            self.launch(datagram, data.len());
        }
    }

    /// Sends it on its way, as chance will have it.
    fn launch(&self, datagram: Datagram, bytes: usize) {
        let (from, to) = (datagram.from_host, datagram.to_host);
        let faults = self.faults();
        if from != to && self.chance.happens(faults.datagram_losses) {
            return self.record(Happening::DatagramLost { at: self.label(&datagram) });
        }
        let mut arrives = self.arrival_time(from, to, bytes);
        if from != to && self.chance.happens(faults.datagram_delays) {
            arrives += self.chance.between(Duration::ZERO, DELAY_MAX);
        }
        if from != to && self.chance.happens(faults.datagram_duplicates) {
            let again = arrives + self.chance.between(Duration::ZERO, DELAY_MAX);
            self.schedule_at(again, Due::Datagram(datagram.clone()));
        }
        self.schedule_at(arrives, Due::Datagram(datagram));
    }

    /// Returns the host that may have something to do now.
    pub(super) fn deliver_datagram(&self, datagram: Datagram) -> Option<usize> {
        let Datagram { from_host, to_host, from, to, ref load } = datagram;
        let at = self.label(&datagram);
        if self.is_blocked(from_host, to_host) {
            self.record(Happening::DatagramLost { at });
            return None;
        }
        let process = self.host(to_host).process();
        match load {
            Load::Data(data) => {
                let arrived = (data.len(), digest(data));
                let is_taken =
                    process.is_some_and(|process| process.backend.post().deliver(from, to, data));
                if is_taken || to.ip().is_multicast() {
                    let (bytes, digest) = arrived;
                    self.record(Happening::DatagramArrived { at, bytes, digest });
                } else {
                    self.record(Happening::DatagramLost { at });
                    let answer = Datagram {
                        from_host: to_host,
                        to_host: from_host,
                        from: to,
                        to: from,
                        load: Load::NobodyThere,
                    };
                    self.launch(answer, 0);
                }
            }
            Load::NobodyThere => process?.backend.post().refuse(to.port(), from),
        }
        Some(to_host)
    }

    fn label(&self, datagram: &Datagram) -> Ends {
        Ends {
            from: self.host(datagram.from_host).name(),
            from_port: datagram.from.port(),
            to: self.host(datagram.to_host).name(),
            to_port: datagram.to.port(),
        }
    }
}

/// How much longer than others a delayed datagram takes at most: enough to be overtaken by many.
const DELAY_MAX: Duration = Duration::from_millis(500);
