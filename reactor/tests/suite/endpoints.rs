//! Descriptions of endpoints: reading, writing, and what they lead to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use ropewalk::endpoint::{
    ClientEndpoint, ClientTlsFiles, EndpointFileError, HostEndpoint, InheritedSocket,
    ServerEndpoint, ServerTlsFiles,
};
use ropewalk::testing::{Clock, failure_result_of, success_result_of};
use ropewalk::tls::{Identities, SpkiPin};
use ropewalk::{
    Address, ConnectOptions, ListenOptions, Protocol, Reactor, UnixAddress, UnixListenOptions,
};

use crate::certificates::Authority;
use crate::support::{Diary, Echo, Recorder, read};

fn socket_address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp(address: &str) -> ServerEndpoint {
    let options = ListenOptions::default();
    ServerEndpoint::Tcp { address: socket_address(address), options }
}

fn ssl(address: &str, key: &str, certificate: &str) -> ServerEndpoint {
    let address = socket_address(address);
    let tls = ServerTlsFiles {
        private_key: key.into(),
        certificate: certificate.into(),
        ..ServerTlsFiles::default()
    };
    ServerEndpoint::Tls { address, options: ListenOptions::default(), tls }
}

fn unix(path: &str, mode: u32) -> ServerEndpoint {
    let options = UnixListenOptions { mode, ..UnixListenOptions::default() };
    ServerEndpoint::Unix { address: UnixAddress::from(path), options }
}

#[test]
fn descriptions_of_servers_are_read() {
    let many_options = ListenOptions {
        backlog: 50,
        no_delay: false,
        share_port: true,
        v6_only: true,
        keepalive: Some(Duration::from_secs(60)),
        receive_buffer_bytes: Some(4096),
        send_buffer_bytes: Some(8192),
        ..ListenOptions::default()
    };
    let many = ServerEndpoint::Tcp { address: socket_address("[::1]:0"), options: many_options };
    for (why, text, expected) in [
        ("the shortest", "tcp:80", tcp("0.0.0.0:80")),
        ("Twisted's manual", "tcp:80:interface=127.0.0.1", tcp("127.0.0.1:80")),
        ("the port by name", "tcp:port=80", tcp("0.0.0.0:80")),
        ("an escaped address", "tcp:80:interface=\\:\\:1", tcp("[::1]:80")),
        ("a bracketed one", "tcp:80:interface=[::1]", tcp("[::1]:80")),
        ("with a scope", "tcp:80:interface=[fe80::1%2]", tcp("[fe80::1%2]:80")),
        ("all IPv6 addresses", "tcp6:80", tcp("[::]:80")),
        (
            "all settings",
            "tcp:0:interface=[::1]:backlog=50:noDelay=no:shared=1:v6Only=true:keepalive=60:\
             receiveBuffer=4096:sendBuffer=8192",
            many,
        ),
        ("TLS", "ssl:443:privateKey=/k.pem:certKey=/c.pem", ssl("0.0.0.0:443", "/k.pem", "/c.pem")),
        ("one file has both", "ssl:443:privateKey=/k.pem", ssl("0.0.0.0:443", "/k.pem", "/k.pem")),
        ("TLS by its other name", "tls:443:privateKey=k", ssl("0.0.0.0:443", "k", "k")),
        ("a Unix socket", "unix:/var/run/finger", unix("/var/run/finger", 0o600)),
        ("its permissions", "unix:/var/run/finger:mode=660", unix("/var/run/finger", 0o660)),
        ("the path by name", "unix:address=/run/f", unix("/run/f", 0o600)),
        ("odd characters", "unix:/run/a\\:b\\=c\\\\d", unix("/run/a:b=c\\d", 0o600)),
        ("a backslash at the end", "unix:/run/a\\", unix("/run/a\\", 0o600)),
        (
            "a socket of the service manager's",
            "systemd:domain=INET6:index=3",
            ServerEndpoint::Inherited(InheritedSocket::Index(3)),
        ),
        (
            "by its name",
            "systemd:name=my-web",
            ServerEndpoint::Inherited(InheritedSocket::Name("my-web".to_owned())),
        ),
        (
            "an abstract name",
            "unix:abstract=chat",
            ServerEndpoint::Unix {
                address: UnixAddress::Abstract(b"chat".to_vec()),
                options: UnixListenOptions::default(),
            },
        ),
    ] {
        assert_eq!(text.parse(), Ok(expected.clone()), "{why}: {text}");
        assert_eq!(expected.to_string().parse(), Ok(expected), "{why}: and written");
    }
}

fn host(host: &str, port: u16) -> HostEndpoint {
    let options = ConnectOptions::default();
    HostEndpoint { host: host.to_owned(), port, options, timeout: Duration::from_secs(30) }
}

#[test]
fn descriptions_of_clients_are_read() {
    let pin = SpkiPin::new([7; 32]);
    let bound = ConnectOptions {
        bind_address: Some(socket_address("192.0.2.1:99")),
        ..ConnectOptions::default()
    };
    for (why, text, expected) in [
        ("the shortest", "tcp:hs.example:80", ClientEndpoint::Tcp(host("hs.example", 80))),
        ("by name", "tcp:port=80:host=hs.example", ClientEndpoint::Tcp(host("hs.example", 80))),
        ("an address", "tcp:[::1]:80", ClientEndpoint::Tcp(host("::1", 80))),
        (
            "settings",
            "tcp:hs.example:80:timeout=0.25:bindAddress=192.0.2.1:bindPort=99",
            ClientEndpoint::Tcp(HostEndpoint {
                options: bound,
                timeout: Duration::from_millis(250),
                ..host("hs.example", 80)
            }),
        ),
        (
            "roots",
            "tls:hs.example:443:trustRoots=/ca.pem",
            ClientEndpoint::Tls(
                host("hs.example", 443),
                ClientTlsFiles { trust_roots: Some("/ca.pem".into()), ..ClientTlsFiles::default() },
            ),
        ),
        (
            "a pin, a certificate, and more",
            &format!(
                "ssl:[::1]:443:pin={}:certKey=/c.pem:privateKey=/k.pem:serverName=hs.example:alpn=a,b",
                pin
            ),
            ClientEndpoint::Tls(
                host("::1", 443),
                ClientTlsFiles {
                    trust_roots: None,
                    pins: vec![pin],
                    server_name: Some("hs.example".to_owned()),
                    certificate: Some("/c.pem".into()),
                    private_key: Some("/k.pem".into()),
                    alpn: vec!["a".to_owned(), "b".to_owned()],
                },
            ),
        ),
        ("its own input and output", "stdio", ClientEndpoint::Stdio),
        ("as Twisted has it", "stdio:", ClientEndpoint::Stdio),
        (
            "a Unix socket",
            "unix:/run/chat.sock:timeout=5",
            ClientEndpoint::Unix {
                address: UnixAddress::from("/run/chat.sock"),
                timeout: Duration::from_secs(5),
            },
        ),
    ] {
        assert_eq!(text.parse(), Ok(expected.clone()), "{why}: {text}");
        assert_eq!(expected.to_string().parse(), Ok(expected), "{why}: and written");
    }
}

#[test]
fn errors_name_the_piece_its_place_and_what_would_do() {
    for (text, position, piece, problem) in [
        ("", 0, "", "is no kind of endpoint; known are tcp, tcp6, ssl, tls, unix, systemd"),
        ("tpc:80", 0, "tpc", "is no kind of endpoint, did you mean \"tcp\"?"),
        ("tcp", 0, "tcp", "lacks its port"),
        ("tcp:", 4, "", "is no port; it should be a number from 0 to 65535"),
        ("tcp:http", 4, "http", "is no port"),
        ("tcp:65536", 4, "65536", "is no port"),
        ("tcp:80:81", 7, "81", "is one too many: without a name, tcp takes only its port"),
        ("tcp:80:port=81", 7, "port", "says a second time what port is"),
        ("tcp:80:interfce=lo", 7, "interfce", "is no setting of tcp, did you mean \"interface\"?"),
        ("tcp:80:interface=lo", 17, "lo", "is no interface; it should be an address"),
        ("tcp:80:colour=red", 7, "colour", "is no setting of tcp"),
        ("tcp:80:noDelay=perhaps", 15, "perhaps", "is no noDelay; it should be yes or no"),
        ("tcp:80:keepalive=1e9", 17, "1e9", "it should be a number of seconds"),
        ("ssl:443", 0, "ssl", "lacks its privateKey"),
        ("ssl:443:privateKey=k:sslmethod=TLSv1_METHOD", 21, "sslmethod", "leave it out"),
        ("unix:", 5, "", "is no address; it should be the path of a file"),
        ("unix:/a:mode=999", 13, "999", "is no mode; it should be permissions in octal"),
        ("systemd:index=0:name=a", 0, "systemd", "needs either an index or a name"),
        ("systemd:domain=IPX:index=0", 15, "IPX", "it should be INET, INET6 or UNIX"),
        ("systemd:0", 0, "systemd", "needs either"),
        ("unix:/a:abstract=b", 0, "unix", "has a path and an abstract name"),
    ] {
        let error = text.parse::<ServerEndpoint>().expect_err(text);
        assert_eq!((error.position, error.piece.as_str()), (position, piece), "{text}");
        assert!(error.problem.contains(problem), "{text}: {error}");
    }
    for (text, position, piece, problem) in [
        ("tcp:hs.example", 0, "tcp", "lacks its port"),
        ("tcp:hs.example:0", 15, "0", "it should be a number from 1"),
        ("tcp:hs example:80", 4, "hs example", "only letters, digits"),
        ("tls:hs.example:443", 0, "tls", "believes nobody: give trustRoots, or a pin"),
        ("tls:hs.example:443:pin=abc", 23, "abc", "\"abc\" is no pin"),
        ("tls:a:1:pin=:privateKey=k", 12, "", "is no pin"),
        ("tls:a:1:trustRoots=r:privateKey=k", 0, "tls", "lacks its certificate"),
        ("tls:a:1:caCertsDir=/etc", 0, "tls", "believes nobody"),
        ("udp:a:1", 0, "udp", "is no kind of endpoint; known are tcp, tls, ssl, unix, stdio"),
    ] {
        let error = text.parse::<ClientEndpoint>().expect_err(text);
        assert_eq!((error.position, error.piece.as_str()), (position, piece), "{text}: {error}");
        assert!(error.problem.contains(problem), "{text}: {error}");
    }
    assert_eq!(
        "tcp:80:interfce=127.0.0.1".parse::<ServerEndpoint>().unwrap_err().to_string(),
        "cannot read endpoint \"tcp:80:interfce=127.0.0.1\": \"interfce\" at byte 7 is no setting of \
         tcp, did you mean \"interface\"?; an example: \"tcp:8008:interface=127.0.0.1:backlog=50\""
    );
}

fn any_path() -> impl Strategy<Value = PathBuf> {
    "[^\0]{1,20}".prop_map(PathBuf::from)
}

prop_compose! {
    fn any_listen_options()(
        backlog: u32,
        no_delay: bool,
        share_port: bool,
        v6_only: bool,
        keepalive in proptest::option::of(any_time()),
        receive_buffer_bytes: Option<usize>,
        send_buffer_bytes: Option<usize>,
    ) -> ListenOptions {
        ListenOptions {
            backlog, no_delay, share_port, v6_only, keepalive, receive_buffer_bytes,
            send_buffer_bytes, ..ListenOptions::default()
        }
    }
}

fn any_time() -> impl Strategy<Value = Duration> {
    (0..1_000_000_000u64, 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n))
}

/// Without what an address can hold besides itself.
fn any_address() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

prop_compose! {
    fn any_connect_options()(
        bind_address in proptest::option::of(any_address()),
        no_delay: bool,
        keepalive in proptest::option::of(any_time()),
        receive_buffer_bytes: Option<usize>,
        send_buffer_bytes: Option<usize>,
    ) -> ConnectOptions {
        ConnectOptions { bind_address, no_delay, keepalive, receive_buffer_bytes, send_buffer_bytes }
    }
}

fn any_alpn() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[^,\0]{1,8}", 0..3)
}

fn any_server() -> impl Strategy<Value = ServerEndpoint> {
    let tls = (any_path(), any_path(), proptest::option::of(any_path()), any_alpn(), any_time());
    let unix = (any_path(), 0..0o1000u32, any::<u32>());
    prop_oneof![
        (any_address(), any_listen_options())
            .prop_map(|(address, options)| ServerEndpoint::Tcp { address, options }),
        (any_address(), any_listen_options(), tls).prop_map(|(address, options, tls)| {
            let (private_key, certificate, other, alpn, handshake_limit) = tls;
            let options = ListenOptions { handshake_limit, ..options };
            let (extra_chain, client_roots) = (other.clone(), other);
            let tls = ServerTlsFiles { private_key, certificate, extra_chain, client_roots, alpn };
            ServerEndpoint::Tls { address, options, tls }
        }),
        unix.prop_map(|(path, mode, backlog)| ServerEndpoint::Unix {
            address: UnixAddress::Path(path),
            options: UnixListenOptions { backlog, mode }
        }),
        any::<usize>().prop_map(|n| ServerEndpoint::Inherited(InheritedSocket::Index(n))),
        "[^\0]{1,9}".prop_map(|name| ServerEndpoint::Inherited(InheritedSocket::Name(name))),
        "[^\0]{1,20}".prop_map(|name| ServerEndpoint::Unix {
            address: UnixAddress::Abstract(name.into_bytes()),
            options: UnixListenOptions::default()
        }),
    ]
}

fn any_client() -> impl Strategy<Value = ClientEndpoint> {
    let name = prop_oneof![
        "[a-z0-9]{1,8}(\\.[a-z0-9_-]{1,8}){0,2}x",
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
    ];
    let host = (name.clone(), 1u16.., any_connect_options(), any_time())
        .prop_map(|(host, port, options, timeout)| HostEndpoint { host, port, options, timeout })
        .boxed();
    let pins = proptest::collection::vec(any::<[u8; 32]>().prop_map(SpkiPin::new), 1..3);
    let certificate = proptest::option::of((any_path(), proptest::option::of(any_path())));
    let tls = (proptest::option::of(any_path()), pins, certificate, any_alpn());
    let tls = (tls, proptest::option::of(name));
    prop_oneof![
        host.clone().prop_map(ClientEndpoint::Tcp),
        (host, tls).prop_map(|(host, ((trust_roots, pins, certificate, alpn), server_name))| {
            let (certificate, private_key) = certificate.unzip();
            let private_key = private_key.flatten();
            let tls =
                ClientTlsFiles { trust_roots, pins, server_name, certificate, private_key, alpn };
            ClientEndpoint::Tls(host, tls)
        }),
        (any_path(), any_time()).prop_map(|(path, timeout)| ClientEndpoint::Unix {
            address: UnixAddress::Path(path),
            timeout
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_about_a_server_is_read(endpoint in any_server()) {
        prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[test]
    fn what_is_written_about_a_client_is_read(endpoint in any_client()) {
        prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[test]
    fn anything_can_be_read(text in "(tcp|ssl|tls|unix|\\PC{0,3})([:=\\\\\\[\\]%,]|\\PC{0,4}|port|host){0,20}") {
        if let Ok(endpoint) = text.parse::<ServerEndpoint>() {
            prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
        if let Ok(endpoint) = text.parse::<ClientEndpoint>() {
            prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }
}

fn echo() -> Rc<dyn ropewalk::Factory> {
    Rc::new(|_: &Address| Some(Box::new(Echo) as Box<dyn Protocol>))
}

/// Says hello over a connection between two endpoints, and returns what comes back.
fn hello(reactor: &Reactor, settle: impl Fn(), client: &str) -> Vec<String> {
    let client: ClientEndpoint = client.parse().unwrap();
    let diary = Diary::default();
    let connected = client.connect(reactor, Box::new(Recorder::new(&diary)));
    settle();
    let transport = success_result_of(connected);
    transport.write(b"hello");
    settle();
    transport.lose_connection();
    read(&diary)
}

#[test]
fn servers_listen_and_clients_connect_as_described() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    for (server, client) in [
        ("tcp:8008:interface=127.0.0.1", "tcp:localhost:8008"),
        ("unix:/run/chat", "unix:/run/chat"),
    ] {
        let server: ServerEndpoint = server.parse().unwrap();
        let port = success_result_of(server.listen(reactor, echo()));
        assert!(port.is_listening());
        assert_eq!(hello(reactor, || clock.pump(), client), ["made", "data hello"]);
    }
    let server: ServerEndpoint = "tcp:8008:interface=127.0.0.1".parse().unwrap();
    let failure = failure_result_of(server.listen(reactor, echo()));
    assert!(failure.is::<std::io::Error>(), "in use: {failure}");
    let client: ClientEndpoint = "unix:/run/nobody".parse().unwrap();
    let failure = failure_result_of(client.connect(reactor, Box::new(Echo)));
    assert!(failure.is::<ropewalk::ConnectError>(), "{failure}");
}

fn write(clock: &Clock, path: &str, contents: &str) {
    let written = clock.reactor().files().write_atomically(path.to_owned(), contents.to_owned());
    clock.pump();
    success_result_of(written);
}

#[test]
fn endpoints_of_tls_read_their_files() {
    let authority = Authority::new("authority");
    let (certificate, key) = authority.certify_pem(&["localhost"]);
    let (clients_certificate, clients_key) = authority.certify_pem(&["client.example"]);
    let clock = Clock::new();
    let reactor = clock.reactor();
    write(&clock, "/ca.pem", &authority.pem);
    write(&clock, "/c.pem", &certificate);
    write(&clock, "/k.pem", &key);
    write(&clock, "/client.pem", &format!("{clients_certificate}{clients_key}"));
    let description = "ssl:8448:interface=127.0.0.1:privateKey=/k.pem:certKey=/c.pem:\
                       clientRoots=/ca.pem:alpn=chat";
    let server: ServerEndpoint = description.parse().unwrap();
    let port = server.listen(reactor, echo());
    clock.pump();
    success_result_of(port);
    let client = "tls:localhost:8448:trustRoots=/ca.pem:certificate=/client.pem:alpn=chat";
    assert_eq!(hello(reactor, || clock.pump(), client), ["made", "data hello"]);
    // The certificate is renewed: those who ask for it get the new one.
    let ServerEndpoint::Tls { tls, .. } = server else { panic!("it is one of TLS") };
    let before = tls.read_identity(reactor);
    clock.pump();
    let identities = Identities::new([success_result_of(before)]).unwrap();
    let (certificate, key) = authority.certify_pem(&["localhost"]);
    write(&clock, "/c.pem", &certificate);
    let mismatched = tls.read_identity(reactor);
    clock.pump();
    let failure = failure_result_of(mismatched);
    assert_eq!(failure.to_string(), "cannot use /c.pem as the certificate");
    assert!(failure.is::<EndpointFileError>());
    write(&clock, "/k.pem", &key);
    let renewed = tls.read_identity(reactor);
    clock.pump();
    let renewed = success_result_of(renewed);
    identities.replace([renewed.clone()]).unwrap();
    let shown = identities.identity_for(None).unwrap();
    assert_eq!(shown.pin().unwrap(), renewed.pin().unwrap());
}

#[test]
fn files_that_are_missing_or_hold_something_else_are_named() {
    let clock = Clock::new();
    let reactor = clock.reactor();
    write(&clock, "/rubbish", "rubbish");
    for (server, expected) in [
        ("ssl:0:privateKey=/none", "/none"),
        ("ssl:0:privateKey=/rubbish", "cannot use /rubbish as the certificate"),
    ] {
        let server: ServerEndpoint = server.parse().unwrap();
        let port = server.listen(reactor, echo());
        clock.pump();
        let failure = failure_result_of(port);
        assert!(failure.to_string().contains(expected), "{failure}");
    }
    let client: ClientEndpoint = "tls:localhost:1:trustRoots=/rubbish".parse().unwrap();
    let connected = client.connect(reactor, Box::new(Echo));
    clock.pump();
    let failure = failure_result_of(connected);
    let expected = "cannot use /rubbish as the certificates that vouch for servers";
    assert_eq!(failure.to_string(), expected);
    assert_eq!(clock.open_connections(), 0);
}
