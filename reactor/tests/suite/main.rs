//! All integration tests of the reactor: one binary, one module a subject.

mod reactor;
mod services;
mod support;
mod threads;
mod transport;
