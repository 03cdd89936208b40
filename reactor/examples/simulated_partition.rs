//! A chat, three guests, and a network that is cut between them for a minute: in no time at all.
//!
//! `cargo run --example simulated_partition`; with `ROPEWALK_SIM_SEEDS=1000` for a thousand seeds.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::sim::{self, Host, Leftover, World};
use ropewalk::{Protocol, Transport};

#[path = "chat.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod chat;

const MINUTE: Duration = Duration::from_secs(60);

/// What a guest has read so far.
type Screen = Rc<RefCell<String>>;

struct Guest(Screen);

impl Protocol for Guest {
    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.0.borrow_mut().push_str(&String::from_utf8_lossy(data));
    }
}

fn enter(world: &World, guest: &Host, server: &Host) -> (Transport, Screen) {
    let screen = Screen::default();
    let protocol = Box::new(Guest(Rc::clone(&screen)));
    let connected = guest.reactor().connect_tcp(server.at(7777), protocol);
    (world.run_until_result(connected, MINUTE).expect("the server listens"), screen)
}

/// Anna and Bert chat; Clara is cut off meanwhile, and reads it all afterwards.
fn partition(world: &World) {
    let server = world.host("server");
    server.run(|reactor, host| {
        chat::open_room(reactor, host.at(7777)).expect("the port is free");
    });
    let [anna, bert, clara] = ["anna", "bert", "clara"].map(|name| world.host(name));
    let (annas_line, _) = enter(world, &anna, &server);
    let (berts_line, berts_screen) = enter(world, &bert, &server);
    let (_, claras_screen) = enter(world, &clara, &server);
    world.run_for(MINUTE);
    claras_screen.take();

    world.partition(&clara, &server);
    annas_line.write(b"is Clara here?\n");
    world.run_until(|| berts_screen.borrow().contains("is Clara here?"), MINUTE);
    berts_line.write(b"she does not answer\n");
    world.run_for(MINUTE);
    assert_eq!(*claras_screen.borrow(), "", "nothing gets through to her");

    world.heal(&clara, &server);
    world.run_until(|| claras_screen.borrow().lines().count() == 2, MINUTE);
    let lines: Vec<String> = claras_screen.borrow().lines().map(str::to_owned).collect();
    assert!(lines[0].ends_with("is Clara here?") && lines[1].ends_with("she does not answer"));
    world.tolerate(Leftover::Connections);
}

pub(crate) fn run() {
    sim::check("a chat with a partition in it", partition);
}

fn main() {
    run();
    println!("Clara has read it all, with each seed");
}
