//! The client: against our own server, and against scripts that misbehave.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Method, header};
use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{
    Address, ConnectError, Consumer, Deferred, ListenOptions, Protocol, TimeoutError, Transport,
};
use ropewalk_http::{
    BodyError, ClientError, ClientOptions, ClientRequest, ClientResponse, HttpClient, Limits,
    MessageError, request,
};

use crate::support::{SECOND, Server, Sink, Spring};

/// A server that only listens; the test answers.
#[derive(Clone, Default)]
struct Script {
    connections: Rc<RefCell<Vec<Transport>>>,
    received: Rc<RefCell<Vec<String>>>,
}

struct ScriptedServer {
    script: Script,
    number: usize,
}

impl Protocol for ScriptedServer {
    fn connection_made(&mut self, transport: &Transport) {
        let mut connections = self.script.connections.borrow_mut();
        self.number = connections.len();
        connections.push(transport.clone());
        self.script.received.borrow_mut().push(String::new());
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        self.script.received.borrow_mut()[self.number].push_str(&text);
    }
}

impl Script {
    fn listen(&self, clock: &Clock) -> SocketAddr {
        let script = self.clone();
        let factory = move |_: &Address| {
            let server = ScriptedServer { script: script.clone(), number: 0 };
            Some(Box::new(server) as Box<dyn Protocol>)
        };
        listen(clock, Rc::new(factory))
    }

    /// What connection `number` has received since the last time.
    fn take(&self, number: usize) -> String {
        std::mem::take(&mut self.received.borrow_mut()[number])
    }

    fn transport(&self, number: usize) -> Transport {
        self.connections.borrow()[number].clone()
    }

    fn connection_count(&self) -> usize {
        self.connections.borrow().len()
    }
}

fn listen(clock: &Clock, factory: Rc<dyn ropewalk::Factory>) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listening = clock.reactor().listen_tcp(any, factory, ListenOptions::default()).unwrap();
    listening.local_address()
}

/// A clock, a script that listens, and a client.
struct Bench {
    clock: Clock,
    script: Script,
    client: HttpClient,
}

fn options() -> ClientOptions {
    ClientOptions {
        limits: Limits {
            connections_max: 2,
            idle_timeout: SECOND * 50,
            stall_timeout: SECOND * 20,
            ..ClientOptions::default().limits
        },
        response_timeout: SECOND * 60,
        connect_timeout: SECOND * 10,
        waiting_max: 3,
        waiting_timeout: SECOND * 30,
    }
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::new();
        let script = Script::default();
        let address = script.listen(&clock);
        let client = HttpClient::new(clock.reactor(), address, options());
        Bench { clock, script, client }
    }

    fn get(&self, target: &str) -> Deferred<ClientResponse> {
        let deferred = self.client.request(get(target));
        self.clock.pump();
        deferred
    }

    /// Has connection `number` of the server send this.
    fn reply(&self, number: usize, text: &str) {
        self.script.transport(number).write(text.as_bytes());
        self.clock.pump();
    }
}

fn get(target: &str) -> ClientRequest {
    ClientRequest::new(Method::GET, "h", target).unwrap()
}

fn text_of(response: ClientResponse) -> Deferred<String> {
    response.body.collect(10 << 20).add_callback(|body| Ok(String::from_utf8(body.to_vec())?))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_request_travels_to_our_own_server_and_back() {
    let server = Server::new();
    let clock = &server.clock;
    let address = listen(clock, Rc::new(server.factory.clone()));
    for (why, body) in [("small", "abc".to_owned()), ("large", "x".repeat(90_000))] {
        let post = ClientRequest::new(Method::POST, "h", "/collect?a=b").unwrap();
        let echoed = request(clock.reactor(), address, post.with_body(body.clone())).add_callback(
            |response| {
                assert_eq!(response.head.status(), 200);
                text_of(response)
            },
        );
        clock.pump();
        assert_eq!(success_result_of(echoed), body, "{why}");
        assert_eq!(server.factory.connection_count(), 0, "{why}: one request, one connection");
    }
}

#[test]
fn what_is_sent_is_what_was_asked_for() {
    let bench = Bench::new();
    let put = ClientRequest::new(Method::PUT, "hs.example:8448", "/a?b=c")
        .unwrap()
        .header(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))
        .with_body("{}");
    assert!(!format!("{put:?}").contains("Bearer"), "secrets stay out of logs");
    bench.client.request(put).detach();
    bench.clock.pump();
    assert_eq!(
        bench.script.take(0),
        "PUT /a?b=c HTTP/1.1\r\nhost: hs.example:8448\r\ncontent-length: 2\r\n\
         authorization: Bearer x\r\n\r\n{}"
    );
    for (host, target, expected) in [
        ("h", "relative", MessageError::TargetInvalid),
        ("h", "/a b", MessageError::TargetInvalid),
        ("h", "/a\r\nx: y", MessageError::TargetInvalid),
        ("h\r\nx: y", "/", MessageError::HostInvalid),
    ] {
        let error = ClientRequest::new(Method::GET, host, target).unwrap_err();
        assert_eq!(error, expected, "{host:?} {target:?}");
    }
}

#[test]
fn connections_are_used_again() {
    let bench = Bench::new();
    for round in 0..3 {
        let response = bench.get("/");
        assert!(bench.script.take(0).starts_with("GET / HTTP/1.1\r\n"), "round {round}");
        bench.reply(0, OK);
        assert_eq!(success_result_of(text_of(success_result_of(response))), "ok");
    }
    assert_eq!(bench.script.connection_count(), 1);
    assert_eq!(bench.client.connection_count(), 1);
    drop(bench.client);
    bench.clock.pump();
    assert!(!bench.script.transport(0).is_connected(), "nobody can use it any more");
}

#[test]
fn a_response_that_ends_the_connection_is_not_followed_by_another_there() {
    for (why, reply, ends) in [
        ("announced", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", false),
        ("until the end", "HTTP/1.1 200 OK\r\n\r\nok", true),
        ("more than asked for", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1", false),
    ] {
        let bench = Bench::new();
        let response = bench.get("/").add_callback(text_of);
        bench.reply(0, reply);
        if ends {
            bench.script.transport(0).lose_connection();
            bench.clock.pump();
        }
        assert_eq!(success_result_of(response), "ok", "{why}");
        bench.get("/").detach();
        assert_eq!(bench.script.connection_count(), 2, "{why}");
    }
}

#[test]
fn requests_over_the_limit_of_connections_wait_their_turn() {
    let bench = Bench::new();
    let responses: Vec<_> = (0..5).map(|_| bench.get("/").add_callback(text_of)).collect();
    assert_eq!(bench.script.connection_count(), 2);
    let failure = failure_result_of(bench.get("/"));
    assert_eq!(failure.downcast_ref(), Some(&ClientError::QueueFull { limit: 3 }));
    for _ in 0..2 {
        bench.reply(0, OK);
        bench.reply(1, OK);
    }
    bench.reply(0, OK);
    for response in responses {
        assert_eq!(success_result_of(response), "ok");
    }
    assert_eq!(bench.script.connection_count(), 2);
}

#[test]
fn a_kept_connection_that_breaks_is_replaced_where_that_is_safe() {
    for (method, is_safe) in [(Method::GET, true), (Method::PUT, true), (Method::POST, false)] {
        let bench = Bench::new();
        let first = bench.get("/");
        bench.reply(0, OK);
        drop(success_result_of(first));
        let asked = ClientRequest::new(method.clone(), "h", "/").unwrap();
        let response = bench.client.request(asked).add_callback(text_of);
        bench.clock.pump();
        bench.script.transport(0).abort_connection();
        bench.clock.pump();
        if is_safe {
            assert_no_result(&response);
            bench.reply(1, OK);
            assert_eq!(success_result_of(response), "ok", "{method}");
        } else {
            let failure = failure_result_of(response);
            assert_eq!(failure.downcast_ref(), Some(&ClientError::ConnectionLost), "{method}");
        }
    }
}

#[test]
fn a_fresh_connection_that_breaks_is_not() {
    let bench = Bench::new();
    let response = bench.get("/");
    bench.script.transport(0).abort_connection();
    bench.clock.pump();
    let failure = failure_result_of(response);
    assert_eq!(failure.downcast_ref(), Some(&ClientError::ConnectionLost));
    assert_eq!(bench.script.connection_count(), 1);
    assert_eq!(bench.client.connection_count(), 0);
}

#[test]
fn a_server_that_closes_an_idle_connection_does_no_harm() {
    let bench = Bench::new();
    let response = bench.get("/");
    bench.reply(0, OK);
    drop(success_result_of(response));
    bench.script.transport(0).lose_connection();
    bench.clock.pump();
    assert_eq!(bench.client.connection_count(), 0);
    bench.get("/").detach();
    assert_eq!(bench.script.connection_count(), 2);
}

#[test]
fn responses_that_are_none_fail_the_request_and_the_connection() {
    for (why, reply, expected) in [
        ("something else", "SSH-2.0-OpenSSH\r\n", MessageError::StatusLineMalformed),
        (
            "both lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            MessageError::LengthAndTransferEncoding,
        ),
    ] {
        let bench = Bench::new();
        let response = bench.get("/");
        bench.reply(0, reply);
        let failure = failure_result_of(response);
        assert_eq!(failure.downcast_ref(), Some(&ClientError::Malformed(expected)), "{why}");
        assert_eq!(bench.client.connection_count(), 0, "{why}");
    }
}

#[test]
fn a_body_that_breaks_off_fails_and_one_that_is_malformed_too() {
    for (why, reply, expected) in [
        ("short", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", BodyError::ConnectionLost),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay",
            BodyError::Malformed(MessageError::ChunkMalformed("data is longer than its size says")),
        ),
    ] {
        let bench = Bench::new();
        let body = bench.get("/").add_callback(text_of);
        bench.reply(0, reply);
        bench.script.transport(0).lose_connection();
        bench.clock.pump();
        assert_eq!(failure_result_of(body).downcast_ref(), Some(&expected), "{why}");
        assert_eq!(bench.client.connection_count(), 0, "{why}");
    }
}

#[test]
fn a_body_is_read_at_the_consumers_pace() {
    let bench = Bench::new();
    let response = bench.get("/");
    bench.reply(0, "HTTP/1.1 200 OK\r\n\r\n");
    let server = bench.script.transport(0);
    let sink = Rc::new(Sink::default());
    let sent = success_result_of(response).body.send_to(sink.clone());
    let producer = sink.producer.borrow().clone().unwrap();
    producer.pause_producing();
    for _ in 0..40 {
        server.write(&[b'x'; 10_000]);
        bench.clock.pump();
    }
    assert_eq!(sink.taken.borrow().len(), 0);
    assert!(server.buffered_bytes() > 200_000, "the server is made to wait");
    server.lose_connection();
    bench.clock.pump();
    assert_no_result(&sent);
    producer.resume_producing();
    bench.clock.pump();
    assert_eq!(success_result_of(sent), 400_000);
    assert_eq!(sink.taken.borrow().len(), 400_000);
}

#[test]
fn a_body_that_nobody_wants_costs_the_connection_if_it_is_long() {
    for (length, connections) in [(100_000, 1), (10 << 20, 2)] {
        let bench = Bench::new();
        let response = bench.get("/");
        bench.reply(0, &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"));
        drop(success_result_of(response));
        bench.reply(0, &"x".repeat(100_000));
        bench.get("/").detach();
        assert_eq!(bench.script.connection_count(), connections, "{length} bytes");
    }
}

#[test]
fn a_request_body_is_streamed_at_the_servers_pace() {
    let bench = Bench::new();
    let springs = Rc::new(RefCell::new(Vec::new()));
    let started = Rc::clone(&springs);
    let post = ClientRequest::new(Method::POST, "h", "/").unwrap();
    let post = post.with_stream(None, move |writer| {
        started.borrow_mut().push(Spring::start(Rc::new(writer), 100, 10_000));
    });
    let response = bench.client.request(post).add_callback(text_of);
    bench.clock.pump();
    let spring = springs.borrow_mut().remove(0);
    bench.script.transport(0).pause_producing();
    while spring.flow() {
        bench.clock.pump();
    }
    assert!(spring.is_paused.get());
    bench.script.transport(0).resume_producing();
    bench.clock.pump();
    while spring.flow() {
        bench.clock.pump();
    }
    assert!(bench.script.take(0).ends_with("\r\n0\r\n\r\n"));
    bench.reply(0, OK);
    assert_eq!(success_result_of(response), "ok");
    bench.get("/").detach();
    assert_eq!(bench.script.connection_count(), 1, "the connection goes on");
}

#[test]
fn a_response_before_the_request_is_complete_ends_the_connection() {
    let bench = Bench::new();
    let writers = Rc::new(RefCell::new(Vec::new()));
    let started = Rc::clone(&writers);
    let post = ClientRequest::new(Method::POST, "h", "/").unwrap();
    let post = post.with_stream(None, move |writer| started.borrow_mut().push(writer));
    let response = bench.client.request(post);
    bench.clock.pump();
    writers.borrow()[0].write(b"abc");
    bench.reply(0, "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(success_result_of(response).head.status(), 413);
    bench.clock.pump();
    assert!(!writers.borrow()[0].is_connected());
    assert_eq!(bench.client.connection_count(), 0);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let bench = Bench::new();
    let response = bench.get("/");
    bench.clock.advance(SECOND * 59);
    assert_no_result(&response);
    bench.clock.advance(SECOND);
    let failure = failure_result_of(response);
    let expected = ClientError::ResponseTimeout { limit: SECOND * 60 };
    assert_eq!(failure.downcast_ref(), Some(&expected));
    bench.clock.pump();
    assert!(!bench.script.transport(0).is_connected());
    assert_eq!(bench.clock.pending_calls(), 0);
}

#[test]
fn a_server_that_stops_in_the_middle_is_given_up() {
    let bench = Bench::new();
    let body = bench.get("/").add_callback(text_of);
    bench.reply(0, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok");
    bench.clock.advance(SECOND * 20);
    assert_eq!(failure_result_of(body).downcast_ref(), Some(&BodyError::Stalled));
}

#[test]
fn an_idle_connection_is_closed_after_a_while() {
    let bench = Bench::new();
    let response = bench.get("/");
    bench.reply(0, OK);
    drop(success_result_of(response));
    bench.clock.advance(SECOND * 50 - Duration::from_millis(1));
    assert_eq!(bench.client.connection_count(), 1);
    bench.clock.advance(SECOND * 10);
    assert_eq!(bench.client.connection_count(), 0);
}

#[test]
fn cancelling_a_request_closes_its_connection() {
    let bench = Bench::new();
    let response = bench.get("/");
    response.cancel();
    bench.clock.pump();
    assert!(failure_result_of(response).is::<ropewalk::CancelledError>());
    assert_eq!(bench.client.connection_count(), 0);
    assert!(!bench.script.transport(0).is_connected());
}

#[test]
fn cancelling_a_request_that_waits_takes_it_out_of_the_queue() {
    let bench = Bench::new();
    let first = bench.get("/1");
    let second = bench.get("/2");
    let third = bench.get("/3");
    third.cancel();
    assert!(failure_result_of(third).is::<ropewalk::CancelledError>());
    bench.reply(0, OK);
    bench.reply(1, OK);
    drop((success_result_of(first), success_result_of(second)));
    assert!(!(bench.script.take(0) + &bench.script.take(1)).contains("/3"));
}

#[test]
fn a_limit_in_time_for_the_whole_is_the_callers() {
    let bench = Bench::new();
    let response = bench.get("/").with_timeout(bench.clock.reactor(), SECOND);
    bench.clock.advance(SECOND);
    assert!(failure_result_of(response).is::<TimeoutError>());
    bench.clock.pump();
    assert_eq!(bench.client.connection_count(), 0);
}

#[test]
fn an_address_where_nobody_listens_fails_the_request() {
    let clock = Clock::new();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let response = request(clock.reactor(), nowhere, get("/"));
    clock.pump();
    assert!(failure_result_of(response).is::<ConnectError>());
}

#[test]
fn connections_are_made_as_the_connector_says() {
    let clock = Clock::new();
    let script = Script::default();
    let address = script.listen(&clock);
    let asked = Rc::new(RefCell::new(0));
    let count = Rc::clone(&asked);
    let connect = move |reactor: &ropewalk::Reactor, protocol| {
        *count.borrow_mut() += 1;
        reactor.connect_tcp(address, protocol)
    };
    let client = HttpClient::with_connector(clock.reactor(), connect, options());
    let response = client.request(get("/")).add_callback(text_of);
    clock.pump();
    script.transport(0).write(OK.as_bytes());
    clock.pump();
    assert_eq!(success_result_of(response), "ok");
    assert_eq!(*asked.borrow(), 1);
}
