//! The end of a reactor: everything it owns is ended or dropped, in an order that lets each thing
//! still hear of its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::core::{Core, Source, Stage};
use crate::failure::Failure;
use crate::ready;
use crate::turn::Turner;

/// Ends everything. What ends may begin new things; a few rounds take care of those, and whatever
/// insists after that is dropped.
pub(crate) fn tear_down(core: &Rc<Core>, turner: &mut Turner<'_>) {
    core.stage.set(Stage::Stopping);
    for _ in 0..ROUNDS {
        end_sources(core);
        core.thread_pools.tear_down();
        core.lookups.tear_down();
        turner.serve_ready_to_the_end();
        drop_tasks(core);
        drop_timers(core);
        let is_quiet = core.sources.borrow().len() == 0 && core.ready.is_empty();
        if is_quiet {
            break;
        }
    }
    core.stage.set(Stage::Stopped);
    end_sources(core);
    drop_tasks(core);
    drop_timers(core);
    dropping("a call from a thread", core.remote.close());
    turner.drop_foreign_jobs();
    core.ready.clear();
    let unsent = core.outbox.take(Box::default());
    drop(unsent);
    while core.next_unread().is_some() {}
}

/// Ends everything at once, without a word to anybody: no callback, task or errback of a dropped
/// resolver runs any more. This is how a process of a simulated world dies.
pub(crate) fn kill(core: &Rc<Core>) {
    // From here on it takes nothing new, whatever is done by what is dropped.
    core.stage.set(Stage::Stopped);
    let _silence = ready::silence();
    let sources = core.sources.borrow_mut().take_all();
    for source in &sources {
        if let Source::Link(transport) = source {
            transport.link().drop_stream_unheard();
        }
    }
    for source in sources {
        if let Source::Link(transport) = &source {
            transport.link().forget();
        }
        dropping("a connection or port", source);
    }
    core.thread_pools.kill();
    core.lookups.kill();
    drop_tasks(core);
    drop_timers(core);
    dropping("a call from a thread", core.remote.close());
    core.ready.clear();
    let unsent = core.outbox.take(Box::default());
    drop(unsent);
    while core.next_unread().is_some() {}
}

/// Closes what events could arrive for: first the ports, so that nothing new comes in.
fn end_sources(core: &Rc<Core>) {
    let sources: Vec<_> =
        core.sources.borrow().iter().map(|(key, source)| (key, source.clone())).collect();
    let (links, others): (Vec<_>, Vec<_>) =
        sources.into_iter().partition(|(_, source)| matches!(source, Source::Link(_)));
    for (key, source) in others {
        match &source {
            Source::Child(child) => child.shut_down(core),
            Source::Datagrams(port) => port.stop(core),
            Source::Link(_) | Source::Port(_) | Source::Signal(_) => {}
        }
        let removed = core.sources.borrow_mut().remove(key);
        drop(removed);
        dropping("a port, a signal's callback or a process protocol", source);
    }
    for (_, source) in links {
        if let Source::Link(transport) = source {
            transport.link().shut_down(core);
        }
    }
}

fn drop_tasks(core: &Core) {
    let tasks = core.tasks.borrow_mut().take_all();
    for task in tasks {
        task.dismiss();
    }
    core.cooperators.tear_down();
}

fn drop_timers(core: &Core) {
    let calls = core.timers.borrow_mut().take_all();
    for call in calls {
        dropping("a delayed call", call);
    }
}

/// Drops something that is made of somebody else's code.
pub(crate) fn dropping(what: &str, thing: impl Sized) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(thing))) {
        log::error!("dropping {what} panicked: {}", Failure::from_panic(payload));
    }
}

/// How often what was begun during the end is ended in its turn.
const ROUNDS: usize = 8;
