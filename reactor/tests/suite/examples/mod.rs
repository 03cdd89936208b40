//! The examples, run as a reader would run them: each module drives one.

mod cached_lookups;
mod child_process;
mod file_upload;
mod periodic_job;
mod proxy;
mod simulated_partition;
mod stdio;
mod thread_pool;
mod tls;
mod udp_echo;
mod unit_test;
