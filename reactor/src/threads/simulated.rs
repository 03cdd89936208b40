//! Thread jobs where there are no threads: on the loop.
//!
//! On the test kit's clock a job runs as soon as the loop is pumped. In a simulated world as many jobs
//! run at a time as the pool has threads, and the backend says how long each waits for its thread and
//! takes. What a job does happens all at once, at its beginning; its result comes at its end.

use std::rc::Rc;
use std::time::Duration;

use super::parcel::Parcel;
use super::pool::Pool;
use crate::context::LogContext;
use crate::core::Core;
use crate::ready::Job;

impl Pool {
    /// Sees to it that a job runs which has just been queued.
    pub(super) fn run_on_loop(self: &Rc<Self>, core: &Core, number: u64) {
        if self.busy_threads.get() >= self.shared.options.threads {
            // One of them gets to it when it has done what it does.
            return;
        }
        let Some(wait) = core.backend.job_wait() else {
            let weak = Rc::downgrade(self);
            return core.ready.push(Job::new(move || {
                if let Some(pool) = weak.upgrade() {
                    pool.run_at_once(number);
                }
            }));
        };
        self.busy_threads.set(self.busy_threads.get() + 1);
        self.call_after(core, wait, Self::run_next);
    }

    fn run_at_once(self: &Rc<Self>, number: u64) {
        let mut queue = self.shared.queue();
        let job = queue.start_number(number);
        self.shared.publish(&queue);
        drop(queue);
        if let Some(job) = job {
            self.run_job(job, |_| {});
        }
    }

    /// Has a simulated thread do the next job.
    fn run_next(self: &Rc<Self>) {
        let mut queue = self.shared.queue();
        let job = queue.start();
        self.shared.publish(&queue);
        drop(queue);
        match job {
            Some(job) => self.run_job(job, Self::look_for_more),
            None => self.busy_threads.set(self.busy_threads.get() - 1),
        }
    }

    /// A simulated thread has done its job.
    fn look_for_more(self: &Rc<Self>) {
        let core = self.core.upgrade().filter(|_| self.shared.queue().len() > 0);
        match core.and_then(|core| Some((core.backend.job_wait()?, core))) {
            Some((wait, core)) => self.call_after(&core, wait, Self::run_next),
            None => self.busy_threads.set(self.busy_threads.get() - 1),
        }
    }

    fn run_job(self: &Rc<Self>, mut job: Box<Parcel>, then: impl FnOnce(&Rc<Self>) + 'static) {
        job.run(&mut LogContext::sentinel(), &self.shared.name);
        // What it did has happened; that it took its time, a slow disk's for instance, shows in when it
        // ends.
        let core = self.core.upgrade();
        let duration = core.as_ref().map_or(Duration::ZERO, |core| core.backend.take_job_time());
        job.ended_at += duration;
        let finish = move |pool: &Rc<Self>| {
            pool.shared.queue().finish(job);
            then(pool);
            pool.collect();
        };
        match core {
            Some(core) if !duration.is_zero() => self.call_after(&core, duration, finish),
            _ => finish(self),
        }
    }

    fn call_after(
        self: &Rc<Self>,
        core: &Core,
        delay: Duration,
        f: impl FnOnce(&Rc<Self>) + 'static,
    ) {
        let weak = Rc::downgrade(self);
        let job = Job::in_context(LogContext::sentinel(), move || {
            if let Some(pool) = weak.upgrade() {
                f(&pool);
            }
        });
        let deadline = core.backend.now() + delay;
        core.timers.borrow_mut().insert(deadline, job);
    }
}
