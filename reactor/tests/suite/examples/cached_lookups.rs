//! The slow directory, on the clock.

#[path = "../../../examples/cached_lookups.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use std::time::Duration;

use ropewalk::testing::{Clock, assert_no_result, success_result_of};

#[test]
fn the_second_time_nobody_is_asked() {
    let clock = Clock::new();
    let directory = example::open(clock.reactor());
    let users = ["anna", "nobody"].map(str::to_owned);
    let first = example::greet(&directory, &users);
    assert_no_result(&first);
    clock.advance(Duration::from_millis(100));
    let expected = ["Hello, anna of Ropewalk!", "Hello, stranger!"];
    assert_eq!(success_result_of(first), expected);
    assert_eq!(success_result_of(example::greet(&directory, &users)), expected);
    directory.full_name.invalidate(&users[0]);
    assert_eq!(directory.greeting.peek(&users[0]), None, "forgotten with the name");
    assert_no_result(&directory.greeting.call(users[0].clone()));
}
