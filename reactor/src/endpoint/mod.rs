//! Where connections come from and lead to: descriptions of endpoints, and hosts by name.
//!
//! [`ServerEndpoint`] and [`ClientEndpoint`] are what a configuration file or a command line says about
//! the network: `tcp:8008:interface=127.0.0.1`, `tls:hs.example:8448:pin=sha256//…`,
//! `unix:/run/chat.sock`. They are values: parsed from text and written back, compared, and listened on
//! or connected to whenever that is due.
//!
//! [`HostConnector`] connects to a host whose name has one address or many, of both families, by the
//! rules of RFC 8305 ("happy eyeballs"): whichever answers first is the one.
//!
//! ```no_run
//! use ropewalk::endpoint::ServerEndpoint;
//! use ropewalk::{Protocol, Reactor, Transport, factory};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
//!         transport.write(data);
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = std::env::args().nth(1).unwrap_or("tcp:7:interface=127.0.0.1".to_owned());
//! let endpoint: ServerEndpoint = text.parse()?;
//! let reactor = Reactor::new()?;
//! let port = reactor.run_until(endpoint.listen(&reactor, factory(|_| Echo)));
//! println!("listening on {}", port.map_err(|failure| failure.to_string())?.local());
//! reactor.run()?;
//! # Ok(())
//! # }
//! ```

mod client;
mod connect;
mod description;
mod files;
mod host;
mod race;
mod server;
mod values;

pub use self::client::{ClientEndpoint, ClientTlsFiles, HostEndpoint};
pub use self::connect::Connect;
pub use self::description::DescriptionError;
pub use self::files::EndpointFileError;
pub use self::host::{AddressRule, AttemptFailure, ConnectHostError, HostConnector};
pub use self::server::{InheritedSocket, ServerEndpoint, ServerTlsFiles};
