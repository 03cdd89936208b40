//! Connects over TLS, says something, and prints what comes back.
//!
//! `cargo run --example tls_client tls:localhost:8448:trustRoots=ca.pem hello`; with
//! `pin=sha256//…` instead of `trustRoots=…` the server is known by its key alone.

use std::error::Error;

use ropewalk::endpoint::{ClientEndpoint, DescriptionError};
use ropewalk::{ConnectionLost, Deferred, Protocol, Reactor, Resolver, Transport};

struct Talk {
    words: String,
    answer: Vec<u8>,
    finished: Option<Resolver<String>>,
}

impl Protocol for Talk {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(self.words.as_bytes());
        transport.lose_write_connection();
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.answer.extend_from_slice(data);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        let Some(finished) = self.finished.take() else { return };
        // An answer that was cut off does not pass for a whole one.
        match reason.is_clean() {
            true => finished.callback(String::from_utf8_lossy(&self.answer).into_owned()),
            false => finished.errback(reason),
        }
    }
}

pub(crate) fn talk(reactor: &Reactor, endpoint: &ClientEndpoint, words: &str) -> Deferred<String> {
    let (answer, resolver) = Deferred::new();
    let words = words.to_owned();
    let protocol = Talk { words, answer: Vec::new(), finished: Some(resolver) };
    endpoint.connect(reactor, Box::new(protocol)).add_callback(|_| answer)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let text = arguments.next().ok_or("usage: tls_client ENDPOINT [WORDS]")?;
    let endpoint = text.parse().unwrap_or_else(|error: DescriptionError| {
        eprintln!("error: {error}");
        std::process::exit(2)
    });
    let words = arguments.next().unwrap_or("hello".to_owned());
    let reactor = Reactor::new()?;
    let answer = reactor.run_until(talk(&reactor, &endpoint, &words));
    println!("{}", answer.map_err(|failure| format!("{failure:#}"))?);
    Ok(())
}
