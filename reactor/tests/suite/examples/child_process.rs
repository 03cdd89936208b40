//! The example that has other programs do the work.

#[path = "../../../examples/child_process.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use ropewalk::Reactor;

#[test]
fn lines_are_sorted_and_counted_by_others() {
    let reactor = Reactor::new().unwrap();
    let text = "pear\napple\nquince\n";
    let sorted = reactor.run_until(example::sorted(&reactor, text)).unwrap();
    assert_eq!(sorted, "apple\npear\nquince\n");
    assert_eq!(reactor.run_until(example::line_count(&reactor, text)).unwrap(), 3);
}
