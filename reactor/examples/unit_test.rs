//! A chain of deferreds and the unit tests of it: no socket, no sleep, no flakiness.
//!
//! `greet` asks a directory for a name, gives it two seconds, asks once more if that fails, and greets a
//! stranger if there is no such user. `cargo run --example unit_test` runs its tests, one after the other.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{Clock, UnhandledErrors, assert_no_result, success_result_of};
use ropewalk::{Deferred, Reactor, Resolver, TimeoutError};

#[derive(Debug, thiserror::Error)]
#[error("no such user")]
struct NoSuchUser;

/// Something that knows names, some time later.
type Directory = Rc<dyn Fn(&str) -> Deferred<String>>;

fn greet(reactor: &Reactor, directory: &Directory, user: &'static str) -> Deferred<String> {
    const LIMIT: Duration = Duration::from_secs(2);
    let (again, reactor) = (Rc::clone(directory), reactor.clone());
    directory(user)
        .with_timeout(&reactor, LIMIT)
        .add_errback(move |failure| match failure.trap::<TimeoutError>() {
            Ok(_) => again(user).with_timeout(&reactor, LIMIT),
            Err(other) => Deferred::fail(other),
        })
        .add_errback(|failure| failure.trap::<NoSuchUser>().map(|_| "stranger".to_owned()))
        .add_callback(|name| Ok(format!("Hello, {name}!")))
}

/// A directory that keeps its questions for the test to answer.
fn asked() -> (Directory, Rc<RefCell<Vec<Resolver<String>>>>) {
    let questions = Rc::new(RefCell::new(Vec::new()));
    let inbox = Rc::clone(&questions);
    let directory: Directory = Rc::new(move |_user| {
        let (answer, resolver) = Deferred::new();
        inbox.borrow_mut().push(resolver);
        answer
    });
    (directory, questions)
}

pub(crate) fn a_user_is_greeted_by_name() {
    let clock = Clock::new();
    let (directory, questions) = asked();
    let greeting = greet(clock.reactor(), &directory, "@anna");
    assert_no_result(&greeting);
    questions.borrow_mut().remove(0).callback("Anna".to_owned());
    assert_eq!(success_result_of(greeting), "Hello, Anna!");
}

pub(crate) fn a_slow_directory_is_asked_once_more_and_nothing_is_left_behind() {
    let (clock, _unhandled) = (Clock::new(), UnhandledErrors::trap());
    let _check = clock.expect_nothing_left();
    let (directory, questions) = asked();
    let greeting = greet(clock.reactor(), &directory, "@anna");
    clock.advance(Duration::from_secs(2));
    assert!(questions.borrow_mut().remove(0).is_cancelled());
    questions.borrow_mut().remove(0).errback(NoSuchUser);
    assert_eq!(success_result_of(greeting), "Hello, stranger!");
}

fn main() {
    a_user_is_greeted_by_name();
    a_slow_directory_is_asked_once_more_and_nothing_is_left_behind();
    println!("all is well");
}
