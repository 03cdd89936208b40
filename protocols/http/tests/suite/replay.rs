//! The fuzz targets' corpus and a bounded number of mutations of it, the same in every run.

#[path = "../../fuzz/entries.rs"]
mod entries;

use std::path::Path;

use entries::{ENTRIES, run};

/// Mutations of each target's corpus.
const MUTATIONS: u64 = 2_000;

/// Bytes that mean something to a parser.
const SPICE: &[u8] = b"\r\n :;,+-0123fFaZ\t\0\x7f\x80\xff/?#%*";

/// A small generator (xorshift64*), so that a case can be told by its number alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let spice = SPICE[self.below(SPICE.len())];
        match self.below(6) {
            0 => bytes.insert(at, spice),
            1 => bytes[at] = spice,
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            3 => bytes[at] ^= 1 << self.below(8),
            4 => bytes.truncate(at.max(1)),
            _ => {
                let piece = bytes[at..(at + 12).min(bytes.len())].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

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
