//! One connection of a client: at most one request at a time.
//!
//! No borrow of the state is held while somebody is called who may call back.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};

use bytes::{Buf, Bytes, BytesMut};
use ropewalk::{
    ConnectionLost, DelayedCall, Failure, Instant, LogContext, Protocol, Resolver, Transport,
};

use super::ClientError;
use super::pool::{Pending, Pool, Stage};
use super::request::{ClientRequest, ClientResponse};
use crate::body::{BodyError, IncomingBody, Inflow, InflowOwner};
use crate::error::MessageError;
use crate::framing::BodyLength;
use crate::head::ResponseHead;
use crate::limits::{
    DISCARD_BYTES_MAX, INLINE_BODY_BYTES_MAX, Limits, STASH_BYTES_MAX, WHOLE_BODY_BYTES_MAX,
};
use crate::outgoing::{BodyWriter, OutgoingBody, WriterOwner};
use crate::pace::{Pace, Phase};
use crate::response::{ClientCodec, ResponseEvent};

/// The [`Protocol`] of one connection; only hands on.
pub(super) struct ClientProtocol {
    connection: Rc<ClientConnection>,
}

impl ClientProtocol {
    pub(super) fn new(connection: Rc<ClientConnection>) -> Self {
        ClientProtocol { connection }
    }
}

impl Protocol for ClientProtocol {
    fn connection_made(&mut self, transport: &Transport) {
        let _ = self.connection.transport.set(transport.clone());
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.connection.received(data);
    }

    fn read_connection_lost(&mut self, _transport: &Transport) {
        self.connection.state.borrow_mut().is_input_over = true;
        self.connection.go_on();
    }

    fn connection_lost(&mut self, _reason: ConnectionLost) {
        self.connection.fail(ClientError::ConnectionLost);
    }
}

impl Drop for ClientProtocol {
    fn drop(&mut self) {
        if let Some(pool) = self.connection.pool.upgrade() {
            pool.forget(&self.connection);
        }
    }
}

pub(super) struct ClientConnection {
    pool: Weak<Pool>,
    pub(super) me: Weak<ClientConnection>,
    pub(super) reactor: ropewalk::Reactor,
    pub(super) limits: Limits,
    pub(super) transport: OnceCell<Transport>,
    pub(super) state: RefCell<State>,
    written_bytes: Cell<u64>,
    is_busy: Cell<bool>,
}

pub(super) struct State {
    codec: ClientCodec,
    stash: BytesMut,
    pub(super) current: Option<Current>,
    is_closed: bool,
    is_input_over: bool,
    is_reading_paused: bool,
    pub(super) pace: Pace,
    pub(super) timer: Option<DelayedCall>,
    pub(super) timer_at: Instant,
}

/// The request that is under way.
pub(super) struct Current {
    number: u64,
    /// Until the head has come.
    awaited: Option<Awaited>,
    /// From then on, until the body is complete.
    pub(super) inflow: Option<Rc<Inflow>>,
    is_sent: bool,
    keep_alive: bool,
}

struct Awaited {
    resolver: Resolver<ClientResponse>,
    stage: Rc<RefCell<Stage>>,
    /// The request, while it may be sent once more over another connection.
    again: Option<ClientRequest>,
}

/// Later than any deadline.
pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);

impl ClientConnection {
    pub(super) fn new(pool: &Rc<Pool>) -> Rc<Self> {
        let limits =
            Limits { head_timeout: pool.options.response_timeout, ..pool.options.limits.clone() };
        let state = State {
            codec: ClientCodec::new(&limits),
            stash: BytesMut::new(),
            current: None,
            is_closed: false,
            is_input_over: false,
            is_reading_paused: false,
            pace: Pace::new(pool.reactor.now()),
            timer: None,
            timer_at: NEVER,
        };
        Rc::new_cyclic(|me| ClientConnection {
            pool: Rc::downgrade(pool),
            me: me.clone(),
            reactor: pool.reactor.clone(),
            limits,
            transport: OnceCell::new(),
            state: RefCell::new(state),
            written_bytes: Cell::new(0),
            is_busy: Cell::new(false),
        })
    }

    /// Sends a request. `is_kept` says that the connection has been used before.
    pub(super) fn send(&self, pending: Pending, is_kept: bool) {
        let Pending { request, resolver, stage } = pending;
        let Some(transport) = self.transport.get() else {
            return resolver.errback(ClientError::ConnectionLost);
        };
        stage.replace(Stage::Sent(self.me.clone()));
        let now = self.reactor.now();
        let mut out = Vec::with_capacity(512);
        request.push_head(&mut out);
        let length = request.body_length();
        let method = request.method.clone();
        let (whole, stream, again) = match request.body {
            OutgoingBody::Stream { start, .. } => (Bytes::new(), Some(start), None),
            OutgoingBody::Whole(ref bytes) => {
                let whole = bytes.clone();
                let again = (is_kept && request.is_repeatable()).then_some(request);
                (whole, None, again)
            }
        };
        let mut state = self.state.borrow_mut();
        state.codec.expect_response(&method);
        let number = self.written_bytes.get();
        state.current = Some(Current {
            number,
            awaited: Some(Awaited { resolver, stage, again }),
            inflow: None,
            is_sent: stream.is_none(),
            keep_alive: true,
        });
        let phase = if stream.is_none() { Phase::Head } else { Phase::Answering };
        state.pace.enter(phase, now);
        state.pace.forget_reader();
        state.pace.expect_reader(self.sent_bytes(transport), now);
        self.arm(&mut state, now);
        drop(state);
        if whole.len() <= INLINE_BODY_BYTES_MAX {
            out.extend_from_slice(&whole);
            self.write(transport, Bytes::from(out));
        } else {
            self.write(transport, Bytes::from(out));
            self.write(transport, whole);
        }
        if let Some(start) = stream {
            let owner: Weak<dyn WriterOwner> = self.me.clone();
            start(BodyWriter::new(transport.clone(), length, owner, number));
        }
    }

    fn write(&self, transport: &Transport, bytes: Bytes) {
        self.written_bytes.set(self.written_bytes.get() + bytes.len() as u64);
        transport.write_bytes(bytes);
    }

    pub(super) fn sent_bytes(&self, transport: &Transport) -> u64 {
        self.written_bytes.get().saturating_sub(transport.buffered_bytes() as u64)
    }

    fn received(&self, data: &[u8]) {
        let mut state = self.state.borrow_mut();
        if !state.stash.is_empty() {
            state.stash.extend_from_slice(data);
            drop(state);
            return self.go_on();
        }
        drop(state);
        let rest = self.process(data);
        if !rest.is_empty() {
            self.state.borrow_mut().stash.extend_from_slice(rest);
        }
        self.steer_reading();
    }

    /// Goes on with what has been received already.
    fn go_on(&self) {
        if self.is_busy.get() {
            return;
        }
        let mut stash = std::mem::take(&mut self.state.borrow_mut().stash);
        let rest_bytes = self.process(&stash).len();
        stash.advance(stash.len() - rest_bytes);
        let mut state = self.state.borrow_mut();
        let is_over = state.is_input_over;
        if rest_bytes > 0 {
            state.stash = stash;
        }
        drop(state);
        if is_over && rest_bytes == 0 {
            return self.input_ended();
        }
        self.steer_reading();
    }

    fn process<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        let now = self.reactor.now();
        let mut input = data;
        self.is_busy.set(true);
        while self.step(&mut input, now) {}
        self.is_busy.set(false);
        input
    }

    /// Does one thing; returns whether there may be another.
    fn step(&self, input: &mut &[u8], now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        if state.is_closed {
            *input = &[];
            return false;
        }
        if let Some(inflow) = state.current.as_ref().and_then(|current| current.inflow.clone()) {
            drop(state);
            return self.read_body(&inflow, input, now);
        }
        match state.codec.next_event(input) {
            Ok(Some(ResponseEvent::Head(head))) => {
                drop(state);
                self.head_received(head, input, now);
                true
            }
            Ok(Some(_)) => true,
            Ok(None) => false,
            Err(error) => {
                drop(state);
                self.break_off(error);
                false
            }
        }
    }

    fn head_received(&self, head: ResponseHead, input: &mut &[u8], now: Instant) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(current) = &mut state.current else { return };
        let Some(awaited) = current.awaited.take() else { return };
        current.keep_alive = head.keeps_alive();
        let mut whole = None;
        if let BodyLength::Exact(length) = head.body_length()
            && length <= WHOLE_BODY_BYTES_MAX
            && length <= input.len() as u64
        {
            let mut body = Bytes::new();
            // With all bytes at hand there is one piece, if any, and then the end.
            while let Ok(Some(event)) = state.codec.next_event(input) {
                match event {
                    ResponseEvent::Body(data) => body = Bytes::copy_from_slice(data),
                    ResponseEvent::End | ResponseEvent::Head(_) => break,
                }
            }
            whole = Some(IncomingBody::whole(body));
        }
        let body = match whole {
            Some(body) => {
                drop(guard);
                self.complete(input.is_empty());
                body
            }
            None => {
                let owner: Weak<dyn InflowOwner> = self.me.clone();
                let inflow = Inflow::new(head.body_length(), owner);
                current.inflow = Some(Rc::clone(&inflow));
                state.pace.enter(Phase::Answering, now);
                drop(guard);
                IncomingBody::stream(inflow)
            }
        };
        awaited.stage.replace(Stage::Waiting);
        awaited.resolver.callback(ClientResponse { head, body });
    }

    fn read_body(&self, inflow: &Rc<Inflow>, input: &mut &[u8], now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        if !inflow.wants_data() {
            state.pace.forget_body();
            return false;
        }
        let is_much = inflow.remaining_bytes().is_none_or(|left| left > DISCARD_BYTES_MAX);
        if inflow.is_abandoned() && is_much {
            drop(state);
            self.abort();
            return false;
        }
        match state.codec.next_event(input) {
            Ok(Some(ResponseEvent::Body(data))) => {
                drop(state);
                inflow.push(data);
                true
            }
            Ok(Some(_)) => {
                drop(state);
                self.complete(input.is_empty());
                inflow.end();
                true
            }
            Ok(None) => {
                state.pace.expect_body(inflow.received_bytes(), now);
                self.arm(&mut state, now);
                false
            }
            Err(error) => {
                drop(state);
                self.break_off(error);
                false
            }
        }
    }

    /// The response is complete. The connection is used again only if both sides are done with it and
    /// nothing has come that nobody asked for.
    fn complete(&self, is_input_used_up: bool) {
        let Some(me) = self.me.upgrade() else { return };
        let mut state = self.state.borrow_mut();
        let Some(current) = state.current.take() else { return };
        let is_reusable =
            current.is_sent && current.keep_alive && is_input_used_up && !state.is_input_over;
        state.pace.forget_body();
        state.pace.forget_reader();
        state.pace.enter(Phase::Idle, self.reactor.now());
        self.arm(&mut state, self.reactor.now());
        drop(state);
        match self.pool.upgrade() {
            Some(pool) if is_reusable => pool.take_back(&me),
            _ if current.is_sent => self.close(),
            _ => self.abort(),
        }
    }

    fn input_ended(&self) {
        let mut state = self.state.borrow_mut();
        if state.is_closed {
            return;
        }
        let result = state.codec.end_of_input();
        let inflow = state.current.as_ref().and_then(|current| current.inflow.clone());
        drop(state);
        if let (Ok(true), Some(inflow)) = (result, inflow) {
            self.complete(true);
            inflow.end();
        }
        self.fail(ClientError::ConnectionLost);
        self.close();
    }

    fn break_off(&self, error: MessageError) {
        self.fail(ClientError::Malformed(error));
        self.abort();
    }

    /// Fails the request that is under way, or has it sent once more.
    pub(super) fn fail(&self, error: ClientError) {
        let mut state = self.state.borrow_mut();
        state.is_closed = true;
        state.stash = BytesMut::new();
        let current = state.current.take();
        let timer = state.timer.take();
        state.timer_at = NEVER;
        drop(state);
        if let Some(timer) = timer {
            timer.cancel();
        }
        let Some(current) = current else { return };
        if let Some(inflow) = current.inflow {
            inflow.fail(match error {
                ClientError::Malformed(error) => BodyError::Malformed(error),
                ClientError::ResponseTimeout { .. } => BodyError::Stalled,
                _ => BodyError::ConnectionLost,
            });
        }
        let Some(Awaited { resolver, stage, again }) = current.awaited else { return };
        let is_cancelled = matches!(*stage.borrow(), Stage::Cancelled);
        stage.replace(Stage::Waiting);
        match (again, self.pool.upgrade()) {
            (Some(request), Some(pool))
                if error == ClientError::ConnectionLost && !is_cancelled =>
            {
                pool.connect(Pending { request, resolver, stage });
            }
            _ => resolver.errback(Failure::from(error)),
        }
    }

    /// Since when nothing is under way.
    pub(super) fn idle_since(&self) -> Instant {
        self.state.borrow().pace.since()
    }

    /// Closes the connection in order.
    pub(super) fn close(&self) {
        self.state.borrow_mut().is_closed = true;
        if let Some(transport) = self.transport.get() {
            transport.lose_connection();
        }
    }

    /// Closes it at once.
    pub(super) fn abort(&self) {
        self.state.borrow_mut().is_closed = true;
        if let Some(transport) = self.transport.get() {
            transport.abort_connection();
        }
    }

    fn steer_reading(&self) {
        let Some(transport) = self.transport.get() else { return };
        let mut state = self.state.borrow_mut();
        let pauses = state.stash.len() >= STASH_BYTES_MAX && !state.is_closed;
        if state.is_reading_paused == pauses {
            return;
        }
        state.is_reading_paused = pauses;
        drop(state);
        if pauses {
            transport.pause_producing();
        } else {
            transport.resume_producing();
        }
    }
}

impl InflowOwner for ClientConnection {
    fn body_wanted(&self) {
        if self.is_busy.get() {
            return;
        }
        let me = self.me.clone();
        LogContext::sentinel().run(|| {
            self.reactor.call_soon(move || {
                if let Some(connection) = me.upgrade() {
                    connection.go_on();
                }
            });
        });
    }
}

impl WriterOwner for ClientConnection {
    fn body_wrote(&self, bytes: usize) {
        self.written_bytes.set(self.written_bytes.get() + bytes as u64);
    }

    fn body_finished(&self, number: u64, is_complete: bool) {
        let mut state = self.state.borrow_mut();
        let Some(current) = state.current.as_mut().filter(|current| current.number == number)
        else {
            return;
        };
        current.is_sent = true;
        let is_awaited = current.awaited.is_some();
        if is_complete && is_awaited {
            let now = self.reactor.now();
            state.pace.enter(Phase::Head, now);
            self.arm(&mut state, now);
        }
        drop(state);
        if !is_complete {
            self.fail(ClientError::ConnectionLost);
            self.abort();
        }
    }
}
