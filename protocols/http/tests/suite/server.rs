//! The server: requests, answers, order, and how a connection goes on or ends.

use http::StatusCode;
use ropewalk::testing::success_result_of;
use ropewalk_http::{Limits, Response};

use crate::support::{HELLO, MILLISECOND, SECOND, Server, get};

#[test]
fn a_request_is_answered_and_the_connection_kept() {
    let server = Server::new();
    let client = server.connect();
    assert_eq!(client.ask(&get("/hello")), HELLO);
    assert_eq!(client.ask(&get("/hello?again")), HELLO);
    assert!(!client.is_closed());
    assert_eq!(server.seen.lines(), ["GET-1 GET /hello", "GET-2 GET /hello?again"]);
    assert!(ropewalk::LogContext::current().is_sentinel());
}

#[test]
fn each_response_tells_the_date() {
    let server = Server::new();
    let client = server.connect();
    client.send(get("/hello"));
    let first = String::from_utf8(client.wire.take_written()).unwrap();
    assert!(first.starts_with("HTTP/1.1 200 OK\r\ndate: "), "{first}");
    let date = |text: &str| text.split("\r\n").nth(1).unwrap().to_owned();
    server.clock.advance(std::time::Duration::from_secs(1));
    client.send(get("/hello"));
    let second = String::from_utf8(client.wire.take_written()).unwrap();
    assert!(date(&second).ends_with(" GMT"), "{second}");
    assert_ne!(date(&first), date(&second), "a second later it is another");
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let server = Server::new();
    let client = server.connect();
    let request = format!(
        "{}POST /collect HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        get("/hello")
    );
    for byte in request.as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(
        client.received(),
        format!("{HELLO}HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc")
    );
}

#[test]
fn pipelined_requests_are_answered_in_order_whatever_takes_longer() {
    let server = Server::new();
    let client = server.connect();
    client.send(format!("{}{}{}", get("/hold"), get("/hello"), get("/hold")));
    assert_eq!(client.received(), "");
    assert_eq!(server.seen.lines().len(), 1, "the next is begun when this one is answered");
    server.seen.answer(Response::new(StatusCode::OK).with_body("first"));
    assert_eq!(
        client.received(),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst{HELLO}")
    );
    server.seen.answer(Response::new(StatusCode::OK).with_body("third"));
    assert_eq!(client.received(), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthird");
    assert_eq!(server.seen.lines().len(), 3);
}

#[test]
fn head_gets_the_length_and_no_body() {
    let server = Server::new();
    let client = server.connect();
    let answer = client.ask("HEAD /hello HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(answer, HELLO.strip_suffix("hello").unwrap());
    let answer = client.ask("HEAD /stream HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(server.seen.writers.borrow().len(), 0, "nothing is asked to write");
    assert_eq!(client.ask(&get("/hello")), HELLO, "the connection goes on");
}

#[test]
fn statuses_without_a_body_have_none() {
    let server = Server::new();
    let client = server.connect();
    assert_eq!(client.ask(&get("/empty")), "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.ask(&get("/hello")), HELLO);
}

#[test]
fn connections_end_as_version_and_fields_say() {
    for (why, request, told, ends) in [
        ("1.1 stays", "GET /hello HTTP/1.1\r\nhost: h\r\n\r\n", "", false),
        (
            "1.1 asks to close",
            "GET /hello HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
            "connection: close\r\n",
            true,
        ),
        ("1.0 closes", "GET /hello HTTP/1.0\r\n\r\n", "connection: close\r\n", true),
        (
            "1.0 asks to stay",
            "GET /hello HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
            "connection: keep-alive\r\n",
            false,
        ),
    ] {
        let server = Server::new();
        let client = server.connect();
        let expected = HELLO.replace("content-type", &format!("{told}content-type"));
        assert_eq!(client.ask(request), expected, "{why}");
        assert_eq!(client.is_closed(), ends, "{why}");
        assert_eq!(server.factory.connection_count(), usize::from(!ends), "{why}");
    }
}

#[test]
fn bytes_that_are_no_request_are_refused_and_the_connection_closed() {
    let server = Server::new();
    let client = server.connect();
    let answer = client.ask("GET / HTTP/1.1\nhost: h\n\nGET /hello HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("a line ends in a bare line feed; lines end in CR LF\n"), "{answer}");
    client.wire.finish();
    assert!(client.is_closed());
    assert_eq!(server.seen.lines(), [""; 0], "the smuggled request is not served");
}

#[test]
fn a_failing_handler_becomes_a_500_that_says_nothing_of_the_inside() {
    let server = Server::new();
    let client = server.connect();
    let answer = client.ask(&get("/fail"));
    assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
    assert!(!answer.contains("fire"), "{answer}");
    assert_eq!(client.ask(&get("/hello")), HELLO, "the connection goes on");
}

#[test]
fn a_client_that_goes_away_cancels_what_it_asked_for() {
    for how in ["close", "reset", "half-close"] {
        let server = Server::new();
        let client = server.connect();
        client.send(get("/hold"));
        match how {
            "close" => client.wire.close(),
            "reset" => client.wire.reset(),
            _ => client.wire.finish(),
        }
        assert_eq!(*server.seen.given_up.borrow(), ["GET-1"], "{how}: in the request's context");
        assert!(client.is_closed(), "{how}");
        assert_eq!(server.factory.connection_count(), 0, "{how}");
        // What comes too late goes nowhere.
        server.seen.answer(Response::new(StatusCode::OK));
        server.clock.pump();
    }
}

#[test]
fn a_client_may_finish_sending_before_it_reads() {
    let server = Server::new();
    let client = server.connect();
    client.send(get("/big"));
    client.wire.finish();
    let answer = client.received();
    assert_eq!(answer.bytes().filter(|&byte| byte == b'x').count(), 1 << 20);
    assert!(client.is_closed());
}

#[test]
fn a_request_keeps_its_context_until_it_is_answered() {
    let server = Server::new();
    let client = server.connect();
    client.send(get("/hold"));
    let (request, resolver) = server.seen.held.borrow_mut().remove(0);
    drop(request);
    let answer = ropewalk::Deferred::succeed(())
        .add_callback(|()| Ok(Response::new(StatusCode::OK).with_body("now")));
    resolver.fire(answer.into_result().unwrap());
    assert!(client.received().ends_with("now"));
    assert!(ropewalk::LogContext::current().is_sentinel());
}

#[test]
fn connections_over_the_limit_are_refused() {
    let server = Server::with_limits(Limits { connections_max: 2, ..Limits::default() });
    let first = server.connect();
    let _second = server.connect();
    assert!(server.refuses());
    first.wire.close();
    assert!(!server.refuses(), "room again");
}

#[test]
fn draining_closes_what_is_idle_and_lets_the_rest_finish() {
    let server = Server::new();
    let fresh = server.connect();
    let idle = server.connect();
    assert_eq!(idle.ask(&get("/hello")), HELLO);
    let busy = server.connect();
    busy.send(get("/hold"));
    let halfway = server.connect();
    halfway.send("GET /hello HT");

    let drained = server.factory.drain();
    server.clock.pump();
    assert!(fresh.is_closed() && idle.is_closed());
    assert!(server.refuses(), "no new connections");
    assert!(!drained.is_fired());

    server.seen.answer(Response::new(StatusCode::OK).with_body("done"));
    let answer = busy.received();
    assert_eq!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone");
    busy.wire.finish();
    assert!(busy.is_closed());
    assert!(halfway.ask("TP/1.1\r\nhost: h\r\n\r\n").contains("connection: close\r\n"));
    assert!(!drained.is_fired());
    halfway.wire.close();
    success_result_of(drained);
}

/// It was for the 30 seconds that a head may take, while whoever stopped the server waited.
#[test]
fn half_a_head_holds_up_the_end_for_a_second_only() {
    let server = Server::new();
    let halfway = server.connect();
    halfway.send("GET /hello HTTP/1.1\r\nho");
    let drained = server.factory.drain();
    server.clock.advance(SECOND - MILLISECOND);
    assert!(!halfway.is_closed());
    server.clock.advance(MILLISECOND);
    assert!(halfway.is_closed());
    halfway.wire.close();
    success_result_of(drained);
}

#[test]
fn draining_a_server_without_connections_is_done_at_once() {
    let server = Server::new();
    success_result_of(server.factory.drain());
}

/// The reactor catches the panic and gives up the connection; the server goes on.
#[test]
fn a_handler_that_panics_costs_its_connection_only() {
    let server = Server::new();
    let (unlucky, other) = (server.connect(), server.connect());
    unlucky.send(get("/panic"));
    assert!(unlucky.is_closed());
    assert_eq!(other.ask(&get("/hello")), HELLO);
    assert_eq!(server.factory.connection_count(), 1);
}
