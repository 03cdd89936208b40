//! A single-threaded event-loop reactor with deferreds.

mod clock;
mod flow;
mod protocol;
mod reactor;
mod timers;
mod transport;

pub use clock::Instant;
pub use flow::{Consumer, Producer, Streaming};
pub use protocol::{Address, ConnectionLost, Factory, Protocol};
pub use reactor::{Reactor, ReactorRemote};
pub use timers::DelayedCall;
pub use transport::Transport;
pub use transport::tcp::{ListenOptions, ListeningPort};
