//! Codecs as tables, and the shells that put them on a connection.

mod codecs;
#[path = "../../fuzz/entries.rs"]
mod entries;
mod replay;
mod shells;
