//! Policies: what is decided about connections whatever they carry.
//!
//! For servers, each is a [`Factory`](crate::Factory) around another one, so that they compose, in any
//! order:
//!
//! - [`LimitedFactory`]: how many connections there may be at a time, in all and from each peer;
//! - [`IdleFactory`]: how long nothing may happen on one;
//! - [`ThrottledFactory`]: how fast bytes come and go, on each and on all together.
//!
//! For clients:
//!
//! - [`ReconnectingClient`] keeps one connection up, and waits longer and longer between failures;
//! - [`ConnectionPool`] keeps connections for those who need one for a while.
//!
//! ```
//! use std::rc::Rc;
//! use std::time::Duration;
//! use ropewalk::policy::{ConnectionLimits, IdleFactory, LimitedFactory};
//! use ropewalk::testing::Clock;
//! use ropewalk::{Factory, Protocol, Transport, factory};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
//!         transport.write(data);
//!     }
//! }
//!
//! let clock = Clock::new();
//! let echo = factory(|_| Echo);
//! let idle = IdleFactory::new(clock.reactor(), echo, Duration::from_secs(60));
//! let limits = ConnectionLimits::default().total(1000).per_peer(20);
//! let limited = Rc::new(LimitedFactory::new(clock.reactor(), Rc::new(idle), limits));
//! let factory: Rc<dyn Factory> = Rc::clone(&limited) as Rc<dyn Factory>;
//! clock.reactor().listen_tcp("127.0.0.1:7".parse().unwrap(), factory, Default::default()).unwrap();
//! assert_eq!(limited.open_count(), 0);
//! ```

mod backoff;
mod bucket;
mod idle;
mod limits;
mod pool;
mod pool_options;
mod reconnect;
mod throttle;

pub use self::backoff::Backoff;
pub use self::idle::IdleFactory;
pub use self::limits::{ConnectionLimits, LimitedFactory};
pub use self::pool::{ConnectionPool, Pooled};
pub use self::pool_options::{PoolError, PoolOptions, PoolStatistics};
pub use self::reconnect::{ClientState, ReconnectError, ReconnectOptions, ReconnectingClient};
pub use self::throttle::{Bandwidth, Throttle, ThrottledFactory};
