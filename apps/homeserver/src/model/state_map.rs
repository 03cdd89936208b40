//! State of a room: from event type and state key to a value, nearly always an event id.

use std::collections::BTreeMap;

use ruma::OwnedEventId;

/// A map from (event type, state key), in order of type and then key.
///
/// Types and keys are the text of the events, never a typed alias of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateMap<V = OwnedEventId> {
    types: BTreeMap<Box<str>, BTreeMap<Box<str>, V>>,
}

impl<V> Default for StateMap<V> {
    fn default() -> Self {
        Self { types: BTreeMap::new() }
    }
}

impl<V> StateMap<V> {
    /// Makes an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `value` at the key; returns what was there.
    pub fn insert(&mut self, event_type: &str, state_key: &str, value: V) -> Option<V> {
        if let Some(keys) = self.types.get_mut(event_type) {
            return keys.insert(state_key.into(), value);
        }
        self.types.insert(event_type.into(), BTreeMap::from([(state_key.into(), value)]));
        None
    }

    /// Takes away what is at the key.
    pub fn remove(&mut self, event_type: &str, state_key: &str) -> Option<V> {
        let keys = self.types.get_mut(event_type)?;
        let removed = keys.remove(state_key);
        if keys.is_empty() {
            self.types.remove(event_type);
        }
        removed
    }

    /// Returns what is at the key.
    pub fn get(&self, event_type: &str, state_key: &str) -> Option<&V> {
        self.types.get(event_type)?.get(state_key)
    }

    /// Returns the entries of one type, by state key.
    pub fn of_type(&self, event_type: &str) -> impl Iterator<Item = (&str, &V)> {
        self.types.get(event_type).into_iter().flatten().map(|(key, value)| (&**key, value))
    }

    /// Returns all entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &V)> {
        self.types.iter().flat_map(|(event_type, keys)| {
            keys.iter().map(move |(key, value)| (&**event_type, &**key, value))
        })
    }

    /// Returns all values, in order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.types.values().flat_map(BTreeMap::values)
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.types.values().map(BTreeMap::len).sum()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }
}

impl<'a, V> FromIterator<(&'a str, &'a str, V)> for StateMap<V> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<'a, V> Extend<(&'a str, &'a str, V)> for StateMap<V> {
    fn extend<I: IntoIterator<Item = (&'a str, &'a str, V)>>(&mut self, entries: I) {
        for (event_type, state_key, value) in entries {
            self.insert(event_type, state_key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_and_empty_types_vanish() {
        let mut map: StateMap<u8> =
            [("m.b", "", 1), ("m.a", "y", 2), ("m.a", "x", 3)].into_iter().collect();
        assert_eq!(map.insert("m.b", "", 4), Some(1));
        let entries: Vec<_> = map.iter().map(|(kind, key, value)| (kind, key, *value)).collect();
        assert_eq!(entries, [("m.a", "x", 3), ("m.a", "y", 2), ("m.b", "", 4)]);
        assert_eq!(map.of_type("m.a").count(), 2);
        assert_eq!(map.of_type("m.c").count(), 0);
        assert_eq!(map.len(), 3);

        assert_eq!(map.remove("m.b", ""), Some(4));
        assert_eq!(map.remove("m.b", ""), None);
        map.remove("m.a", "x");
        map.remove("m.a", "y");
        assert!(map.is_empty());
        assert_eq!(map, StateMap::new());
    }
}
