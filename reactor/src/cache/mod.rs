//! Caches: what was expensive to get, kept within a limit and dropped when it is no longer true.
//!
//! None of these knows where values come from. All are for the reactor's thread; those that hold plain
//! values hand out clones, so values are usually `Rc` or `Arc`.

mod deferred_cache;
mod lru;
mod response;
mod stream_change;

pub use deferred_cache::DeferredCache;
pub use lru::{CacheStatistics, LruCache, OnInvalidate};
pub use response::{CacheControl, ResponseCache};
pub use stream_change::{ChangedEntities, StreamChangeCache};
