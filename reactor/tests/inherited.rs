//! Sockets that come with the process. The test starts itself as such a process.

#![cfg(target_os = "linux")]

use std::os::fd::OwnedFd;
use std::rc::Rc;

use ropewalk::endpoint::ServerEndpoint;
use ropewalk::process::{Command, StandardStream};
use ropewalk::{
    Address, ConnectionLost, Deferred, Factory, Protocol, Reactor, Resolver, Transport,
};

/// Answers with its name and ends; or collects the answer.
struct Peer {
    name: Option<&'static str>,
    heard: Vec<u8>,
    over: Option<Resolver<Vec<u8>>>,
}

impl Protocol for Peer {
    fn connection_made(&mut self, transport: &Transport) {
        if let Some(name) = self.name {
            transport.write(name.as_bytes());
            transport.lose_connection();
        }
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.heard.extend_from_slice(data);
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        if let Some(over) = self.over.take() {
            over.callback(std::mem::take(&mut self.heard));
        }
    }
}

fn peer(name: Option<&'static str>) -> (Box<Peer>, Deferred<Vec<u8>>) {
    let (deferred, resolver) = Deferred::new();
    (Box::new(Peer { name, heard: Vec::new(), over: Some(resolver) }), deferred)
}

/// What the process does that was started with sockets.
fn serve() {
    let reactor = Reactor::new().unwrap();
    let mut inherited = reactor.inherited_sockets();
    assert_eq!(inherited.names(), ["web", "odd"]);
    assert!(std::env::var_os("LISTEN_FDS").is_none());
    assert!(reactor.inherited_sockets().is_empty(), "given once");
    let (server, served) = peer(Some("served"));
    let server = std::cell::RefCell::new(Some(server as Box<dyn Protocol>));
    let factory = move |_: &Address| server.take();
    let socket = inherited.take_named("web").unwrap().unwrap();
    assert!(inherited.take(0).unwrap().is_none(), "taken");
    assert!(inherited.take_named("odd").unwrap_err().to_string().contains("is no TCP"));
    let port = reactor.adopt_listener(socket, Rc::new(factory)).unwrap();
    reactor.run_until(served).unwrap();
    port.stop_listening();
}

/// As [`serve`], by the description of an endpoint.
fn serve_as_described() {
    let reactor = Reactor::new().unwrap();
    let (server, served) = peer(Some("served"));
    let server = std::cell::RefCell::new(Some(server as Box<dyn Protocol>));
    let factory: Rc<dyn Factory> = Rc::new(move |_: &Address| server.take());
    let listen = |description: &str| {
        let endpoint: ServerEndpoint = description.parse().unwrap();
        endpoint.listen(&reactor, Rc::clone(&factory)).into_result().unwrap()
    };
    let error = |description| listen(description).unwrap_err().to_string();
    assert!(error("systemd:index=1").contains("is no TCP"));
    let port = listen("systemd:domain=UNIX:name=web").unwrap();
    assert_eq!(
        error("systemd:index=0"),
        "no socket number 0 is left of those that this process was started with: there were 2, with \
         the names [\"web\", \"odd\"]"
    );
    reactor.run_until(served).unwrap();
    port.stop_listening();
}

#[test]
fn sockets_of_a_service_manager_are_found_by_name() {
    inherit("sockets_of_a_service_manager_are_found_by_name", serve);
}

#[test]
fn endpoints_listen_on_sockets_of_a_service_manager() {
    inherit("endpoints_listen_on_sockets_of_a_service_manager", serve_as_described);
}

fn inherit(test: &str, serve: fn()) {
    if std::env::var_os("ROPEWALK_TEST_INHERITS").is_some() {
        return serve();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web");
    let reactor = Reactor::new().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // A shell moves its standard input to where the protocol wants it, and keeps its number.
    let script = "LISTEN_PID=$$ exec \"$@\" 3<&0 4</dev/null";
    let command = Command::new("/bin/sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("ROPEWALK_TEST_INHERITS", "1")
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "web:odd")
        .stdin(StandardStream::Descriptor(OwnedFd::from(listener)));
    let output = reactor.process_output(command, 1_000_000);
    // Nobody has to wait until it listens: the socket does already.
    let (client, answer) = peer(None);
    let connected = reactor.connect_unix(path.as_path(), client);
    reactor.run_until(connected).unwrap();
    let output = reactor.run_until(output).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(reactor.run_until(answer).unwrap(), b"served");
}
