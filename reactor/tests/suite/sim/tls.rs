//! TLS between hosts: the handshake is spoken for real, and nothing depends on its bytes.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use ropewalk::sim::{self, Faults, Leftover, LinkOptions, World, WorldOptions};
use ropewalk::{Address, ConnectError, ConnectionLost, ListenOptions, Protocol, Transport};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::support::{SECOND, even_world};
use crate::support::{Counter, Echo, OnData};

/// A new key each time, and signatures of varying length.
fn certified(name: &str) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn serve(world: &World, config: Arc<ServerConfig>) {
    world.host("server").run(move |reactor, _| {
        let factory = |_: &Address| Some(Box::new(Echo) as Box<dyn Protocol>);
        let address = "0.0.0.0:443".parse().unwrap();
        let config = Arc::clone(&config);
        reactor.listen_tls(address, Rc::new(factory), config, ListenOptions::default()).unwrap();
    });
}

/// Sends much, and counts what comes back.
struct Talker(Rc<Cell<usize>>);

impl Protocol for Talker {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(&[7; 200_000]);
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.0.set(self.0.get() + data.len());
    }
}

#[test]
fn a_seed_decides_everything_under_tls_too() {
    let options = WorldOptions {
        link: LinkOptions { bytes_per_second: Some(100_000), ..LinkOptions::default() },
        faults: Faults { resets: 0.002, splits: 0.3, ..Faults::mild() },
        ..WorldOptions::default()
    };
    let scenario = |world: &World| {
        let (server, client) = certified("server");
        serve(world, server);
        for name in ["one", "two"] {
            let (host, server) = (world.host(name), world.host("server"));
            let count = Rc::new(Cell::new(0));
            let (sink, config) = (Rc::clone(&count), Arc::clone(&client));
            host.run(move |reactor, _| {
                let name = ServerName::try_from("server").unwrap();
                let talker = Box::new(Talker(Rc::clone(&sink)));
                let made = reactor.connect_tls(server.at(443), name, Arc::clone(&config), talker);
                drop(made.add_both(|_| Ok(())));
            });
        }
        world.run_for(10 * SECOND);
        world.tolerate(Leftover::Connections);
        world.tolerate(Leftover::Timers);
    };
    for seed in 0..5 {
        let first = sim::run_seed(seed, &options, scenario);
        for _ in 0..5 {
            assert_eq!(sim::run_seed(seed, &options, scenario), first);
        }
    }
}

#[test]
fn names_are_checked_by_the_same_rules_as_ever() {
    let world = even_world(1);
    let (server_config, client_config) = certified("server");
    serve(&world, server_config);
    let (client, server) = (world.host("client"), world.host("server"));
    let connect = |name: &'static str, protocol: Box<dyn Protocol>| {
        let name = ServerName::try_from(name).unwrap();
        let config = Arc::clone(&client_config);
        client.reactor().connect_tls(server.at(443), name, config, protocol)
    };
    let refused = connect("somebody.else", Box::<Counter>::default());
    let failure = world.run_until_result(refused, SECOND).unwrap_err();
    let error = failure.downcast_ref::<ConnectError>().unwrap();
    assert!(matches!(error.source, ConnectionLost::Tls(_)), "{error:?}");
    let count = Rc::new(Cell::new(0));
    let sink = Rc::clone(&count);
    let counting = OnData(move |_: &Transport, data: &[u8]| sink.set(sink.get() + data.len()));
    let transport = world.run_until_result(connect("server", Box::new(counting)), SECOND).unwrap();
    transport.write(&[1; 300_000]);
    world.run_for(SECOND);
    assert_eq!(count.get(), 300_000);
    transport.lose_connection();
    world.run_for(SECOND);
    world.assert_nothing_left();
}
