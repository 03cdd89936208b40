//! A cache that database threads share: bounded by weight, with no list of what was used when.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// A cache of values that never go stale.
///
/// Two generations: when the younger is full it becomes the elder, and the elder is dropped. What is
/// found in the elder moves to the younger, so that what is in use stays. The whole weighs at most
/// twice what it was made for, and one value more.
#[derive(Debug)]
pub(crate) struct GenerationCache<K, V> {
    weight_max: usize,
    inner: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    younger: HashMap<K, (V, usize)>,
    elder: HashMap<K, (V, usize)>,
    younger_weight: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> GenerationCache<K, V> {
    /// Makes a cache whose younger generation may weigh this much.
    pub(crate) fn new(weight_max: usize) -> Self {
        let inner =
            Generations { younger: HashMap::new(), elder: HashMap::new(), younger_weight: 0 };
        Self { weight_max, inner: Mutex::new(inner) }
    }

    /// Returns the value of `key`, if it is still here.
    pub(crate) fn find(&self, key: &K) -> Option<V> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((found, _)) = inner.younger.get(key) {
            return Some(found.clone());
        }
        let (found, weight) = inner.elder.remove(key)?;
        inner.keep(key.clone(), found.clone(), weight, self.weight_max);
        Some(found)
    }

    /// Keeps `value`, which weighs `weight`.
    pub(crate) fn keep(&self, key: K, value: V, weight: usize) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.keep(key, value, weight, self.weight_max);
    }
}

impl<K: Clone + Eq + Hash, V> Generations<K, V> {
    fn keep(&mut self, key: K, value: V, weight: usize, weight_max: usize) {
        if self.younger_weight >= weight_max {
            self.elder = std::mem::take(&mut self.younger);
            self.younger_weight = 0;
        }
        self.younger_weight += weight;
        if let Some((_, replaced)) = self.younger.insert(key, (value, weight)) {
            self.younger_weight -= replaced;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_the_rest_goes() {
        let cache = GenerationCache::new(10);
        cache.keep(0, 'a', 1);
        for key in 1..100 {
            cache.keep(key, 'x', 1);
            assert_eq!(cache.find(&0), Some('a'), "used after {key}");
        }
        assert_eq!(cache.find(&50), None, "long unused");
        assert_eq!(cache.find(&99), Some('x'));
        let inner = cache.inner.lock().unwrap();
        assert!(inner.younger.len() + inner.elder.len() <= 20);
    }

    #[test]
    fn replacing_a_value_does_not_add_up() {
        let cache = GenerationCache::new(10);
        for round in 0..100 {
            cache.keep(0, round, 5);
        }
        assert_eq!(cache.find(&0), Some(99));
        assert_eq!(cache.inner.lock().unwrap().younger_weight, 5);
    }
}
