//! `DictionaryCache`: parts of dictionaries that are too large to be kept, or asked for, as a whole.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;

use super::caches::{CacheFigures, CacheOptions, ManagedCache};
use super::lru::LruCache;

/// Keeps dictionaries, each under a key, whole or in parts.
///
/// Of some dictionaries everything is asked for, of others a few items; and what a dictionary does not
/// have is as good to know as what it has. So a whole dictionary is one entry of the cache, of the size
/// of its items (an empty one counts as one), and every single item that was looked up, or found
/// absent, is one, of size 1. They are used, and evicted, independently.
///
/// A whole dictionary is given out as it lies there: it is never copied, and never changed.
///
/// # Filling it
///
/// What is read from a database may be out of date when it arrives. Take a [`ReadMark`] before reading,
/// and pass it to [`update`](Self::update): if anything was invalidated in between, the news are not
/// kept.
///
/// ```
/// use std::collections::HashMap;
/// use std::rc::Rc;
/// use ropewalk::cache::{CacheOptions, DictionaryCache, DictionaryNews};
///
/// // State group 7: (type, state key) -> event.
/// let states = DictionaryCache::new(CacheOptions::new("states", 50_000));
/// let mark = states.read_mark();
/// let found = HashMap::from([("m.room.name", "$name")]);
/// states.update(mark, &7, DictionaryNews::Some { asked: vec!["m.room.name", "m.room.topic"], found });
///
/// let answer = states.get(&7, ["m.room.name", "m.room.topic", "m.room.create"]);
/// assert_eq!(answer.found, [("m.room.name", "$name")]);
/// assert_eq!(answer.absent, ["m.room.topic"]);
/// assert_eq!(answer.missing, ["m.room.create"], "to be looked up");
/// assert_eq!(states.get_all(&7), None);
/// ```
///
/// A handle is a cheap clone.
pub struct DictionaryCache<K, D, V> {
    state: Rc<State<K, D, V>>,
}

struct State<K, D, V> {
    entries: LruCache<(K, Part<D>), Kept<D, V>>,
    /// Counts the invalidations.
    invalidations: Cell<u64>,
}

/// What of a dictionary an entry holds.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Part<D> {
    All,
    One(D),
}

enum Kept<D, V> {
    All(Rc<HashMap<D, V>>),
    /// `None`: the dictionary has no such item.
    One(Option<V>),
}

/// What is known about some items of a dictionary, each in the order in which they were asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DictionaryAnswer<D, V> {
    /// Those that the dictionary has.
    pub found: Vec<(D, V)>,
    /// Those that it surely has not.
    pub absent: Vec<D>,
    /// Those of which nothing is known.
    pub missing: Vec<D>,
}

impl<D, V> DictionaryAnswer<D, V> {
    /// Whether nothing needs to be looked up.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// What a lookup has brought, for [`DictionaryCache::update`].
#[derive(Clone, Debug)]
pub enum DictionaryNews<D, V> {
    /// The whole dictionary.
    All(Rc<HashMap<D, V>>),
    /// Some items of it.
    Some {
        /// What was asked for.
        asked: Vec<D>,
        /// What of that there is, and possibly more.
        found: HashMap<D, V>,
    },
}

/// The moment at which a lookup began. See [`DictionaryCache`](DictionaryCache#filling-it).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadMark(u64);

impl<K, D, V> DictionaryCache<K, D, V>
where
    K: Clone + Eq + Hash + 'static,
    D: Clone + Eq + Hash + 'static,
    V: Clone + 'static,
{
    /// Makes a cache that keeps at most as many items as the options' limit says. The size of an item is
    /// what the options' size callback says, or 1.
    pub fn new(mut options: CacheOptions<V>) -> Self {
        let size_of_value = options.size_of.take();
        let size_of = move |kept: &Kept<D, V>| match (kept, &size_of_value) {
            (Kept::All(all), None) => all.len().max(1),
            (Kept::All(all), Some(size_of)) => all.values().map(size_of).sum::<usize>().max(1),
            (Kept::One(Some(value)), Some(size_of)) => size_of(value),
            (Kept::One(_), _) => 1,
        };
        let entries = LruCache::with_size(options.limit, size_of).by_prefix();
        let cache = Self { state: Rc::new(State { entries, invalidations: Cell::new(0) }) };
        options.join(&cache.state);
        cache
    }

    /// Returns the dictionary, if all of it is known.
    pub fn get_all(&self, key: &K) -> Option<Rc<HashMap<D, V>>> {
        match self.state.entries.get(&(key.clone(), Part::All)) {
            Some(Kept::All(all)) => Some(all),
            _ => None,
        }
    }

    /// Returns what is known about some items of a dictionary.
    ///
    /// Items that only the whole dictionary can tell become entries of their own, so that they stay when
    /// it is evicted: asking for parts does not count as a use of it.
    pub fn get(&self, key: &K, items: impl IntoIterator<Item = D>) -> DictionaryAnswer<D, V> {
        let mut answer = DictionaryAnswer { found: vec![], absent: vec![], missing: vec![] };
        let mut whole = None;
        for item in items {
            let place = (key.clone(), Part::One(item.clone()));
            let entries = &self.state.entries;
            let known = if entries.contains(&place) {
                match entries.get(&place) {
                    Some(Kept::One(known)) => Some(known),
                    _ => None,
                }
            } else {
                let whole = whole.get_or_insert_with(|| self.peek_all(key)).as_ref();
                entries.count(whole.is_some());
                whole.map(|all| self.keep_apart(place, all.get(&item).cloned()))
            };
            match known {
                Some(Some(value)) => answer.found.push((item, value)),
                Some(None) => answer.absent.push(item),
                None => answer.missing.push(item),
            }
        }
        answer
    }

    /// Returns the mark to be taken before a lookup, for [`update`](Self::update).
    pub fn read_mark(&self) -> ReadMark {
        ReadMark(self.state.invalidations.get())
    }

    /// Keeps what a lookup has brought, unless anything was invalidated since `mark` was taken. Returns
    /// whether it was kept.
    ///
    /// Items that were asked for and not found are known to be absent. What else is known of the
    /// dictionary stays.
    pub fn update(&self, mark: ReadMark, key: &K, news: DictionaryNews<D, V>) -> bool {
        if mark != self.read_mark() {
            return false;
        }
        let entries = &self.state.entries;
        match news {
            DictionaryNews::All(all) => {
                entries.insert((key.clone(), Part::All), Kept::All(all));
            }
            DictionaryNews::Some { asked, mut found } => {
                let mut seen = HashSet::new();
                for item in asked {
                    if seen.insert(item.clone()) {
                        let value = found.remove(&item);
                        entries.insert((key.clone(), Part::One(item)), Kept::One(value));
                    }
                }
                #[expect(
                    clippy::iter_over_hash_type,
                    reason = "nobody asked for these, in any order"
                )]
                for (item, value) in found {
                    entries.insert((key.clone(), Part::One(item)), Kept::One(Some(value)));
                }
            }
        }
        true
    }

    /// Forgets a dictionary. Lookups under way, of any dictionary, will not be kept.
    pub fn invalidate(&self, key: &K) {
        self.state.invalidations.set(self.state.invalidations.get() + 1);
        self.state.entries.remove_prefix(key);
    }

    /// Forgets everything. Lookups under way will not be kept.
    pub fn invalidate_all(&self) {
        self.state.clear();
    }

    /// Returns what there is to count; each item asked for is a hit or a miss.
    pub fn figures(&self) -> CacheFigures {
        self.state.figures()
    }

    fn peek_all(&self, key: &K) -> Option<Rc<HashMap<D, V>>> {
        match self.state.entries.peek(&(key.clone(), Part::All)) {
            Some(Kept::All(all)) => Some(all),
            _ => None,
        }
    }

    fn keep_apart(&self, place: (K, Part<D>), known: Option<V>) -> Option<V> {
        self.state.entries.insert(place, Kept::One(known.clone()));
        known
    }
}

impl<K, D, V> ManagedCache for State<K, D, V>
where
    K: Clone + Eq + Hash,
    D: Clone + Eq + Hash,
    V: Clone,
{
    fn set_limit(&self, limit: usize) {
        self.entries.set_limit(limit);
    }

    fn expire(&self, ages: u64, drops_max: usize) -> usize {
        self.entries.expire(ages, drops_max)
    }

    fn expire_more(&self, ages: u64, drops_max: usize) -> usize {
        self.entries.expire_more(ages, drops_max)
    }

    fn clear(&self) {
        self.invalidations.set(self.invalidations.get() + 1);
        self.entries.clear();
    }

    fn figures(&self) -> CacheFigures {
        self.entries.figures()
    }
}

impl<D, V: Clone> Clone for Kept<D, V> {
    fn clone(&self) -> Self {
        match self {
            Kept::All(all) => Kept::All(Rc::clone(all)),
            Kept::One(known) => Kept::One(known.clone()),
        }
    }
}

impl<K, D, V> Clone for DictionaryCache<K, D, V> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<K, D, V> fmt::Debug for DictionaryCache<K, D, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DictionaryCache").field("entries", &self.state.entries).finish()
    }
}
