//! Fuzzes the entry `lines_raw`.
#![no_main]

#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::run("lines_raw", input));
