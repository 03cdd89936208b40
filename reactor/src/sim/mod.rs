//! A simulated world: many hosts, one virtual clock, one seed.

mod agenda;
mod check;
mod clock;
mod datagrams;
mod faults;
mod host;
mod leftovers;
mod nemesis;
mod network;
mod trace;
mod world;

pub use check::{check, check_with, run_seed};
pub use faults::{Faults, LinkOptions, Recurrence, WorldOptions};
pub use host::Host;
pub use leftovers::Leftover;
pub use world::World;
