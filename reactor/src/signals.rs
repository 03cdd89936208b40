//! Signals of the operating system, delivered as callbacks on the loop.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use crate::backend::SignalWatch;
use crate::context::LogContext;
use crate::core::{Core, Source};

/// A signal of the operating system.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// `SIGCONT`: go on after [`Stop`](Signal::Stop).
    Continue,
    /// `SIGHUP`: read the configuration again.
    Hangup,
    /// `SIGINT`: a person at the terminal wants it to end.
    Interrupt,
    /// `SIGKILL`: it is ended. It can only be sent.
    Kill,
    /// `SIGQUIT`: a person at the terminal wants it to end, and to leave a core file.
    Quit,
    /// `SIGSTOP`: it is halted. It can only be sent.
    Stop,
    /// `SIGTERM`: the service manager wants it to end.
    Terminate,
    /// `SIGUSR1`: whatever the program takes it for.
    User1,
    /// `SIGUSR2`: whatever the program takes it for.
    User2,
}

impl Signal {
    pub(crate) fn to_system(self) -> rustix::process::Signal {
        use rustix::process::Signal as System;

        match self {
            Signal::Continue => System::CONT,
            Signal::Hangup => System::HUP,
            Signal::Interrupt => System::INT,
            Signal::Kill => System::KILL,
            Signal::Quit => System::QUIT,
            Signal::Stop => System::STOP,
            Signal::Terminate => System::TERM,
            Signal::User1 => System::USR1,
            Signal::User2 => System::USR2,
        }
    }

    /// Returns the number by which the operating system knows it.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Signal::Continue => libc::SIGCONT,
            Signal::Hangup => libc::SIGHUP,
            Signal::Interrupt => libc::SIGINT,
            Signal::Kill => libc::SIGKILL,
            Signal::Quit => libc::SIGQUIT,
            Signal::Stop => libc::SIGSTOP,
            Signal::Terminate => libc::SIGTERM,
            Signal::User1 => libc::SIGUSR1,
            Signal::User2 => libc::SIGUSR2,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Continue => "SIGCONT",
            Signal::Hangup => "SIGHUP",
            Signal::Interrupt => "SIGINT",
            Signal::Kill => "SIGKILL",
            Signal::Quit => "SIGQUIT",
            Signal::Stop => "SIGSTOP",
            Signal::Terminate => "SIGTERM",
            Signal::User1 => "SIGUSR1",
            Signal::User2 => "SIGUSR2",
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
        if let Signal::Kill | Signal::Stop = signal {
            let text = format!("the system lets nobody watch {signal}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
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
