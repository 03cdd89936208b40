//! The example of unit tests, run as tests.

#[path = "../../../examples/unit_test.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

#[test]
fn a_user_is_greeted_by_name() {
    example::a_user_is_greeted_by_name();
}

#[test]
fn a_slow_directory_is_asked_once_more() {
    example::a_slow_directory_is_asked_once_more_and_nothing_is_left_behind();
}
