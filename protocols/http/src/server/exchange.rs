//! One request and what is answered to it, from the handler's call to the last byte.

use std::rc::{Rc, Weak};

use http::{Method, StatusCode};
use ropewalk::{Deferred, Failure, Instant, LogContext, Transport};

use super::Request;
use super::connection::{Connection, UNREAD_BYTES_MAX};
use super::reply::{Reply, Response};
use crate::body::{BodyError, IncomingBody, Inflow};
use crate::encode::{Persistence, push_response_head, status_allows_body};
use crate::framing::BodyLength;
use crate::head::RequestHead;
use crate::limits::{DISCARD_BYTES_MAX, INLINE_BODY_BYTES_MAX};
use crate::outgoing::{BodyWriter, OutgoingBody, WriterOwner};
use crate::pace::Phase;

/// The buffer in which heads are put together is given back to the system if it has grown over this.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

/// A request that is under way.
pub(super) struct Exchange {
    number: u64,
    context: LogContext,
    /// Until the request's body is complete.
    pub(super) inflow: Option<Rc<Inflow>>,
    answer: Answer,
    status: StatusCode,
    is_head: bool,
    minor_version: u8,
    keep_alive: bool,
    /// Whether it is the client who wants to close.
    client_closes: bool,
    awaits_continue: bool,
    started: Instant,
    /// Method and path, for the log. Not the query, which may hold a token.
    line: Option<Box<str>>,
}

enum Answer {
    /// Nothing is written yet. The deferred is there to be cancelled.
    Awaited(Option<Deferred<()>>),
    /// A stream is being written.
    Writing,
    Written,
}

/// The length of a streamed body and what has to write it.
type Stream = (BodyLength, Box<dyn FnOnce(BodyWriter)>);

impl Exchange {
    #[inline]
    fn new(
        number: u64,
        context: LogContext,
        head: &RequestHead,
        inflow: Option<Rc<Inflow>>,
        now: Instant,
    ) -> Self {
        Exchange {
            number,
            context,
            inflow,
            answer: Answer::Awaited(None),
            status: StatusCode::OK,
            is_head: head.method == Method::HEAD,
            minor_version: head.minor_version,
            keep_alive: head.keep_alive,
            client_closes: !head.keep_alive,
            awaits_continue: head.expects_continue,
            started: now,
            line: log::log_enabled!(log::Level::Debug)
                .then(|| format!("{} {}", head.method, head.path()).into()),
        }
    }

    /// For the answer to bytes that were no request.
    fn refused(number: u64, now: Instant) -> Self {
        Exchange {
            number,
            context: LogContext::numbered("refused", number),
            inflow: None,
            answer: Answer::Awaited(None),
            status: StatusCode::BAD_REQUEST,
            is_head: false,
            minor_version: 1,
            keep_alive: false,
            client_closes: false,
            awaits_continue: false,
            started: now,
            line: None,
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        !matches!(self.answer, Answer::Awaited(_))
    }

    /// Returns, once, whether the client waits to be told to send the body.
    pub(super) fn invites_body(&mut self) -> bool {
        let has_come = self.inflow.as_ref().is_none_or(|inflow| inflow.received_bytes() > 0);
        std::mem::take(&mut self.awaits_continue) && !has_come && !self.is_answered()
    }

    /// The client is gone, or not to be served any longer.
    pub(super) fn give_up(self, error: BodyError) {
        if let Some(inflow) = self.inflow {
            self.context.run(|| inflow.fail(error));
        }
        if let Answer::Awaited(Some(deferred)) = self.answer {
            self.context.run(|| deferred.cancel());
            self.context.run(|| log::debug!("request given up: {error}"));
        }
        self.context.finish();
    }

    /// Decides whether the connection can be used again although a body is still coming in.
    fn look_at_unread_body(&mut self) {
        let Some(inflow) = &self.inflow else { return };
        inflow.abandon_unclaimed();
        let is_little =
            inflow.remaining_bytes().is_some_and(|remaining| remaining <= DISCARD_BYTES_MAX);
        if inflow.is_abandoned() && (self.awaits_continue || !is_little) {
            self.keep_alive = false;
        }
    }

    fn is_complete(&self) -> bool {
        let body_is_over = match &self.inflow {
            Some(inflow) => !self.keep_alive && inflow.is_abandoned(),
            None => true,
        };
        matches!(self.answer, Answer::Written) && body_is_over
    }
}

impl Connection {
    /// Lets the handler answer a request.
    #[inline(always)]
    pub(super) fn begin(
        &self,
        transport: &Transport,
        head: RequestHead,
        body: IncomingBody,
        inflow: Option<Rc<Inflow>>,
        now: Instant,
    ) {
        let server = &self.server;
        let number = server.number_request();
        let context = server.spare_context.take().renew(context_kind(&head.method), number);
        let exchange = Exchange::new(number, context, &head, inflow, now);
        // In an option, so that the closure takes its address along and not a copy.
        let mut request = Some(Request { head, body, peer: self.peer.clone() });
        let reply = exchange.context.run(|| Some(server.handler.handle(request.take()?)));
        let Some(reply) = reply else { return };
        match reply {
            Reply::Now(response) => self.answer(transport, exchange, response, now),
            Reply::Later(deferred) => match deferred.into_result() {
                Ok(result) => {
                    let response =
                        exchange.context.run(|| result.unwrap_or_else(|error| self.failed(&error)));
                    self.answer(transport, exchange, response, now);
                }
                Err(deferred) => self.await_answer(exchange, deferred, now),
            },
        }
    }

    fn await_answer(&self, exchange: Exchange, deferred: Deferred<Response>, now: Instant) {
        let (number, context) = (exchange.number, exchange.context.clone());
        self.keep(exchange, now);
        let me = self.me.clone();
        let watched = context.run(|| {
            deferred.add_both(move |result| {
                if let Some(connection) = me.upgrade() {
                    connection.answered(number, result);
                }
                Ok(())
            })
        });
        if let Some(exchange) = &mut self.state.borrow_mut().exchange {
            exchange.answer = Answer::Awaited(Some(watched));
        }
    }

    fn answered(&self, number: u64, result: Result<Response, Failure>) {
        let exchange = self
            .state
            .borrow_mut()
            .exchange
            .take_if(|exchange| exchange.number == number && !exchange.is_answered());
        let (Some(exchange), Some(transport)) = (exchange, self.transport.get()) else { return };
        let now = self.server.reactor.now();
        let response = result.unwrap_or_else(|failure| self.failed(&failure));
        self.answer(transport, exchange, response, now);
        self.go_on_soon();
    }

    fn failed(&self, failure: &Failure) -> Response {
        let refusal = |status, reason: &str| self.server.handler.refusal(status, reason);
        match failure.downcast_ref::<BodyError>() {
            Some(error @ BodyError::TooLarge { .. }) => {
                refusal(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string())
            }
            Some(BodyError::Malformed(error)) => refusal(error.status(), &error.to_string()),
            _ => {
                log::error!("request failed: {failure:#}");
                let reason = "the server failed to answer this request; its log says why";
                refusal(StatusCode::INTERNAL_SERVER_ERROR, reason)
            }
        }
    }

    /// Answers bytes that are no acceptable request, and closes.
    pub(super) fn refuse(
        &self,
        transport: &Transport,
        status: StatusCode,
        reason: &str,
        now: Instant,
    ) {
        let exchange = Exchange::refused(self.server.number_request(), now);
        let response = exchange.context.run(|| {
            log::debug!("request refused: {reason} status={status} peer={}", self.peer);
            self.server.handler.refusal(status, reason)
        });
        self.answer(transport, exchange, response, now);
    }

    /// Ends a request whose body cannot be read to its end. The handler hears of it first, and may have an
    /// answer of its own.
    pub(super) fn break_off(&self, transport: &Transport, error: BodyError, now: Instant) {
        let inflow = {
            let mut state = self.state.borrow_mut();
            let Some(exchange) = &mut state.exchange else { return };
            exchange.keep_alive = false;
            exchange.inflow.clone()
        };
        if let Some(inflow) = inflow {
            inflow.fail(error);
        }
        let Some(mut exchange) = self.state.borrow_mut().exchange.take() else { return };
        match exchange.answer {
            Answer::Awaited(_) => {
                exchange.give_up(error);
                let (status, reason) = match error {
                    BodyError::Malformed(error) => (error.status(), error.to_string()),
                    error => (StatusCode::REQUEST_TIMEOUT, error.to_string()),
                };
                self.refuse(transport, status, &reason, now);
            }
            Answer::Writing => {
                exchange.give_up(error);
                transport.abort_connection();
            }
            Answer::Written => self.complete(transport, &mut exchange, now),
        }
    }

    /// Writes a response, or its head and lets the rest be written.
    #[inline]
    fn answer(
        &self,
        transport: &Transport,
        mut exchange: Exchange,
        response: Response,
        now: Instant,
    ) {
        match self.write_response(transport, &mut exchange, response, now) {
            Some((length, start)) => self.start_stream(transport, exchange, length, start, now),
            None if exchange.is_complete() => self.complete(transport, &mut exchange, now),
            None => self.keep(exchange, now),
        }
    }

    fn keep(&self, exchange: Exchange, now: Instant) {
        let mut state = self.state.borrow_mut();
        state.pace.enter(Phase::Answering, now);
        state.exchange = Some(exchange);
    }

    /// Returns what has to write the body, and its length, if it is a stream.
    fn write_response(
        &self,
        transport: &Transport,
        exchange: &mut Exchange,
        response: Response,
        now: Instant,
    ) -> Option<Stream> {
        let server = &self.server;
        exchange.look_at_unread_body();
        exchange.keep_alive &= !server.is_draining();
        exchange.status = response.status;
        exchange.answer = Answer::Written;
        let length = match &response.body {
            OutgoingBody::Whole(bytes) => BodyLength::Exact(bytes.len() as u64),
            OutgoingBody::Stream { length: Some(length), .. } => BodyLength::Exact(*length),
            OutgoingBody::Stream { .. } if exchange.minor_version >= 1 => BodyLength::Chunked,
            OutgoingBody::Stream { .. } => {
                exchange.keep_alive = false;
                BodyLength::UntilClose
            }
        };
        let persistence = match (exchange.keep_alive, exchange.minor_version) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAliveTold,
            (true, _) => Persistence::KeepAlive,
        };
        let mut out = server.scratch.take();
        server.date.with(&server.reactor, now, |start| {
            let Response { status, lines, .. } = &response;
            push_response_head(&mut out, *status, start, length, persistence, lines);
        });
        let (mut rest, mut stream) = (None, None);
        if !exchange.is_head && status_allows_body(response.status) {
            match response.body {
                OutgoingBody::Whole(bytes) if bytes.len() <= INLINE_BODY_BYTES_MAX => {
                    out.extend_from_slice(&bytes);
                }
                OutgoingBody::Whole(bytes) => rest = Some(bytes),
                OutgoingBody::Stream { start, .. } => stream = Some((length, start)),
            }
        }
        self.write(transport, &out);
        self.give_back_scratch(out);
        if let Some(rest) = rest {
            self.written_bytes.set(self.written_bytes.get() + rest.len() as u64);
            transport.write_bytes(rest);
        }
        stream
    }

    #[inline]
    fn give_back_scratch(&self, mut out: Vec<u8>) {
        out.clear();
        if out.capacity() > SCRATCH_BYTES_MAX {
            out.shrink_to(SCRATCH_BYTES_MAX);
        }
        self.server.scratch.replace(out);
    }

    fn start_stream(
        &self,
        transport: &Transport,
        mut exchange: Exchange,
        length: BodyLength,
        start: Box<dyn FnOnce(BodyWriter)>,
        now: Instant,
    ) {
        exchange.answer = Answer::Writing;
        let (number, context) = (exchange.number, exchange.context.clone());
        self.keep(exchange, now);
        let mut state = self.state.borrow_mut();
        state.pace.expect_reader(self.sent_bytes(transport), now);
        self.arm(&mut state, now);
        drop(state);
        let owner: Weak<dyn WriterOwner> = self.me.clone();
        let writer = BodyWriter::new(transport.clone(), length, owner, number);
        context.run(|| start(writer));
    }

    /// Completes the request under way if nothing of it is left.
    pub(super) fn settle(&self, transport: &Transport, now: Instant) {
        let exchange = self.state.borrow_mut().exchange.take_if(|exchange| exchange.is_complete());
        if let Some(mut exchange) = exchange {
            self.complete(transport, &mut exchange, now);
        }
    }

    #[inline]
    fn complete(&self, transport: &Transport, exchange: &mut Exchange, now: Instant) {
        if let Some(line) = &exchange.line {
            exchange.context.run(|| {
                log::debug!(
                    "{line} answered status={} duration_ms={} peer={}",
                    exchange.status.as_u16(),
                    now.since(exchange.started).as_millis(),
                    self.peer
                );
            });
        }
        exchange.context.finish();
        self.server.spare_context.set(std::mem::take(&mut exchange.context));
        if !exchange.keep_alive {
            return self.close(
                transport,
                !exchange.client_closes || exchange.inflow.is_some(),
                now,
            );
        }
        let mut state = self.state.borrow_mut();
        state.pace.enter(Phase::Idle, now);
        if transport.buffered_bytes() > UNREAD_BYTES_MAX {
            state.pace.expect_reader(self.sent_bytes(transport), now);
            self.arm(&mut state, now);
        } else {
            state.pace.forget_reader();
            // Nearly always the timer goes off before that, and finds that it has to wait some more.
            if state.timer_at > now + self.server.limits.idle_timeout {
                self.arm(&mut state, now);
            }
        }
    }
}

impl WriterOwner for Connection {
    fn body_wrote(&self, bytes: usize) {
        self.written_bytes.set(self.written_bytes.get() + bytes as u64);
    }

    fn body_finished(&self, number: u64, is_complete: bool) {
        let Some(transport) = self.transport.get() else { return };
        let mut state = self.state.borrow_mut();
        let Some(exchange) = state.exchange.as_mut().filter(|exchange| exchange.number == number)
        else {
            return;
        };
        exchange.answer = Answer::Written;
        drop(state);
        if !is_complete {
            return transport.abort_connection();
        }
        self.settle(transport, self.server.reactor.now());
        self.go_on_soon();
    }
}

/// Returns what stands before the number in the name of a request's context.
#[inline]
fn context_kind(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        _ => "OTHER",
    }
}
