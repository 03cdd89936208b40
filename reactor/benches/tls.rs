//! TLS 1.3: what full handshakes and a long answer cost a server, in CPU time of its process.
//!
//! `cargo bench --bench tls [-- 'OTHER-SERVER {port} {certificate} {key}' ..]`: each command is another
//! server to be measured in the same run, by turns with ours. It answers a request that ends in an empty
//! line with a head and 64 MiB. No server hands out session tickets; each handshake is a full one.
#![expect(clippy::disallowed_methods, reason = "processes and a blocking client, in no reactor")]

mod rig;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ropewalk::tls::{Identities, Identity, ServerTls};
use ropewalk::{Address, Producer, Protocol, Reactor, Streaming, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use rig::Server;

const ROUNDS: usize = 5;
const HANDSHAKES_PER_ROUND: usize = 300;
const ANSWERS_PER_ROUND: usize = 4;
const ANSWER_PIECES: usize = 64;
const PIECE_BYTES: usize = 1 << 20;

/// Sends the long answer when a request has come to its end.
struct Answerer {
    last: [u8; 4],
    piece: Bytes,
}

impl Protocol for Answerer {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        for &byte in data {
            self.last.rotate_left(1);
            self.last[3] = byte;
        }
        if &self.last == b"\r\n\r\n" {
            let length = ANSWER_PIECES * PIECE_BYTES;
            transport
                .write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
            let left = std::cell::Cell::new(ANSWER_PIECES);
            let answer = Answer { left, piece: self.piece.clone(), transport: transport.clone() };
            transport.register_producer(Rc::new(answer), Streaming::Pull);
        }
    }
}

struct Answer {
    left: std::cell::Cell<usize>,
    piece: Bytes,
    transport: Transport,
}

impl Producer for Answer {
    fn pause_producing(&self) {}

    fn resume_producing(&self) {
        self.transport.write_bytes(self.piece.clone());
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            self.transport.unregister_producer();
        }
    }

    fn stop_producing(&self) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let words = rig::words();
    if let [verb, port, certificate, key] = &words[..]
        && verb == "serve"
    {
        return serve(port.parse()?, certificate.as_ref(), key.as_ref());
    }
    let folder = tempfile::tempdir()?;
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(&certificate, pair.cert.pem())?;
    std::fs::write(&key, pair.signing_key.serialize_pem())?;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());

    let mut servers = vec![Server::of_ours(&[&certificate, &key])?];
    for line in &words {
        servers.push(Server::of_peer(line, &[("{certificate}", &certificate), ("{key}", &key)])?);
    }
    let config = client_config(certificate.as_ref())?;
    let mut figures = vec![(0.0, 0.0); servers.len()];
    for _ in 0..ROUNDS {
        for (server, (handshakes, answers)) in servers.iter().zip(&mut figures) {
            let before = rig::cpu::micros(server.process_id());
            for _ in 0..HANDSHAKES_PER_ROUND {
                shake_hands(server.address, &config)?;
            }
            let between = rig::cpu::micros(server.process_id());
            for _ in 0..ANSWERS_PER_ROUND {
                take_answer(server.address, &config)?;
            }
            *handshakes += between - before;
            *answers += rig::cpu::micros(server.process_id()) - between;
        }
    }
    for (server, (handshakes, answers)) in servers.iter().zip(figures) {
        println!(
            "TLS 1.3, {}: {:.1} us of the server's CPU a handshake, {:.1} us a MiB",
            server.name,
            handshakes / (ROUNDS * HANDSHAKES_PER_ROUND) as f64,
            answers / (ROUNDS * ANSWERS_PER_ROUND * ANSWER_PIECES) as f64,
        );
    }
    Ok(())
}

fn serve(port: u16, certificate: &Path, key: &Path) -> Result<(), Box<dyn Error>> {
    let reactor = Reactor::new()?;
    let identity = Identity::from_pem(&std::fs::read(certificate)?, &std::fs::read(key)?)?;
    let tls = ServerTls::new(Identities::new([identity])?).without_resumption();
    let piece = Bytes::from(vec![b'x'; PIECE_BYTES]);
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> {
        Some(Box::new(Answerer { last: [0; 4], piece: piece.clone() }))
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    reactor.listen_tls(address, Rc::new(factory), tls.config(&reactor)?, Default::default())?;
    Ok(reactor.run()?)
}

fn client_config(certificate: &Path) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let versions = [&rustls::version::TLS13];
    let config = ClientConfig::builder_with_protocol_versions(&versions)
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<(ClientConnection, TcpStream), Box<dyn Error>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    Ok((ClientConnection::new(Arc::clone(config), name)?, stream))
}

fn shake_hands(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<(), Box<dyn Error>> {
    let (mut session, mut stream) = connect(address, config)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    session.send_close_notify();
    while session.wants_write() {
        session.write_tls(&mut stream)?;
    }
    Ok(())
}

fn take_answer(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<(), Box<dyn Error>> {
    let (mut session, mut stream) = connect(address, config)?;
    let mut tls = rustls::Stream::new(&mut session, &mut stream);
    tls.write_all(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut left = ANSWER_PIECES * PIECE_BYTES;
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        match tls.read(&mut buffer)? {
            0 => return Err("the answer ended early".into()),
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}
