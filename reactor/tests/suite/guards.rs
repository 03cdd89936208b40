//! The guards of the test kit: a test that leaves something behind fails, and what it has replaced is put
//! back, also when it panics.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{Clock, FaultPoint, UnhandledErrors, replace, success_result_of};
use ropewalk::{Address, Deferred, Failure, ListenOptions, LogContext, Protocol, Resolver};

/// Runs a test that is to fail, and returns what it says.
fn failing(test: impl FnOnce()) -> String {
    match catch_unwind(AssertUnwindSafe(test)) {
        Ok(()) => panic!("the test was to fail"),
        Err(payload) => Failure::from_panic(payload).to_string(),
    }
}

struct Idle;

impl Protocol for Idle {
    fn data_received(&mut self, _: &ropewalk::Transport, _: &[u8]) {}
}

/// What a test may forget.
type Forget = fn(&Clock) -> Box<dyn std::any::Any>;

#[test]
fn a_test_that_leaves_something_behind_fails_and_says_what() {
    let cases: [(Forget, &str); 6] = [
        (
            |clock| {
                clock.reactor().call_later(Duration::from_secs(1), || {});
                Box::new(())
            },
            "1 delayed call",
        ),
        (
            |clock| {
                let task = clock.reactor().spawn(pending::<Result<(), Failure>>());
                clock.pump();
                task.detach();
                Box::new(())
            },
            "1 task",
        ),
        (
            |clock| {
                let factory = |_: &Address| Some(Box::new(Idle) as Box<dyn Protocol>);
                let address = "127.0.0.1:7".parse().unwrap();
                let options = ListenOptions::default();
                let port = clock.reactor().listen_tcp(address, Rc::new(factory), options);
                Box::new(port.unwrap())
            },
            "1 connection or port",
        ),
        (|_| Box::new(Deferred::<u32>::new()), "1 deferred (1 made at "),
        (|_| Box::new(LogContext::new("GET-17")), "1 context (GET-17)"),
        (
            // A ring: the callback owns what would fire it.
            |_| {
                let slot: Rc<RefCell<Option<Resolver<u32>>>> = Rc::default();
                let (deferred, resolver) = Deferred::new();
                let inside = Rc::clone(&slot);
                deferred
                    .add_callback(move |_| {
                        drop(inside);
                        Ok(())
                    })
                    .detach();
                *slot.borrow_mut() = Some(resolver);
                Box::new(())
            },
            "1 deferred (1 made at ",
        ),
    ];
    for (forget, expected) in cases {
        let clock = Clock::new();
        let mut left = None;
        let said = failing(|| {
            let _check = clock.expect_nothing_left();
            left = Some(forget(&clock));
        });
        assert!(said.starts_with("panicked: the test leaves behind: "), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        if expected.contains("made at") {
            assert!(said.contains("guards.rs:"), "it names the place: {said}");
        }
    }
}

#[test]
fn a_test_that_tidies_up_passes_whatever_was_there_before() {
    let clock = Clock::new();
    let _before = Deferred::<u32>::new();
    let call = clock.reactor().call_later(Duration::from_secs(60), || {});
    let check = clock.expect_nothing_left();
    let (deferred, resolver) = Deferred::new();
    LogContext::new("GET-1").run(|| {
        clock.reactor().call_later(Duration::from_secs(1), || resolver.callback(1));
    });
    let limited = deferred.with_timeout(clock.reactor(), Duration::from_secs(5));
    let task = clock.reactor().spawn(async move { Ok(limited.await? + 1) });
    assert_ne!(check.left(), [""; 0]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(success_result_of(task), 2);
    assert_eq!(check.left(), [""; 0]);
    drop(check);
    call.cancel();
}

#[test]
fn a_test_that_panics_anyway_says_that_and_not_what_it_leaves_behind() {
    let clock = Clock::new();
    let said = failing(|| {
        let _check = clock.expect_nothing_left();
        clock.reactor().call_later(Duration::from_secs(1), || {});
        resume_unwind(Box::new("the real trouble"));
    });
    assert_eq!(said, "panicked: the real trouble");
}

thread_local! {
    static LIMIT: Cell<u32> = const { Cell::new(10) };
}

#[test]
fn what_was_replaced_is_put_back_also_by_a_test_that_panics() {
    type Greet = Rc<dyn Fn(&str) -> String>;
    let greet: RefCell<Greet> = RefCell::new(Rc::new(|name| format!("Hello, {name}!")));
    let said = failing(|| {
        let _greet = replace(&greet, Rc::new(|name: &str| format!("Bye, {name}.")) as Greet);
        let _limit = replace(&LIMIT, 0);
        assert_eq!(LIMIT.get(), 0);
        resume_unwind(Box::new((greet.borrow())("Anna")));
    });
    assert_eq!(said, "panicked: Bye, Anna.");
    assert_eq!((greet.borrow())("Anna"), "Hello, Anna!");
    assert_eq!(LIMIT.get(), 10);
}

#[test]
fn replacements_nest() {
    let place = Cell::new(1);
    let outer = replace(&place, 2);
    {
        let _inner = replace(&place, 3);
        assert_eq!(place.get(), 3);
    }
    assert_eq!(place.get(), 2);
    drop(outer);
    assert_eq!(place.get(), 1);
}

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
struct DiskFull;

static BEFORE_WRITE: FaultPoint = FaultPoint::new("guards: before the write");

/// Something that writes, and tries once more.
fn save() -> Deferred<&'static str> {
    fn write() -> Deferred<&'static str> {
        BEFORE_WRITE.check().map(|()| "saved").into()
    }
    write().add_errback(|failure| {
        failure.trap::<DiskFull>()?;
        write().into_result().unwrap_or_else(|_| unreachable!("it fires at once"))
    })
}

#[test]
fn a_fault_strikes_as_often_as_it_was_told_and_goes_with_its_guard() {
    let mut strikes = 1;
    let fault = BEFORE_WRITE.inject(move || {
        strikes -= 1;
        (strikes >= 0).then(|| DiskFull.into())
    });
    assert_eq!(success_result_of(save()), "saved");
    assert_eq!(fault.hit_count(), 2);
    drop(fault);

    let said = failing(|| {
        let _always = BEFORE_WRITE.inject(|| Some(DiskFull.into()));
        let failure = save().into_result().unwrap().unwrap_err();
        resume_unwind(Box::new(failure.to_string()));
    });
    assert_eq!(said, "panicked: the disk is full");
    assert_eq!(success_result_of(save()), "saved");
}

#[test]
fn faults_of_other_places_do_not_strike_and_the_last_guard_counts() {
    let other = FaultPoint::new("guards: somewhere else");
    let _other = other.inject(|| Some(DiskFull.into()));
    assert_eq!(success_result_of(save()), "saved");
    let first = BEFORE_WRITE.inject(|| Some(DiskFull.into()));
    let second = BEFORE_WRITE.inject(|| None);
    assert_eq!(success_result_of(save()), "saved");
    assert_eq!((first.hit_count(), second.hit_count()), (0, 1));
}

#[test]
fn a_trap_for_unhandled_failures_goes_with_a_test_that_panics() {
    let outer = UnhandledErrors::trap();
    failing(|| {
        let _inner = UnhandledErrors::trap();
        drop(Deferred::<()>::fail(DiskFull));
        resume_unwind(Box::new("here"));
    });
    drop(Deferred::<()>::fail(DiskFull));
    assert_eq!(outer.take().len(), 1, "the inner trap has taken its own along");
}
