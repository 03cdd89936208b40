//! The two examples of TLS, with each other.

#[path = "../../../examples/tls_client.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod client;
#[path = "../../../examples/tls_server.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod server;

use ropewalk::endpoint::ClientEndpoint;
use ropewalk::testing::{Clock, failure_result_of, success_result_of};
use ropewalk::tls::SpkiPin;
use ropewalk::{Reactor, Signal};

use crate::certificates::Authority;

fn write(clock: &Clock, path: &str, contents: &str) {
    let written = clock.reactor().files().write_atomically(path.to_owned(), contents.to_owned());
    clock.pump();
    success_result_of(written);
}

#[test]
fn they_talk_and_the_certificate_can_be_renewed() {
    let authority = Authority::new("authority");
    let clock = Clock::new();
    let renew = || {
        let (certificate, key) = authority.certify_pem(&["localhost"]);
        write(&clock, "/hs.pem", &format!("{certificate}{key}"));
        let identity = ropewalk::tls::Identity::from_pem(certificate.as_bytes(), key.as_bytes());
        identity.unwrap().pin().unwrap()
    };
    let first_pin = renew();
    write(&clock, "/ca.pem", &authority.pem);
    let endpoint = "ssl:8448:interface=127.0.0.1:privateKey=/hs.pem".parse().unwrap();
    let port = server::serve(clock.reactor(), endpoint);
    clock.pump();
    success_result_of(port);
    let talk = |settings: String| {
        let endpoint: ClientEndpoint = format!("tls:localhost:8448:{settings}").parse().unwrap();
        let answer = client::talk(clock.reactor(), &endpoint, "hello");
        clock.pump();
        answer
    };
    let by_pin = |pin: SpkiPin| talk(format!("pin={pin}"));
    let expected = "TLSv1_3, you asked for localhost\nhello";
    assert_eq!(success_result_of(talk("trustRoots=/ca.pem".to_owned())), expected);
    assert_eq!(success_result_of(by_pin(first_pin)), expected);
    let second_pin = renew();
    failure_result_of(by_pin(second_pin));
    clock.raise(Signal::Hangup);
    assert_eq!(success_result_of(by_pin(second_pin)), expected);
    failure_result_of(by_pin(first_pin));
}

#[test]
fn they_talk_over_real_sockets_and_files() {
    let authority = Authority::new("authority");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = authority.certify_pem(&["localhost"]);
    for (name, contents) in [("c.pem", &certificate), ("k.pem", &key), ("ca.pem", &authority.pem)] {
        std::fs::write(path(name), contents).unwrap();
    }
    let reactor = Reactor::new().unwrap();
    let description =
        format!("ssl:0:interface=127.0.0.1:privateKey={}:certKey={}", path("k.pem"), path("c.pem"));
    let port = reactor.run_until(server::serve(&reactor, description.parse().unwrap())).unwrap();
    let number = port.local_address().port();
    let description = format!("tls:localhost:{number}:trustRoots={}", path("ca.pem"));
    let answer = client::talk(&reactor, &description.parse().unwrap(), "hello");
    let answer = reactor.run_until(answer).unwrap();
    assert!(answer.ends_with("you asked for localhost\nhello"), "{answer}");
    reactor.stop();
    reactor.run().unwrap();
}
