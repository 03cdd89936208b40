//! Fuzzes the entry `lines`.
#![no_main]

#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::run("lines", input));
