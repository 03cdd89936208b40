//! `StreamChangeCache`: what has surely not changed since a stream position.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;

/// Knows of each entity the last position of a stream at which it changed, for the newest positions.
///
/// Saves the question to the database for all that have not changed. Answers err on the safe side: what
/// is not known any more may have changed. A position here is "up to and including": an entity that
/// changed at 5 has not changed since 5. A cache that has heard of no change is as sure as any other:
/// nothing has changed since the position at which it began.
///
/// ```
/// use ropewalk::cache::StreamChangeCache;
///
/// let mut rooms = StreamChangeCache::new(100, 10_000);
/// rooms.entity_has_changed("!a:hs.example", 101);
/// assert!(rooms.has_entity_changed(&"!a:hs.example", 100));
/// assert!(!rooms.has_entity_changed(&"!a:hs.example", 101));
/// assert!(!rooms.has_entity_changed(&"!b:hs.example", 100));
/// assert!(rooms.has_entity_changed(&"!b:hs.example", 99), "before the cache can tell");
/// ```
pub struct StreamChangeCache<E> {
    /// Nothing is known of changes at or before this position.
    earliest: u64,
    positions_max: usize,
    by_entity: HashMap<E, u64>,
    by_position: BTreeMap<u64, BTreeSet<E>>,
}

/// Which entities have changed since a position.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ChangedEntities<E> {
    /// These and no others, in the order of their changes.
    Known(Vec<E>),
    /// The position is from before the cache can tell.
    Unknown,
}

impl<E: Clone + Eq + Hash + Ord> StreamChangeCache<E> {
    /// Makes a cache that knows nothing of changes before `current_position` and remembers at most
    /// `positions_max` positions.
    pub fn new(current_position: u64, positions_max: usize) -> Self {
        Self {
            earliest: current_position,
            positions_max,
            by_entity: HashMap::new(),
            by_position: BTreeMap::new(),
        }
    }

    /// Makes a cache from the newest rows of a table, at most `positions_max` of them.
    ///
    /// Rows of the lowest position among them may have been cut off, so that the cache can tell only from
    /// there on. Without rows it starts at `current_position`.
    pub fn prefilled(
        current_position: u64,
        positions_max: usize,
        rows: impl IntoIterator<Item = (E, u64)>,
    ) -> Self {
        let rows: Vec<(E, u64)> = rows.into_iter().collect();
        let earliest = rows.iter().map(|(_, position)| *position).min().unwrap_or(current_position);
        let mut cache = Self::new(earliest, positions_max);
        for (entity, position) in rows {
            cache.entity_has_changed(entity, position);
        }
        cache
    }

    /// Notes a change. Older news than what is known is ignored. Several entities may share a position.
    pub fn entity_has_changed(&mut self, entity: E, position: u64) {
        if position <= self.earliest {
            return;
        }
        if let Some(known) = self.by_entity.get(&entity).copied() {
            if position <= known {
                return;
            }
            if let Some(entities) = self.by_position.get_mut(&known) {
                entities.remove(&entity);
                if entities.is_empty() {
                    self.by_position.remove(&known);
                }
            }
        }
        self.by_entity.insert(entity.clone(), position);
        self.by_position.entry(position).or_default().insert(entity);
        while self.by_position.len() > self.positions_max {
            let Some((lowest, entities)) = self.by_position.pop_first() else { break };
            for entity in &entities {
                self.by_entity.remove(entity);
            }
            self.earliest = lowest;
        }
    }

    /// Notes that anything may have changed up to `position`: everything is forgotten.
    pub fn all_entities_changed(&mut self, position: u64) {
        self.by_entity.clear();
        self.by_position.clear();
        self.earliest = self.earliest.max(position);
    }

    /// Whether the entity may have changed after `position`.
    pub fn has_entity_changed(&self, entity: &E, position: u64) -> bool {
        position < self.earliest
            || self.by_entity.get(entity).is_some_and(|changed| position < *changed)
    }

    /// Whether any entity may have changed after `position`.
    pub fn has_any_changed(&self, position: u64) -> bool {
        position < self.earliest
            || self.by_position.last_key_value().is_some_and(|(last, _)| position < *last)
    }

    /// Returns those of `entities` that may have changed after `position`, in the order given.
    pub fn entities_changed<'a>(
        &self,
        entities: impl IntoIterator<Item = &'a E>,
        position: u64,
    ) -> Vec<E>
    where
        E: 'a,
    {
        let entities = entities.into_iter();
        entities.filter(|entity| self.has_entity_changed(entity, position)).cloned().collect()
    }

    /// Returns all entities that have changed after `position`.
    pub fn all_changed_since(&self, position: u64) -> ChangedEntities<E> {
        if position < self.earliest {
            return ChangedEntities::Unknown;
        }
        let newer = self.by_position.range(position.saturating_add(1)..);
        ChangedEntities::Known(newer.flat_map(|(_, entities)| entities).cloned().collect())
    }

    /// Returns the position up to which nothing is known.
    pub fn earliest_known_position(&self) -> u64 {
        self.earliest
    }

    /// Returns the position of the entity's last known change.
    pub fn last_change(&self, entity: &E) -> Option<u64> {
        self.by_entity.get(entity).copied()
    }
}

impl<E> fmt::Debug for StreamChangeCache<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamChangeCache")
            .field("earliest", &self.earliest)
            .field("entities", &self.by_entity.len())
            .finish()
    }
}
