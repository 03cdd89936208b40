//! Running a scenario for many seeds, and saying how to run it again for the one that failed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use super::faults::WorldOptions;
use super::leftovers::Leftover;
use super::world::World;
use crate::context::LogContext;
use crate::testing::NoDeferredLeaks;

/// Runs a scenario in new worlds, one for each seed, and checks that nothing is left at its end.
///
/// How many seeds, or which, the environment variable `ROPEWALK_SIM_SEEDS` says: `100` means the first
/// hundred, `500..600` those from 500 on, `seed=17` that one. Without it there are five.
///
/// `name` is what the scenario is called in the report of a failure: there the seed is named, the
/// command that replays it, and the last things that happened. A seed that fails fails again, the same
/// way, as long as the code is the same.
///
/// What must not be left, and can be [tolerated](World::tolerate), is listed at [`Leftover`].
///
/// ```
/// use std::time::Duration;
/// use ropewalk::sim;
///
/// sim::check("an idle world", |world| {
///     let host = world.host("sleeper");
///     host.reactor().call_later(Duration::from_secs(1_000_000), || {});
///     world.run_for(Duration::from_secs(1_000_001));
/// });
/// ```
///
/// # Panics
///
/// As the scenario does; if something is left; if the variable cannot be understood.
#[track_caller]
pub fn check(name: &str, scenario: impl Fn(&World)) {
    check_with(name, &WorldOptions::default(), scenario);
}

/// Runs a scenario as [`check`] does, in worlds with these options.
///
/// # Panics
///
/// As [`check`].
#[track_caller]
pub fn check_with(name: &str, options: &WorldOptions, scenario: impl Fn(&World)) {
    let wish = std::env::var(SEEDS_VARIABLE).ok();
    let seeds = match wish.as_deref().map_or(Ok(SEEDS_BY_DEFAULT), parse_seeds) {
        Ok(seeds) => seeds,
        Err(error) => panic!("{error}"),
    };
    for seed in seeds {
        run_seed_named(Some(name), seed, options, &scenario);
    }
}

/// Runs a scenario for one seed as [`check`] does, and returns the [trace's
/// hash](World::trace_hash) at its end: for showing that two runs take the same course.
///
/// # Panics
///
/// As [`check`].
#[track_caller]
pub fn run_seed(seed: u64, options: &WorldOptions, scenario: impl Fn(&World)) -> u64 {
    run_seed_named(None, seed, options, &scenario)
}

#[track_caller]
fn run_seed_named(
    name: Option<&str>,
    seed: u64,
    options: &WorldOptions,
    scenario: &dyn Fn(&World),
) -> u64 {
    let leaks = NoDeferredLeaks::watch();
    let world = World::with_options(seed, options.clone());
    let result = catch_unwind(AssertUnwindSafe(|| {
        scenario(&world);
        world.assert_nothing_left();
        assert!(
            LogContext::current().is_sentinel(),
            "the scenario ends in the log context {:?}; somebody has not left it",
            LogContext::current()
        );
    }));
    if let Err(payload) = result {
        eprintln!("{}", report(name, &world));
        drop(world);
        // What the panic has left behind is no leak.
        std::mem::forget(leaks);
        resume_unwind(payload);
    }
    let hash = world.trace_hash();
    let tolerates_deferreds = world.shared().witnessed.is_tolerated(Leftover::Deferreds);
    world.shared().dismantle();
    let living = leaks.living();
    std::mem::forget(leaks);
    if living > 0 && !tolerates_deferreds {
        eprintln!("{}", report(name, &world));
        panic!(
            "{living} deferreds live on without their hosts; do they hold each other, or does the test? \
             (Leftover::Deferreds)"
        );
    }
    hash
}

/// What a person needs who wants to know why a seed failed.
fn report(name: Option<&str>, world: &World) -> String {
    let (seed, now) = (world.seed(), world.now());
    let scenario = name.map_or("a scenario".to_owned(), |name| format!("scenario {name:?}"));
    let commit = commit().map_or(String::new(), |commit| format!(" at commit {commit}"));
    let tail = world.trace_tail();
    let mut text = format!(
        "{scenario} failed with seed {seed}{commit} when {now} had passed; the last things that \
         happened:\n\n{tail}"
    );
    if name.is_some() {
        let thread = std::thread::current();
        // The test runner names threads after tests; elsewhere the command was another one.
        let command = match thread.name() {
            Some(test) if test != "main" => format!("cargo test {test}"),
            _ => "and the same command".to_owned(),
        };
        text += &format!("\nto replay it: {SEEDS_VARIABLE}=seed={seed} {command}\n");
    }
    text
}

/// Returns the commit that is checked out around the working directory, if there is one.
fn commit() -> Option<String> {
    let mut folder = std::env::current_dir().ok()?;
    let git = loop {
        let git = folder.join(".git");
        if git.is_dir() {
            break git;
        }
        if let Ok(text) = std::fs::read_to_string(&git) {
            // A worktree: the file says where its folder is.
            break PathBuf::from(text.strip_prefix("gitdir: ")?.trim());
        }
        if !folder.pop() {
            return None;
        }
    };
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else {
        return Some(head.trim().to_owned());
    };
    let common = match std::fs::read_to_string(git.join("commondir")) {
        Ok(text) => git.join(text.trim()),
        Err(_) => git,
    };
    let commit = std::fs::read_to_string(common.join(reference)).ok()?;
    Some(commit.trim().to_owned())
}

/// Why the variable's value says nothing.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{SEEDS_VARIABLE} is {text:?}, which means nothing; say how many seeds (`100`), from which to \
     before which (`500..600`) or which one (`seed=17`)"
)]
struct SeedsError {
    text: String,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, SeedsError> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let seeds = if let Some(seed) = text.trim().strip_prefix("seed=") {
        number(seed).and_then(|seed| Some(seed..seed.checked_add(1)?))
    } else if let Some((first, end)) = text.split_once("..") {
        number(first).zip(number(end)).map(|(first, end)| first..end)
    } else {
        number(text).map(|count| 0..count)
    };
    seeds.filter(|seeds| !seeds.is_empty()).ok_or_else(|| SeedsError { text: text.to_owned() })
}

/// Says which seeds.
const SEEDS_VARIABLE: &str = "ROPEWALK_SIM_SEEDS";

/// Enough for a first look each time the tests run.
const SEEDS_BY_DEFAULT: Range<u64> = 0..5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_how_many_seeds_or_which() {
        for (why, text, expected) in [
            ("a count", "20", Some(0..20)),
            ("one seed", "seed=17", Some(17..18)),
            ("a span", "500..600", Some(500..600)),
            ("spaces around", " 3 ", Some(0..3)),
            ("no seed at all", "0", None),
            ("a span without seeds", "6..6", None),
            ("words", "all", None),
            ("a seed that is none", "seed=-1", None),
            ("the seed that has none behind it", "seed=18446744073709551615", None),
        ] {
            assert_eq!(parse_seeds(text).ok(), expected, "{why}: {text:?}");
        }
        let error = parse_seeds("many").unwrap_err();
        assert!(error.to_string().contains("`seed=17`"), "{error}");
    }
}
