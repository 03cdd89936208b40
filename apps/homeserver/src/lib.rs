//! A Matrix homeserver on the Ropewalk reactor.

mod api;
pub mod cli;
pub mod config;
pub mod events;
pub mod handlers;
pub mod model;
pub mod storage;
pub mod streams;
mod wiring;

pub use wiring::{Homeserver, build, serve};
