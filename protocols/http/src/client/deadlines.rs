//! The deadlines of one connection in force: its timer, and what happens when one has passed.

use ropewalk::{Instant, LogContext};

use super::ClientError;
use super::connection::{ClientConnection, NEVER, State};
use crate::pace::{Overdue, Phase};

impl ClientConnection {
    /// Sees to it that the timer goes off no later than the next deadline.
    pub(super) fn arm(&self, state: &mut State, now: Instant) {
        let Some(deadline) = state.pace.next_deadline(&self.limits) else { return };
        if deadline >= state.timer_at {
            return;
        }
        state.timer_at = deadline;
        if let Some(timer) = state.timer.take() {
            timer.cancel();
        }
        let me = self.me.clone();
        let fire = move || {
            if let Some(connection) = me.upgrade() {
                connection.timer_fired();
            }
        };
        let delay = deadline.since(now);
        let timer = LogContext::sentinel().run(|| self.reactor.call_later(delay, fire));
        state.timer = Some(timer);
    }

    fn timer_fired(&self) {
        let Some(transport) = self.transport.get() else { return };
        let now = self.reactor.now();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.timer = None;
        state.timer_at = NEVER;
        let inflow = state.current.as_ref().and_then(|current| current.inflow.as_ref());
        let received = inflow.map_or(0, |inflow| inflow.received_bytes());
        let is_unsent = transport.buffered_bytes() > 0;
        let sent = self.sent_bytes(transport);
        match state.pace.overdue(now, &self.limits, received, sent, is_unsent) {
            None => return self.arm(state, now),
            Some(Overdue::Head) if is_unsent => {
                // The server's time begins when it has the whole request.
                state.pace.enter(Phase::Head, now);
                return self.arm(state, now);
            }
            Some(Overdue::Idle) => {
                drop(guard);
                return self.close();
            }
            Some(_) => {}
        }
        drop(guard);
        self.fail(ClientError::ResponseTimeout { limit: self.limits.head_timeout });
        self.abort();
    }
}
