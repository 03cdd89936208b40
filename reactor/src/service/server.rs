//! [`ServerService`]: a listening port, as long as the program runs.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::Service;
use crate::address::Address;
use crate::deferred::{Deferred, IntoDeferred};
use crate::endpoint::ServerEndpoint;
use crate::protocol::Factory;
use crate::reactor::Reactor;
use crate::transport::port::ListeningPort;

/// Listens from its start to its stop.
///
/// Connections that stand when it stops are left alone, as they are by
/// [`ListeningPort::stop_listening`]: what is to become of them, [`on_stop`](Self::on_stop) says. Those
/// that are left when the reactor stops are closed then.
///
/// ```
/// use ropewalk::testing::{Clock, success_result_of};
/// use ropewalk::{Protocol, ServerService, Service, Transport, factory};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
///         transport.write(data);
///     }
/// }
///
/// let endpoint = "tcp:7:interface=127.0.0.1".parse().unwrap();
/// let echo = ServerService::at("echo", endpoint, factory(|_| Echo));
/// let clock = Clock::new();
/// success_result_of(echo.start(clock.reactor()));
/// assert_eq!(echo.address().unwrap().to_string(), "127.0.0.1:7");
/// success_result_of(echo.stop());
/// assert_eq!(echo.address(), None);
/// ```
pub struct ServerService {
    name: Box<str>,
    listen: Listen,
    port: Rc<RefCell<Option<ListeningPort>>>,
    on_stop: Option<Box<dyn Fn() -> Deferred<()>>>,
}

type Listen = Box<dyn Fn(&Reactor) -> Deferred<ListeningPort>>;

impl ServerService {
    /// Makes a service that listens at an endpoint, and has `factory` make a protocol for each
    /// connection.
    pub fn at(
        name: impl Into<Box<str>>,
        endpoint: ServerEndpoint,
        factory: Rc<dyn Factory>,
    ) -> ServerService {
        ServerService::new(name, move |reactor| endpoint.listen(reactor, Rc::clone(&factory)))
    }

    /// Makes a service that listens in whatever way `listen` does, for instance with
    /// [`Reactor::listen_tls`]:
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ropewalk::{Factory, ListenOptions, ServerService, tls};
    ///
    /// fn chat(factory: Rc<dyn Factory>, tls: std::sync::Arc<tls::rustls::ServerConfig>) -> ServerService {
    ///     ServerService::new("chat", move |reactor| {
    ///         let address = ([127, 0, 0, 1], 6697).into();
    ///         let options = ListenOptions::default();
    ///         Ok(reactor.listen_tls(address, Rc::clone(&factory), tls.clone(), options)?)
    ///     })
    /// }
    /// # let _ = chat;
    /// ```
    pub fn new<R: IntoDeferred<ListeningPort>>(
        name: impl Into<Box<str>>,
        listen: impl Fn(&Reactor) -> R + 'static,
    ) -> ServerService {
        ServerService {
            name: name.into(),
            listen: Box::new(move |reactor| listen(reactor).into_deferred()),
            port: Rc::default(),
            on_stop: None,
        }
    }

    /// Has `f` called when it has stopped listening; it has stopped when what `f` gives has its result.
    ///
    /// That is the place to end the connections, or to wait for what they are busy with.
    #[must_use]
    pub fn on_stop<R: IntoDeferred<()>>(mut self, f: impl Fn() -> R + 'static) -> ServerService {
        self.on_stop = Some(Box::new(move || f().into_deferred()));
        self
    }

    /// Returns the address at which it listens now.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        self.port.borrow().as_ref().map(|port| port.local().clone())
    }
}

impl Service for ServerService {
    fn name(&self) -> &str {
        &self.name
    }

    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// Those of listening: the address is in use, or not one of this machine's.
    fn start(&self, reactor: &Reactor) -> Deferred<()> {
        let (slot, name) = (Rc::clone(&self.port), self.name.clone());
        (self.listen)(reactor).add_callback(move |port| {
            log::info!("{name} listens at {}", port.local());
            slot.replace(Some(port));
            Ok(())
        })
    }

    fn stop(&self) -> Deferred<()> {
        let port = self.port.take();
        if let Some(port) = port {
            port.stop_listening();
        }
        self.on_stop.as_ref().map_or_else(|| Deferred::succeed(()), |on_stop| on_stop())
    }
}

impl fmt::Debug for ServerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerService")
            .field("name", &self.name)
            .field("port", &self.port.borrow())
            .finish()
    }
}
