//! What happened in a world, as text for people and as one number for comparing runs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use crate::clock::Instant;

/// Remembers the last happenings, and mixes all of them into a running hash.
pub(super) struct Trace {
    tail: RefCell<VecDeque<(Instant, Happening)>>,
    hash: RefCell<TraceHasher>,
}

/// An event of the world or a decision of chance. Ciphertext is neither.
#[derive(Clone, Debug, Hash)]
pub(super) enum Happening {
    /// A stream's bytes came to their reader.
    Arrived {
        at: Ends,
        bytes: usize,
        digest: u64,
    },
    Closed {
        at: Ends,
    },
    Connecting {
        at: Ends,
    },
    Crashed {
        host: Rc<str>,
    },
    Cut {
        from: Rc<str>,
        to: Rc<str>,
    },
    DatagramArrived {
        at: Ends,
        bytes: usize,
        digest: u64,
    },
    DatagramLost {
        at: Ends,
    },
    DiskPaced {
        host: Rc<str>,
        times: u32,
    },
    Established {
        at: Ends,
    },
    Finished {
        at: Ends,
    },
    Froze {
        host: Rc<str>,
        duration: Duration,
    },
    GaveUp {
        at: Ends,
    },
    /// Parts of a TLS handshake came, of whatever length.
    HandshakeWentOn {
        at: Ends,
    },
    Healed {
        from: Rc<str>,
        to: Rc<str>,
    },
    JobRan {
        host: Rc<str>,
        time: Duration,
    },
    LinkLost {
        at: Ends,
    },
    Note {
        text: String,
    },
    Panicked {
        host: Rc<str>,
        text: String,
    },
    PowerLost {
        host: Rc<str>,
    },
    Receives {
        host: Rc<str>,
        bytes_per_second: Option<u64>,
    },
    Refused {
        at: Ends,
    },
    Reset {
        at: Ends,
    },
    Said {
        host: Rc<str>,
        text: String,
    },
    Started {
        host: Rc<str>,
        incarnation: u64,
    },
    Stopped {
        host: Rc<str>,
    },
    Unhandled {
        host: Rc<str>,
        text: String,
    },
    WallClockStepped {
        host: Rc<str>,
        millis: i64,
    },
    Woke {
        host: Rc<str>,
    },
}

/// A connection as one of its directions: from whom, to whom.
#[derive(Clone, Debug, Hash)]
pub(super) struct Ends {
    pub(super) from: Rc<str>,
    pub(super) from_port: u16,
    pub(super) to: Rc<str>,
    pub(super) to_port: u16,
}

impl Trace {
    pub(super) fn new() -> Trace {
        Trace { tail: RefCell::default(), hash: RefCell::new(TraceHasher(FIRST_STATE)) }
    }

    pub(super) fn record(&self, now: Instant, happening: Happening) {
        let mut hash = self.hash.borrow_mut();
        (now, &happening).hash(&mut *hash);
        // Every timer and every arrival wakes somebody; people want to read what follows from it.
        if matches!(happening, Happening::Woke { .. }) {
            return;
        }
        let mut tail = self.tail.borrow_mut();
        if tail.len() == TAIL_LENGTH {
            tail.pop_front();
        }
        tail.push_back((now, happening));
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.borrow().finish()
    }

    /// Returns the last happenings, one a line.
    pub(super) fn tail(&self) -> String {
        use fmt::Write as _;

        let mut text = String::new();
        for (when, happening) in &*self.tail.borrow() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{when} {happening}");
        }
        text
    }
}

/// Returns a number for some bytes, so that the trace tells apart messages of equal length.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = TraceHasher(FIRST_STATE);
    hasher.write(bytes);
    hasher.finish()
}

/// The same hash in each run of the same build; the standard library's promises less.
struct TraceHasher(u64);

impl Hasher for TraceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word: [u8; 8] = chunk.try_into().expect("chunks of eight");
            self.write_u64(u64::from_le_bytes(word));
        }
        for &byte in chunks.remainder() {
            self.write_u64(u64::from(byte));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

const FIRST_STATE: u64 = 0xcbf2_9ce4_8422_2325;

/// What a person reads before asking for a run with more output.
const TAIL_LENGTH: usize = 60;

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ends { from, from_port, to, to_port } = self;
        write!(f, "{from}:{from_port} > {to}:{to_port}")
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::Arrived { at, bytes, .. } => write!(f, "{at}: {bytes} bytes arrived"),
            Happening::Closed { at } => write!(f, "{at}: the sender's closing arrived"),
            Happening::Connecting { at } => write!(f, "{at}: asks for a connection"),
            Happening::Crashed { host } => write!(f, "{host} crashed"),
            Happening::Cut { from, to } => write!(f, "network cut: {from} > {to}"),
            Happening::DatagramArrived { at, bytes, .. } => {
                write!(f, "{at}: a datagram of {bytes} bytes arrived")
            }
            Happening::DatagramLost { at } => write!(f, "{at}: a datagram was lost"),
            Happening::DiskPaced { host, times } => {
                write!(f, "{host}'s disk takes {times} times as long as usual")
            }
            Happening::Established { at } => write!(f, "{at}: connected"),
            Happening::Finished { at } => write!(f, "{at}: the end of the sender's stream arrived"),
            Happening::Froze { host, duration } => {
                write!(f, "{host} stands still for {duration:?}")
            }
            Happening::GaveUp { at } => write!(f, "{at}: no answer for too long, given up"),
            Happening::HandshakeWentOn { at } => write!(f, "{at}: a TLS handshake goes on"),
            Happening::Healed { from, to } => write!(f, "network healed: {from} > {to}"),
            Happening::JobRan { host, time } => write!(f, "{host}: a thread job ran for {time:?}"),
            Happening::LinkLost { at } => {
                write!(f, "{at}: this connection carries nothing any more")
            }
            Happening::Note { text } => f.write_str(text),
            Happening::Panicked { host, text } => write!(f, "{host} panicked: {text}"),
            Happening::PowerLost { host } => write!(f, "{host} lost power"),
            Happening::Receives { host, bytes_per_second: Some(rate) } => {
                write!(f, "{host} receives {rate} bytes a second")
            }
            Happening::Receives { host, bytes_per_second: None } => {
                write!(f, "{host} receives at full speed")
            }
            Happening::Refused { at } => write!(f, "{at}: refused"),
            Happening::Reset { at } => write!(f, "{at}: reset arrived"),
            Happening::Said { host, text } => write!(f, "{host}: {text}"),
            Happening::Started { host, incarnation } => {
                write!(f, "{host} started, incarnation {incarnation}")
            }
            Happening::Stopped { host } => write!(f, "{host} stopped"),
            Happening::Unhandled { host, text } => {
                write!(f, "{host}: nobody handled a failure: {text}")
            }
            Happening::WallClockStepped { host, millis } => {
                write!(f, "{host}'s wall clock stepped by {millis} ms")
            }
            Happening::Woke { host } => write!(f, "{host} wakes"),
        }
    }
}
