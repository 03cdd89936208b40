//! What runs when: a table of cases that pins the order of execution.
//!
//! Each case writes down what happens as it happens. The rules that the table shows:
//!
//! 1. A callback runs when the result it waits for is there and all callbacks before it have run: within
//!    the call that fires, or the one that adds it.
//! 2. A chain waits for the deferred that a callback returns; that one's callbacks run before it goes on.
//! 3. A callback that is added to a chain which runs already comes at its end.
//! 4. What fires inside a callback runs there and then, to its end.
//! 5. Tasks run after the current callback has returned, in the order in which they were woken.
//! 6. What a dropped resolver does happens after the current chain, or callback of the loop, has returned.

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::{CancelledError, Deferred, Failure, ResolverDropped};

use crate::deferred::Trace;

mod several;

#[derive(Debug, thiserror::Error)]
#[error("no")]
pub(crate) struct No;

pub(crate) type Number = Deferred<u32>;

/// A callback that writes its name and passes the value on.
pub(crate) fn say(
    trace: &Trace,
    name: &'static str,
) -> impl FnOnce(u32) -> Result<u32, Failure> + 'static {
    let trace = trace.clone();
    move |n| {
        trace.add(name);
        Ok(n)
    }
}

/// A callback that writes its name, and does something.
pub(crate) fn act<R>(
    trace: &Trace,
    name: &'static str,
    f: impl FnOnce(u32) -> R + 'static,
) -> impl FnOnce(u32) -> R + 'static {
    let trace = trace.clone();
    move |n| {
        trace.add(name);
        f(n)
    }
}

/// A callback for either result, which it writes behind its name.
pub(crate) fn end(
    trace: &Trace,
    name: &'static str,
) -> impl FnOnce(Result<u32, Failure>) -> Result<(), Failure> + 'static {
    let trace = trace.clone();
    move |outcome| {
        match outcome {
            Ok(n) => trace.add(format!("{name}={n}")),
            Err(failure) if failure.is::<CancelledError>() => {
                trace.add(format!("{name}=cancelled"))
            }
            Err(failure) if failure.is::<ResolverDropped>() => trace.add(format!("{name}=dropped")),
            Err(failure) => trace.add(format!("{name}=!{failure}")),
        }
        Ok(())
    }
}

/// Somewhere to put a deferred that a callback takes out.
pub(crate) fn slot<T>() -> Rc<RefCell<Option<T>>> {
    Rc::default()
}

/// What is shown, what happens, and what is written down.
type Case = (&'static str, fn(&Trace), &'static str);

pub(crate) fn check(cases: &[Case]) {
    for (why, case, expected) in cases {
        let trace = Trace::default();
        case(&trace);
        assert_eq!(trace.text(), *expected, "{why}");
    }
}

#[test]
fn callbacks_run_in_the_order_in_which_they_were_added() {
    check(&[
        (
            "added before the result: when it comes",
            |t| {
                let (d, r) = Deferred::new();
                let d = d.add_callback(say(t, "a")).add_callback(say(t, "b"));
                t.add("fire");
                r.callback(1);
                t.add("fired");
                drop(d);
            },
            "fire a b fired",
        ),
        (
            "added after the result: at once",
            |t| {
                let d = Deferred::succeed(1);
                let d = d.add_callback(say(t, "a"));
                t.add("then");
                drop(d.add_callback(say(t, "b")));
            },
            "a then b",
        ),
        (
            "some before, some after",
            |t| {
                let (d, r) = Deferred::new();
                let d = d.add_callback(say(t, "a"));
                r.callback(1);
                t.add("fired");
                drop(d.add_callback(say(t, "b")).add_callback(say(t, "c")));
            },
            "a fired b c",
        ),
        (
            "added while the chain runs: at its end",
            |t| {
                let kept = slot::<Number>();
                let (d, r) = Deferred::new();
                let (inside, trace) = (kept.clone(), t.clone());
                let d = d
                    .add_callback(act(t, "a(", move |n| {
                        let d = inside.take().expect("put there below");
                        *inside.borrow_mut() = Some(d.add_callback(say(&trace, "late")));
                        trace.add(")");
                        Ok(n)
                    }))
                    .add_callback(say(t, "b"));
                *kept.borrow_mut() = Some(d);
                r.callback(1);
                t.add("fired");
            },
            "a( ) b late fired",
        ),
        (
            "added by the last callback of the chain",
            |t| {
                let kept = slot::<Number>();
                let (d, r) = Deferred::new();
                let (inside, trace) = (kept.clone(), t.clone());
                let d = d.add_callback(act(t, "a(", move |n| {
                    let d = inside.take().expect("put there below");
                    d.add_callback(say(&trace, "late")).detach();
                    trace.add(")");
                    Ok(n)
                }));
                *kept.borrow_mut() = Some(d);
                r.callback(1);
            },
            "a( ) late",
        ),
        (
            "added while the chain waits: after those that are there",
            |t| {
                let (outer, start) = Deferred::new();
                let (inner, finish) = Deferred::<u32>::new();
                let outer =
                    outer.add_callback(act(t, "a", move |_| inner)).add_callback(say(t, "b"));
                start.callback(1);
                let outer = outer.add_callback(say(t, "late"));
                t.add("finish");
                finish.callback(2);
                drop(outer);
            },
            "a finish b late",
        ),
    ]);
}

#[test]
fn a_chain_waits_for_what_its_callback_returns() {
    check(&[
        (
            "one that has fired: no waiting",
            |t| {
                let (d, r) = Deferred::new();
                let inner = Deferred::succeed(7);
                let d = d.add_callback(act(t, "a", move |_| inner)).add_both(end(t, "b"));
                r.callback(1);
                t.add("fired");
                drop(d);
            },
            "a b=7 fired",
        ),
        (
            "one that has not: until it fires",
            |t| {
                let (outer, start) = Deferred::new();
                let (inner, finish) = Deferred::<u32>::new();
                let outer = outer.add_callback(act(t, "a", move |_| inner)).add_both(end(t, "b"));
                start.callback(1);
                t.add("started");
                finish.callback(7);
                t.add("finished");
                drop(outer);
            },
            "a started b=7 finished",
        ),
        (
            "the inner callbacks come before the outer ones",
            |t| {
                let (outer, start) = Deferred::new();
                let (inner, finish) = Deferred::<u32>::new();
                let inner = inner.add_callback(say(t, "i1")).add_callback(say(t, "i2"));
                let outer = outer.add_callback(act(t, "a", move |_| inner)).add_both(end(t, "b"));
                start.callback(1);
                finish.callback(7);
                drop(outer);
            },
            "a i1 i2 b=7",
        ),
        (
            "three deep, the innermost first",
            |t| {
                let (one, fire_one) = Deferred::new();
                let (two, fire_two) = Deferred::<u32>::new();
                let (three, fire_three) = Deferred::<u32>::new();
                let three = three.add_callback(say(t, "3"));
                let two = two.add_callback(act(t, "2", move |_| three)).add_callback(say(t, "2'"));
                let one = one.add_callback(act(t, "1", move |_| two)).add_callback(say(t, "1'"));
                for (name, resolver) in [("f1", fire_one), ("f2", fire_two), ("f3", fire_three)] {
                    t.add(name);
                    resolver.callback(0);
                }
                drop(one);
            },
            "f1 1 f2 2 f3 3 2' 1'",
        ),
        (
            "three deep, fired from the inside",
            |t| {
                let (one, fire_one) = Deferred::new();
                let (two, fire_two) = Deferred::<u32>::new();
                let (three, fire_three) = Deferred::<u32>::new();
                let two = two.add_callback(act(t, "2", move |_| three)).add_callback(say(t, "2'"));
                let one = one.add_callback(act(t, "1", move |_| two)).add_callback(say(t, "1'"));
                for (name, resolver) in [("f3", fire_three), ("f2", fire_two), ("f1", fire_one)] {
                    t.add(name);
                    resolver.callback(0);
                }
                drop(one);
            },
            "f3 f2 2 2' f1 1 1'",
        ),
        (
            "an inner failure skips to the outer errback",
            |t| {
                let (outer, start) = Deferred::new();
                let (inner, finish) = Deferred::<u32>::new();
                let outer = outer
                    .add_callback(act(t, "a", move |_| inner))
                    .add_callback(say(t, "skipped"))
                    .add_both(end(t, "b"));
                start.callback(1);
                finish.errback(No);
                drop(outer);
            },
            "a b=!no",
        ),
        (
            "an errback may wait, too",
            |t| {
                let (outer, start) = Deferred::<u32>::new();
                let (inner, finish) = Deferred::<u32>::new();
                let trace = t.clone();
                let outer = outer
                    .add_errback(move |_| {
                        trace.add("e");
                        inner
                    })
                    .add_both(end(t, "b"));
                start.errback(No);
                t.add("waits");
                finish.callback(7);
                drop(outer);
            },
            "e waits b=7",
        ),
        (
            "what a callback of the inner chain fires runs inside it",
            |t| {
                let (outer, start) = Deferred::new();
                let (inner, finish) = Deferred::<u32>::new();
                let (other, fire_other) = Deferred::new();
                let other = other.add_callback(say(t, "other"));
                let inner = inner.add_callback(act(t, "i(", move |n| {
                    fire_other.callback(n);
                    Ok(n)
                }));
                let outer = outer.add_callback(act(t, "a", move |_| inner)).add_both(end(t, "b"));
                start.callback(1);
                finish.callback(7);
                drop((outer, other));
            },
            "a i( other b=7",
        ),
    ]);
}

#[test]
fn what_fires_inside_a_callback_runs_there_and_then() {
    check(&[
        (
            "another chain",
            |t| {
                let (one, fire_one) = Deferred::new();
                let (two, fire_two) = Deferred::new();
                let two = two.add_callback(say(t, "2a")).add_callback(say(t, "2b"));
                let trace = t.clone();
                let one = one
                    .add_callback(act(t, "1(", move |n| {
                        fire_two.callback(n);
                        trace.add(")");
                        Ok(n)
                    }))
                    .add_callback(say(t, "1b"));
                fire_one.callback(1);
                drop((one, two));
            },
            "1( 2a 2b ) 1b",
        ),
        (
            "the very deferred that the callback then returns: it does not wait",
            |t| {
                let (one, fire_one) = Deferred::new();
                let (two, fire_two) = Deferred::<u32>::new();
                let two = two.add_callback(say(t, "2"));
                let one = one
                    .add_callback(act(t, "1", move |n| {
                        fire_two.callback(n + 1);
                        two
                    }))
                    .add_both(end(t, "b"));
                fire_one.callback(1);
                drop(one);
            },
            "1 2 b=2",
        ),
        (
            "a chain that waits for the one that runs goes on when that is at its end",
            |t| {
                let (inner, finish) = Deferred::new();
                let (outer, start) = Deferred::<u32>::new();
                let kept = slot::<Number>();
                let (inside, trace) = (kept.clone(), t.clone());
                let inner = inner
                    .add_callback(act(t, "i(", move |n| {
                        start.callback(0);
                        trace.add(")");
                        Ok(n)
                    }))
                    .add_callback(say(t, "i2"));
                *kept.borrow_mut() = Some(inner);
                let outer = outer
                    .add_callback(act(t, "o", move |_| inside.take().expect("put there above")))
                    .add_both(end(t, "o2"));
                finish.callback(7);
                drop(outer);
            },
            "i( o ) i2 o2=7",
        ),
        (
            "a dropped resolver, after the chain that runs",
            |t| {
                let (one, fire) = Deferred::new();
                let (two, dropped) = Deferred::<u32>::new();
                two.add_both(end(t, "2")).detach();
                let trace = t.clone();
                let one = one
                    .add_callback(act(t, "1(", move |n: u32| {
                        drop(dropped);
                        trace.add(")");
                        Ok(n)
                    }))
                    .add_callback(say(t, "1b"));
                fire.callback(1);
                t.add("fired");
                drop(one);
            },
            "1( ) 1b 2=dropped fired",
        ),
        (
            "a resolver that is dropped when nothing runs, at once",
            |t| {
                let (one, dropped) = Deferred::<u32>::new();
                one.add_both(end(t, "1")).detach();
                drop(dropped);
                t.add("dropped");
            },
            "1=dropped dropped",
        ),
    ]);
}

#[test]
fn cancelling_inside_a_callback() {
    check(&[
        (
            "the chain that runs: nothing happens",
            |t| {
                let (d, r) = Deferred::<u32>::new();
                let handle = d.cancel_handle();
                let d = d
                    .add_callback(act(t, "a", move |n| {
                        handle.cancel();
                        Ok(n)
                    }))
                    .add_both(end(t, "b"));
                r.callback(1);
                drop(d);
            },
            "a b=1",
        ),
        (
            "another chain: that one runs there and then",
            |t| {
                let (one, fire) = Deferred::<u32>::new();
                let (two, _never) = Deferred::<u32>::new();
                let handle = two.cancel_handle();
                let two = two.add_both(end(t, "2"));
                let trace = t.clone();
                let one = one.add_callback(act(t, "1(", move |n| {
                    handle.cancel();
                    trace.add(")");
                    Ok(n)
                }));
                fire.callback(1);
                drop((one, two));
            },
            "1( 2=cancelled )",
        ),
        (
            "the chain that waits for the one that runs: nothing, that one is at it",
            |t| {
                let (outer, start) = Deferred::<u32>::new();
                let handle = outer.cancel_handle();
                let (inner, finish) = Deferred::<u32>::new();
                let inner = inner.add_callback(act(t, "i", move |n| {
                    handle.cancel();
                    Ok(n)
                }));
                let outer = outer.add_callback(act(t, "o", move |_| inner)).add_both(end(t, "b"));
                start.callback(1);
                finish.callback(7);
                drop(outer);
            },
            "o i b=7",
        ),
        (
            "what the callback is about to return: the chain fails",
            |t| {
                let (outer, start) = Deferred::<u32>::new();
                let outer = outer
                    .add_callback(act(t, "o", |_| {
                        let (inner, _never) = Deferred::<u32>::new();
                        inner.cancel();
                        inner
                    }))
                    .add_both(end(t, "b"));
                start.callback(1);
                drop(outer);
            },
            "o b=cancelled",
        ),
    ]);
}

#[test]
fn dropping_a_half_at_each_point() {
    check(&[
        (
            "the deferred, before it fires: the callbacks run nevertheless",
            |t| {
                let (d, r) = Deferred::new();
                d.add_callback(say(t, "a")).detach();
                t.add("dropped");
                r.callback(1);
            },
            "dropped a",
        ),
        (
            "the deferred, while the chain waits",
            |t| {
                let (outer, start) = Deferred::new();
                let (inner, finish) = Deferred::<u32>::new();
                let outer =
                    outer.add_callback(act(t, "a", move |_| inner)).add_callback(say(t, "b"));
                start.callback(1);
                drop(outer);
                t.add("dropped");
                finish.callback(7);
            },
            "a dropped b",
        ),
        (
            "the deferred, inside one of its callbacks",
            |t| {
                let kept = slot::<Number>();
                let (d, r) = Deferred::new();
                let inside = kept.clone();
                let d = d
                    .add_callback(act(t, "a", move |n| {
                        drop(inside.take());
                        Ok(n)
                    }))
                    .add_callback(say(t, "b"));
                *kept.borrow_mut() = Some(d);
                r.callback(1);
            },
            "a b",
        ),
        (
            "the resolver, before it fires: the chain fails",
            |t| {
                let (d, r) = Deferred::<u32>::new();
                let d = d.add_both(end(t, "a"));
                drop(r);
                drop(d);
            },
            "a=dropped",
        ),
        (
            "the inner resolver, while the chain waits",
            |t| {
                let (outer, start) = Deferred::new();
                let (inner, finish) = Deferred::<u32>::new();
                let outer = outer.add_callback(act(t, "a", move |_| inner)).add_both(end(t, "b"));
                start.callback(1);
                drop(finish);
                drop(outer);
            },
            "a b=dropped",
        ),
        (
            "the inner resolver, before the chain comes to it",
            |t| {
                let (outer, start) = Deferred::new();
                let (inner, finish) = Deferred::<u32>::new();
                drop(finish);
                let outer = outer.add_callback(act(t, "a", move |_| inner)).add_both(end(t, "b"));
                start.callback(1);
                drop(outer);
            },
            "a b=dropped",
        ),
        (
            "both: nobody is left to be told",
            |_| {
                let (d, r) = Deferred::<u32>::new();
                drop(d);
                drop(r);
            },
            "",
        ),
        (
            "the resolver after cancelling: nothing more",
            |t| {
                let (d, r) = Deferred::<u32>::new();
                let handle = d.cancel_handle();
                let d = d.add_both(end(t, "a"));
                handle.cancel();
                drop(r);
                drop(d);
            },
            "a=cancelled",
        ),
    ]);
}
