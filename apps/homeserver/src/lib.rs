//! A Matrix homeserver on the Ropewalk reactor.
