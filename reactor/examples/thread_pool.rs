//! Counts primes in threads, never more work ahead than the threads can take.
//!
//! `cargo run --release --example thread_pool 1000000 2000000 3000000`

use ropewalk::{
    Deferred, Failure, LogContext, Reactor, ThreadPool, ThreadPoolOptions, gather_results,
};

fn count_primes_below(limit: u32) -> Result<usize, Failure> {
    let mut is_composite = vec![false; limit as usize];
    let mut count = 0;
    for n in 2..limit as usize {
        if !is_composite[n] {
            count += 1;
            for multiple in (n * n..limit as usize).step_by(n) {
                is_composite[multiple] = true;
            }
        }
    }
    Ok(count)
}

/// Gives each limit its job. The loop goes on meanwhile, and `limits` is asked for the next one only when
/// there is a place for it.
pub(crate) fn count_all(
    reactor: &Reactor,
    pool: &ThreadPool,
    limits: impl Iterator<Item = u32> + 'static,
) -> Deferred<Vec<usize>> {
    let pool = pool.clone();
    reactor.spawn(async move {
        let mut jobs = Vec::new();
        let mut limits = limits;
        loop {
            let place = pool.reserve().await?;
            let Some(limit) = limits.next() else { break };
            jobs.push(place.defer(move || count_primes_below(limit)));
        }
        gather_results(jobs).await
    })
}

fn main() -> Result<(), Failure> {
    let limits = std::env::args().skip(1).map(|text| text.parse());
    let limits = limits.collect::<Result<Vec<u32>, _>>()?;
    let reactor = Reactor::new()?;
    let pool = reactor.thread_pool(ThreadPoolOptions::new("primes").threads(2).queue_max(2));
    let request = LogContext::new("count");
    let counts = request.run(|| count_all(&reactor, &pool, limits.clone().into_iter()));
    let counts = reactor.run_until(counts)?;
    for (limit, count) in limits.iter().zip(counts) {
        println!("{count} primes below {limit}");
    }
    let statistics = pool.statistics();
    println!(
        "{} jobs in {} threads took {:?}, and waited for {:?}",
        statistics.completed,
        statistics.threads_started,
        request.usage().thread_time,
        request.usage().thread_wait
    );
    Ok(())
}
