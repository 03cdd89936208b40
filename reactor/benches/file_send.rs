//! Cost of sending a file over TCP: by the system itself, and by reading it and writing what was read.
//!
//! `cargo bench --bench file_send [-- MEBIBYTES ROUNDS]` sends a file that lies in the page cache to
//! another process, which throws it away, and prints lines of `way mebibytes cpu_us wall_us`, the
//! times per mebibyte; the processor's is that of the sending process only.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk::files::{FileSender, OpenMode};
use ropewalk::{Consumer, Failure, Producer, Protocol, Reactor, Streaming, Transport};

fn main() -> Result<(), Failure> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    if std::env::args().any(|argument| argument == "drain") {
        return drain();
    }
    let [mebibytes, rounds] =
        [numbers.first().copied().unwrap_or(64), *numbers.get(1).unwrap_or(&8)];
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file");
    std::fs::write(&path, vec![7; (mebibytes as usize) << 20])?;
    for way in ["system", "written", "system", "written"] {
        let reactor = Reactor::new()?;
        let mut child =
            Command::new(std::env::current_exe()?).arg("drain").stdout(Stdio::piped()).spawn()?;
        let mut port = [0; 5];
        child.stdout.take().expect("it is piped").read_exact(&mut port)?;
        let port: u16 = String::from_utf8_lossy(&port).parse()?;
        let address = ([127, 0, 0, 1], port).into();
        let transport = reactor.run_until(reactor.connect_tcp(address, Box::new(Mute)))?;
        let consumer: Rc<dyn Consumer> = match way {
            "system" => Rc::new(transport.clone()),
            _ => Rc::new(WritesOnly(transport.clone())),
        };
        let (before, started) = (used(), reactor.now());
        for _ in 0..rounds {
            let opened = reactor.run_until(reactor.files().open(&path, OpenMode::Read))?;
            reactor.run_until(FileSender::new(opened).send_to(Rc::clone(&consumer)))?;
        }
        let (after, elapsed) = (used(), reactor.now() - started);
        transport.abort_connection();
        child.wait()?;
        let total = mebibytes * rounds;
        let each = |duration: Duration| duration.as_micros() as u64 / total;
        println!("{way} {total} {} {}", each(after - before), each(elapsed));
    }
    Ok(())
}

/// The processor time of this process, all its threads.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[expect(clippy::disallowed_methods, reason = "the other process is no part of what is measured")]
fn drain() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    print!("{:05}", listener.local_addr()?.port());
    std::io::Write::flush(&mut std::io::stdout())?;
    let (mut stream, _): (TcpStream, _) = listener.accept()?;
    let mut buffer = vec![0; 1 << 20];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    Ok(())
}

struct Mute;

impl Protocol for Mute {
    fn data_received(&mut self, _: &Transport, _: &[u8]) {}
}

/// A connection that does not take files.
struct WritesOnly(Transport);

impl Consumer for WritesOnly {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        self.0.register_producer(producer, streaming);
    }

    fn unregister_producer(&self) {
        self.0.unregister_producer();
    }

    fn write(&self, data: &[u8]) {
        self.0.write(data);
    }

    fn write_bytes(&self, data: Bytes) {
        self.0.write_bytes(data);
    }
}
