//! A server on a memory connection, a client that is a string, and a handler that tests steer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use ropewalk::testing::{Clock, MemoryTransport};
use ropewalk::{
    Address, ConnectionLost, Consumer, Deferred, Factory, LogContext, Producer, Protocol, Resolver,
    Streaming, Transport,
};
use ropewalk_http::{BodyWriter, HttpFactory, Limits, Reply, Request, Response};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// Any protocol as a `Protocol`.
pub(crate) struct Boxed(pub(crate) Box<dyn Protocol>);

impl Protocol for Boxed {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.0.data_received(transport, data);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.0.read_connection_lost(transport);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.0.connection_lost(reason);
    }
}

/// A request that is not answered yet, and what answers it.
type Held = (Request, Resolver<Response>);

/// What the handler has been asked, and what tests hold of it.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Method and target of each request, and the context it ran in.
    pub(crate) requests: Rc<RefCell<Vec<String>>>,
    /// Requests to `/hold`, in order, with what answers them.
    pub(crate) held: Rc<RefCell<Vec<Held>>>,
    /// What became of work that was given up.
    pub(crate) given_up: Rc<RefCell<Vec<String>>>,
    /// Writers of `/stream`.
    pub(crate) writers: Rc<RefCell<Vec<Rc<BodyWriter>>>>,
}

impl Seen {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    /// Answers the oldest request that is held.
    pub(crate) fn answer(&self, response: Response) {
        let (request, resolver) = self.held.borrow_mut().remove(0);
        drop(request);
        resolver.callback(response);
    }

    pub(crate) fn writer(&self) -> Rc<BodyWriter> {
        self.writers.borrow_mut().remove(0)
    }

    fn handle(&self, request: Request) -> Reply {
        let head = &request.head;
        let context = LogContext::current();
        self.requests.borrow_mut().push(format!(
            "{} {} {}",
            context.name(),
            head.method(),
            head.target()
        ));
        match head.path() {
            "/hello" => Response::text(StatusCode::OK, "hello").into(),
            "/big" => Response::new(StatusCode::OK).with_body(vec![b'x'; 1 << 20]).into(),
            "/empty" => Response::new(StatusCode::NO_CONTENT).into(),
            "/panic" => panic!("the test asked for it"),
            "/fail" => Deferred::fail(std::io::Error::other("the disk is on fire")).into(),
            "/collect" => request
                .body
                .collect(100_000)
                .add_callback(|body| Ok(Response::new(StatusCode::OK).with_body(body)))
                .into(),
            "/hold" => {
                let given_up = Rc::clone(&self.given_up);
                let (deferred, resolver) = Deferred::with_canceller(move || {
                    given_up.borrow_mut().push(LogContext::current().name().to_owned());
                });
                self.held.borrow_mut().push((request, resolver));
                deferred.into()
            }
            "/stream" => {
                let writers = Rc::clone(&self.writers);
                let length = head.query().and_then(|query| query.parse().ok());
                Response::new(StatusCode::OK)
                    .with_stream(length, move |writer| writers.borrow_mut().push(Rc::new(writer)))
                    .into()
            }
            _ => Response::new(StatusCode::NOT_FOUND).into(),
        }
    }
}

/// A clock, a server on it and what it saw.
pub(crate) struct Server {
    pub(crate) clock: Clock,
    pub(crate) factory: HttpFactory,
    pub(crate) seen: Seen,
}

impl Server {
    pub(crate) fn new() -> Self {
        Server::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        let clock = Clock::new();
        let seen = Seen::default();
        let handler = seen.clone();
        let handle = move |request: Request| handler.handle(request);
        let factory = HttpFactory::new(clock.reactor(), Rc::new(handle), limits);
        Server { clock, factory, seen }
    }

    pub(crate) fn connect(&self) -> Client<'_> {
        let peer = Address::Tcp(([192, 0, 2, 1], 4321).into());
        let protocol = self.factory.build_protocol(&peer).expect("the server takes connections");
        Client { wire: MemoryTransport::connect(&self.clock, Boxed(protocol)) }
    }

    /// Whether a further connection would be refused.
    pub(crate) fn refuses(&self) -> bool {
        self.factory.build_protocol(&Address::Tcp(([192, 0, 2, 1], 4321).into())).is_none()
    }
}

/// The far end of one connection.
pub(crate) struct Client<'a> {
    pub(crate) wire: MemoryTransport<'a>,
}

impl Client<'_> {
    pub(crate) fn send(&self, text: impl AsRef<[u8]>) {
        self.wire.deliver(text.as_ref());
    }

    /// Returns what has been received since the last time, without the `date` lines.
    pub(crate) fn received(&self) -> String {
        let text = String::from_utf8_lossy(&self.wire.take_written()).into_owned();
        text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
    }

    pub(crate) fn ask(&self, text: &str) -> String {
        self.send(text);
        self.received()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.wire.is_closed()
    }
}

/// `GET` with a host and nothing else.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: h\r\n\r\n")
}

/// What the server answers to `/hello`.
pub(crate) const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\
                         content-type: text/plain; charset=utf-8\r\n\r\nhello";

/// Takes bytes, and says whether a producer is registered.
#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) taken: RefCell<Vec<u8>>,
    pub(crate) producer: RefCell<Option<Rc<dyn Producer>>>,
}

impl Consumer for Sink {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        assert_eq!(streaming, Streaming::Push);
        self.producer.replace(Some(producer));
    }

    fn unregister_producer(&self) {
        self.producer.replace(None);
    }

    fn write(&self, data: &[u8]) {
        self.taken.borrow_mut().extend_from_slice(data);
    }
}

/// A push producer that writes pieces until it is paused or has written its fill.
pub(crate) struct Spring {
    pub(crate) writer: RefCell<Option<Rc<BodyWriter>>>,
    pub(crate) piece: Bytes,
    pub(crate) left: std::cell::Cell<usize>,
    pub(crate) is_paused: std::cell::Cell<bool>,
    pub(crate) is_stopped: std::cell::Cell<bool>,
}

impl Spring {
    /// Starts writing `count` pieces of `piece_bytes` each, one a call of [`flow`](Self::flow).
    pub(crate) fn start(writer: Rc<BodyWriter>, count: usize, piece_bytes: usize) -> Rc<Self> {
        let spring = Rc::new(Spring {
            writer: RefCell::new(Some(Rc::clone(&writer))),
            piece: Bytes::from(vec![b'y'; piece_bytes]),
            left: count.into(),
            is_paused: false.into(),
            is_stopped: false.into(),
        });
        writer.register_producer(spring.clone(), Streaming::Push);
        spring
    }

    /// Writes one piece unless it is paused; returns whether it did.
    pub(crate) fn flow(&self) -> bool {
        if self.is_paused.get() || self.is_stopped.get() || self.left.get() == 0 {
            return false;
        }
        let writer = self.writer.borrow().clone().expect("not finished yet");
        writer.write(&self.piece);
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            writer.finish();
            self.writer.replace(None);
        }
        true
    }
}

impl Producer for Spring {
    fn pause_producing(&self) {
        self.is_paused.set(true);
    }

    fn resume_producing(&self) {
        self.is_paused.set(false);
    }

    fn stop_producing(&self) {
        self.is_stopped.set(true);
        self.writer.replace(None);
    }
}
