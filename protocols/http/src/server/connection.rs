//! One connection of a server: from bytes to requests. What becomes of a request is in `exchange`, what
//! becomes of a client that is too slow in `deadlines`.
//!
//! No borrow of the state is held while the application is called: it may call back at any time.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ropewalk::{Address, ConnectionLost, DelayedCall, Instant, LogContext, Protocol, Transport};

use super::exchange::Exchange;
use super::factory::Server;
use crate::body::{BodyError, IncomingBody, Inflow, InflowOwner};
use crate::framing::BodyLength;
use crate::head::RequestHead;
use crate::limits::{DISCARD_BYTES_MAX, STASH_BYTES_MAX, WHOLE_BODY_BYTES_MAX};
use crate::pace::{Pace, Phase};
use crate::request::{RequestEvent, ServerCodec};

/// Unsent bytes of answers after which no further pipelined request is begun.
pub(super) const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// Most bytes that are thrown away after the last answer before the client is cut off.
const LINGER_BYTES_MAX: u64 = 4 << 20;

/// How long a server that is being drained waits for the rest of a head.
const DRAIN_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Later than any deadline.
pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// The [`Protocol`] of one connection; only hands on.
pub(crate) struct HttpServer {
    connection: Rc<Connection>,
    key: usize,
}

impl HttpServer {
    pub(crate) fn new(connection: Rc<Connection>, key: usize) -> Self {
        HttpServer { connection, key }
    }
}

impl Protocol for HttpServer {
    fn connection_made(&mut self, transport: &Transport) {
        self.connection.made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.connection.received(transport, data);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.connection.input_ended(transport);
    }

    fn connection_lost(&mut self, _reason: ConnectionLost) {
        self.connection.lost();
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.connection.server.forget_connection(self.key);
    }
}

pub(crate) struct Connection {
    pub(super) server: Rc<Server>,
    pub(super) peer: Address,
    pub(super) me: Weak<Connection>,
    pub(super) transport: OnceCell<Transport>,
    pub(super) state: RefCell<State>,
    /// Bytes handed to the transport so far.
    pub(super) written_bytes: Cell<u64>,
    /// Whether the loop over the input is running further down the stack.
    is_busy: Cell<bool>,
}

pub(super) struct State {
    pub(super) codec: ServerCodec,
    /// What was received and not yet looked at.
    pub(super) stash: BytesMut,
    pub(super) exchange: Option<Exchange>,
    pub(super) ending: Ending,
    pub(super) pace: Pace,
    pub(super) timer: Option<DelayedCall>,
    /// When the timer goes off, [`NEVER`] if there is none.
    pub(super) timer_at: Instant,
    is_reading_paused: bool,
    is_input_over: bool,
    /// Waiting for the client to read before more is answered.
    pub(super) is_blocked: bool,
    linger_bytes: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// Closed, or about to be once everything is sent.
    Closed,
    /// All is said; what the client still sends is thrown away.
    Lingering,
    Open,
}

impl Connection {
    pub(crate) fn new(server: Rc<Server>, peer: Address) -> Rc<Self> {
        let now = server.reactor.now();
        let state = State {
            codec: ServerCodec::new(&server.limits),
            stash: BytesMut::new(),
            exchange: None,
            ending: Ending::Open,
            pace: Pace::new(now),
            timer: None,
            timer_at: NEVER,
            is_reading_paused: false,
            is_input_over: false,
            is_blocked: false,
            linger_bytes: 0,
        };
        Rc::new_cyclic(|me| Connection {
            server,
            peer,
            me: me.clone(),
            transport: OnceCell::new(),
            state: RefCell::new(state),
            written_bytes: Cell::new(0),
            is_busy: Cell::new(false),
        })
    }

    fn made(&self, transport: &Transport) {
        let _ = self.transport.set(transport.clone());
        if self.server.is_draining() {
            return self.lose(transport);
        }
        let now = self.server.reactor.now();
        let mut state = self.state.borrow_mut();
        state.pace.enter(Phase::Head, now);
        self.arm(&mut state, now);
    }

    fn received(&self, transport: &Transport, data: &[u8]) {
        let mut state = self.state.borrow_mut();
        if !state.stash.is_empty() {
            state.stash.extend_from_slice(data);
            drop(state);
            return self.go_on();
        }
        drop(state);
        let rest = self.process(transport, data);
        if !rest.is_empty() {
            self.state.borrow_mut().stash.extend_from_slice(rest);
        }
        self.steer_reading(transport);
    }

    /// Goes on with what has been received already.
    pub(super) fn go_on(&self) {
        let Some(transport) = self.transport.get() else { return };
        if self.is_busy.get() {
            return;
        }
        let mut stash = std::mem::take(&mut self.state.borrow_mut().stash);
        let rest_bytes = self.process(transport, &stash).len();
        stash.advance(stash.len() - rest_bytes);
        let mut state = self.state.borrow_mut();
        if rest_bytes > 0 {
            state.stash = stash;
        } else if state.is_input_over && state.exchange.is_none() && state.ending == Ending::Open {
            drop(state);
            return self.lose(transport);
        }
        drop(state);
        self.steer_reading(transport);
    }

    /// Has [`go_on`](Self::go_on) called once the present callback is over.
    pub(super) fn go_on_soon(&self) {
        if self.is_busy.get() {
            return;
        }
        let me = self.me.clone();
        LogContext::sentinel().run(|| {
            self.server.reactor.call_soon(move || {
                if let Some(connection) = me.upgrade() {
                    connection.go_on();
                }
            });
        });
    }

    /// Works through `data` as far as it may, and returns the rest.
    fn process<'a>(&self, transport: &Transport, data: &'a [u8]) -> &'a [u8] {
        let now = self.server.reactor.now_or_just_before();
        let mut input = data;
        self.is_busy.set(true);
        while self.step(transport, &mut input, now) {}
        self.is_busy.set(false);
        input
    }

    /// Does one thing; returns whether there may be another.
    fn step(&self, transport: &Transport, input: &mut &[u8], now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        if state.ending != Ending::Open {
            state.linger_bytes += input.len() as u64;
            *input = &[];
            if state.linger_bytes > LINGER_BYTES_MAX {
                transport.abort_connection();
            }
            return false;
        }
        if let Some(exchange) = &state.exchange {
            let Some(inflow) = exchange.inflow.clone() else { return false };
            drop(state);
            return self.read_body(transport, &inflow, input, now);
        }
        if input.is_empty() {
            return false;
        }
        if transport.buffered_bytes() > UNREAD_BYTES_MAX {
            drop(state);
            self.wait_for_reader(transport, now);
            return false;
        }
        if let Some(head) = state.codec.whole_head(input) {
            self.take_request(transport, state, head, input, now);
            return true;
        }
        match state.codec.next_other(input) {
            Ok(Some(RequestEvent::Head(head))) => {
                self.take_unusual_request(transport, state, head, input, now);
                true
            }
            Ok(Some(_)) => true,
            Ok(None) => {
                if state.pace.phase() == Phase::Idle && !state.codec.is_between_requests() {
                    state.pace.enter(Phase::Head, now);
                    self.arm(&mut state, now);
                }
                false
            }
            Err(error) => {
                drop(state);
                self.refuse(transport, error.status(), &error.to_string(), now);
                true
            }
        }
    }

    #[inline(always)]
    fn take_request(
        &self,
        transport: &Transport,
        mut state: RefMut<'_, State>,
        head: RequestHead,
        input: &mut &[u8],
        now: Instant,
    ) {
        let (body, inflow) = self.open_body(&mut state, &head, input);
        drop(state);
        self.begin(transport, head, body, inflow, now);
    }

    /// For a request whose head did not come in the usual way; it goes no other way from there.
    #[inline(never)]
    fn take_unusual_request(
        &self,
        transport: &Transport,
        state: RefMut<'_, State>,
        head: RequestHead,
        input: &mut &[u8],
        now: Instant,
    ) {
        self.take_request(transport, state, head, input, now);
    }

    /// Makes the body of a request: whole if all of it has come with the head.
    #[inline(always)]
    fn open_body(
        &self,
        state: &mut State,
        head: &RequestHead,
        input: &mut &[u8],
    ) -> (IncomingBody, Option<Rc<Inflow>>) {
        if let BodyLength::Exact(length) = head.length
            && length <= WHOLE_BODY_BYTES_MAX
            && length <= input.len() as u64
        {
            // With all bytes at hand, the codec has them.
            let body = state.codec.take_whole_body(input).unwrap_or_default();
            let body = if body.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(body) };
            return (IncomingBody::whole(body), None);
        }
        let owner: Weak<dyn InflowOwner> = self.me.clone();
        let inflow = Inflow::new(head.length, owner);
        (IncomingBody::stream(Rc::clone(&inflow)), Some(inflow))
    }

    fn read_body(
        &self,
        transport: &Transport,
        inflow: &Rc<Inflow>,
        input: &mut &[u8],
        now: Instant,
    ) -> bool {
        let mut state = self.state.borrow_mut();
        if !inflow.wants_data() || inflow.received_bytes() > self.discard_limit(inflow, &state) {
            state.pace.forget_body();
            return false;
        }
        match state.codec.next_event(input) {
            Ok(Some(RequestEvent::Body(data))) => {
                drop(state);
                inflow.push(data);
                true
            }
            Ok(Some(_)) => {
                if let Some(exchange) = &mut state.exchange {
                    exchange.inflow = None;
                }
                state.pace.forget_body();
                drop(state);
                inflow.end();
                self.settle(transport, now);
                true
            }
            Ok(None) => {
                state.pace.expect_body(inflow.received_bytes(), now);
                self.arm(&mut state, now);
                let invites = state.exchange.as_mut().is_some_and(Exchange::invites_body);
                drop(state);
                if invites {
                    self.write(transport, b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                false
            }
            Err(error) => {
                drop(state);
                self.break_off(transport, BodyError::Malformed(error), now);
                true
            }
        }
    }

    /// How far a body that nobody wants is read.
    fn discard_limit(&self, inflow: &Inflow, state: &State) -> u64 {
        let is_answered = state.exchange.as_ref().is_some_and(Exchange::is_answered);
        if inflow.is_abandoned() && !is_answered { DISCARD_BYTES_MAX } else { u64::MAX }
    }

    pub(super) fn write(&self, transport: &Transport, data: &[u8]) {
        self.written_bytes.set(self.written_bytes.get() + data.len() as u64);
        transport.write(data);
    }

    pub(super) fn sent_bytes(&self, transport: &Transport) -> u64 {
        self.written_bytes.get().saturating_sub(transport.buffered_bytes() as u64)
    }

    /// Reads while there is room for what comes.
    fn steer_reading(&self, transport: &Transport) {
        let mut state = self.state.borrow_mut();
        let is_full = state.stash.len() >= STASH_BYTES_MAX || state.is_blocked;
        let pauses = is_full && state.ending == Ending::Open;
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

    fn input_ended(&self, transport: &Transport) {
        let mut state = self.state.borrow_mut();
        state.is_input_over = true;
        let is_awaited = state.exchange.as_ref().is_some_and(|exchange| !exchange.is_answered());
        let is_writing = state.exchange.is_some() && !is_awaited;
        if (is_writing || state.is_blocked) && state.ending == Ending::Open {
            return;
        }
        drop(state);
        // Nearly always this is a client that has gone away, and nothing tells it from one that has only
        // closed its sending half.
        self.lost();
        self.lose(transport);
    }

    fn lost(&self) {
        let mut state = self.state.borrow_mut();
        state.ending = Ending::Closed;
        let exchange = state.exchange.take();
        let timer = state.timer.take();
        state.stash = BytesMut::new();
        drop(state);
        if let Some(timer) = timer {
            timer.cancel();
        }
        if let Some(exchange) = exchange {
            exchange.give_up(BodyError::ConnectionLost);
        }
    }

    /// Closes the connection if it has nothing to do.
    pub(crate) fn close_if_idle(&self) {
        let Some(transport) = self.transport.get() else { return };
        if !self.is_without_request() {
            return;
        }
        if self.state.borrow().codec.is_between_requests() {
            return self.lose(transport);
        }
        // The rest of the head may be under way. But a client that has gone to sleep in the middle of it
        // must not hold up the end for the whole head timeout.
        let me = self.me.clone();
        self.server.reactor.call_later(DRAIN_HEAD_TIMEOUT, move || {
            let Some(connection) = me.upgrade() else { return };
            if let Some(transport) = connection.transport.get()
                && connection.is_without_request()
            {
                connection.lose(transport);
            }
        });
    }

    /// Whether no request is under way, and nothing has been decided about the connection's end.
    fn is_without_request(&self) -> bool {
        let state = self.state.borrow();
        state.exchange.is_none() && state.stash.is_empty() && state.ending == Ending::Open
    }

    /// Closes the connection once everything is sent, for which the client has to read.
    pub(super) fn lose(&self, transport: &Transport) {
        let mut state = self.state.borrow_mut();
        let now = self.server.reactor.now();
        state.ending = Ending::Closed;
        state.pace.enter(Phase::Answering, now);
        state.pace.expect_reader(self.sent_bytes(transport), now);
        self.arm(&mut state, now);
        drop(state);
        transport.lose_connection();
    }

    /// Says the last word: closes once everything is sent, and if the client may be sending still, only
    /// after it has had time to read that.
    pub(super) fn close(&self, transport: &Transport, lingers: bool, now: Instant) {
        let mut state = self.state.borrow_mut();
        if !lingers || state.is_input_over {
            drop(state);
            return self.lose(transport);
        }
        state.ending = Ending::Lingering;
        state.stash = BytesMut::new();
        state.pace.enter(Phase::Linger, now);
        state.pace.expect_reader(self.sent_bytes(transport), now);
        self.arm(&mut state, now);
        drop(state);
        transport.lose_write_connection();
        self.steer_reading(transport);
    }
}

impl InflowOwner for Connection {
    fn body_wanted(&self) {
        self.go_on_soon();
    }
}
