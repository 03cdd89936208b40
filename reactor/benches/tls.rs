//! TLS 1.3: what a full handshake costs, and what a MiB costs.
//!
//! `cargo bench --bench tls [-- COUNT]` has both ends on one loop, so that both ends' work and the
//! system's is in the figures. `cargo bench --bench tls -- serve PORT CERTIFICATE KEY` is a server alone,
//! which answers whatever comes with 64 MiB behind the head of an HTTP response, to be measured from
//! outside.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use ropewalk::tls::{ClientTls, Identities, Identity, ServerTls};
use ropewalk::{
    Address, ConnectionLost, Deferred, Failure, Producer, Protocol, Reactor, Resolver, Streaming,
    Transport,
};
use rustls::pki_types::ServerName;

const ANSWER_BYTES: usize = 64 * 1024 * 1024;
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// Answers whatever comes.
struct Answer;

impl Protocol for Answer {
    fn data_received(&mut self, transport: &Transport, _: &[u8]) {
        transport
            .write(format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES}\r\n\r\n").as_bytes());
        let pieces = Pieces { transport: transport.clone(), left: Cell::new(ANSWER_BYTES) };
        transport.register_producer(Rc::new(pieces), Streaming::Pull);
    }
}

struct Pieces {
    transport: Transport,
    left: Cell<usize>,
}

impl Producer for Pieces {
    fn pause_producing(&self) {}

    fn resume_producing(&self) {
        self.transport.write(&PIECE);
        self.left.set(self.left.get() - PIECE.len());
        if self.left.get() == 0 {
            self.transport.unregister_producer();
        }
    }

    fn stop_producing(&self) {}
}

/// Asks once it is connected, and says when so many bytes have come.
struct Ask {
    left: usize,
    finished: Option<Resolver<()>>,
}

impl Protocol for Ask {
    fn connection_made(&mut self, transport: &Transport) {
        if self.left > 0 {
            return transport.write(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        transport.lose_connection();
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.left = self.left.saturating_sub(data.len());
        if self.left == 0 {
            transport.lose_connection();
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        if let Some(finished) = self.finished.take() {
            finished.fire(if self.left == 0 { Ok(()) } else { Err(reason.into()) });
        }
    }
}

fn serve(reactor: &Reactor, number: u16, identity: Identity) -> Result<SocketAddr, Failure> {
    let server = ServerTls::new(Identities::new([identity])?).without_resumption();
    let factory = |_: &Address| -> Option<Box<dyn Protocol>> { Some(Box::new(Answer)) };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
    let config = server.config(reactor)?;
    let port = reactor.listen_tls(address, Rc::new(factory), config, Default::default())?;
    Ok(port.local_address())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|text| text != "--bench").collect();
    let reactor = Reactor::new()?;
    if let [command, port, certificate, key] = &arguments[..]
        && command == "serve"
    {
        let identity = Identity::from_pem(&std::fs::read(certificate)?, &std::fs::read(key)?)?;
        serve(&reactor, port.parse()?, identity)?;
        return Ok(reactor.run()?);
    }
    let count: u32 = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(500);
    let names = vec!["localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(Failure::new)?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes())?;
    let address = serve(&reactor, 0, identity)?;
    let connect = |bytes: usize| -> Result<(), Failure> {
        // A configuration for each, so that no session is resumed.
        let client = ClientTls::new().roots_from_pem(certificate.as_bytes())?;
        let config: Arc<rustls::ClientConfig> = client.config(&reactor)?;
        let (finished, resolver) = Deferred::new();
        let name = ServerName::try_from("localhost")?;
        let protocol = Ask { left: bytes, finished: Some(resolver) };
        reactor.connect_tls(address, name, config, Box::new(protocol)).detach();
        reactor.run_until(finished)
    };
    connect(0)?;
    let started = reactor.now();
    for _ in 0..count {
        connect(0)?;
    }
    let handshake = (reactor.now() - started).as_micros() / u128::from(count.max(1));
    let started = reactor.now();
    let answers = (count / 50).max(1);
    for _ in 0..answers {
        connect(ANSWER_BYTES)?;
    }
    let mebibytes = u128::from(answers) * (ANSWER_BYTES / 1024 / 1024) as u128;
    let mebibyte = (reactor.now() - started).as_micros() / mebibytes;
    println!("TLS 1.3: {handshake} us a full handshake, {mebibyte} us a MiB, both ends");
    reactor.stop();
    Ok(reactor.run()?)
}
