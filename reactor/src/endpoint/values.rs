//! The values in descriptions of endpoints, read and written.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use crate::resolver::Host;

/// A value, or what it should have been.
type Read<T> = Result<T, String>;

/// A port to listen on; 0 picks a free one.
pub(super) fn port(text: &str) -> Read<u16> {
    text.parse().map_err(|_| "a number from 0 to 65535".to_owned())
}

/// A port to connect to.
pub(super) fn peer_port(text: &str) -> Read<u16> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

pub(super) fn count(text: &str) -> Read<u32> {
    text.parse().map_err(|_| "a number".to_owned())
}

pub(super) fn size(text: &str) -> Read<usize> {
    text.parse().map_err(|_| "a number".to_owned())
}

pub(super) fn yes_or_no(text: &str) -> Read<bool> {
    match text {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err("yes or no".to_owned()),
    }
}

/// Writes what [`yes_or_no`] reads.
#[derive(Eq, PartialEq)]
pub(super) struct YesOrNo(pub(super) bool);

impl fmt::Display for YesOrNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "yes" } else { "no" })
    }
}

/// Permissions of a file.
pub(super) fn mode(text: &str) -> Read<u32> {
    let is_octal = text.bytes().all(|digit| digit.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && is_octal => Ok(mode),
        _ => Err("permissions in octal, such as 660".to_owned()),
    }
}

pub(super) fn path(text: &str) -> Read<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err("the path of a file".to_owned());
    }
    Ok(text.into())
}

/// Anything but nothing.
pub(super) fn word(text: &str) -> Read<String> {
    if text.is_empty() { Err("a name".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn words(text: &str) -> Read<Vec<String>> {
    text.split(',').map(word).collect::<Read<_>>().map_err(|_| "names, with commas between".into())
}

/// A host by name or address; an address without its brackets.
pub(super) fn host(text: &str) -> Read<String> {
    match Host::parse(text) {
        Ok(Host::Address(address)) => Ok(address.to_string()),
        Ok(Host::Name(name)) => Ok(name),
        Err(error) => Err(format!("the name or address of a host, and {error}")),
    }
}

/// Writes a host, an IPv6 address in brackets.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// An address of this machine, with its scope if it has one.
pub(super) fn interface(text: &str) -> Read<SocketAddr> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match inner.parse() {
        Ok(address @ IpAddr::V4(_)) => Ok(SocketAddr::new(address, 0)),
        _ => format!("[{inner}]:0")
            .parse::<SocketAddrV6>()
            .map(SocketAddr::V6)
            .map_err(|_| "an address of this machine, such as 127.0.0.1 or [::1]".to_owned()),
    }
}

/// Writes what [`interface`] reads.
pub(super) fn interface_text(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) if address.scope_id() == 0 => format!("[{}]", address.ip()),
        SocketAddr::V6(address) => format!("[{}%{}]", address.ip(), address.scope_id()),
    }
}

/// Seconds, with at most nine digits behind the point.
pub(super) fn seconds(text: &str) -> Read<Duration> {
    let expected = || "a number of seconds, such as 30 or 0.5".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 || whole.len() > 9 {
        return Err(expected());
    }
    let whole = whole.parse().map_err(|_| expected())?;
    let nanos = format!("{fraction:0<9}").parse().map_err(|_| expected())?;
    Ok(Duration::new(whole, nanos))
}

/// Writes what [`seconds`] reads.
#[derive(Eq, PartialEq)]
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs())?;
        let fraction = format!("{:09}", self.0.subsec_nanos());
        match fraction.trim_end_matches('0') {
            "" => Ok(()),
            fraction => write!(f, ".{fraction}"),
        }
    }
}

/// Writes permissions in octal.
#[derive(Eq, PartialEq)]
pub(super) struct Mode(pub(super) u32);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}
