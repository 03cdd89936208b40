//! A signal's arrival as readability of a pipe.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mio::net::UnixStream;

use crate::signals::Signal;

/// The reading end of the pipe that a signal's arrival writes to.
///
/// While nobody watches a signal that has been watched before, it does again what the system does by
/// default: a reactor that has stopped must not keep the process from being ended.
pub(crate) struct SignalPipe {
    pub(super) receiver: UnixStream,
    signal: Signal,
    id: signal_hook::SigId,
}

impl SignalPipe {
    pub(super) fn open(signal: Signal) -> io::Result<SignalPipe> {
        let (receiver, sender) = UnixStream::pair()?;
        let mut watches = watches();
        let watch = watches.of(signal)?;
        let id = signal_hook::low_level::pipe::register(signal.number(), sender)?;
        watch.count += 1;
        watch.is_unwatched.store(false, Ordering::SeqCst);
        Ok(SignalPipe { receiver, signal, id })
    }

    pub(super) fn take_arrivals(&self) -> bool {
        let mut arrived = false;
        let mut bytes = [0; 64];
        while (&self.receiver).read(&mut bytes).is_ok_and(|count| count > 0) {
            arrived = true;
        }
        arrived
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.id);
        let mut watches = watches();
        if let Ok(watch) = watches.of(self.signal) {
            watch.count -= 1;
            watch.is_unwatched.store(watch.count == 0, Ordering::SeqCst);
        }
    }
}

/// Which signals the reactors of this process watch; signals belong to the process, too.
struct Watches(Vec<Watch>);

struct Watch {
    signal: Signal,
    count: usize,
    /// Read by the signal's handler.
    is_unwatched: Arc<AtomicBool>,
}

static WATCHES: Mutex<Watches> = Mutex::new(Watches(Vec::new()));

fn watches() -> std::sync::MutexGuard<'static, Watches> {
    WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watches {
    /// Returns what is known of a signal; the first time, has its default action depend on that.
    fn of(&mut self, signal: Signal) -> io::Result<&mut Watch> {
        let place = match self.0.iter().position(|watch| watch.signal == signal) {
            Some(place) => place,
            None => {
                let is_unwatched = Arc::new(AtomicBool::new(false));
                let flag = Arc::clone(&is_unwatched);
                signal_hook::flag::register_conditional_default(signal.number(), flag)?;
                self.0.push(Watch { signal, count: 0, is_unwatched });
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not `Hangup`, which an integration test raises, if in another process.
    #[test]
    fn the_default_action_is_back_when_nobody_watches() {
        let is_unwatched =
            || watches().of(Signal::Interrupt).unwrap().is_unwatched.load(Ordering::SeqCst);
        let one = SignalPipe::open(Signal::Interrupt).unwrap();
        let other = SignalPipe::open(Signal::Interrupt).unwrap();
        drop(one);
        assert!(!is_unwatched());
        assert!(!other.take_arrivals());
        signal_hook::low_level::raise(Signal::Interrupt.number()).unwrap();
        assert!(other.take_arrivals());
        assert!(!other.take_arrivals());
        drop(other);
        assert!(is_unwatched());
        let _again = SignalPipe::open(Signal::Interrupt).unwrap();
        assert!(!is_unwatched());
    }
}
