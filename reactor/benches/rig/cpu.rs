//! What a process has cost.

/// Returns the time that a process has had of a processor so far, in microseconds.
pub(crate) fn micros(process_id: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process_id}/task"));
    let nanos = |path| -> Option<f64> {
        std::fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok()
    };
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.filter_map(|task| nanos(task.path().join("schedstat"))).sum::<f64>() / 1_000.0
}
