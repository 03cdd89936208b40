//! Passes connections on to another address, no faster than the slower side takes the bytes.
//!
//! `cargo run --example proxy 8080 127.0.0.1:80`, then `curl localhost:8080`.

use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use ropewalk::{
    Address, ConnectionLost, ListenOptions, ListeningPort, Protocol, Reactor, Streaming, Transport,
};

/// One side of a connection that is passed on.
struct Side {
    /// Tells an accepted connection where to go on to.
    upstream: Option<(Reactor, SocketAddr)>,
    other: Rc<OnceCell<Transport>>,
}

impl Protocol for Side {
    fn connection_made(&mut self, transport: &Transport) {
        let Some((reactor, upstream)) = self.upstream.take() else { return };
        // Nothing is read as long as there is nowhere to put it.
        transport.pause_producing();
        let near = transport.clone();
        let far_side = Side { upstream: None, other: Rc::new(OnceCell::from(near.clone())) };
        let other = Rc::clone(&self.other);
        let connected = reactor.connect_tcp(upstream, Box::new(far_side)).add_both(move |far| {
            let far = far.inspect_err(|_| near.lose_connection())?;
            // Each is the producer of the other: paused while the other has too much to send.
            far.register_producer(Rc::new(near.clone()), Streaming::Push);
            near.register_producer(Rc::new(far.clone()), Streaming::Push);
            near.resume_producing();
            let _ = other.set(far);
            Ok(())
        });
        connected.detach(); // A failure is logged.
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        if let Some(other) = self.other.get() {
            other.write(data);
        }
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        let Some(other) = self.other.get() else { return transport.lose_connection() };
        other.unregister_producer();
        other.lose_write_connection();
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        let Some(other) = self.other.get() else { return };
        other.unregister_producer();
        if reason.is_clean() { other.lose_connection() } else { other.abort_connection() }
    }
}

pub(crate) fn serve(r: &Reactor, from: SocketAddr, to: SocketAddr) -> io::Result<ListeningPort> {
    let reactor = r.clone();
    let factory = move |_: &Address| {
        let side = Side { upstream: Some((reactor.clone(), to)), other: Rc::default() };
        Some(Box::new(side) as Box<dyn Protocol>)
    };
    r.listen_tcp(from, Rc::new(factory), ListenOptions::default())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, upstream] = &arguments[..] else {
        return Err("usage: proxy PORT ADDRESS, such as 8080 127.0.0.1:80".into());
    };
    let reactor = Reactor::new()?;
    reactor.install_signals()?;
    let from = serve(&reactor, ([127, 0, 0, 1], port.parse()?).into(), upstream.parse()?)?;
    eprintln!("listening on {}", from.local());
    Ok(reactor.run()?)
}
