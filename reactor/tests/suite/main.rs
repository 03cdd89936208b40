//! All integration tests of the reactor: one binary, one module a subject.

mod cached_lookups;
mod caches;
mod cancelling;
mod certificates;
mod clocks;
mod combine;
mod concurrency;
mod contexts;
mod deferred;
mod framing;
mod hosts;
mod locks;
mod queues;
mod reactor;
mod read_write_lock;
mod reentry;
mod remote;
mod resolving;
mod services;
mod support;
mod task;
mod threads;
mod tls;
mod tls_setup;
mod transport;
mod unix;
