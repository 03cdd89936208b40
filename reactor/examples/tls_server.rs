//! Says over TLS what was agreed on, and then repeats what it is told. SIGHUP has it read its
//! certificate again, for new connections.
//!
//! `cargo run --example tls_server ssl:8448:privateKey=hs.key:certKey=hs.pem`

use std::error::Error;
use std::rc::Rc;

use ropewalk::endpoint::{DescriptionError, ServerEndpoint, ServerTlsFiles};
use ropewalk::tls::Identities;
use ropewalk::{Address, Deferred, Failure, ListeningPort, Protocol, Reactor, Signal, Transport};

struct Greeter;

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &Transport) {
        if let Some(tls) = transport.tls() {
            let name = tls.server_name.as_deref().unwrap_or("nobody in particular");
            let text = format!("{:?}, you asked for {name}\n", tls.protocol_version);
            transport.write(text.as_bytes());
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

fn build_protocol(_: &Address) -> Option<Box<dyn Protocol>> {
    Some(Box::new(Greeter))
}

pub(crate) fn serve(reactor: &Reactor, endpoint: ServerEndpoint) -> Deferred<ListeningPort> {
    let reactor = reactor.clone();
    reactor.clone().spawn(async move {
        let ServerEndpoint::Tls { address, options, tls } = endpoint else {
            return Err(Failure::new("the description of the endpoint has to begin with ssl:"));
        };
        let identities = Identities::new([tls.read_identity(&reactor).await?])?;
        let config = tls.read_config(&reactor, identities.clone()).await?;
        let handle = reactor.clone();
        reactor.on_signal(Signal::Hangup, move || renew(&handle, &tls, &identities))?;
        Ok(reactor.listen_tls(address, Rc::new(build_protocol), config, options)?)
    })
}

fn renew(reactor: &Reactor, files: &ServerTlsFiles, identities: &Identities) {
    let identities = identities.clone();
    let renewed = files
        .read_identity(reactor)
        .add_callback(move |identity| Ok(identities.replace([identity])?))
        .add_both(|result| {
            match result {
                Ok(()) => eprintln!("new connections get the new certificate"),
                Err(failure) => eprintln!("keeping the old certificate: {failure:#}"),
            }
            Ok(())
        });
    renewed.detach();
}

fn main() -> Result<(), Box<dyn Error>> {
    let text = std::env::args().nth(1).ok_or("usage: tls_server ENDPOINT")?;
    let endpoint = text.parse().unwrap_or_else(|error: DescriptionError| {
        eprintln!("error: {error}");
        std::process::exit(2)
    });
    let reactor = Reactor::new()?;
    reactor.install_signals()?;
    let port = reactor.run_until(serve(&reactor, endpoint)).map_err(|f| format!("{f:#}"))?;
    eprintln!("listening on {}", port.local());
    Ok(reactor.run()?)
}
