//! All integration tests of the reactor: one binary, one module a subject.

mod cached_lookups;
mod caches;
mod cancelling;
mod clocks;
mod combine;
mod contexts;
mod deferred;
mod framing;
mod hosts;
mod locks;
mod reactor;
mod reentry;
mod resolving;
mod services;
mod support;
mod task;
mod threads;
mod tls;
mod transport;
