//! The chat with a partition in it.

#[path = "../../../examples/simulated_partition.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

#[test]
fn whoever_was_cut_off_reads_it_all_afterwards() {
    example::run();
}
