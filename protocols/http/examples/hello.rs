//! A small web server: `cargo run --example hello -- 8080`, then `curl http://127.0.0.1:8080/plaintext`.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use http::{HeaderValue, Method, StatusCode, header};
use ropewalk::{Consumer, ListenOptions, Reactor};
use ropewalk_http::{Handler, HeaderBlock, HttpFactory, Limits, Reply, Request, Response};

/// Longest body that `/echo` sends back, in bytes.
const ECHO_BYTES_MAX: u64 = 1 << 20;

struct Hello {
    text_headers: HeaderBlock,
}

impl Handler for Hello {
    fn handle(&self, request: Request) -> Reply {
        match (request.head.method(), request.head.path()) {
            (&Method::GET | &Method::HEAD, "/" | "/plaintext") => Response::new(StatusCode::OK)
                .with_headers(&self.text_headers)
                .with_body("Hello, world!")
                .into(),
            (&Method::POST, "/echo") => request
                .body
                .collect(ECHO_BYTES_MAX)
                .add_callback(|body| Ok(Response::new(StatusCode::OK).with_body(body)))
                .into(),
            (&Method::GET, "/stream") => Response::new(StatusCode::OK)
                .with_stream(None, |writer| {
                    writer.write(b"one\n");
                    writer.write(b"two\n");
                    writer.finish();
                })
                .into(),
            _ => Response::text(StatusCode::NOT_FOUND, "no such page\n").into(),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(8080), |text| text.parse())?;
    let reactor = Reactor::new()?;
    let text_headers =
        HeaderBlock::new([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    let handler = Rc::new(Hello { text_headers });
    let factory = HttpFactory::new(&reactor, handler, Limits::default());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listening = reactor.listen_tcp(address, Rc::new(factory), ListenOptions::default())?;
    println!("http://{}/", listening.local_address());
    reactor.install_signals()?;
    reactor.run()?;
    Ok(())
}
