//! What the benches over sockets share: servers in processes of their own, and what those cost.

#[allow(dead_code, reason = "not every bench asks for it")]
pub(crate) mod cpu;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// A server under test, in a process of its own.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts this bench's own server: the same program with these words, after a port.
    pub(crate) fn of_ours(words: &[&str]) -> io::Result<Server> {
        let program = std::env::current_exe()?;
        let address = free_address()?;
        let mut command = Command::new(program);
        command.args(["serve", &address.port().to_string()]).args(words);
        Server::start("ropewalk", address, command)
    }

    /// Starts somebody else's: a command line in which `{port}` and these other words are replaced.
    pub(crate) fn of_peer(line: &str, replaced: &[(&str, &str)]) -> io::Result<Server> {
        let address = free_address()?;
        let mut line = line.replace("{port}", &address.port().to_string());
        for (word, by) in replaced {
            line = line.replace(word, by);
        }
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        let mut command = Command::new(program);
        command.args(words);
        Server::start(&name, address, command)
    }

    fn start(name: &str, address: SocketAddr, mut command: Command) -> io::Result<Server> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let server = Server { name: name.to_owned(), address, child };
        // Until it listens; a server that never does is for the person at the keyboard to end.
        while TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        Ok(server)
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the words of the command line that are for the bench; `cargo bench` adds one of its own.
pub(crate) fn words() -> Vec<String> {
    std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect()
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
