//! Stores what each connection sends in a file of its own, no faster than the disk takes it.
//!
//! `cargo run --example file_upload 7000 /tmp`, then `nc -N localhost 7000 < picture.png`.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use ropewalk::files::{BackgroundFileConsumer, Files, OpenMode};
use ropewalk::{Address, ConnectionLost, Consumer, ListenOptions, ListeningPort};
use ropewalk::{Protocol, Reactor, Streaming, Transport};

struct Upload {
    files: Files,
    path: PathBuf,
    consumer: Rc<OnceCell<BackgroundFileConsumer>>,
}

impl Protocol for Upload {
    fn connection_made(&mut self, transport: &Transport) {
        // Nothing is read until there is a file to put it in.
        transport.pause_producing();
        let (transport, slot) = (transport.clone(), Rc::clone(&self.consumer));
        let opened = self.files.open(&self.path, OpenMode::CreateNew).add_both(move |file| {
            let file = file.inspect_err(|_| transport.lose_connection())?;
            let consumer = BackgroundFileConsumer::new(file);
            // The connection is the producer: paused when the disk falls behind.
            consumer.register_producer(Rc::new(transport.clone()), Streaming::Push);
            transport.resume_producing();
            let _ = slot.set(consumer);
            Ok(())
        });
        opened.detach(); // A failure is logged.
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        let Some(consumer) = self.consumer.get() else { return };
        consumer.write(data);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        let Some(consumer) = self.consumer.get() else { return transport.lose_connection() };
        consumer.unregister_producer();
        let transport = transport.clone();
        let answered = consumer.wait().add_both(move |stored| {
            let answer = stored.map(|count| format!("stored {count} bytes\n"));
            transport.write(answer.unwrap_or_else(|failure| format!("{failure:#}\n")).as_bytes());
            transport.lose_connection();
            Ok(())
        });
        answered.detach();
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        let Some(consumer) = self.consumer.get().filter(|_| !reason.is_clean()) else { return };
        consumer.finish(); // And away with it: half a file is worth nothing.
        let (files, path) = (self.files.clone(), self.path.clone());
        consumer.wait().add_both(move |_| files.remove(path)).detach();
    }
}

pub(crate) fn serve(r: &Reactor, at: SocketAddr, to: PathBuf) -> std::io::Result<ListeningPort> {
    let (files, count) = (r.files(), Cell::new(1));
    let factory = move |_: &Address| -> Option<Box<dyn Protocol>> {
        let path = to.join(format!("upload-{}", count.replace(count.get() + 1)));
        Some(Box::new(Upload { files: files.clone(), path, consumer: Rc::default() }))
    };
    r.listen_tcp(at, Rc::new(factory), ListenOptions::default())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, folder] = &arguments[..] else { return Err("usage: PORT FOLDER".into()) };
    let reactor = Reactor::new()?;
    reactor.install_signals()?;
    serve(&reactor, ([127, 0, 0, 1], port.parse()?).into(), folder.into())?;
    Ok(reactor.run()?)
}
