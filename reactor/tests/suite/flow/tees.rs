//! Tees: to all, at the pace of the slowest or past it.

use std::rc::Rc;

use ropewalk::flow::{SlowBranch, Tee};
use ropewalk::{Consumer, Streaming};

use super::Sink;
use crate::support::{Diary, RecordingProducer, read};

fn add(tee: &Tee, slow: SlowBranch) -> (Rc<Sink>, ropewalk::flow::TeeBranch) {
    let sink = Rc::new(Sink::default());
    let branch = tee.add(Rc::clone(&sink) as Rc<dyn Consumer>, slow);
    (sink, branch)
}

fn feed(tee: &Tee, streaming: Streaming) -> Diary {
    let diary = Diary::default();
    tee.register_producer(Rc::new(RecordingProducer(Rc::clone(&diary))), streaming);
    diary
}

#[test]
fn the_slowest_of_those_that_all_wait_for_governs() {
    let tee = Tee::new();
    let diary = feed(&tee, Streaming::Push);
    assert_eq!(read(&diary), ["pause"], "there is nobody to write to");
    let (one, _) = add(&tee, SlowBranch::Waits);
    assert_eq!(read(&diary), ["resume"]);
    let (other, _) = add(&tee, SlowBranch::Waits);
    tee.write(b"both");
    assert_eq!((one.take(), other.take()), ("both".into(), "both".into()));
    one.producer().pause_producing();
    other.producer().pause_producing();
    assert_eq!(read(&diary), ["pause"]);
    one.producer().resume_producing();
    assert_eq!(read(&diary), [""; 0]);
    other.producer().resume_producing();
    assert_eq!(read(&diary), ["resume"]);
    tee.unregister_producer();
    assert!(!one.is_fed() && !other.is_fed());
    assert_eq!(read(&diary), [""; 0]);
}

#[test]
fn a_branch_that_skips_misses_pieces_and_holds_nobody_up() {
    let tee = Tee::new();
    let (patient, _) = add(&tee, SlowBranch::Waits);
    let (live, branch) = add(&tee, SlowBranch::Skips);
    let diary = feed(&tee, Streaming::Push);
    live.producer().pause_producing();
    assert_eq!(read(&diary), [""; 0]);
    tee.write(b"missed ");
    live.producer().resume_producing();
    tee.write_bytes("seen".into());
    assert_eq!((patient.take(), live.take()), ("missed seen".into(), "seen".into()));
    assert_eq!(branch.skipped_bytes(), 7);
}

#[test]
fn a_pull_producer_is_asked_as_long_as_nobody_is_waited_for() {
    let tee = Tee::new();
    let diary = feed(&tee, Streaming::Pull);
    assert_eq!(read(&diary), [""; 0]);
    let (sink, _) = add(&tee, SlowBranch::Waits);
    assert_eq!(read(&diary), ["resume"]);
    tee.write(b"1");
    assert_eq!(read(&diary), ["resume"]);
    sink.producer().pause_producing();
    tee.write(b"2");
    assert_eq!(read(&diary), [""; 0]);
    sink.producer().resume_producing();
    assert_eq!(read(&diary), ["resume"]);
    assert_eq!(sink.take(), "12");
}

#[test]
fn branches_leave_one_by_one_and_the_last_stops_the_producer() {
    let tee = Tee::new();
    let diary = feed(&tee, Streaming::Push);
    let (slow, _) = add(&tee, SlowBranch::Waits);
    let (second, branch) = add(&tee, SlowBranch::Waits);
    assert_eq!(read(&diary), ["pause", "resume"]);
    slow.producer().pause_producing();
    assert_eq!(read(&diary), ["pause"]);
    slow.producer().stop_producing();
    assert_eq!(read(&diary), ["resume"], "nobody waits for one that is gone");
    tee.write(b"rest");
    assert_eq!((slow.take(), second.take()), (String::new(), "rest".into()));
    branch.remove();
    branch.remove();
    assert!(!second.is_fed());
    assert_eq!(read(&diary), ["stop"]);
    tee.unregister_producer();
}
