//! A walk of the auth graph: what some states are built on and others are not.
//!
//! The walk goes by the auth height of events, which falls strictly along auth edges. When an event is
//! taken off, all events that lead to it have been, so what is known about it is final. Stopping early
//! is sound for that reason alone; with depths from the network it would not be.

use std::collections::{BTreeMap, BTreeSet};

use crate::storage::keys::EventKey;

/// An event and its auth height.
pub type Standing = (EventKey, i64);

/// Returns the events that are in the auth chain of some, but not all, of the sets. The events of a set
/// count as in its chain.
///
/// `auth_events` tells the auth events of an event with their heights.
///
/// # Errors
///
/// The first error of `auth_events`.
pub fn difference<E>(
    sets: &[BTreeSet<Standing>],
    mut auth_events: impl FnMut(EventKey) -> Result<Vec<Standing>, E>,
) -> Result<BTreeSet<EventKey>, E> {
    // One word of bits for every 64 sets; bit i says that set i reaches the event.
    let words = sets.len().div_ceil(64);
    let everyone = |reached: &[u64]| {
        reached.iter().map(|word| word.count_ones() as usize).sum::<usize>() == sets.len()
    };
    let mut pending: BTreeMap<(i64, EventKey), Vec<u64>> = BTreeMap::new();
    for (index, set) in sets.iter().enumerate() {
        for &(event, height) in set {
            let reached = pending.entry((height, event)).or_insert_with(|| vec![0; words]);
            reached[index / 64] |= 1 << (index % 64);
        }
    }
    let mut partial_count = pending.values().filter(|reached| !everyone(reached)).count();
    let mut difference = BTreeSet::new();
    // Once everybody reaches all that is pending, everybody reaches all that lies below, too.
    while partial_count > 0 {
        let Some(((_, event), reached)) = pending.pop_last() else { break };
        if !everyone(&reached) {
            partial_count -= 1;
            difference.insert(event);
        }
        for (auth, height) in auth_events(event)? {
            let known = pending.entry((height, auth)).or_insert_with(|| {
                // Nobody reaches it so far, which is partial.
                partial_count += 1;
                vec![0; words]
            });
            let was_partial = !everyone(known);
            for (known, reached) in known.iter_mut().zip(&reached) {
                *known |= reached;
            }
            if was_partial && everyone(known) {
                partial_count -= 1;
            }
        }
    }
    Ok(difference)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Auth edges of made-up events; event `i` refers to smaller numbers only.
    #[derive(Debug)]
    struct Graph {
        edges: Vec<BTreeSet<usize>>,
        heights: Vec<i64>,
    }

    impl Graph {
        fn new(edges: Vec<BTreeSet<usize>>) -> Self {
            let mut heights: Vec<i64> = Vec::new();
            for auth in &edges {
                heights.push(auth.iter().map(|&auth| heights[auth] + 1).max().unwrap_or(0));
            }
            Self { edges, heights }
        }

        fn standing(&self, event: usize) -> Standing {
            // Keys fall while the graph grows, to show that only heights count.
            (EventKey(-(event as i64)), self.heights[event])
        }

        fn auth_events(&self, key: EventKey) -> Result<Vec<Standing>, Infallible> {
            Ok(self.edges[-key.0 as usize].iter().map(|&auth| self.standing(auth)).collect())
        }

        fn chain(&self, starts: &BTreeSet<usize>) -> BTreeSet<usize> {
            let mut chain = starts.clone();
            let mut pending: Vec<usize> = starts.iter().copied().collect();
            while let Some(event) = pending.pop() {
                for &auth in &self.edges[event] {
                    if chain.insert(auth) {
                        pending.push(auth);
                    }
                }
            }
            chain
        }

        fn difference(&self, sets: &[BTreeSet<usize>]) -> BTreeSet<usize> {
            let sets: Vec<_> = sets
                .iter()
                .map(|set| set.iter().map(|&event| self.standing(event)).collect())
                .collect();
            let found = difference(&sets, |key| self.auth_events(key)).unwrap();
            found.into_iter().map(|key| -key.0 as usize).collect()
        }
    }

    fn graph(edges: &[&[usize]]) -> Graph {
        Graph::new(edges.iter().map(|auth| auth.iter().copied().collect()).collect())
    }

    fn sets(sets: &[&[usize]]) -> Vec<BTreeSet<usize>> {
        sets.iter().map(|set| set.iter().copied().collect()).collect()
    }

    #[test]
    fn an_event_that_all_reach_may_still_hide_another() {
        // E <- D <- C <- A, and B leads to C and to E directly.
        let [e, d, c, a, b] = [0, 1, 2, 3, 4];
        let graph = graph(&[&[], &[e], &[d], &[c], &[c, e]]);
        assert_eq!(graph.difference(&sets(&[&[a], &[b]])), [a, b].into());
    }

    #[test]
    fn the_case_that_an_unsound_early_exit_gets_wrong() {
        // A -> Y, A -> X, B -> X, X -> Z, Z -> Y.
        let [y, z, x, a, b] = [0, 1, 2, 3, 4];
        let graph = graph(&[&[], &[y], &[z], &[y, x], &[x]]);
        assert_eq!(graph.difference(&sets(&[&[a], &[b]])), [a, b].into());
    }

    #[test]
    fn nothing_differs_among_equals() {
        let graph = graph(&[&[], &[0], &[1]]);
        assert!(graph.difference(&[]).is_empty());
        assert!(graph.difference(&sets(&[&[2]])).is_empty());
        assert!(graph.difference(&sets(&[&[2], &[2]])).is_empty());
        assert_eq!(graph.difference(&sets(&[&[2], &[]])), [0, 1, 2].into());
    }

    fn random_graph() -> impl Strategy<Value = Graph> {
        prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..40)
            .prop_map(|picks| {
                let edges = picks.iter().enumerate().map(|(event, auth)| {
                    if event == 0 {
                        BTreeSet::new()
                    } else {
                        auth.iter().map(|pick| pick.index(event)).collect()
                    }
                });
                Graph::new(edges.collect())
            })
    }

    proptest! {
        #[test]
        fn the_difference_is_union_minus_intersection(
            graph in random_graph(),
            picks in prop::collection::vec(
                prop::collection::vec(any::<prop::sample::Index>(), 0..5), 1..4),
        ) {
            let size = graph.edges.len();
            let sets: Vec<BTreeSet<usize>> = picks
                .iter()
                .map(|set| set.iter().map(|pick| pick.index(size)).collect())
                .collect();
            let chains: Vec<_> = sets.iter().map(|set| graph.chain(set)).collect();
            let expected: BTreeSet<usize> = (0..size)
                .filter(|event| chains.iter().any(|chain| chain.contains(event)))
                .filter(|event| !chains.iter().all(|chain| chain.contains(event)))
                .collect();
            prop_assert_eq!(graph.difference(&sets), expected);
        }
    }
}
