//! The agent: requests to whatever host a URL names.
//!
//! An [`HttpClient`](crate::HttpClient) knows one host; an [`Agent`] keeps one for each that it is asked about, within
//! one bound on all connections, and adds what depends on URLs: names, TLS, redirects, and addresses that are
//! not to be reached.

mod address_guard;
mod error;
mod hosts;
mod redirect;
mod request;
mod roots;

pub use self::address_guard::{AddressGuard, IpNet};
pub use self::error::AgentError;
pub use self::hosts::{Agent, AgentOptions};
pub use self::request::{AgentRequest, AgentResponse, FetchedResponse};
pub use self::roots::{SystemRootsError, system_roots};
