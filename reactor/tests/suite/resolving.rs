//! Looking up the names of hosts.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::resolver::{HostResolver, HostTable, ResolveError};
use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{CancelledError, Deferred, Reactor};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_is_its_own_answer_at_once() {
    let clock = Clock::new();
    for text in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
        let addresses = success_result_of(clock.reactor().resolve_host(text));
        assert_eq!(addresses, [address(text.trim_matches(['[', ']']))]);
    }
    assert_eq!(clock.hosts().lookup_count(), 0);
}

#[test]
fn those_who_ask_at_the_same_time_share_a_lookup() {
    let clock = Clock::new();
    let minute = Duration::from_secs(20);
    clock.hosts().add_slow("hs.example", minute, ["192.0.2.1", "192.0.2.1", "::1"].map(address));
    let asked =
        ["hs.example", "HS.example.", "hs.example"].map(|n| clock.reactor().resolve_host(n));
    clock.pump();
    for answer in &asked {
        assert_no_result(answer);
    }
    clock.advance(minute);
    for answer in asked {
        assert_eq!(success_result_of(answer), ["192.0.2.1", "::1"].map(address), "each once");
    }
    assert_eq!(clock.hosts().lookup_count(), 1);
    let again = clock.reactor().resolve_host("hs.example");
    clock.advance(minute);
    success_result_of(again);
    assert_eq!(clock.hosts().lookup_count(), 2, "answers are not kept");
}

#[test]
fn cancelling_leaves_the_others_waiting_and_the_last_gives_the_lookup_up() {
    let clock = Clock::new();
    let second = Duration::from_secs(1);
    clock.hosts().add_slow("hs.example", second, [address("192.0.2.1")]);
    let [first, second_asker] = [0, 1].map(|_| clock.reactor().resolve_host("hs.example"));
    first.cancel();
    assert!(failure_result_of(first).is::<CancelledError>());
    clock.advance(second);
    success_result_of(second_asker);

    let only = clock.reactor().resolve_host("hs.example");
    only.cancel();
    assert!(failure_result_of(only).is::<CancelledError>());
    assert_eq!(clock.pending_calls(), 0, "neither the answer nor the limit is waited for");
    let again = clock.reactor().resolve_host("hs.example");
    clock.advance(second);
    success_result_of(again);
}

#[test]
fn each_way_of_having_no_address_says_so() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    clock.hosts().add("empty.example", []);
    clock.hosts().add_slow("slow.example", Duration::from_secs(31), [address("192.0.2.1")]);
    clock.hosts().add_failing("ill.example", Duration::ZERO, std::io::Error::other("out of order"));
    for (name, expected) in [
        ("no such host", "is no name of a host: only letters"),
        ("unknown.example", "no host is called \"unknown.example\""),
        ("empty.example", "no host is called \"empty.example\""),
        ("slow.example", "no answer within 30 s"),
        ("ill.example", "out of order"),
    ] {
        let answer = reactor.resolve_host(name);
        clock.advance(Duration::from_secs(30));
        let failure = failure_result_of(answer);
        assert!(failure.to_string().contains(expected), "{name}: {failure}");
    }
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn a_program_may_bring_its_own_resolver_and_ask_the_one_before() {
    struct Overlay(Rc<dyn HostResolver>);
    impl HostResolver for Overlay {
        fn resolve_host(&self, reactor: &Reactor, name: &str) -> Deferred<Vec<IpAddr>> {
            match name {
                "home.internal" => Deferred::succeed(vec![address("192.0.2.9")]),
                "panics.internal" => panic!("out of ink"),
                _ => self.0.resolve_host(reactor, name),
            }
        }
    }
    let clock = Clock::new();
    let reactor = clock.reactor();
    reactor.set_host_resolver(Rc::new(Overlay(reactor.host_resolver())));
    let found = success_result_of(reactor.resolve_host("Home.Internal"));
    assert_eq!(found, [address("192.0.2.9")]);
    let localhost = reactor.resolve_host("localhost");
    clock.pump();
    assert_eq!(success_result_of(localhost), [address("127.0.0.1")]);
    let failure = failure_result_of(reactor.resolve_host("panics.internal"));
    assert!(failure.is::<ropewalk::Panicked>(), "{failure}");
}

#[test]
fn those_who_wait_when_the_reactor_stops_are_told() {
    let clock = Clock::new();
    clock.hosts().add_slow("hs.example", Duration::from_secs(9), [address("192.0.2.1")]);
    let answer = clock.reactor().resolve_host("hs.example");
    drop(clock);
    assert_eq!(failure_result_of(answer).to_string(), "the reactor has stopped");
}

#[test]
fn a_table_is_a_resolver_for_a_real_reactor_too() {
    let reactor = Reactor::new().unwrap();
    let table = HostTable::new();
    table.add("hs.example", [address("192.0.2.1")]);
    reactor.set_host_resolver(Rc::new(table.clone()));
    let found = reactor.run_until(reactor.resolve_host("hs.example")).unwrap();
    assert_eq!(found, [address("192.0.2.1")]);
    table.remove("hs.example");
    let failure = reactor.run_until(reactor.resolve_host("hs.example")).unwrap_err();
    assert!(failure.downcast_ref::<ResolveError>().is_some(), "{failure}");
    reactor.stop();
    reactor.run().unwrap();
}

#[test]
fn the_system_knows_localhost() {
    let reactor = Reactor::new().unwrap();
    let found = reactor.run_until(reactor.resolve_host("localhost")).unwrap();
    assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    reactor.stop();
    reactor.run().unwrap();
}
