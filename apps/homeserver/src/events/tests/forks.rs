//! Forks: events received from elsewhere.
