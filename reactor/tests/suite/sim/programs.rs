//! Programs made of what the crate offers, unchanged, in a world that fails them.

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::endpoint::ClientEndpoint;
use ropewalk::policy::{ClientState, ReconnectOptions, ReconnectingClient};
use ropewalk::sim::{self, Faults, Leftover, World, WorldOptions};
use ropewalk::{Protocol, Reactor, Service, Transport};

use super::support::{SECOND, serve};
use crate::support::Echo;

/// Counts the bytes that come back.
struct Pinger {
    answers: Rc<Cell<u32>>,
}

impl Protocol for Pinger {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b".");
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.answers.set(self.answers.get() + data.len() as u32);
    }
}

fn keep_pinging(reactor: &Reactor, transport: Transport) {
    let handle = reactor.clone();
    reactor.call_later(SECOND, move || {
        if transport.is_connected() {
            transport.write(b".");
            keep_pinging(&handle, transport);
        }
    });
}

impl Pinger {
    fn start(reactor: &Reactor, answers: &Rc<Cell<u32>>) {
        // By name, and by whatever address that has.
        let endpoint: ClientEndpoint = "tcp:server:80".parse().unwrap();
        let (handle, answers) = (reactor.clone(), Rc::clone(answers));
        let build = move || Box::new(Pinger { answers: Rc::clone(&answers) }) as Box<dyn Protocol>;
        let client = ReconnectingClient::new("pings", endpoint, build, ReconnectOptions::default());
        client.observe(move |state| {
            if let ClientState::Connected(transport) = state {
                keep_pinging(&handle, transport.clone());
            }
        });
        client.start(reactor).detach();
    }
}

#[test]
fn a_reconnecting_client_comes_back_whatever_happens_to_either_end() {
    let options = WorldOptions {
        faults: Faults::harsh(),
        // Half a connection is noticed within a minute, as with keep-alive probes.
        silence_timeout: 60 * SECOND,
        ..WorldOptions::default()
    };
    sim::check_with("a client that reconnects", &options, |world: &World| {
        let answers: Rc<Cell<u32>> = Rc::default();
        world.host("server").run(|reactor, _| serve(reactor, || Echo));
        let count = Rc::clone(&answers);
        world.host("client").run(move |reactor, _| Pinger::start(reactor, &count));
        world.run_for(600 * SECOND);
        assert!(answers.get() > 10, "something gets through");
        world.calm();
        world.run_for(300 * SECOND);
        let before = answers.get();
        world.run_for(60 * SECOND);
        assert!(answers.get() >= before + 50, "{} answers in a minute", answers.get() - before);
        world.tolerate(Leftover::Connections);
        world.tolerate(Leftover::Timers);
    });
}
