//! All integration tests of the reactor: one binary, one module a subject.

mod reactor;
mod reentry;
mod services;
mod support;
mod task;
mod threads;
mod tls;
mod transport;
