//! A single-threaded event-loop reactor with deferreds.
