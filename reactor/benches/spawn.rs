//! Cost of a task that does next to nothing: spawned, run, its result dropped.
//!
//! `cargo bench --bench spawn [-- COUNT]` prints a line of `name phase count nanoseconds`, the latter for
//! each task. For instructions, count two runs under callgrind, with 5,000 and 25,000 tasks, and divide the
//! difference.

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::Reactor;

fn main() -> std::io::Result<()> {
    let count: u64 =
        std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    let reactor = Reactor::new()?;
    let ran = Rc::new(Cell::new(0_u64));
    let started = reactor.now();
    for _ in 0..count {
        let ran = Rc::clone(&ran);
        let task = reactor.spawn(async move {
            ran.set(ran.get() + 1);
            Ok(())
        });
        task.detach();
    }
    let stopper = reactor.clone();
    let last = reactor.spawn(async move {
        stopper.stop();
        Ok(())
    });
    reactor.run()?;
    let elapsed = reactor.now() - started;
    assert!(last.is_fired());
    assert_eq!(ran.get(), count);
    println!(
        "spawn_ropewalk\tspawn_run\t{count}\t{}",
        elapsed.as_nanos() / u128::from(count.max(1))
    );
    Ok(())
}
