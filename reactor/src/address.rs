//! Where connections lead: [`Address`], and [`UnixAddress`], the names of Unix sockets.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where one end of a connection is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Address {
    /// A pipe, a terminal or a file, which has no address.
    Pipe,
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixAddress),
}

impl Address {
    /// Returns the IP address and port, if this kind of address has them.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Pipe | Address::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl From<UnixAddress> for Address {
    fn from(address: UnixAddress) -> Address {
        Address::Unix(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Pipe => f.write_str("pipe"),
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(address) => address.fmt(f),
        }
    }
}

/// The name of a Unix socket.
///
/// Strings and paths convert into [`UnixAddress::Path`].
///
/// ```
/// use ropewalk::UnixAddress;
///
/// assert_eq!(UnixAddress::from("/run/chat.sock").to_string(), "/run/chat.sock");
/// assert_eq!(UnixAddress::Abstract(b"chat".to_vec()).to_string(), "@chat");
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum UnixAddress {
    /// A name outside the file system, which goes away with its last socket; Linux only. Whoever can
    /// run a program in the same network namespace can connect to it.
    Abstract(Vec<u8>),
    /// A file. Who may write to it may connect to it.
    Path(PathBuf),
    /// No name: the connecting end commonly has none.
    Unnamed,
}

impl UnixAddress {
    /// Returns the name as the system wants it: an abstract one begins with a zero byte.
    pub(crate) fn to_socket_address(&self) -> io::Result<socket2::SockAddr> {
        match self {
            UnixAddress::Path(path) if path.as_os_str().is_empty() => Err(unnamed()),
            UnixAddress::Path(path) if path.as_os_str().as_bytes().contains(&0) => {
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a path cannot contain a zero byte; for an abstract name use UnixAddress::Abstract",
                ))
            }
            UnixAddress::Path(path) => socket2::SockAddr::unix(path).map_err(|error| {
                let path = path.display();
                let advice = "the system takes about 100 bytes; use a shorter path";
                io::Error::new(error.kind(), format!("cannot name a socket {path}: {advice}"))
            }),
            UnixAddress::Abstract(name) => {
                let name = [b"\0", name.as_slice()].concat();
                socket2::SockAddr::unix(OsStr::from_bytes(&name))
            }
            UnixAddress::Unnamed => Err(unnamed()),
        }
    }

    pub(crate) fn from_system(address: &std::os::unix::net::SocketAddr) -> UnixAddress {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(address) {
            return UnixAddress::Abstract(name.to_vec());
        }
        address.as_pathname().map_or(UnixAddress::Unnamed, UnixAddress::from)
    }
}

#[cold]
fn unnamed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the Unix socket has no name; give a path")
}

impl From<&str> for UnixAddress {
    fn from(path: &str) -> UnixAddress {
        UnixAddress::Path(path.into())
    }
}

impl From<String> for UnixAddress {
    fn from(path: String) -> UnixAddress {
        UnixAddress::Path(path.into())
    }
}

impl From<&Path> for UnixAddress {
    fn from(path: &Path) -> UnixAddress {
        UnixAddress::Path(path.into())
    }
}

impl From<PathBuf> for UnixAddress {
    fn from(path: PathBuf) -> UnixAddress {
        UnixAddress::Path(path)
    }
}

impl fmt::Display for UnixAddress {
    /// Writes the path; an abstract name behind an `@`, as `ss` and `systemd` do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixAddress::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            UnixAddress::Path(path) => path.display().fmt(f),
            UnixAddress::Unnamed => f.write_str("unnamed Unix socket"),
        }
    }
}
