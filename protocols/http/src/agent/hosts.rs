//! [`Agent`]: a client for every host.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ropewalk::endpoint::HostConnector;
use ropewalk::tls::rustls::ClientConfig;
use ropewalk::tls::rustls::pki_types::ServerName;
use ropewalk::{Deferred, Failure, Reactor};

use super::address_guard::AddressGuard;
use super::error::{AgentError, shown};
use super::redirect::{location, next_hop};
use super::request::{AgentRequest, AgentResponse, FetchedResponse};
use crate::client::{Budget, ClientOptions, HttpClient};

/// What an agent allows, and whom it believes.
///
/// ```
/// use ropewalk_http::{AddressGuard, AgentOptions};
///
/// let options = AgentOptions { guard: AddressGuard::public_only(), ..AgentOptions::default() };
/// ```
#[derive(Clone)]
pub struct AgentOptions {
    /// What holds for each host: sizes, connections to it, times for each phase of a request.
    pub client: ClientOptions,
    /// Connections to all hosts together. When there are as many, the one that has been idle longest is
    /// closed for a new one, and without an idle one the request waits.
    pub connections_max: usize,
    /// Which addresses may be connected to. Asked about each address that a name resolves to, at each
    /// connection, and so at each redirect.
    pub guard: AddressGuard,
    /// How many redirects are followed. With none the response that redirects is the response.
    pub redirects_max: usize,
    /// For `https`: whom to believe, and who we are. Make it with [`ropewalk::tls::ClientTls`], and
    /// offer no other protocol than `http/1.1`.
    pub tls: Option<Arc<ClientConfig>>,
    /// Time for the whole, redirects included: with [`Agent::request`] until the head has come, with
    /// [`Agent::fetch`] until the body has.
    pub timeout: Option<Duration>,
    /// Sent with requests that have no such field.
    pub user_agent: Option<HeaderValue>,
}

impl Default for AgentOptions {
    /// No TLS, no guard, no redirects, no limit in time but those of the phases.
    fn default() -> Self {
        AgentOptions {
            client: ClientOptions::default(),
            connections_max: CONNECTIONS_MAX,
            guard: AddressGuard::none(),
            redirects_max: 0,
            tls: None,
            timeout: None,
            user_agent: None,
        }
    }
}

impl fmt::Debug for AgentOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AgentOptions")
            .field("client", &self.client)
            .field("connections_max", &self.connections_max)
            .field("guard", &self.guard)
            .field("redirects_max", &self.redirects_max)
            .field("has_tls", &self.tls.is_some())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Sends requests to any host, and keeps connections open for the next ones.
///
/// A cheap clone; clones share the connections. When the last one is dropped, idle connections are
/// closed, and the others once they have done their work.
///
/// ```
/// use ropewalk::testing::{Clock, failure_result_of};
/// use ropewalk_http::{AddressGuard, Agent, AgentOptions, AgentRequest};
///
/// let clock = Clock::new();
/// clock.hosts().add("innocent.example", ["127.0.0.1".parse().unwrap()]);
/// let mut options = AgentOptions::default();
/// options.guard = AddressGuard::public_only();
/// let agent = Agent::new(clock.reactor(), options);
/// let response = agent.request(AgentRequest::get("http://innocent.example/").unwrap());
/// clock.pump();
/// assert_eq!(
///     failure_result_of(response).to_string(),
///     "cannot connect to innocent.example port 80: \
///      127.0.0.1:80: this program's rules forbid this address",
/// );
/// ```
#[derive(Clone)]
pub struct Agent {
    inner: Rc<Inner>,
}

struct Inner {
    reactor: Reactor,
    options: AgentOptions,
    budget: Rc<Budget>,
    clients: RefCell<BTreeMap<Origin, HttpClient>>,
    /// At how many clients those without work are looked for.
    sweep_at: Cell<usize>,
}

/// What a connection can be used again for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Origin {
    is_tls: bool,
    host: String,
    port: u16,
    connect_to: Option<(String, u16)>,
}

impl Agent {
    /// Makes an agent. Nothing is connected yet.
    pub fn new(reactor: &Reactor, options: AgentOptions) -> Self {
        let inner = Inner {
            reactor: reactor.clone(),
            budget: Budget::new(options.connections_max),
            options,
            clients: RefCell::default(),
            sweep_at: Cell::new(SWEEP_AT_MIN),
        };
        Agent { inner: Rc::new(inner) }
    }

    /// Sends a request. The response comes as soon as the head of the last one is complete.
    ///
    /// Redirects are followed as far as the options say: a POST that is answered with 301, 302 or 303 goes on
    /// as a GET, credentials stay with the host that they were meant for, and nothing that was asked for over
    /// HTTPS is fetched over HTTP. Cancelling gives up whatever step is under way.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; [`ClientError`](crate::ClientError);
    /// [`ConnectHostError`](ropewalk::endpoint::ConnectHostError) and
    /// [`ResolveError`](ropewalk::resolver::ResolveError) when there is no connection;
    /// [`TimeoutError`](ropewalk::TimeoutError) when the time for the whole is over.
    #[track_caller]
    pub fn request(&self, request: AgentRequest) -> Deferred<AgentResponse> {
        let limit = request.timeout.or(self.inner.options.timeout);
        let inner = Rc::clone(&self.inner);
        let response = self.inner.reactor.spawn(async move { inner.follow(request).await });
        self.limited(response, limit)
    }

    /// Sends a request and gathers the whole body of the response, of at most `body_bytes_max`.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request), and [`BodyError`](crate::BodyError).
    #[track_caller]
    pub fn fetch(&self, request: AgentRequest, body_bytes_max: u64) -> Deferred<FetchedResponse> {
        let limit = request.timeout.or(self.inner.options.timeout);
        let inner = Rc::clone(&self.inner);
        let response = self.inner.reactor.spawn(async move {
            let AgentResponse { url, head, body } = inner.follow(request).await?;
            let body = body.collect(body_bytes_max).await?;
            Ok(FetchedResponse { url, head, body })
        });
        self.limited(response, limit)
    }

    #[track_caller]
    fn limited<T: 'static>(&self, deferred: Deferred<T>, limit: Option<Duration>) -> Deferred<T> {
        match limit {
            Some(limit) => deferred.with_timeout(&self.inner.reactor, limit),
            None => deferred,
        }
    }

    /// Returns the number of open connections, those that are being made included.
    pub fn connection_count(&self) -> usize {
        self.inner.budget.open_count()
    }
}

impl Inner {
    async fn follow(&self, mut request: AgentRequest) -> Result<AgentResponse, Failure> {
        let redirects_max = request.redirects_max.unwrap_or(self.options.redirects_max);
        let mut redirect_count = 0;
        loop {
            let client = self.client_for(&request)?;
            let (wire, replay) = request.split(self.options.user_agent.as_ref())?;
            let response = client.request(wire).await?;
            let status = response.head.status();
            let hop = match location(&response.head) {
                Some(location) if redirects_max > 0 => {
                    next_hop(&replay.method, &replay.url, status, location)?
                }
                _ => {
                    let (head, body) = (response.head, response.body);
                    return Ok(AgentResponse { url: replay.url, head, body });
                }
            };
            if redirect_count == redirects_max {
                let from = shown(&replay.url);
                return Err(AgentError::RedirectsTooMany { from, limit: redirects_max }.into());
            }
            redirect_count += 1;
            log::debug!("{} redirects to {}", shown(&replay.url), shown(&hop.url));
            request = replay.redirected(hop)?;
        }
    }

    /// Returns the client for the host that a request goes to.
    fn client_for(&self, request: &AgentRequest) -> Result<HttpClient, AgentError> {
        let url = &request.url;
        let origin = Origin {
            is_tls: url.scheme() == "https",
            host: request.host(),
            // Both schemes have a usual port.
            port: url.port_or_known_default().unwrap_or_default(),
            connect_to: request.connect_to.clone(),
        };
        if let Some(client) = self.clients.borrow().get(&origin) {
            return Ok(client.clone());
        }
        let (host, port) = match &origin.connect_to {
            Some((host, port)) => (host.clone(), *port),
            None => (origin.host.clone(), origin.port),
        };
        let guard = self.options.guard.clone();
        let mut connector = HostConnector::new(host, port)
            .permit(move |address| guard.permits(address.ip()))
            .timeout(self.options.client.connect_timeout);
        if origin.is_tls {
            let missing = || AgentError::TlsMissing { url: shown(url) };
            let config = self.options.tls.as_ref().ok_or_else(missing)?;
            connector = connector.tls(Arc::clone(config));
            if origin.connect_to.is_some()
                && let Ok(name) = ServerName::try_from(origin.host.clone())
            {
                connector = connector.server_name(name);
            }
        }
        let connect = move |reactor: &Reactor, protocol| connector.connect(reactor, protocol);
        let options = self.options.client.clone();
        let client = HttpClient::in_budget(&self.reactor, connect, options, &self.budget);
        self.sweep();
        self.clients.borrow_mut().insert(origin, client.clone());
        Ok(client)
    }

    /// Now and then forgets the hosts that nothing is open to.
    fn sweep(&self) {
        let mut clients = self.clients.borrow_mut();
        if clients.len() < self.sweep_at.get() {
            return;
        }
        clients.retain(|_, client| !client.is_unused());
        self.sweep_at.set((clients.len() * 2).max(SWEEP_AT_MIN));
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Agent")
            .field("connection_count", &self.connection_count())
            .field("host_count", &self.inner.clients.borrow().len())
            .finish_non_exhaustive()
    }
}

/// Enough for a homeserver in many rooms, a fraction of the usual limit of open descriptors.
const CONNECTIONS_MAX: usize = 2_000;

/// With fewer hosts than this it does not matter whether some are remembered in vain.
const SWEEP_AT_MIN: usize = 64;
