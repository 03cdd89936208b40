//! The examples, run as a reader would run them: each module drives one.

mod child_process;
mod stdio;
mod udp_echo;
