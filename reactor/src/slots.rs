//! A table whose keys go stale: each carries the generation of the entry it was made for.
//!
//! Events, wake-ups and handles outlive what they point at. A key of an entry that is gone finds
//! nothing, also when its place has been taken by another.

/// Names one entry of one [`Slots`]: its place in the low half, its generation in the high one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key(u64);

impl Key {
    /// A key that never finds anything.
    pub(crate) const NONE: Key = Key(u64::MAX);

    pub(crate) fn from_bits(bits: u64) -> Key {
        Key(bits)
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { entries: Vec::new(), free: Vec::new() }
    }

    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.insert_with(|_| value)
    }

    /// Inserts what `make` makes of the key that it gets.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 entries");
            assert!(index < u32::MAX, "fewer than 2^32 - 1 entries");
            self.entries.push(Entry { generation: 0, value: None });
            index
        });
        let entry = &mut self.entries[index as usize];
        let key = Key(u64::from(entry.generation) << 32 | u64::from(index));
        let none = entry.value.replace(make(key));
        debug_assert!(none.is_none(), "what is free is empty");
        std::mem::forget(none);
        key
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index())?;
        if entry.generation != key.generation() {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.index() as u32);
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index())?;
        if entry.generation == key.generation() { entry.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index())?;
        if entry.generation == key.generation() { entry.value.as_mut() } else { None }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Takes all values out, in the order of their places; every key goes stale.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len());
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if let Some(value) = entry.value.take() {
                entry.generation = entry.generation.wrapping_add(1);
                self.free.push(index as u32);
                values.push(value);
            }
        }
        values
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let value = entry.value.as_ref()?;
            Some((Key(u64::from(entry.generation) << 32 | index as u64), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_stale_when_its_entry_is_removed() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.index(), second.index(), "the place is used again");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn taking_all_leaves_an_empty_table() {
        let mut slots = Slots::new();
        let keys: Vec<Key> = (0..3).map(|n| slots.insert(n)).collect();
        slots.remove(keys[1]);
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(keys[0], &0), (keys[2], &2)]);
        assert_eq!(slots.take_all(), [0, 2]);
        assert_eq!(slots.len(), 0);
        assert!(keys.iter().all(|&key| slots.get(key).is_none()));
        assert!(slots.get(Key::NONE).is_none());
    }
}
