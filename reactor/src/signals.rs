//! Signals of the operating system, delivered as callbacks on the loop.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use crate::backend::SignalWatch;
use crate::context::LogContext;
use crate::core::{Core, Source};

/// A signal that a server reacts to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// `SIGHUP`: read the configuration again.
    Hangup,
    /// `SIGINT`: a person at the terminal wants it to end.
    Interrupt,
    /// `SIGTERM`: the service manager wants it to end.
    Terminate,
}

impl Signal {
    /// Returns the number by which the operating system knows it.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Signal::Hangup => libc::SIGHUP,
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Hangup => "SIGHUP",
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        })
    }
}

/// A signal that is watched, and what its arrival calls.
pub(crate) struct SignalSource {
    signal: Signal,
    context: LogContext,
    watch: OnceCell<SignalWatch>,
    /// Out of its place while it runs.
    callback: RefCell<Option<Box<dyn FnMut()>>>,
}

impl SignalSource {
    pub(crate) fn watch(
        core: &Rc<Core>,
        signal: Signal,
        callback: Box<dyn FnMut()>,
    ) -> io::Result<()> {
        core.check_open()?;
        let source = Rc::new(SignalSource {
            signal,
            context: LogContext::current(),
            watch: OnceCell::new(),
            callback: RefCell::new(Some(callback)),
        });
        let key = core.sources.borrow_mut().insert(Source::Signal(Rc::clone(&source)));
        match core.backend.watch_signal(signal, key) {
            Ok(watch) => {
                let _ = source.watch.set(watch);
                Ok(())
            }
            Err(error) => {
                core.sources.borrow_mut().remove(key);
                Err(error)
            }
        }
    }

    #[inline(never)]
    pub(crate) fn serve(&self, core: &Core) {
        let arrived = self.watch.get().is_some_and(SignalWatch::take_arrivals);
        if !arrived {
            return;
        }
        log::info!("received {}", self.signal);
        let Some(mut callback) = self.callback.take() else { return };
        if core.call("a signal's callback", &self.context, &mut callback).is_ok() {
            self.callback.replace(Some(callback));
        }
    }
}
