//! Keep-alive `GET` over loopback TCP, both ends on one loop: COUNT requests on each of 64 connections.
//!
//! `cargo bench -p ropewalk-http [-- COUNT]`. Both ends' work and the system's is in the figure; what the server
//! alone costs is counted with `examples/hello.rs` under callgrind, see the README.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use http::{HeaderValue, Method, StatusCode, header};
use ropewalk::{
    Deferred, Failure, ListenOptions, Protocol, Reactor, Resolver, Transport, gather_results,
};
use ropewalk_http::{
    ClientCodec, HeaderBlock, HttpFactory, Limits, Reply, Request, Response, ResponseEvent,
};

const CONNECTIONS: u32 = 64;
const GET: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Asks again each time it has been answered.
struct Asker {
    codec: ClientCodec,
    left: u32,
    finished: Option<Resolver<()>>,
}

impl Asker {
    fn ask(&mut self, transport: &Transport) {
        self.codec.expect_response(&Method::GET);
        transport.write(GET);
    }
}

impl Protocol for Asker {
    fn connection_made(&mut self, transport: &Transport) {
        self.ask(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let mut input = data;
        while let Some(event) = self.codec.next_event(&mut input).expect("our own server") {
            if !matches!(event, ResponseEvent::End) {
                continue;
            }
            self.left = self.left.saturating_sub(1);
            if self.left > 0 {
                self.ask(transport);
            } else if let Some(finished) = self.finished.take() {
                finished.callback(());
            }
        }
    }
}

fn main() -> Result<(), Failure> {
    let count = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(2_000);
    let reactor = Reactor::new()?;
    let plain = HeaderBlock::new([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    let handler = move |request: Request| match request.head.path() {
        "/plaintext" => Reply::Now(
            Response::new(StatusCode::OK).with_headers(&plain).with_body("Hello, world!"),
        ),
        _ => Reply::Now(Response::new(StatusCode::NOT_FOUND)),
    };
    let factory = HttpFactory::new(&reactor, Rc::new(handler), Limits::default());
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let port = reactor.listen_tcp(any, Rc::new(factory), ListenOptions::default())?;
    let started = reactor.now();
    let finished = (0..CONNECTIONS)
        .map(|_| {
            let (deferred, resolver) = Deferred::new();
            let codec = ClientCodec::new(&Limits::default());
            let asker = Asker { codec, left: count, finished: Some(resolver) };
            reactor.connect_tcp(port.local_address(), Box::new(asker)).detach();
            deferred
        })
        .collect();
    reactor.run_until(gather_results(finished))?;
    let elapsed = reactor.now().since(started);
    let requests = u64::from(CONNECTIONS) * u64::from(count);
    let nanos = elapsed.as_nanos() / u128::from(requests.max(1));
    println!("{requests} requests on {CONNECTIONS} connections: {nanos} ns each, both ends");
    Ok(())
}
