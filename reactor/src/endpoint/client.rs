//! [`ClientEndpoint`]: where to connect to.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::description::{DescriptionError, Kind, Settings, Writer};
use super::host::{CONNECT_TIME_MAX, HostConnector};
use super::server::{unix_address, write_unix};
use super::values::{self, Seconds, YesOrNo, bracketed};
use crate::address::UnixAddress;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::protocol::Protocol;
use crate::reactor::Reactor;
use crate::tls::SpkiPin;
use crate::transport::Transport;
use crate::transport::tcp::ConnectOptions;

/// Where a client connects to, and how.
///
/// | description | |
/// | --- | --- |
/// | `tcp:hs.example:8008` | TCP, to a host by name or address |
/// | `tls:hs.example:8448:trustRoots=/etc/ssl/cert.pem` | TLS over TCP, with whoever these certificates vouch for |
/// | `tls:hs.example:8448:pin=sha256//…` | TLS, with whoever has this key |
/// | `unix:/run/chat.sock` | a Unix socket |
/// | `stdio` | this process's own input and output |
///
/// Settings of all: `timeout` (30 seconds without it). Of TCP and TLS: `bindAddress` and `bindPort` (of
/// this end), `noDelay`, `keepalive`, `receiveBuffer`, `sendBuffer`; see [`ConnectOptions`]. Of TLS
/// besides: `serverName` (whom the peer has to prove to be), `certificate` and `privateKey` (to be shown to
/// the server), `alpn`, and one of `trustRoots` and `pin`, or both; there can be several pins, with
/// commas between. Files are in PEM, and are read for each connection. `ssl` is `tls`, and `certKey` is
/// `certificate`.
///
/// Otherwise as [`ServerEndpoint`](super::ServerEndpoint).
///
/// ```
/// use ropewalk::endpoint::ClientEndpoint;
///
/// let endpoint: ClientEndpoint = "tcp:hs.example:8008:timeout=5".parse()?;
/// assert_eq!(endpoint.to_string(), "tcp:hs.example:8008:timeout=5");
/// # Ok::<(), ropewalk::endpoint::DescriptionError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientEndpoint {
    /// The standard input and output of this process.
    Stdio,
    /// A host, over TCP.
    Tcp(HostEndpoint),
    /// A host, over TLS.
    Tls(HostEndpoint, ClientTlsFiles),
    /// A Unix socket.
    Unix {
        /// Its name.
        address: UnixAddress,
        /// Within which time the connection has to stand.
        timeout: Duration,
    },
}

/// A host and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostEndpoint {
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How the connection's socket is made.
    pub options: ConnectOptions,
    /// Within which time the connection has to stand.
    pub timeout: Duration,
}

/// Whom a client believes, and who it is itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientTlsFiles {
    /// The file with the certificates that vouch for servers.
    pub trust_roots: Option<PathBuf>,
    /// The keys of which the server has to have one.
    pub pins: Vec<SpkiPin>,
    /// Whom the peer has to prove to be, if not the host that is connected to.
    pub server_name: Option<String>,
    /// The client's certificate, and behind it those that vouch for it.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate, if it is in another file.
    pub private_key: Option<PathBuf>,
    /// The protocols to be agreed on by ALPN.
    pub alpn: Vec<String>,
}

impl HostEndpoint {
    /// Returns what connects there, over TCP unless it is told to speak TLS.
    #[must_use]
    pub fn connector(&self) -> HostConnector {
        HostConnector::new(self.host.clone(), self.port)
            .options(self.options.clone())
            .timeout(self.timeout)
    }
}

impl ClientEndpoint {
    /// Connects, and puts `protocol` on the connection.
    ///
    /// The deferred gets the transport after `connection_made` has returned. Cancelling it gives up.
    /// A protocol whose connection was never made is dropped without a call.
    ///
    /// # Errors
    ///
    /// As [`HostConnector::connect`]; [`ConnectError`](crate::ConnectError) and
    /// [`TimeoutError`](crate::TimeoutError) for a Unix socket;
    /// [`EndpointFileError`](super::EndpointFileError).
    #[track_caller]
    pub fn connect(&self, reactor: &Reactor, protocol: Box<dyn Protocol>) -> Deferred<Transport> {
        match self {
            ClientEndpoint::Stdio => {
                Deferred::from(reactor.connect_stdio(protocol).map_err(Failure::from))
            }
            ClientEndpoint::Tcp(host) => host.connector().connect(reactor, protocol),
            ClientEndpoint::Tls(host, tls) => {
                let mut connector = host.connector();
                if let Some(name) = &tls.server_name {
                    match ServerName::try_from(name.clone()) {
                        Ok(name) => connector = connector.server_name(name),
                        Err(error) => return Deferred::fail(Failure::new(error)),
                    }
                }
                let reactor = reactor.clone();
                super::files::client_config(&reactor, tls)
                    .add_callback(move |config| connector.tls(config).connect(&reactor, protocol))
            }
            ClientEndpoint::Unix { address, timeout } => {
                reactor.connect_unix(address.clone(), protocol).with_timeout(reactor, *timeout)
            }
        }
    }
}

const TCP: Kind = Kind {
    name: "tcp",
    positional: &["host", "port"],
    named: &[
        "timeout",
        "bindAddress",
        "bindPort",
        "noDelay",
        "keepalive",
        "receiveBuffer",
        "sendBuffer",
    ],
    example: "tcp:hs.example:8008:timeout=30",
};
const TLS: Kind = Kind {
    name: "tls",
    named: &[
        "timeout",
        "bindAddress",
        "bindPort",
        "noDelay",
        "keepalive",
        "receiveBuffer",
        "sendBuffer",
        "serverName",
        "trustRoots",
        "pin",
        "certificate",
        "certKey",
        "privateKey",
        "alpn",
    ],
    example: "tls:hs.example:8448:trustRoots=/etc/ssl/certs/ca-certificates.crt",
    ..TCP
};
const SSL: Kind = Kind { name: "ssl", ..TLS };
const UNIX: Kind = Kind {
    name: "unix",
    positional: &["address"],
    named: &["abstract", "timeout"],
    example: "unix:/run/chat.sock:timeout=5",
};
const STDIO: Kind = Kind { name: "stdio", positional: &[], named: &[], example: "stdio" };
const KINDS: &[&Kind] = &[&TCP, &TLS, &SSL, &UNIX, &STDIO];

impl FromStr for ClientEndpoint {
    type Err = DescriptionError;

    fn from_str(text: &str) -> Result<ClientEndpoint, DescriptionError> {
        let mut settings = Settings::split(text);
        let kind = settings.kind(KINDS)?;
        let endpoint = match kind.name {
            "stdio" => {
                // Twisted's has a colon and nothing behind it.
                settings.take_nothing();
                ClientEndpoint::Stdio
            }
            "tcp" => ClientEndpoint::Tcp(read_host(&mut settings, kind)?),
            "unix" => {
                let address = unix_address(&mut settings, kind)?;
                let timeout = settings.take(kind, "timeout", values::seconds)?;
                ClientEndpoint::Unix { address, timeout: timeout.unwrap_or(CONNECT_TIME_MAX) }
            }
            _ => {
                let host = read_host(&mut settings, kind)?;
                ClientEndpoint::Tls(host, read_tls(&mut settings, kind)?)
            }
        };
        settings.finish(kind)?;
        Ok(endpoint)
    }
}

fn read_host(
    settings: &mut Settings<'_>,
    kind: &'static Kind,
) -> Result<HostEndpoint, DescriptionError> {
    let host = settings.require(kind, "host", values::host)?;
    let port = settings.require(kind, "port", values::peer_port)?;
    let timeout = settings.take(kind, "timeout", values::seconds)?.unwrap_or(CONNECT_TIME_MAX);
    let bind_port = settings.take(kind, "bindPort", values::port)?;
    let mut bind_address = settings.take(kind, "bindAddress", values::interface)?;
    match (&mut bind_address, bind_port) {
        (Some(address), Some(port)) => address.set_port(port),
        (None, Some(_)) => {
            return Err(settings.missing(kind, "has a bindPort, but lacks its bindAddress"));
        }
        (_, None) => {}
    }
    let default = ConnectOptions::default();
    let options = ConnectOptions {
        bind_address,
        no_delay: settings.take(kind, "noDelay", values::yes_or_no)?.unwrap_or(default.no_delay),
        keepalive: settings.take(kind, "keepalive", values::seconds)?,
        receive_buffer_bytes: settings.take(kind, "receiveBuffer", values::size)?,
        send_buffer_bytes: settings.take(kind, "sendBuffer", values::size)?,
    };
    Ok(HostEndpoint { host, port, options, timeout })
}

fn read_tls(
    settings: &mut Settings<'_>,
    kind: &'static Kind,
) -> Result<ClientTlsFiles, DescriptionError> {
    let pins = |text: &str| {
        text.split(',').map(|pin| pin.parse::<SpkiPin>().map_err(|e| e.to_string())).collect()
    };
    let certificate = settings.take(kind, "certificate", values::path)?;
    let cert_key = settings.take(kind, "certKey", values::path)?;
    if certificate.is_some() && cert_key.is_some() {
        return Err(settings.missing(kind, "has two certificates, as certificate and certKey"));
    }
    let tls = ClientTlsFiles {
        trust_roots: settings.take(kind, "trustRoots", values::path)?,
        pins: settings.take(kind, "pin", pins)?.unwrap_or_default(),
        server_name: settings.take(kind, "serverName", values::host)?,
        certificate: certificate.or(cert_key),
        private_key: settings.take(kind, "privateKey", values::path)?,
        alpn: settings.take(kind, "alpn", values::words)?.unwrap_or_default(),
    };
    if tls.trust_roots.is_none() && tls.pins.is_empty() {
        return Err(settings.missing(kind, "believes nobody: give trustRoots, or a pin"));
    }
    if tls.private_key.is_some() && tls.certificate.is_none() {
        return Err(settings.missing(kind, "has a privateKey, but lacks its certificate"));
    }
    Ok(tls)
}

/// Writes a description that can be read. A path that isn't Unicode cannot be written so.
impl fmt::Display for ClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientEndpoint::Stdio => Writer::begin(f, &STDIO).map(drop),
            ClientEndpoint::Tcp(host) => write_host(&mut Writer::begin(f, &TCP)?, host),
            ClientEndpoint::Tls(host, tls) => {
                let mut out = Writer::begin(f, &TLS)?;
                write_host(&mut out, host)?;
                out.option("trustRoots", tls.trust_roots.as_deref().map(|p| p.display()))?;
                if !tls.pins.is_empty() {
                    let pins: Vec<_> = tls.pins.iter().map(SpkiPin::to_string).collect();
                    out.setting("pin", pins.join(","))?;
                }
                out.option("serverName", tls.server_name.as_deref().map(bracketed))?;
                out.option("certificate", tls.certificate.as_deref().map(|p| p.display()))?;
                out.option("privateKey", tls.private_key.as_deref().map(|p| p.display()))?;
                if !tls.alpn.is_empty() {
                    out.setting("alpn", tls.alpn.join(","))?;
                }
                Ok(())
            }
            ClientEndpoint::Unix { address, timeout } => {
                let mut out = Writer::begin(f, &UNIX)?;
                write_unix(&mut out, address)?;
                out.unless(Seconds(CONNECT_TIME_MAX), "timeout", Seconds(*timeout))
            }
        }
    }
}

fn write_host(out: &mut Writer<'_, '_>, host: &HostEndpoint) -> fmt::Result {
    out.value(bracketed(&host.host))?;
    out.value(host.port)?;
    out.unless(Seconds(CONNECT_TIME_MAX), "timeout", Seconds(host.timeout))?;
    let ConnectOptions { bind_address, no_delay, keepalive, .. } = &host.options;
    out.option("bindAddress", bind_address.as_ref().map(values::interface_text))?;
    let bind_port = bind_address.as_ref().map(SocketAddr::port).filter(|port| *port != 0);
    out.option("bindPort", bind_port)?;
    let default = ConnectOptions::default();
    out.unless(YesOrNo(default.no_delay), "noDelay", YesOrNo(*no_delay))?;
    out.option("keepalive", keepalive.map(Seconds))?;
    out.option("receiveBuffer", host.options.receive_buffer_bytes)?;
    out.option("sendBuffer", host.options.send_buffer_bytes)
}
