//! Thread jobs and files in a world: when they happen, in what order, and what a crash leaves of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ropewalk::files::OpenMode;
use ropewalk::sim::{World, WorldOptions};
use ropewalk::{Failure, ThreadPoolOptions};

use super::support::{MILLISECOND, SECOND};

fn slow_threads(seed: u64) -> World {
    let options = WorldOptions {
        job_wait_max: MILLISECOND,
        job_time_max: 10 * MILLISECOND,
        ..WorldOptions::default()
    };
    World::with_options(seed, options)
}

#[test]
fn jobs_of_two_threads_overtake_each_other_as_the_seed_decides() {
    let order = |seed: u64, threads: usize| {
        let world = slow_threads(seed);
        let reactor = world.host("alice").reactor();
        let pool = reactor.thread_pool(ThreadPoolOptions::new("work").threads(threads));
        let order: Rc<RefCell<Vec<u32>>> = Rc::default();
        for number in 0..6 {
            let order = Rc::clone(&order);
            drop(pool.defer(move || Ok::<_, Failure>(number)).add_callback(move |number| {
                order.borrow_mut().push(number);
                Ok(())
            }));
        }
        world.run_for(SECOND);
        order.take()
    };
    for seed in 0..10 {
        assert_eq!(order(seed, 1), [0, 1, 2, 3, 4, 5], "one thread keeps the order");
    }
    let orders: std::collections::BTreeSet<Vec<u32>> = (0..20).map(|seed| order(seed, 3)).collect();
    assert!(orders.len() > 5, "{orders:?}");
    assert_eq!(order(4, 3), order(4, 3));
}

#[test]
fn no_more_jobs_run_at_a_time_than_there_are_threads() {
    let world = slow_threads(3);
    let reactor = world.host("alice").reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("work").threads(2));
    let jobs: Vec<_> = (0..100).map(|_| pool.defer(|| Ok::<_, Failure>(()))).collect();
    let (mut running_max, mut ended_at) = (0, None);
    while ended_at.is_none() {
        world.run_for(MILLISECOND / 10);
        running_max = running_max.max(pool.statistics().running);
        if pool.statistics().completed == 100 {
            ended_at = Some(world.now());
        }
    }
    assert_eq!(running_max, 2);
    assert!(jobs.iter().all(ropewalk::Deferred::is_fired));
    // A hundred jobs of five milliseconds each, on average, by two threads.
    let took = ended_at.unwrap().since(ropewalk::Instant::START);
    assert!((200 * MILLISECOND..350 * MILLISECOND).contains(&took), "{took:?}");
}

#[test]
fn a_job_that_is_cancelled_before_its_time_does_not_happen() {
    let world = slow_threads(3);
    let reactor = world.host("alice").reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("work").threads(1));
    let ran: Arc<Mutex<Vec<u32>>> = Arc::default();
    let jobs = [1, 2, 3].map(|number| {
        let ran = Arc::clone(&ran);
        pool.defer(move || {
            ran.lock().unwrap().push(number);
            Ok::<_, Failure>(())
        })
    });
    jobs[1].cancel();
    world.run_for(SECOND);
    assert_eq!(*ran.lock().unwrap(), [1, 3]);
    assert_eq!(pool.statistics().cancelled, 1);
    drop(jobs.map(|job| job.add_both(|_| Ok(()))));
}

#[test]
fn files_survive_a_crash_and_unsynced_bytes_a_loss_of_power_only_by_chance() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let world = World::new(seed);
        let host = world.host("store");
        host.file_system().write("/log", "one ");
        let open = || {
            let opened = host.reactor().files().open("/log", OpenMode::Append);
            world.run_until_result(opened, SECOND).unwrap()
        };
        let file = open();
        world.run_until_result(file.append("two "), SECOND).unwrap();
        host.crash();
        host.restart();
        assert_eq!(host.file_system().read("/log").unwrap(), b"one two ");
        let file = open();
        world.run_until_result(file.sync(), SECOND).unwrap();
        world.run_until_result(file.append("three"), SECOND).unwrap();
        host.power_off();
        let left = host.file_system().read("/log").unwrap();
        assert!(left.starts_with(b"one two ") && b"one two three".starts_with(&left), "{left:?}");
        kept.insert(left.len());
        host.restart();
        assert!(host.is_running());
    }
    assert!(kept.len() > 2, "nothing, all, or something in between: {kept:?}");
}

#[test]
fn a_slow_disk_makes_its_users_wait_and_nobody_else() {
    let world = World::new(1);
    let host = world.host("store");
    host.file_system().write("/log", "");
    let write = |world: &World| {
        let before = world.now();
        let written = host.reactor().files().write_atomically("/state", "1");
        world.run_until_result(written, 60 * SECOND).unwrap();
        world.now().since(before)
    };
    let usual = write(&world);
    host.set_disk_slowness(1_000);
    let timer = Rc::new(std::cell::Cell::new(false));
    let sink = Rc::clone(&timer);
    host.reactor().call_later(10 * MILLISECOND, move || sink.set(true));
    let written = host.reactor().files().write_atomically("/state", "2");
    world.run_for(11 * MILLISECOND);
    assert!(timer.get() && !written.is_fired());
    world.run_until_result(written, 60 * SECOND).unwrap();
    host.set_disk_slowness(1);
    let again = write(&world);
    for duration in [usual, again] {
        assert!((2 * MILLISECOND..30 * MILLISECOND).contains(&duration), "{duration:?}");
    }
    assert!(world.now().since(ropewalk::Instant::START) > Duration::from_secs(2));
}

#[test]
fn a_crash_in_mid_write_leaves_what_had_happened() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let threads = WorldOptions { job_wait_max: 20 * MILLISECOND, ..WorldOptions::default() };
        let world = World::with_options(seed, threads);
        let host = world.host("store");
        host.file_system().write("/state", "before");
        let acknowledged = Rc::new(std::cell::Cell::new(false));
        let sink = Rc::clone(&acknowledged);
        let written = host.reactor().files().write_atomically("/state", "after");
        drop(written.add_callback(move |()| {
            sink.set(true);
            Ok(())
        }));
        world.run_for(world.random_duration(Duration::ZERO, 20 * MILLISECOND));
        host.crash();
        world.run_for(SECOND);
        let state = host.file_system().read("/state").unwrap();
        let is_written = state == b"after";
        assert!(is_written || state == b"before", "never in between: {state:?}");
        assert!(is_written || !acknowledged.get(), "what was acknowledged is there");
        outcomes.insert((is_written, acknowledged.get()));
    }
    assert_eq!(outcomes.len(), 3, "not yet; written but not acknowledged; both: {outcomes:?}");
}
