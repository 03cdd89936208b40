//! The server: bodies in both directions, and how back-pressure travels.

use std::rc::Rc;

use http::StatusCode;
use ropewalk::Consumer;
use ropewalk::testing::{assert_no_result, failure_result_of, success_result_of};
use ropewalk_http::{BodyError, Limits, Response};

use crate::support::{HELLO, Server, Sink, Spring, get};

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn put(target: &str, length: usize) -> String {
    format!("PUT {target} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n")
}

#[test]
fn a_body_that_came_with_its_head_is_there_at_once() {
    let server = Server::new();
    let client = server.connect();
    client.send(format!("{}hi", put("/hold", 2)));
    let (request, resolver) = server.seen.held.borrow_mut().remove(0);
    assert_eq!(request.body.declared_length(), Some(2));
    assert_eq!(success_result_of(request.body.collect(2)), "hi");
    resolver.callback(Response::new(StatusCode::OK));
    assert!(client.received().starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_body_is_collected_as_it_comes() {
    let server = Server::new();
    let client = server.connect();
    for (why, head, pieces) in [
        ("fixed", put("/collect", 6), ["abc", "d", "ef"]),
        (
            "chunked",
            "PUT /collect HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            ["3\r\nabc\r\n3", "\r\nd", "ef\r\n0\r\n\r\n"],
        ),
    ] {
        client.send(head);
        for piece in pieces {
            assert_eq!(client.received(), "", "{why}: not before the end");
            client.send(piece);
        }
        let expected = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef";
        assert_eq!(client.received(), expected, "{why}");
    }
}

#[test]
fn a_body_over_the_handlers_limit_gets_a_413() {
    for (why, request) in [
        ("announced", put("/collect", 100_001)),
        (
            "in chunks",
            format!(
                "PUT /collect HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n186a1\r\n{}",
                "x".repeat(100_001)
            ),
        ),
    ] {
        let server = Server::new();
        let client = server.connect();
        let answer = client.ask(&request);
        assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{why}: {answer}");
    }
}

#[test]
fn a_body_over_the_servers_limit_gets_a_413_before_any_handler_is_asked() {
    let server = Server::with_limits(Limits { body_bytes_max: 10, ..Limits::default() });
    let client = server.connect();
    let answer = client.ask(&put("/collect", 11));
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
    assert_eq!(server.seen.lines(), [""; 0]);
}

#[test]
fn malformed_chunks_fail_the_body_and_the_connection() {
    let server = Server::new();
    let client = server.connect();
    client.send("PUT /hold HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
    let (request, _resolver) = server.seen.held.borrow_mut().remove(0);
    let body = request.body.collect(100);
    let answer = client.ask("+3\r\nabc\r\n0\r\n\r\nGET /hello HTTP/1.1\r\nhost: h\r\n\r\n");
    let failure = failure_result_of(body);
    assert!(matches!(failure.downcast_ref(), Some(BodyError::Malformed(_))), "{failure}");
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert_eq!(server.seen.given_up.borrow().len(), 1);
    assert_eq!(server.seen.lines().len(), 1, "what follows is not served");
    client.wire.finish();
    assert!(client.is_closed());
}

#[test]
fn a_body_that_nobody_asks_for_is_not_read() {
    let server = Server::new();
    let client = server.connect();
    client.send(put("/hold", 300_000));
    // 16 KiB are kept, at most one read more; the pipe holds 64 KiB.
    client.send(vec![b'x'; 64 * 1024]);
    client.send(vec![b'x'; 60 * 1024]);
    let (request, resolver) = server.seen.held.borrow_mut().remove(0);
    let body = request.body.collect(300_000);
    client.send(vec![b'x'; 300_000 - 124 * 1024]);
    assert_eq!(success_result_of(body).len(), 300_000, "reading went on where it had stopped");
    resolver.callback(Response::new(StatusCode::OK));
    assert!(client.received().starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.ask(&get("/hello")), HELLO);
}

#[test]
fn a_body_is_passed_on_at_the_consumers_pace() {
    let server = Server::new();
    let client = server.connect();
    client.send(put("/hold", 200_000));
    let (request, resolver) = server.seen.held.borrow_mut().remove(0);
    let sink = Rc::new(Sink::default());
    let sent = request.body.send_to(sink.clone());
    client.send(vec![b'a'; 1000]);
    assert_eq!(sink.taken.borrow().len(), 1000);

    let producer = sink.producer.borrow().clone().expect("the body has registered itself");
    producer.pause_producing();
    client.send(vec![b'b'; 60_000]);
    assert_eq!(sink.taken.borrow().len(), 1000, "nothing while paused");
    client.send(vec![b'b'; 60_000]);
    producer.resume_producing();
    client.send(vec![b'b'; 79_000]);
    assert_eq!(success_result_of(sent), 200_000);
    assert_eq!(sink.taken.borrow().len(), 200_000);
    assert!(sink.producer.borrow().is_none(), "unregistered at the end");
    resolver.callback(Response::new(StatusCode::OK));
    assert!(client.received().starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_consumer_that_stops_fails_the_body_and_the_request_can_still_be_answered() {
    let server = Server::new();
    let client = server.connect();
    client.send(put("/hold", 100_000));
    let (request, resolver) = server.seen.held.borrow_mut().remove(0);
    let sink = Rc::new(Sink::default());
    let sent = request.body.send_to(sink.clone());
    let producer = sink.producer.borrow().clone().unwrap();
    producer.stop_producing();
    assert_eq!(failure_result_of(sent).downcast_ref(), Some(&BodyError::ConsumerStopped));
    resolver.callback(Response::new(StatusCode::INSUFFICIENT_STORAGE));
    assert!(client.received().starts_with("HTTP/1.1 507 "));
    client.send(vec![b'x'; 50_000]);
    client.send(vec![b'x'; 50_000]);
    assert_eq!(client.ask(&get("/hello")), HELLO, "little was left: it was thrown away");
}

#[test]
fn a_client_that_goes_away_fails_the_body() {
    let server = Server::new();
    let client = server.connect();
    client.send(put("/hold", 10));
    let (request, _resolver) = server.seen.held.borrow_mut().remove(0);
    let body = request.body.collect(10);
    assert_no_result(&body);
    client.wire.close();
    assert_eq!(failure_result_of(body).downcast_ref(), Some(&BodyError::ConnectionLost));
    assert_eq!(server.seen.given_up.borrow().len(), 1);
}

#[test]
fn a_body_that_ended_before_it_was_asked_for_fails_then() {
    let server = Server::new();
    let client = server.connect();
    client.send(put("/hold", 10));
    let (request, _resolver) = server.seen.held.borrow_mut().remove(0);
    client.wire.close();
    let failure = failure_result_of(request.body.collect(10));
    assert_eq!(failure.downcast_ref(), Some(&BodyError::ConnectionLost));
}

#[test]
fn cancelling_a_body_throws_the_rest_away() {
    let server = Server::new();
    let client = server.connect();
    client.send(put("/hold", 10));
    let (request, resolver) = server.seen.held.borrow_mut().remove(0);
    let body = request.body.collect(10);
    body.cancel();
    assert!(failure_result_of(body).is::<ropewalk::CancelledError>());
    resolver.callback(Response::new(StatusCode::OK));
    assert!(client.received().starts_with("HTTP/1.1 200 OK\r\n"));
    client.send("0123456789");
    assert_eq!(client.ask(&get("/hello")), HELLO);
}

#[test]
fn a_client_is_invited_to_send_once_its_body_is_wanted() {
    let server = Server::new();
    let client = server.connect();
    let head = |target| {
        format!(
            "PUT {target} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
    };
    assert_eq!(client.ask(&head("/hold")), "", "nobody wants it yet");
    let (request, resolver) = server.seen.held.borrow_mut().remove(0);
    let body = request.body.collect(2);
    assert_eq!(client.received(), CONTINUE);
    client.send("hi");
    assert_eq!(success_result_of(body), "hi");
    resolver.callback(Response::new(StatusCode::OK));
    assert_eq!(client.received(), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");

    assert_eq!(client.ask(&head("/collect")), CONTINUE);
    assert_eq!(client.ask("hi"), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");

    let impatient = format!("{}hi", head("/collect"));
    assert_eq!(client.ask(&impatient), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");

    let answer = client.ask(&head("/hello"));
    assert!(answer.contains("connection: close\r\n"), "it may send or not, so: {answer}");
    assert!(answer.ends_with("hello"), "{answer}");
}

#[test]
fn an_unread_body_is_thrown_away_if_small_and_ends_the_connection_if_not() {
    let server = Server::new();
    let client = server.connect();
    client.send(put("/hello", 100_000));
    assert_eq!(client.received(), HELLO, "answered at once");
    client.send(vec![b'x'; 50_000]);
    client.send(vec![b'x'; 50_000]);
    assert_eq!(client.ask(&get("/hello")), HELLO);

    let answer = client.ask(&put("/hello", 10 << 20));
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    client.send(vec![b'x'; 60_000]);
    assert!(!client.is_closed(), "it gets the time to read the answer");
    client.wire.finish();
    assert!(client.is_closed());
}

#[test]
fn a_streamed_body_is_framed_as_its_length_and_the_version_ask() {
    for (why, request, expected) in [
        (
            "chunks",
            get("/stream"),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        ("a length", get("/stream?5"), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde"),
        (
            "1.0 until the end",
            "GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcde",
        ),
    ] {
        let server = Server::new();
        let client = server.connect();
        client.send(request);
        let writer = server.seen.writer();
        writer.write(b"abc");
        writer.write(b"");
        server.clock.pump();
        writer.write(b"de");
        assert!(writer.is_connected());
        writer.finish();
        writer.finish();
        writer.write(b"too late");
        assert!(!writer.is_connected());
        assert_eq!(client.received(), expected, "{why}");
    }
}

#[test]
fn a_streamed_body_that_is_not_what_was_announced_breaks_the_connection() {
    for (why, target, written, finishes) in [
        ("too short", "/stream?5", "abc", true),
        ("too long", "/stream?5", "abcdef", false),
        ("dropped", "/stream", "abc", false),
    ] {
        let server = Server::new();
        let client = server.connect();
        client.send(get(target));
        let writer = server.seen.writer();
        writer.write(written.as_bytes());
        if finishes {
            writer.finish();
        }
        drop(writer);
        server.clock.pump();
        assert!(client.is_closed(), "{why}");
        assert!(!client.received().ends_with("0\r\n\r\n"), "{why}");
    }
}

#[test]
fn a_slow_reader_pauses_the_producer() {
    let server = Server::new();
    let client = server.connect();
    client.send(get("/stream"));
    let spring = Spring::start(server.seen.writer(), 1000, 10_000);
    let flow = |rounds: usize| {
        for _ in 0..rounds {
            if !spring.flow() {
                break;
            }
            server.clock.pump();
        }
    };
    flow(1000);
    assert!(spring.is_paused.get());
    let unsent = client.wire.transport().buffered_bytes();
    assert!(unsent < 100_000, "{unsent} bytes are kept for a client that does not read");
    let mut received = 0;
    while spring.left.get() > 0 {
        received += client.wire.take_written().len();
        flow(1000);
        assert!(client.wire.transport().buffered_bytes() < 100_000);
    }
    received += client.wire.take_written().len();
    assert!(received > 10_000_000);
    assert_eq!(client.ask(&get("/hello")), HELLO, "the connection goes on");
}

#[test]
fn a_reader_who_goes_away_stops_the_producer() {
    let server = Server::new();
    let client = server.connect();
    client.send(get("/stream"));
    let spring = Spring::start(server.seen.writer(), 1000, 10_000);
    while spring.flow() {
        server.clock.pump();
    }
    client.wire.reset();
    assert!(spring.is_stopped.get());
    assert_eq!(server.factory.connection_count(), 0);
}

#[test]
fn a_flood_of_requests_waits_for_its_answers_to_be_read() {
    let server = Server::new();
    let client = server.connect();
    // Each asks for a megabyte; the client reads nothing for a while.
    let flood = get("/big").repeat(100);
    client.send(&flood[..]);
    assert!(server.seen.lines().len() < 3, "{} requests begun", server.seen.lines().len());
    let unsent = client.wire.transport().buffered_bytes();
    assert!(unsent <= 2 << 20, "{unsent} bytes are kept");
    let mut received = 0;
    for _ in 0..10_000 {
        received += client.wire.take_written().len();
        if received >= 100 << 20 {
            break;
        }
    }
    assert_eq!(server.seen.lines().len(), 100, "all are answered in the end");
}

#[test]
fn a_flood_behind_a_slow_request_is_kept_within_bounds() {
    let server = Server::new();
    let client = server.connect();
    client.send(get("/hold"));
    // The server keeps one read and 16 KiB at most, the pipe 64 KiB; the rest has to wait outside.
    let flood = get("/hello").repeat(120_000 / get("/hello").len());
    client.send(&flood);
    assert_eq!(server.seen.lines().len(), 1);
    server.seen.answer(Response::new(StatusCode::OK));
    let count = client.received().matches("hello").count();
    assert_eq!(count, flood.len() / get("/hello").len());
}
