//! The examples, run as a reader would run them: each module drives one.

mod udp_echo;
