//! Datagrams between hosts, which may get lost, come twice, and overtake each other.

use std::net::SocketAddr;
use std::rc::Rc;

use ropewalk::sim::{Faults, Host, World};
use ropewalk::udp::{DatagramProtocol, Interface, UdpOptions, UdpPort};

use super::support::{MILLISECOND, SECOND, even_world};
use crate::support::{Diary, note, read};

struct Recorder(Diary);

impl DatagramProtocol for Recorder {
    fn datagram_received(&mut self, _: &UdpPort, data: &[u8], from: SocketAddr) {
        note(&self.0, format!("{} from {from}", String::from_utf8_lossy(data)));
    }

    fn connection_refused(&mut self, _: &UdpPort) {
        note(&self.0, "refused");
    }
}

fn open(host: &Host, port: u16, diary: &Diary) -> UdpPort {
    let address = SocketAddr::new([0, 0, 0, 0].into(), port);
    let protocol = Box::new(Recorder(Rc::clone(diary)));
    host.reactor().listen_udp(address, protocol, &UdpOptions::default()).unwrap()
}

fn pair(world: &World) -> (Host, Host) {
    (world.host("alice"), world.host("bob"))
}

#[test]
fn a_datagram_takes_its_time_and_says_where_it_is_from() {
    let world = even_world(1);
    let (alice, bob) = pair(&world);
    let diary = Diary::default();
    let (sender, _receiver) = (open(&alice, 7, &Diary::default()), open(&bob, 9, &diary));
    sender.write(b"hello", bob.at(9)).unwrap();
    world.run_for(9 * MILLISECOND);
    assert_eq!(read(&diary), [""; 0]);
    world.run_for(MILLISECOND);
    assert_eq!(read(&diary), [format!("hello from {}", alice.at(7))]);
}

#[test]
fn an_empty_port_refuses_and_a_partition_says_nothing() {
    let world = even_world(1);
    let (alice, bob) = pair(&world);
    let diary = Diary::default();
    let port = open(&alice, 7, &diary);
    port.connect(bob.at(9)).unwrap();
    port.write_to_peer(b"hello?").unwrap();
    world.run_for(SECOND);
    assert_eq!(read(&diary), ["refused"]);
    world.partition(&alice, &bob);
    port.write_to_peer(b"hello?").unwrap();
    world.run_for(60 * SECOND);
    world.heal(&alice, &bob);
    world.run_for(60 * SECOND);
    assert_eq!(read(&diary), [""; 0], "nobody sends a datagram again");
}

#[test]
fn a_group_is_heard_by_its_members_on_all_hosts() {
    let world = even_world(1);
    let (alice, bob) = pair(&world);
    let diaries = [Diary::default(), Diary::default(), Diary::default()];
    let ports = [
        open(&alice, 9, &diaries[0]),
        open(&bob, 9, &diaries[1]),
        open(&world.host("carol"), 9, &diaries[2]),
    ];
    let group = [239, 1, 1, 1].into();
    for port in &ports[..2] {
        port.join_group(group, Interface::Any).unwrap();
    }
    ports[2].write(b"all", SocketAddr::new(group, 9)).unwrap();
    world.run_for(SECOND);
    let heard: Vec<usize> = diaries.iter().map(|diary| read(diary).len()).collect();
    assert_eq!(heard, [1, 1, 0]);
}

#[test]
fn datagrams_are_lost_doubled_and_reordered_at_the_given_rates() {
    let faults = |faults: Faults| {
        let world = even_world(1);
        let (alice, bob) = pair(&world);
        world.set_faults(faults);
        let diary = Diary::default();
        let (sender, _receiver) = (open(&alice, 7, &Diary::default()), open(&bob, 9, &diary));
        for number in 100..200 {
            sender.write(number.to_string().as_bytes(), bob.at(9)).unwrap();
            world.run_for(MILLISECOND);
        }
        world.run_for(SECOND);
        read(&diary)
    };
    let (none, half) = (Faults::none(), 0.5);
    assert_eq!(faults(none.clone()).len(), 100);
    let lost = faults(Faults { datagram_losses: half, ..none.clone() }).len();
    assert!((30..70).contains(&lost), "{lost}");
    let doubled = faults(Faults { datagram_duplicates: half, ..none.clone() }).len();
    assert!((130..170).contains(&doubled), "{doubled}");
    let delayed = faults(Faults { datagram_delays: half, ..none });
    assert_eq!(delayed.len(), 100);
    assert!(!delayed.is_sorted());
}
