//! [`ServerEndpoint`]: where to listen.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;

use super::description::{DescriptionError, Kind, Settings, Writer};
use super::values::{self, Mode, Seconds, YesOrNo};
use crate::address::UnixAddress;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::protocol::Factory;
use crate::reactor::Reactor;
use crate::transport::port::ListeningPort;
use crate::transport::tcp::ListenOptions;
use crate::transport::unix::UnixListenOptions;

/// Where a server listens, and how.
///
/// | description | |
/// | --- | --- |
/// | `tcp:8008` | TCP, on all IPv4 addresses of the machine; port 0 picks a free one |
/// | `tcp6:8008` | TCP, on all addresses |
/// | `ssl:8448:privateKey=hs.key:certKey=hs.pem` | TLS over TCP; one file may have both |
/// | `unix:/run/chat.sock:mode=660` | a Unix socket |
/// | `unix:abstract=chat` | one without a file |
/// | `systemd:index=0`, `systemd:name=chat` | a socket that this process was started with |
///
/// Settings of all that listen on ports: `interface` (an address of the machine), `backlog`, `noDelay`,
/// `shared` (`SO_REUSEPORT`), `v6Only`, `keepalive`, `receiveBuffer`, `sendBuffer`; see
/// [`ListenOptions`]. Of TLS besides: `extraCertChain` (certificates that vouch for the first),
/// `clientRoots` (clients have to show a certificate for which one of these vouches), `alpn`
/// (`alpn=h2,http/1.1`), `handshakeTimeout`. Files are in PEM, and are read when listening begins. Times are
/// in seconds.
///
/// A colon, an equals sign or a backslash within a value has a backslash before it; an IPv6 address may
/// stand in brackets instead. Twisted's descriptions are understood.
///
/// ```
/// use ropewalk::endpoint::ServerEndpoint;
///
/// let endpoint: ServerEndpoint = "tcp:8008:interface=[::1]:backlog=50".parse()?;
/// assert_eq!(endpoint.to_string(), "tcp:8008:interface=[::1]:backlog=50");
///
/// let error = "tcp:8008:interfce=127.0.0.1".parse::<ServerEndpoint>().unwrap_err();
/// assert!(error.to_string().contains("did you mean \"interface\"?"));
/// # Ok::<(), ropewalk::endpoint::DescriptionError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ServerEndpoint {
    /// A socket that a service manager has opened for this process; see
    /// [`InheritedSockets`](crate::process::InheritedSockets).
    Inherited(InheritedSocket),
    /// A TCP port.
    Tcp {
        /// The address and port.
        address: SocketAddr,
        /// How the port listens.
        options: ListenOptions,
    },
    /// A TCP port on which TLS is spoken.
    Tls {
        /// The address and port.
        address: SocketAddr,
        /// How the port listens.
        options: ListenOptions,
        /// The files with what is needed for TLS.
        tls: ServerTlsFiles,
    },
    /// A Unix socket.
    Unix {
        /// Its name.
        address: UnixAddress,
        /// How it listens.
        options: UnixListenOptions,
    },
}

/// Which of the sockets that this process was started with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InheritedSocket {
    /// The one at this place, counted from 0.
    Index(usize),
    /// The first of this name that was not taken.
    Name(String),
}

/// Where a server finds its certificate and key.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerTlsFiles {
    /// The private key.
    pub private_key: PathBuf,
    /// The certificate, and behind it those that vouch for it.
    pub certificate: PathBuf,
    /// More certificates that vouch for it.
    pub extra_chain: Option<PathBuf>,
    /// Clients have to show a certificate for which one of these vouches.
    pub client_roots: Option<PathBuf>,
    /// The protocols to be agreed on by ALPN.
    pub alpn: Vec<String>,
}

impl ServerEndpoint {
    /// Listens. Each connection gets the protocol that `factory` builds for it.
    ///
    /// The deferred has its result at once, except with TLS, whose files are read first. Cancelling it
    /// then leaves nothing listening.
    ///
    /// # Errors
    ///
    /// As [`Reactor::listen_tcp`] and its sisters; [`EndpointFileError`](super::EndpointFileError).
    #[track_caller]
    pub fn listen(&self, reactor: &Reactor, factory: Rc<dyn Factory>) -> Deferred<ListeningPort> {
        let result = match self {
            ServerEndpoint::Inherited(which) => listen_inherited(reactor, which, factory),
            ServerEndpoint::Tcp { address, options } => {
                reactor.listen_tcp(*address, factory, options.clone())
            }
            ServerEndpoint::Tls { address, options, tls } => {
                let (address, options) = (*address, options.clone());
                let listening_reactor = reactor.clone();
                return super::files::server_config(reactor, tls).add_callback(move |config| {
                    let port = listening_reactor.listen_tls(address, factory, config, options);
                    port.map_err(Failure::from)
                });
            }
            ServerEndpoint::Unix { address, options } => {
                reactor.listen_unix(address.clone(), factory, options.clone())
            }
        };
        Deferred::from(result.map_err(Failure::from))
    }
}

/// Listens on a socket that this process was started with. Those that are not asked for stay with the
/// reactor, for endpoints to come.
fn listen_inherited(
    reactor: &Reactor,
    which: &InheritedSocket,
    factory: Rc<dyn Factory>,
) -> io::Result<ListeningPort> {
    let core = reactor.core();
    let mut inherited = core.inherited.borrow_mut();
    let inherited = inherited.get_or_insert_with(|| reactor.inherited_sockets());
    let socket = match which {
        InheritedSocket::Index(index) => inherited.take(*index)?,
        InheritedSocket::Name(name) => inherited.take_named(name)?,
    };
    match socket {
        Some(socket) => reactor.adopt_listener(socket, factory),
        None => {
            let names: Vec<_> = inherited.names().iter().filter(|name| !name.is_empty()).collect();
            let which = match which {
                InheritedSocket::Index(index) => format!("number {index}"),
                InheritedSocket::Name(name) => format!("called {name:?}"),
            };
            let message = format!(
                "no socket {which} is left of those that this process was started with: there were \
                 {}, with the names {names:?}",
                inherited.len()
            );
            Err(io::Error::new(io::ErrorKind::NotFound, message))
        }
    }
}

const TCP: Kind = Kind {
    name: "tcp",
    positional: &["port"],
    named: LISTEN_SETTINGS,
    example: "tcp:8008:interface=127.0.0.1:backlog=50",
};
const TCP6: Kind = Kind { name: "tcp6", example: "tcp6:8008:interface=[::1]", ..TCP };
const SSL: Kind = Kind {
    name: "ssl",
    named: TLS_SETTINGS,
    example: "ssl:8448:privateKey=hs.key:certKey=hs.pem",
    ..TCP
};
const TLS: Kind = Kind { name: "tls", ..SSL };
const UNIX: Kind = Kind {
    name: "unix",
    positional: &["address"],
    named: &["abstract", "backlog", "mode"],
    example: "unix:/run/chat.sock:mode=660",
};
const SYSTEMD: Kind = Kind {
    name: "systemd",
    positional: &[],
    named: &["domain", "index", "name"],
    example: "systemd:name=chat",
};
const KINDS: &[&Kind] = &[&TCP, &TCP6, &SSL, &TLS, &UNIX, &SYSTEMD];

const LISTEN_SETTINGS: &[&str] = &[
    "interface",
    "backlog",
    "noDelay",
    "shared",
    "v6Only",
    "keepalive",
    "receiveBuffer",
    "sendBuffer",
];
const TLS_SETTINGS: &[&str] = &[
    "interface",
    "backlog",
    "noDelay",
    "shared",
    "v6Only",
    "keepalive",
    "receiveBuffer",
    "sendBuffer",
    "privateKey",
    "certKey",
    "extraCertChain",
    "clientRoots",
    "alpn",
    "handshakeTimeout",
];

impl FromStr for ServerEndpoint {
    type Err = DescriptionError;

    fn from_str(text: &str) -> Result<ServerEndpoint, DescriptionError> {
        let mut settings = Settings::split(text);
        let kind = settings.kind(KINDS)?;
        let endpoint = match kind.name {
            "systemd" => read_systemd(&mut settings, kind)?,
            "unix" => read_unix(&mut settings, kind)?,
            _ => read_tcp(&mut settings, kind)?,
        };
        settings.finish(kind)?;
        Ok(endpoint)
    }
}

fn read_systemd(
    settings: &mut Settings<'_>,
    kind: &'static Kind,
) -> Result<ServerEndpoint, DescriptionError> {
    // What kind of socket it is, the socket knows; Twisted has to be told.
    let known = |text: &str| match text {
        "INET" | "INET6" | "UNIX" => Ok(()),
        _ => Err("INET, INET6 or UNIX".to_owned()),
    };
    settings.take(kind, "domain", known)?;
    let index = settings.take(kind, "index", values::size)?;
    let name = settings.take(kind, "name", values::word)?;
    match (index, name) {
        (Some(index), None) => Ok(ServerEndpoint::Inherited(InheritedSocket::Index(index))),
        (None, Some(name)) => Ok(ServerEndpoint::Inherited(InheritedSocket::Name(name))),
        _ => Err(settings.missing(kind, "needs either an index or a name")),
    }
}

fn read_unix(
    settings: &mut Settings<'_>,
    kind: &'static Kind,
) -> Result<ServerEndpoint, DescriptionError> {
    let address = unix_address(settings, kind)?;
    let default = UnixListenOptions::default();
    let options = UnixListenOptions {
        backlog: settings.take(kind, "backlog", values::count)?.unwrap_or(default.backlog),
        mode: settings.take(kind, "mode", values::mode)?.unwrap_or(default.mode),
    };
    Ok(ServerEndpoint::Unix { address, options })
}

/// Reads the name of a Unix socket, of either sort.
pub(super) fn unix_address(
    settings: &mut Settings<'_>,
    kind: &'static Kind,
) -> Result<UnixAddress, DescriptionError> {
    let path = settings.take(kind, "address", values::path)?;
    let name = settings.take(kind, "abstract", values::word)?;
    match (path, name) {
        (Some(path), None) => Ok(UnixAddress::Path(path)),
        (None, Some(name)) => Ok(UnixAddress::Abstract(name.into_bytes())),
        (None, None) => Err(settings.missing(kind, "lacks its path")),
        (Some(_), Some(_)) => Err(settings.missing(kind, "has a path and an abstract name")),
    }
}

fn read_tcp(
    settings: &mut Settings<'_>,
    kind: &'static Kind,
) -> Result<ServerEndpoint, DescriptionError> {
    let port = settings.require(kind, "port", values::port)?;
    let everywhere: SocketAddr = match kind.name {
        "tcp6" => (Ipv6Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let mut address = settings.take(kind, "interface", values::interface)?.unwrap_or(everywhere);
    address.set_port(port);
    let default = ListenOptions::default();
    let handshake_limit = match is_tls(kind) {
        true => settings.take(kind, "handshakeTimeout", values::seconds)?,
        false => None,
    };
    let options = ListenOptions {
        backlog: settings.take(kind, "backlog", values::count)?.unwrap_or(default.backlog),
        no_delay: settings.take(kind, "noDelay", values::yes_or_no)?.unwrap_or(default.no_delay),
        share_port: settings.take(kind, "shared", values::yes_or_no)?.unwrap_or(default.share_port),
        v6_only: settings.take(kind, "v6Only", values::yes_or_no)?.unwrap_or(default.v6_only),
        keepalive: settings.take(kind, "keepalive", values::seconds)?,
        receive_buffer_bytes: settings.take(kind, "receiveBuffer", values::size)?,
        send_buffer_bytes: settings.take(kind, "sendBuffer", values::size)?,
        handshake_limit: handshake_limit.unwrap_or(default.handshake_limit),
    };
    if !is_tls(kind) {
        return Ok(ServerEndpoint::Tcp { address, options });
    }
    let private_key = settings.require(kind, "privateKey", values::path)?;
    let certificate = settings.take(kind, "certKey", values::path)?;
    let tls = ServerTlsFiles {
        certificate: certificate.unwrap_or_else(|| private_key.clone()),
        private_key,
        extra_chain: settings.take(kind, "extraCertChain", values::path)?,
        client_roots: settings.take(kind, "clientRoots", values::path)?,
        alpn: settings.take(kind, "alpn", values::words)?.unwrap_or_default(),
    };
    Ok(ServerEndpoint::Tls { address, options, tls })
}

fn is_tls(kind: &Kind) -> bool {
    matches!(kind.name, "ssl" | "tls")
}

/// Writes a description that can be read. A path that isn't Unicode cannot be written so.
impl fmt::Display for ServerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerEndpoint::Inherited(which) => {
                let mut out = Writer::begin(f, &SYSTEMD)?;
                match which {
                    InheritedSocket::Index(index) => out.setting("index", index),
                    InheritedSocket::Name(name) => out.setting("name", name),
                }
            }
            ServerEndpoint::Tcp { address, options } => {
                let mut out = Writer::begin(f, &TCP)?;
                write_port(&mut out, address, options)
            }
            ServerEndpoint::Tls { address, options, tls } => {
                let mut out = Writer::begin(f, &SSL)?;
                write_port(&mut out, address, options)?;
                out.setting("privateKey", tls.private_key.display())?;
                if tls.certificate != tls.private_key {
                    out.setting("certKey", tls.certificate.display())?;
                }
                out.option("extraCertChain", tls.extra_chain.as_deref().map(|p| p.display()))?;
                out.option("clientRoots", tls.client_roots.as_deref().map(|p| p.display()))?;
                if !tls.alpn.is_empty() {
                    out.setting("alpn", tls.alpn.join(","))?;
                }
                let default = Seconds(ListenOptions::default().handshake_limit);
                out.unless(default, "handshakeTimeout", Seconds(options.handshake_limit))
            }
            ServerEndpoint::Unix { address, options } => {
                let mut out = Writer::begin(f, &UNIX)?;
                write_unix(&mut out, address)?;
                let default = UnixListenOptions::default();
                out.unless(Mode(default.mode), "mode", Mode(options.mode))?;
                out.unless(default.backlog, "backlog", options.backlog)
            }
        }
    }
}

pub(super) fn write_unix(out: &mut Writer<'_, '_>, address: &UnixAddress) -> fmt::Result {
    match address {
        UnixAddress::Path(path) => out.value(path.display()),
        UnixAddress::Abstract(name) => out.setting("abstract", String::from_utf8_lossy(name)),
        UnixAddress::Unnamed => Ok(()),
    }
}

fn write_port(
    out: &mut Writer<'_, '_>,
    address: &SocketAddr,
    options: &ListenOptions,
) -> fmt::Result {
    out.value(address.port())?;
    if address.ip() != Ipv4Addr::UNSPECIFIED {
        out.setting("interface", values::interface_text(address))?;
    }
    let default = ListenOptions::default();
    out.unless(default.backlog, "backlog", options.backlog)?;
    out.unless(YesOrNo(default.no_delay), "noDelay", YesOrNo(options.no_delay))?;
    out.unless(YesOrNo(default.share_port), "shared", YesOrNo(options.share_port))?;
    out.unless(YesOrNo(default.v6_only), "v6Only", YesOrNo(options.v6_only))?;
    out.option("keepalive", options.keepalive.map(Seconds))?;
    out.option("receiveBuffer", options.receive_buffer_bytes)?;
    out.option("sendBuffer", options.send_buffer_bytes)
}
