//! The deadlines of one connection in force: its timer, and what happens when one has passed.

use std::rc::{Rc, Weak};

use http::StatusCode;
use ropewalk::{Instant, LogContext, Producer, Streaming, Transport};

use super::connection::{Connection, NEVER, State, UNREAD_BYTES_MAX};
use crate::body::BodyError;
use crate::pace::Overdue;

impl Connection {
    /// Sees to it that the timer goes off no later than the next deadline. Earlier does no harm, so a
    /// deadline that moves away, as it does with every request, costs nothing.
    pub(super) fn arm(&self, state: &mut State, now: Instant) {
        let Some(deadline) = state.pace.next_deadline(&self.server.limits) else { return };
        if deadline >= state.timer_at {
            return;
        }
        state.timer_at = deadline;
        let delay = deadline.since(now);
        if let Some(timer) = state.timer.as_ref().filter(|timer| timer.is_active()) {
            return timer.reset(delay);
        }
        let me = self.me.clone();
        let fire = move || {
            if let Some(connection) = me.upgrade() {
                connection.timer_fired();
            }
        };
        let timer = LogContext::sentinel().run(|| self.server.reactor.call_later(delay, fire));
        state.timer = Some(timer);
    }

    fn timer_fired(&self) {
        let Some(transport) = self.transport.get() else { return };
        let now = self.server.reactor.now();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.timer = None;
        state.timer_at = NEVER;
        let inflow = state.exchange.as_ref().and_then(|exchange| exchange.inflow.as_ref());
        let received = inflow.map_or(0, |inflow| inflow.received_bytes());
        let unsent = transport.buffered_bytes() > 0;
        let sent = self.sent_bytes(transport);
        let overdue = state.pace.overdue(now, &self.server.limits, received, sent, unsent);
        let has_begun = !state.codec.is_between_requests();
        if overdue.is_none() {
            return self.arm(state, now);
        }
        drop(guard);
        match overdue {
            Some(Overdue::Head) if has_begun => {
                self.refuse(
                    transport,
                    StatusCode::REQUEST_TIMEOUT,
                    "request head took too long",
                    now,
                );
            }
            Some(Overdue::Idle | Overdue::Head) if !unsent => self.lose(transport),
            Some(Overdue::Body) => self.break_off(transport, BodyError::Stalled, now),
            _ => {
                log::debug!(
                    "client took too long, connection aborted overdue={overdue:?} peer={}",
                    self.peer
                );
                transport.abort_connection();
            }
        }
    }

    /// Lets the client read before it is answered any more.
    pub(super) fn wait_for_reader(&self, transport: &Transport, now: Instant) {
        let mut state = self.state.borrow_mut();
        if std::mem::replace(&mut state.is_blocked, true) {
            return;
        }
        state.pace.expect_reader(self.sent_bytes(transport), now);
        self.arm(&mut state, now);
        drop(state);
        let watch = Rc::new(ReaderWatch { connection: self.me.clone() });
        transport.register_producer(watch, Streaming::Pull);
    }
}

/// Waits until a slow client has read what it was sent. Registered as a pull producer, which is asked
/// when everything has gone out.
struct ReaderWatch {
    connection: Weak<Connection>,
}

impl Producer for ReaderWatch {
    fn pause_producing(&self) {}

    fn resume_producing(&self) {
        let Some(connection) = self.connection.upgrade() else { return };
        let Some(transport) = connection.transport.get() else { return };
        if transport.buffered_bytes() > UNREAD_BYTES_MAX / 2 {
            return;
        }
        let mut state = connection.state.borrow_mut();
        if !std::mem::replace(&mut state.is_blocked, false) {
            return;
        }
        state.pace.forget_reader();
        drop(state);
        transport.unregister_producer();
        connection.go_on_soon();
    }

    fn stop_producing(&self) {}
}
