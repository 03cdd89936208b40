//! Keys of several parts, and groups of them that share their first parts.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};

use smallvec::SmallVec;

/// A key of several parts, a tuple, whose first parts alone can name a group of entries.
///
/// Implemented for tuples of two to four parts. See [`LruCache::by_prefix`](super::LruCache::by_prefix).
pub trait TreeKey: Hash {
    /// Returns a hash of each prefix, of the shortest first.
    #[doc(hidden)]
    fn prefix_hashes(&self, hasher: &RandomState) -> SmallVec<[u64; 3]>;
}

/// The first part, or parts, of keys of type `K`: `A` and `(A, B)` are prefixes of `(A, B, C)`.
///
/// ```
/// use ropewalk::cache::PrefixOf;
///
/// assert!("!a:hs.example".is_prefix_of(&("!a:hs.example", "@anna:hs.example")));
/// assert!(!(1, 2).is_prefix_of(&(1, 3, 5)));
/// ```
pub trait PrefixOf<K>: Hash {
    /// Whether the key begins with this.
    fn is_prefix_of(&self, key: &K) -> bool;
}

impl<A: Hash, B: Hash> TreeKey for (A, B) {
    fn prefix_hashes(&self, hasher: &RandomState) -> SmallVec<[u64; 3]> {
        SmallVec::from_slice(&[hasher.hash_one(&self.0)])
    }
}

impl<A: Hash, B: Hash, C: Hash> TreeKey for (A, B, C) {
    fn prefix_hashes(&self, hasher: &RandomState) -> SmallVec<[u64; 3]> {
        let (a, b, _) = self;
        SmallVec::from_slice(&[hasher.hash_one(a), hasher.hash_one((a, b))])
    }
}

impl<A: Hash, B: Hash, C: Hash, D: Hash> TreeKey for (A, B, C, D) {
    fn prefix_hashes(&self, hasher: &RandomState) -> SmallVec<[u64; 3]> {
        let (a, b, c, _) = self;
        let hashes = [hasher.hash_one(a), hasher.hash_one((a, b)), hasher.hash_one((a, b, c))];
        SmallVec::from_slice(&hashes)
    }
}

impl<A: Eq + Hash, B> PrefixOf<(A, B)> for A {
    fn is_prefix_of(&self, key: &(A, B)) -> bool {
        *self == key.0
    }
}

impl<A: Eq + Hash, B, C> PrefixOf<(A, B, C)> for A {
    fn is_prefix_of(&self, key: &(A, B, C)) -> bool {
        *self == key.0
    }
}

impl<A: Eq + Hash, B: Eq + Hash, C> PrefixOf<(A, B, C)> for (A, B) {
    fn is_prefix_of(&self, key: &(A, B, C)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}

impl<A: Eq + Hash, B, C, D> PrefixOf<(A, B, C, D)> for A {
    fn is_prefix_of(&self, key: &(A, B, C, D)) -> bool {
        *self == key.0
    }
}

impl<A: Eq + Hash, B: Eq + Hash, C, D> PrefixOf<(A, B, C, D)> for (A, B) {
    fn is_prefix_of(&self, key: &(A, B, C, D)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}

impl<A: Eq + Hash, B: Eq + Hash, C: Eq + Hash, D> PrefixOf<(A, B, C, D)> for (A, B, C) {
    fn is_prefix_of(&self, key: &(A, B, C, D)) -> bool {
        self.0 == key.0 && self.1 == key.1 && self.2 == key.2
    }
}

/// Finds the entries of a group. Different groups may share a hash: whoever asks checks the keys.
pub(super) struct PrefixIndex<K> {
    prefix_hashes: fn(&K, &RandomState) -> SmallVec<[u64; 3]>,
    /// Places of entries, in an order that does not depend on the hashes.
    groups: HashMap<u64, BTreeSet<usize>>,
}

impl<K: TreeKey> PrefixIndex<K> {
    pub(super) fn new() -> Self {
        Self { prefix_hashes: K::prefix_hashes, groups: HashMap::new() }
    }
}

impl<K> PrefixIndex<K> {
    pub(super) fn insert(&mut self, key: &K, place: usize) {
        for hash in (self.prefix_hashes)(key, self.groups.hasher()) {
            self.groups.entry(hash).or_default().insert(place);
        }
    }

    pub(super) fn remove(&mut self, key: &K, place: usize) {
        for hash in (self.prefix_hashes)(key, self.groups.hasher()) {
            if let Some(group) = self.groups.get_mut(&hash) {
                group.remove(&place);
                if group.is_empty() {
                    self.groups.remove(&hash);
                }
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.groups.clear();
    }

    /// Returns the places of the entries that may belong to the group.
    pub(super) fn find(&self, prefix: &impl Hash) -> impl Iterator<Item = usize> {
        let hash = self.groups.hasher().hash_one(prefix);
        self.groups.get(&hash).into_iter().flatten().copied()
    }
}
