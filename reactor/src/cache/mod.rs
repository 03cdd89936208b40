//! Caches: what was expensive to get, kept within a limit and dropped when it is no longer true.
//!
//! None of these knows where values come from. All are for the reactor's thread; those that hold plain
//! values hand out clones, so values are usually `Rc` or `Arc`.
//!
//! | you have | and want | take |
//! | --- | --- | --- |
//! | a function that looks something up | to call it as if it cost nothing | [`CachedFunction`] |
//! | one that looks many things up | to ask only for what is missing | [`CachedList`] |
//! | values, and lookups under way | the same, by hand | [`DeferredCache`] |
//! | values | to keep those that are used | [`LruCache`] |
//! | large dictionaries | to keep parts of them | [`DictionaryCache`] |
//! | things that are true for a time | to keep them for that time | [`ExpiringCache`] |
//! | clients that ask again | to answer both with one computation | [`ResponseCache`] |
//! | a stream of changes | to know what has not changed | [`StreamChangeCache`] |
//! | all of these | to size and to watch them together | [`Caches`] |
//!
//! # Sizes
//!
//! A cache has a limit of entries, or of their sizes, as a size callback tells them once, when an entry
//! is put in: the total is kept in step and never recomputed, so values must not grow inside a cache.
//!
//! # Being told
//!
//! An [`OnInvalidate`] callback given to a lookup is called when what was returned is no longer true, or
//! is evicted: that is how a result that is made of others goes with them.

mod caches;
mod deferred_cache;
mod dictionary;
mod expiring;
mod function;
mod list;
mod lru;
mod prefix;
mod response;
mod stream_change;

pub use caches::{CacheFigures, CacheOptions, CacheReport, Caches, ManagedCache};
pub use deferred_cache::DeferredCache;
pub use dictionary::{DictionaryAnswer, DictionaryCache, DictionaryNews, ReadMark};
pub use expiring::{ExpiringCache, ExpiringCacheOptions};
pub use function::{CachedFunction, CallEntry};
pub use list::CachedList;
pub use lru::{CacheStatistics, LruCache, OnInvalidate};
pub use prefix::{PrefixOf, TreeKey};
pub use response::{CacheControl, ResponseCache};
pub use stream_change::{ChangedEntities, StreamChangeCache};
