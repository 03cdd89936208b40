//! Simulated worlds: the network, crashes and restarts, clocks, and that a seed decides everything.

mod datagrams;
mod hosts;
mod jobs;
mod network;
mod programs;
mod seeds;
mod support;
mod tls;
