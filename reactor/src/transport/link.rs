//! The state of one connection, behind every clone of its [`Transport`](super::Transport).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use crate::flow::{Producer, Streaming};
use crate::protocol::Address;

pub(crate) struct Link {
    peer: Address,
    local: Address,
    connected: Cell<bool>,
    out: RefCell<Vec<u8>>,
}

impl Link {
    pub(crate) fn write(&self, data: &[u8]) {
        self.out.borrow_mut().extend_from_slice(data);
    }

    pub(crate) fn write_bytes(&self, data: Bytes) {
        self.write(&data);
    }

    pub(crate) fn lose_connection(&self) {
        self.connected.set(false);
    }

    pub(crate) fn lose_write_connection(&self) {}

    pub(crate) fn abort_connection(&self) {
        self.connected.set(false);
    }

    pub(crate) fn pause_reading(&self) {}

    pub(crate) fn resume_reading(&self) {}

    pub(crate) fn register_producer(&self, _producer: Rc<dyn Producer>, _streaming: Streaming) {}

    pub(crate) fn unregister_producer(&self) {}

    pub(crate) fn set_watermarks(&self, _high_bytes: usize, _low_bytes: usize) {}

    pub(crate) fn peer(&self) -> &Address {
        &self.peer
    }

    pub(crate) fn local(&self) -> &Address {
        &self.local
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.get()
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        self.out.borrow().len()
    }
}
