//! The server: every limit in time, on a manual clock.

use std::time::Duration;

use http::StatusCode;
use ropewalk::testing::failure_result_of;
use ropewalk_http::{BodyError, Limits, Response};

use crate::support::{HELLO, MILLISECOND, SECOND, Server, Spring, get};

fn server() -> Server {
    Server::with_limits(Limits {
        head_timeout: SECOND * 10,
        idle_timeout: SECOND * 60,
        stall_timeout: SECOND * 20,
        progress_bytes_min: 1000,
        ..Limits::default()
    })
}

/// Moves the clock to just before `after`, runs `still`, and then to `after`.
fn just_before(server: &Server, after: Duration, still: impl FnOnce()) {
    server.clock.advance(after - MILLISECOND);
    still();
    server.clock.advance(MILLISECOND);
}

#[test]
fn a_client_that_says_nothing_is_dropped_without_a_word() {
    let server = server();
    let client = server.connect();
    just_before(&server, SECOND * 10, || assert!(!client.is_closed()));
    assert_eq!(client.received(), "");
    assert!(client.is_closed());
    assert_eq!(server.clock.pending_calls(), 0, "no timer is left behind");
}

#[test]
fn a_head_has_to_be_complete_in_time_however_it_trickles_in() {
    let server = server();
    let client = server.connect();
    for byte in b"GET /hello HT".iter().take(9) {
        client.send([*byte]);
        server.clock.advance(SECOND);
    }
    just_before(&server, SECOND, || assert!(!client.is_closed()));
    let answer = client.received();
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    client.wire.finish();
    assert!(client.is_closed());
}

#[test]
fn a_later_head_has_its_own_time_from_its_first_byte() {
    let server = server();
    let client = server.connect();
    assert_eq!(client.ask(&get("/hello")), HELLO);
    server.clock.advance(SECOND * 50);
    client.send("GET /hello HTTP/1.1\r\n");
    just_before(&server, SECOND * 10, || assert_eq!(client.received(), ""));
    assert!(client.received().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
}

#[test]
fn an_idle_connection_is_closed_and_each_request_puts_that_off() {
    let server = server();
    let client = server.connect();
    for _ in 0..10 {
        assert_eq!(client.ask(&get("/hello")), HELLO);
        server.clock.advance(SECOND * 59);
    }
    assert_eq!(client.ask(&get("/hello")), HELLO);
    just_before(&server, SECOND * 60, || assert!(!client.is_closed()));
    assert!(client.is_closed());
    assert_eq!(client.received(), "");
}

#[test]
fn empty_lines_do_not_keep_a_connection_open() {
    let server = server();
    let client = server.connect();
    assert_eq!(client.ask(&get("/hello")), HELLO);
    for _ in 0..59 {
        client.send("\r\n");
        server.clock.advance(SECOND);
    }
    just_before(&server, SECOND, || assert!(!client.is_closed()));
    assert!(client.is_closed());
}

#[test]
fn a_handler_may_take_its_time() {
    let server = server();
    let client = server.connect();
    client.send(get("/hold"));
    server.clock.advance(SECOND * 3600);
    server.seen.answer(Response::new(StatusCode::OK).with_body("at last"));
    assert!(client.received().ends_with("at last"));
    just_before(&server, SECOND * 60, || assert!(!client.is_closed()));
    assert!(client.is_closed(), "from then on it is idle");
}

#[test]
fn a_body_has_to_advance() {
    let server = server();
    let client = server.connect();
    client.send("PUT /hold HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n");
    let (request, _resolver) = server.seen.held.borrow_mut().remove(0);
    let body = request.body.collect(100_000);
    server.clock.pump();
    for _ in 0..10 {
        client.send([b'x'; 1000]);
        server.clock.advance(SECOND * 20);
    }
    // One byte a second is not enough.
    for _ in 0..19 {
        client.send("x");
        server.clock.advance(SECOND);
    }
    just_before(&server, SECOND, || assert_eq!(client.received(), ""));
    assert_eq!(failure_result_of(body).downcast_ref(), Some(&BodyError::Stalled));
    assert!(client.received().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    assert_eq!(server.seen.given_up.borrow().len(), 1);
    server.clock.advance(SECOND * 5);
    assert!(client.is_closed(), "it had five seconds to read that");
}

#[test]
fn time_in_which_the_body_was_not_wanted_does_not_count() {
    let server = server();
    let client = server.connect();
    client.send("PUT /hold HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n");
    server.clock.advance(SECOND * 100);
    let (request, _resolver) = server.seen.held.borrow_mut().remove(0);
    let body = request.body.collect(10);
    just_before(&server, SECOND * 20, || assert!(!client.is_closed()));
    assert_eq!(failure_result_of(body).downcast_ref(), Some(&BodyError::Stalled));
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = server();
    let client = server.connect();
    client.send(get("/big"));
    just_before(&server, SECOND * 20, || assert!(!client.is_closed()));
    assert!(client.is_closed());
}

#[test]
fn a_client_that_reads_steadily_is_not() {
    let server = server();
    let client = server.connect();
    client.send(get("/stream"));
    let spring = Spring::start(server.seen.writer(), 100, 10_000);
    while spring.left.get() > 0 {
        while spring.flow() {
            server.clock.pump();
        }
        server.clock.advance(SECOND * 19);
        client.wire.take_written();
    }
    assert_eq!(client.ask(&get("/hello")), HELLO);
}

#[test]
fn a_stream_that_pauses_by_itself_is_not_the_clients_fault() {
    let server = server();
    let client = server.connect();
    client.send(get("/stream"));
    let writer = server.seen.writer();
    for _ in 0..10 {
        server.clock.advance(SECOND * 100);
        ropewalk::Consumer::write(&*writer, b"tick");
        assert!(client.received().ends_with("tick\r\n"));
    }
    writer.finish();
    assert_eq!(client.received(), "0\r\n\r\n");
}

#[test]
fn a_client_that_stops_reading_a_stream_is_cut_off() {
    let server = server();
    let client = server.connect();
    client.send(get("/stream"));
    let spring = Spring::start(server.seen.writer(), 1000, 10_000);
    while spring.flow() {
        server.clock.pump();
    }
    server.clock.advance(SECOND * 20);
    // The first window saw what the pipe took; the second sees nothing.
    server.clock.advance(SECOND * 20);
    assert!(client.is_closed());
    assert!(spring.is_stopped.get());
}

#[test]
fn a_pipelining_client_that_does_not_read_is_cut_off() {
    let server = server();
    let client = server.connect();
    client.send(get("/big").repeat(10));
    just_before(&server, SECOND * 20, || assert!(!client.is_closed()));
    assert!(client.is_closed());
}

#[test]
fn a_client_that_is_told_to_go_and_does_not_is_cut_off() {
    let server = server();
    let client = server.connect();
    let answer = client.ask("nonsense\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    just_before(&server, SECOND * 5, || assert!(!client.is_closed()));
    assert!(client.is_closed());
}

#[test]
fn a_client_that_closes_and_does_not_read_is_cut_off() {
    let server = server();
    let client = server.connect();
    client.send("GET /big HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    just_before(&server, SECOND * 20, || assert!(!client.is_closed()));
    assert!(client.is_closed());
}

#[test]
fn a_thousand_half_open_connections_cost_a_timer_each_and_go_away() {
    let server = server();
    let clients: Vec<_> = (0..1000).map(|_| server.connect()).collect();
    for client in &clients {
        client.send("GET /");
    }
    let honest = server.connect();
    assert_eq!(honest.ask(&get("/hello")), HELLO);
    assert_eq!(server.clock.pending_calls(), 1001);
    server.clock.advance(SECOND * 10);
    server.clock.advance(SECOND * 5);
    assert_eq!(server.factory.connection_count(), 1);
    assert_eq!(honest.ask(&get("/hello")), HELLO);
}
