//! A chat for people with `nc`: what one writes, all others read.
//!
//! `cargo run --example chat 7777`, then `nc localhost 7777` in two terminals.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use ropewalk::{
    Address, ConnectionLost, ListenOptions, ListeningPort, Protocol, Reactor, Transport,
};

/// Who is there.
type Room = Rc<RefCell<BTreeMap<String, Transport>>>;

/// A line may be this long; a longer one ends the connection.
const LINE_BYTES_MAX: usize = 1024;

struct Guest {
    room: Room,
    name: String,
    unfinished_line: Vec<u8>,
}

impl Guest {
    fn say(&self, text: &str) {
        for (name, transport) in &*self.room.borrow() {
            if *name != self.name {
                transport.write(format!("{}: {text}\n", self.name).as_bytes());
            }
        }
    }
}

impl Protocol for Guest {
    fn connection_made(&mut self, transport: &Transport) {
        self.room.borrow_mut().insert(self.name.clone(), transport.clone());
        self.say("hello");
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.unfinished_line.extend_from_slice(data);
        while let Some(end) = self.unfinished_line.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unfinished_line.drain(..=end).collect();
            self.say(String::from_utf8_lossy(&line).trim_end());
        }
        if self.unfinished_line.len() > LINE_BYTES_MAX {
            transport.write(b"that line is too long\n");
            transport.lose_connection();
        }
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.room.borrow_mut().remove(&self.name);
        self.say("goodbye");
    }
}

/// Opens a room for whoever connects to this address.
pub(crate) fn open_room(reactor: &Reactor, address: SocketAddr) -> io::Result<ListeningPort> {
    let room = Room::default();
    let factory = move |peer: &Address| -> Option<Box<dyn Protocol>> {
        let (room, name) = (Rc::clone(&room), peer.to_string());
        Some(Box::new(Guest { room, name, unfinished_line: Vec::new() }))
    };
    reactor.listen_tcp(address, Rc::new(factory), ListenOptions::default())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let reactor = Reactor::new()?;
    reactor.install_signals()?;
    let listening = open_room(&reactor, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    eprintln!("listening on {}", listening.local_address());
    Ok(reactor.run()?)
}
