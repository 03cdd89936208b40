//! Random programs over deferreds, against a naive interpreter: the same callbacks must run in the same
//! order, and the same results come out.
//!
//! A program makes a few chains and then does things to them: adds steps, fires, cancels, drops either
//! half. What a step does may again be any of that, to any chain. The interpreter below knows the rules
//! and nothing else: it recurses, copies and searches as it likes. `PROPTEST_CASES` sets how many programs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::rc::Rc;

use proptest::prelude::*;
use ropewalk::testing::UnhandledErrors;
use ropewalk::{
    CancelHandle, CancelledError, Deferred, Failure, Panicked, Resolver, ResolverDropped,
    WaitsForItself,
};

/// How many chains a program has.
const CHAINS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Op {
    Add(usize, Step),
    Do(Act),
}

#[derive(Clone, Copy, Debug)]
struct Step {
    kind: Kind,
    /// Done first, when the step runs.
    act: Option<Act>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Both,
    Callback,
    Errback,
}

/// What a step ends with.
#[derive(Clone, Copy, Debug)]
enum End {
    Fail,
    Give,
    Panic,
    Return(usize),
}

/// What can be done to a chain, from inside a step or from outside.
#[derive(Clone, Copy, Debug)]
enum Act {
    AddBehind(usize),
    Cancel(usize),
    DropDeferred(usize),
    DropResolver(usize),
    Errback(usize),
    Callback(usize),
}

/// What the canceller of a chain does.
#[derive(Clone, Copy, Debug)]
enum Canceller {
    Callback,
    DropResolver,
    Errback,
    None,
    Panic,
}

/// A result, with failures as text.
type Shown = Result<u32, String>;

/// What can be seen of a run.
#[derive(Debug, Default, Eq, PartialEq)]
struct Seen {
    trace: Vec<String>,
    /// What each deferred has at the end.
    results: Vec<Option<Shown>>,
    /// Failures that nobody handled, sorted.
    unhandled: Vec<String>,
}

/// The name of a step: the number of the operation that added it, or that and one more.
type Name = u32;

// The real thing.

#[derive(Debug, thiserror::Error)]
#[error("fail {0}")]
struct Refused(u32);

fn show(failure: &Failure) -> String {
    if failure.is::<CancelledError>() {
        "cancelled".into()
    } else if failure.is::<ResolverDropped>() {
        "dropped".into()
    } else if failure.is::<WaitsForItself>() {
        "waits for itself".into()
    } else if let Some(panic) = failure.downcast_ref::<Panicked>() {
        panic.message.clone()
    } else {
        failure.to_string()
    }
}

#[derive(Default)]
struct Real {
    deferreds: RefCell<Vec<Option<Deferred<u32>>>>,
    resolvers: RefCell<Vec<Option<Resolver<u32>>>>,
    cancels: RefCell<Vec<CancelHandle>>,
    trace: RefCell<Vec<String>>,
}

impl Real {
    fn run(cancellers: &[Canceller], program: &[Op]) -> Seen {
        let trap = UnhandledErrors::trap();
        let real = Rc::new(Real::default());
        for (chain, canceller) in cancellers.iter().enumerate() {
            real.make(chain, *canceller);
        }
        for (number, op) in program.iter().enumerate() {
            let name = number as Name * 10;
            match *op {
                Op::Add(chain, step) => real.add(chain, step, name),
                Op::Do(act) => real.act(act, name),
            }
        }
        let deferreds: Vec<_> = real.deferreds.borrow_mut().iter_mut().map(Option::take).collect();
        let results = deferreds.into_iter().map(|deferred| {
            let outcome = deferred?.into_result().ok()?;
            Some(outcome.map_err(|failure| show(&failure)))
        });
        let results = results.collect();
        for chain in 0..cancellers.len() {
            real.act(Act::DropResolver(chain), 8000);
        }
        let mut unhandled: Vec<_> =
            trap.take().iter().map(|report| show(&report.failure)).collect();
        unhandled.sort();
        Seen { trace: real.trace.take(), results, unhandled }
    }

    fn make(self: &Rc<Self>, chain: usize, canceller: Canceller) {
        let (deferred, resolver) = Deferred::new();
        let real = Rc::downgrade(self);
        if !matches!(canceller, Canceller::None) {
            resolver.set_canceller(move || {
                let Some(real) = real.upgrade() else { return };
                real.note(format!("canceller {chain}"));
                match canceller {
                    Canceller::Callback => real.act(Act::Callback(chain), 7000),
                    Canceller::Errback => real.act(Act::Errback(chain), 7000),
                    Canceller::DropResolver => real.act(Act::DropResolver(chain), 7000),
                    Canceller::Panic => resume_unwind(Box::new("canceller")),
                    Canceller::None => {}
                }
            });
        }
        self.cancels.borrow_mut().push(deferred.cancel_handle());
        self.deferreds.borrow_mut().push(Some(deferred));
        self.resolvers.borrow_mut().push(Some(resolver));
    }

    fn note(&self, entry: String) {
        self.trace.borrow_mut().push(entry);
    }

    fn take_deferred(&self, chain: usize) -> Option<Deferred<u32>> {
        self.deferreds.borrow_mut()[chain].take()
    }

    fn take_resolver(&self, chain: usize) -> Option<Resolver<u32>> {
        self.resolvers.borrow_mut()[chain].take()
    }

    fn add(self: &Rc<Self>, chain: usize, step: Step, name: Name) {
        let Some(deferred) = self.take_deferred(chain) else { return };
        let real = Rc::clone(self);
        let deferred = match step.kind {
            Kind::Callback => deferred.add_callback(move |n| real.step(Ok(n), step, name)),
            Kind::Errback => deferred.add_errback(move |e| real.step(Err(e), step, name)),
            Kind::Both => deferred.add_both(move |outcome| real.step(outcome, step, name)),
        };
        // What the step did when it ran at once may have put another one here.
        let before = self.deferreds.borrow_mut()[chain].replace(deferred);
        drop(before);
    }

    fn step(self: &Rc<Self>, input: Result<u32, Failure>, step: Step, name: Name) -> Deferred<u32> {
        let shown = match &input {
            Ok(n) => n.to_string(),
            Err(failure) => show(failure),
        };
        self.note(format!("{name}({shown})"));
        if let Some(act) = step.act {
            self.act(act, name + 1);
        }
        match step.end {
            End::Give => Deferred::succeed(name),
            End::Fail => Deferred::fail(Refused(name)),
            End::Panic => resume_unwind(Box::new(format!("panic {name}"))),
            End::Return(chain) => {
                self.take_deferred(chain).unwrap_or_else(|| Deferred::succeed(name))
            }
        }
    }

    fn act(self: &Rc<Self>, act: Act, name: Name) {
        match act {
            Act::AddBehind(chain) => {
                let step = Step { kind: Kind::Both, act: None, end: End::Give };
                self.add(chain, step, name);
            }
            Act::Cancel(chain) => {
                let cancel = self.cancels.borrow()[chain].clone();
                cancel.cancel();
            }
            Act::DropDeferred(chain) => drop(self.take_deferred(chain)),
            Act::DropResolver(chain) => drop(self.take_resolver(chain)),
            Act::Callback(chain) => {
                if let Some(resolver) = self.take_resolver(chain) {
                    resolver.callback(name);
                }
            }
            Act::Errback(chain) => {
                if let Some(resolver) = self.take_resolver(chain) {
                    resolver.errback(Refused(name));
                }
            }
        }
    }
}

// The model.

#[derive(Clone, Debug)]
struct Chain {
    stage: Stage,
    steps: VecDeque<(Name, Step)>,
    /// Who waits for it.
    outer: Option<usize>,
    has_resolver: bool,
    /// Whether a deferred leads to it.
    has_deferred: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Done(Shown),
    /// Its result went on, or nobody is left who could fire it.
    Gone,
    Running,
    Unfired,
    Waits(usize),
}

/// What a deferred is: a result that it has, or the end of a chain.
#[derive(Clone, Debug)]
enum Handle {
    Chain(usize),
    Ready(Shown),
}

#[derive(Default)]
struct Model {
    chains: Vec<Chain>,
    cancellers: Vec<Canceller>,
    deferreds: Vec<Option<Handle>>,
    /// Chains whose resolver was dropped, to fail when nothing runs.
    dropped: VecDeque<usize>,
    depth: u32,
    seen: Seen,
}

impl Model {
    fn run(cancellers: &[Canceller], program: &[Op]) -> Seen {
        let mut model = Model { cancellers: cancellers.to_vec(), ..Model::default() };
        for chain in 0..cancellers.len() {
            model.chains.push(Chain {
                stage: Stage::Unfired,
                steps: VecDeque::new(),
                outer: None,
                has_resolver: true,
                has_deferred: true,
            });
            model.deferreds.push(Some(Handle::Chain(chain)));
        }
        for (number, op) in program.iter().enumerate() {
            let name = number as Name * 10;
            match *op {
                Op::Add(chain, step) => model.add(chain, step, name),
                Op::Do(act) => model.act(act, name),
            }
        }
        for index in 0..cancellers.len() {
            let handle = model.deferreds[index].take().map(|handle| model.settled(handle));
            let result = match handle {
                Some(Handle::Ready(result)) => Some(result),
                Some(handle) => {
                    model.drop_handle(handle);
                    None
                }
                None => None,
            };
            model.seen.results.push(result);
        }
        for chain in 0..cancellers.len() {
            model.drop_resolver(chain);
        }
        model.seen.unhandled.sort();
        model.seen
    }

    /// Runs `f`, and what dropped resolvers bring if nothing runs any more.
    fn nested(&mut self, f: impl FnOnce(&mut Self)) {
        self.depth += 1;
        f(self);
        self.depth -= 1;
        if self.depth == 0 {
            self.depth = 1;
            while let Some(chain) = self.dropped.pop_front() {
                self.fire(chain, Err("dropped".into()));
            }
            self.depth = 0;
        }
    }

    fn fire(&mut self, chain: usize, value: Shown) {
        if self.chains[chain].stage == Stage::Unfired {
            self.chains[chain].stage = Stage::Running;
            self.nested(|model| model.go_on(chain, value));
        }
    }

    fn go_on(&mut self, chain: usize, mut value: Shown) {
        while let Some((name, step)) = self.chains[chain].steps.pop_front() {
            match self.call(name, step, value) {
                Handle::Ready(result) => value = result,
                Handle::Chain(inner) if self.leads_to(inner, chain) => {
                    self.chains[inner].has_deferred = false;
                    value = Err("waits for itself".into());
                }
                Handle::Chain(inner) => {
                    self.chains[inner].has_deferred = false;
                    self.chains[inner].outer = Some(chain);
                    self.chains[chain].stage = Stage::Waits(inner);
                    return;
                }
            }
        }
        if let Some(outer) = self.chains[chain].outer.take() {
            self.chains[chain].stage = Stage::Gone;
            self.chains[outer].stage = Stage::Running;
            self.go_on(outer, value);
        } else if self.chains[chain].has_deferred {
            self.chains[chain].stage = Stage::Done(value);
        } else {
            self.chains[chain].stage = Stage::Gone;
            self.lose(value);
        }
    }

    /// Calls a step, or passes it by.
    fn call(&mut self, name: Name, step: Step, input: Shown) -> Handle {
        let is_for_it = match step.kind {
            Kind::Both => true,
            Kind::Callback => input.is_ok(),
            Kind::Errback => input.is_err(),
        };
        if !is_for_it {
            return Handle::Ready(input);
        }
        let shown = input.map_or_else(|failure| failure, |n| n.to_string());
        self.seen.trace.push(format!("{name}({shown})"));
        if let Some(act) = step.act {
            self.act(act, name + 1);
        }
        match step.end {
            End::Give => Handle::Ready(Ok(name)),
            End::Fail => Handle::Ready(Err(format!("fail {name}"))),
            End::Panic => Handle::Ready(Err(format!("panic {name}"))),
            End::Return(chain) => match self.deferreds[chain].take() {
                None => Handle::Ready(Ok(name)),
                Some(handle) => self.settled(handle),
            },
        }
    }

    /// A chain's deferred that has its result is that result.
    fn settled(&mut self, handle: Handle) -> Handle {
        if let Handle::Chain(chain) = handle
            && let Stage::Done(result) = self.chains[chain].stage.clone()
        {
            self.chains[chain].stage = Stage::Gone;
            return Handle::Ready(result);
        }
        handle
    }

    fn add(&mut self, index: usize, step: Step, name: Name) {
        let Some(handle) = self.deferreds[index].take() else { return };
        let handle = match self.settled(handle) {
            Handle::Chain(chain) => {
                self.chains[chain].steps.push_back((name, step));
                Handle::Chain(chain)
            }
            Handle::Ready(result) => {
                let mut given = None;
                self.nested(|model| given = Some(model.call(name, step, result)));
                given.expect("that was called")
            }
        };
        if let Some(before) = self.deferreds[index].replace(handle) {
            self.drop_handle(before);
        }
    }

    fn act(&mut self, act: Act, name: Name) {
        match act {
            Act::AddBehind(index) => {
                let step = Step { kind: Kind::Both, act: None, end: End::Give };
                self.add(index, step, name);
            }
            Act::Cancel(chain) => self.cancel(chain),
            Act::DropDeferred(index) => {
                if let Some(handle) = self.deferreds[index].take() {
                    self.drop_handle(handle);
                }
            }
            Act::DropResolver(chain) => self.drop_resolver(chain),
            Act::Callback(chain) => {
                if std::mem::take(&mut self.chains[chain].has_resolver) {
                    self.fire(chain, Ok(name));
                }
            }
            Act::Errback(chain) => {
                if std::mem::take(&mut self.chains[chain].has_resolver) {
                    self.fire(chain, Err(format!("fail {name}")));
                }
            }
        }
    }

    fn drop_resolver(&mut self, chain: usize) {
        let this = &mut self.chains[chain];
        if !std::mem::take(&mut this.has_resolver) || this.stage != Stage::Unfired {
            return;
        }
        if !this.has_deferred && this.steps.is_empty() && this.outer.is_none() {
            this.stage = Stage::Gone;
            return;
        }
        self.dropped.push_back(chain);
        if self.depth == 0 {
            self.nested(|_| {});
        }
    }

    fn drop_handle(&mut self, handle: Handle) {
        match self.settled(handle) {
            Handle::Ready(result) => self.lose(result),
            Handle::Chain(chain) => self.chains[chain].has_deferred = false,
        }
    }

    fn lose(&mut self, result: Shown) {
        if let Err(failure) = result
            && failure != "cancelled"
        {
            self.seen.unhandled.push(failure);
        }
    }

    fn cancel(&mut self, mut chain: usize) {
        while let Stage::Waits(inner) = self.chains[chain].stage {
            chain = inner;
        }
        if self.chains[chain].stage != Stage::Unfired {
            return;
        }
        self.nested(|model| {
            let canceller = std::mem::replace(&mut model.cancellers[chain], Canceller::None);
            if !matches!(canceller, Canceller::None) {
                model.seen.trace.push(format!("canceller {chain}"));
            }
            match canceller {
                Canceller::Callback => model.act(Act::Callback(chain), 7000),
                Canceller::Errback => model.act(Act::Errback(chain), 7000),
                Canceller::DropResolver => model.act(Act::DropResolver(chain), 7000),
                Canceller::None | Canceller::Panic => {}
            }
            model.fire(chain, Err("cancelled".into()));
        });
    }

    /// Whether `from` waits for `to`, or is it.
    fn leads_to(&self, from: usize, to: usize) -> bool {
        match self.chains[from].stage {
            _ if from == to => true,
            Stage::Waits(inner) => self.leads_to(inner, to),
            _ => false,
        }
    }
}

// Programs.

fn acts() -> impl Strategy<Value = Act> {
    (0..6_u8, 0..CHAINS).prop_map(|(kind, chain)| match kind {
        0 => Act::AddBehind(chain),
        1 => Act::Cancel(chain),
        2 => Act::DropDeferred(chain),
        3 => Act::DropResolver(chain),
        4 => Act::Errback(chain),
        _ => Act::Callback(chain),
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let kinds = prop_oneof![
        2 => Just(Kind::Callback),
        1 => Just(Kind::Both),
        1 => Just(Kind::Errback),
    ];
    let ends = prop_oneof![
        2 => Just(End::Give),
        4 => (0..CHAINS).prop_map(End::Return),
        1 => Just(End::Fail),
        1 => Just(End::Panic),
    ];
    (kinds, proptest::option::weighted(0.4, acts()), ends).prop_map(|(kind, act, end)| Step {
        kind,
        act,
        end,
    })
}

fn programs() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (0..CHAINS, steps()).prop_map(|(chain, step)| Op::Add(chain, step)),
        2 => acts().prop_map(Op::Do),
    ];
    proptest::collection::vec(op, 1..40)
}

fn cancellers() -> impl Strategy<Value = Vec<Canceller>> {
    let canceller = prop_oneof![
        Just(Canceller::None),
        Just(Canceller::Callback),
        Just(Canceller::DropResolver),
        Just(Canceller::Errback),
        Just(Canceller::Panic),
    ];
    proptest::collection::vec(canceller, CHAINS)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_do_what_the_naive_interpreter_does(
        cancellers in cancellers(),
        program in programs(),
    ) {
        let expected = Model::run(&cancellers, &program);
        let seen = Real::run(&cancellers, &program);
        prop_assert_eq!(seen, expected);
    }
}
