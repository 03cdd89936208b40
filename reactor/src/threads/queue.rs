//! What lies between a pool's threads and the loop: jobs one way, results the other.

use std::collections::VecDeque;
use std::time::Duration;

use super::options::ThreadPoolStatistics;
use super::parcel::{End, Parcel};

/// Always behind a lock; nobody else's code runs in here.
#[derive(Default)]
pub(super) struct Queue {
    /// In the order of their numbers.
    jobs: VecDeque<Box<Parcel>>,
    pub(super) finished: Vec<Box<Parcel>>,
    /// Whether the loop has been called for what is finished, and has not come to its end yet.
    pub(super) has_called_loop: bool,
    /// Whether the loop wants to be called when a job leaves the queue.
    pub(super) wants_places: bool,
    /// The names that threads bear now, by number.
    pub(super) names: Vec<bool>,
    /// Threads that look out for a job without having gone to sleep.
    pub(super) watching: usize,
    pub(super) sleeping: usize,
    pub(super) is_stopping: bool,
    running: usize,
    threads: usize,
    threads_started: u64,
    threads_ended: u64,
    completed: u64,
    failed: u64,
    panicked: u64,
    cancelled: u64,
    wait_time: Duration,
    run_time: Duration,
}

impl Queue {
    pub(super) fn push(&mut self, job: Box<Parcel>) {
        self.jobs.push_back(job);
    }

    /// Returns how many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Takes the first job out for running.
    pub(super) fn start(&mut self) -> Option<Box<Parcel>> {
        let job = self.jobs.pop_front()?;
        self.running += 1;
        Some(job)
    }

    /// Takes the job of this number out for running.
    pub(super) fn start_number(&mut self, number: u64) -> Option<Box<Parcel>> {
        let job = self.take(number)?;
        self.running += 1;
        Some(job)
    }

    /// Takes out a job that will not run.
    pub(super) fn cancel(&mut self, number: u64) -> Option<Box<Parcel>> {
        let job = self.take(number)?;
        self.cancelled += 1;
        Some(job)
    }

    /// Counts a job that was cancelled before it got here.
    pub(super) fn count_cancelled(&mut self) {
        self.cancelled += 1;
    }

    /// Takes all jobs out.
    pub(super) fn take_all(&mut self) -> VecDeque<Box<Parcel>> {
        std::mem::take(&mut self.jobs)
    }

    fn take(&mut self, number: u64) -> Option<Box<Parcel>> {
        let place = self.jobs.binary_search_by_key(&number, |job| job.number).ok()?;
        self.jobs.remove(place)
    }

    /// Notes what a job has brought; returns whether the loop has to be called for it.
    pub(super) fn finish(&mut self, job: Box<Parcel>) -> bool {
        self.running -= 1;
        self.completed += 1;
        self.failed += u64::from(job.end != End::Succeeded);
        self.panicked += u64::from(job.end == End::Panicked);
        self.wait_time = self.wait_time.saturating_add(job.wait_time());
        self.run_time = self.run_time.saturating_add(job.run_time());
        self.finished.push(job);
        !std::mem::replace(&mut self.has_called_loop, true)
    }

    /// Gives a new thread its number: the lowest that none bears.
    pub(super) fn add_thread(&mut self) -> usize {
        self.threads += 1;
        self.threads_started += 1;
        let free = self.names.iter().position(|is_borne| !is_borne);
        let number = free.unwrap_or_else(|| {
            self.names.push(false);
            self.names.len() - 1
        });
        if let Some(is_borne) = self.names.get_mut(number) {
            *is_borne = true;
        }
        number
    }

    pub(super) fn remove_thread(&mut self, number: usize) {
        self.threads -= 1;
        self.threads_ended += 1;
        if let Some(is_borne) = self.names.get_mut(number) {
            *is_borne = false;
        }
    }

    /// A thread that was counted could not be started.
    pub(super) fn forget_thread(&mut self, number: usize) {
        self.remove_thread(number);
        self.threads_started -= 1;
        self.threads_ended -= 1;
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Whether no job waits, runs, or has ended without the loop's having taken its result.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.running == 0 && self.finished.is_empty()
    }

    pub(super) fn statistics(&self) -> ThreadPoolStatistics {
        ThreadPoolStatistics {
            threads: self.threads,
            threads_started: self.threads_started,
            threads_ended: self.threads_ended,
            queued: self.jobs.len(),
            waiting_for_place: 0,
            running: self.running,
            completed: self.completed,
            failed: self.failed,
            panicked: self.panicked,
            cancelled: self.cancelled,
            wait_time: self.wait_time,
            run_time: self.run_time,
        }
    }
}
