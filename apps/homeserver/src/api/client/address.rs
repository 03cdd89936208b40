//! Where a request comes from, as far as that can be known.

use std::net::IpAddr;

use crate::api::router::Call;

/// Returns the client's address: the other end of the connection or, if that is a proxy on this
/// machine, the last address that the proxy has noted.
///
/// Only a proxy on loopback is believed: anybody else could write what he likes. Earlier entries of the
/// list are what the client itself claims.
pub(super) fn client_address<W>(call: &Call<W>) -> Option<IpAddr> {
    let peer = call.peer.socket_address()?.ip().to_canonical();
    Some(behind_proxy(peer, call.head.header_text("x-forwarded-for")))
}

fn behind_proxy(peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
    if !peer.is_loopback() {
        return peer;
    }
    let last = forwarded_for.and_then(|list| list.rsplit(',').next());
    last.and_then(|text| text.trim().parse().ok()).unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_this_machine_is_believed_and_nobody_else() {
        for (why, peer, list, expected) in [
            ("no proxy", "192.0.2.1", None, "192.0.2.1"),
            ("a liar", "192.0.2.1", Some("198.51.100.1"), "192.0.2.1"),
            ("no list", "127.0.0.1", None, "127.0.0.1"),
            ("a proxy", "127.0.0.1", Some("198.51.100.1"), "198.51.100.1"),
            ("a liar behind a proxy", "::1", Some("10.0.0.1, 198.51.100.1"), "198.51.100.1"),
            ("IPv6", "127.0.0.1", Some("2001:db8::1"), "2001:db8::1"),
            ("rubbish", "127.0.0.1", Some("unknown"), "127.0.0.1"),
            ("an empty list", "127.0.0.1", Some(""), "127.0.0.1"),
        ] {
            let peer = peer.parse().expect("an address");
            assert_eq!(behind_proxy(peer, list).to_string(), expected, "{why}");
        }
    }
}
