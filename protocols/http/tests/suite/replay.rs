//! The fuzz targets' corpus and a bounded number of mutations of it, the same in every run.

#[path = "../../fuzz/entries.rs"]
mod entries;

use std::path::Path;

use entries::{ENTRIES, run};

use crate::mutation::Dice;

/// Mutations of each target's corpus.
const MUTATIONS: u64 = 2_000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn the_corpus_and_its_neighbours_hold_what_the_fuzz_targets_check() {
    for &(target, _) in ENTRIES {
        let corpus = corpus(target);
        assert!(corpus.len() >= 3, "a corpus for {target}");
        for input in &corpus {
            run(target, input);
        }
        for case in 0..MUTATIONS {
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ case);
            let mut input = corpus[dice.below(corpus.len())].clone();
            for _ in 0..=dice.below(6) {
                dice.mutate(&mut input);
            }
            run(target, &input);
        }
    }
}
