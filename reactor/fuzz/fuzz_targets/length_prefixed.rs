//! Fuzzes the entry `length_prefixed`.
#![no_main]

#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::run("length_prefixed", input));
