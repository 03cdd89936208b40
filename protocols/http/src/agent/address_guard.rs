//! [`AddressGuard`]: which addresses may be connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

pub use ipnet::IpNet;
use ipnet::{Ipv4Net, Ipv6Net};

/// Decides about the addresses that names resolve to, so that a URL from outside cannot make a program
/// talk to its own machine or network.
///
/// An IPv6 address in which an IPv4 address is wrapped (mapped, 6to4, NAT64) is judged by both. What is
/// [permitted](Self::permit) expressly is permitted, whatever is refused besides.
///
/// ```
/// use ropewalk_http::AddressGuard;
///
/// let guard = AddressGuard::public_only().permit("10.8.0.0/16".parse()?);
/// assert!(guard.permits("198.41.0.4".parse()?));
/// assert!(guard.permits("10.8.3.1".parse()?));
/// assert!(!guard.permits("10.9.0.1".parse()?));
/// assert!(!guard.permits("::ffff:127.0.0.1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AddressGuard {
    lists: Rc<Lists>,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    refused: Vec<IpNet>,
    permitted: Vec<IpNet>,
}

impl AddressGuard {
    /// Makes one that permits every address.
    pub fn none() -> Self {
        AddressGuard::default()
    }

    /// Makes one that refuses everything that is not a public unicast address: loopback, private,
    /// link-local, shared, documentation and benchmarking ranges, multicast, and what is reserved
    /// (the special-purpose registries of RFC 6890).
    pub fn public_only() -> Self {
        let v4 = NOT_PUBLIC_V4.iter().map(|&(a, b, c, d, bits)| {
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits))
        });
        let v6 = NOT_PUBLIC_V6.iter().map(|&(first, second, bits)| {
            let address = Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0);
            IpNet::V6(Ipv6Net::new_assert(address, bits))
        });
        let local = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, LOCAL_V6_BITS));
        let nat64_local = Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0);
        let nat64_local = IpNet::V6(Ipv6Net::new_assert(nat64_local, 48));
        let refused = v4.chain(v6).chain([local, nat64_local]).collect();
        AddressGuard { lists: Rc::new(Lists { refused, permitted: Vec::new() }) }
    }

    /// Refuses a range as well.
    #[must_use]
    pub fn refuse(mut self, range: IpNet) -> Self {
        Rc::make_mut(&mut self.lists).refused.push(range);
        self
    }

    /// Permits a range, whatever else is refused.
    #[must_use]
    pub fn permit(mut self, range: IpNet) -> Self {
        Rc::make_mut(&mut self.lists).permitted.push(range);
        self
    }

    /// Returns whether the address may be connected to.
    pub fn permits(&self, address: IpAddr) -> bool {
        let lists = &*self.lists;
        if lists.refused.is_empty() {
            return true;
        }
        let forms = [Some(address), wrapped(address).map(IpAddr::V4)];
        let is_in = |ranges: &[IpNet]| {
            forms.iter().flatten().any(|form| ranges.iter().any(|range| range.contains(form)))
        };
        is_in(&lists.permitted) || !is_in(&lists.refused)
    }
}

/// Returns the IPv4 address inside an IPv6 address that leads there.
fn wrapped(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, g, h] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d, e, f) {
        // Mapped (RFC 4291, section 2.5.5.2), compatible (2.5.5.1), translated (RFC 2765).
        (0, 0, 0, 0, 0, 0xffff | 0) | (0, 0, 0, 0, 0xffff, 0) => Some(join(g, h)),
        // NAT64 (RFC 6052).
        (0x64, 0xff9b, 0, 0, 0, 0) => Some(join(g, h)),
        // 6to4 (RFC 3056).
        (0x2002, ..) => Some(join(b, c)),
        _ => None,
    }
}

/// RFC 6890 and the registry that it set up, and the ranges for multicast (RFC 5771) and for nobody
/// (RFC 1112).
const NOT_PUBLIC_V4: &[(u8, u8, u8, u8, u8)] = &[
    (0, 0, 0, 0, 8),
    (10, 0, 0, 0, 8),
    (100, 64, 0, 0, 10),
    (127, 0, 0, 0, 8),
    (169, 254, 0, 0, 16),
    (172, 16, 0, 0, 12),
    (192, 0, 0, 0, 24),
    (192, 0, 2, 0, 24),
    (192, 88, 99, 0, 24),
    (192, 168, 0, 0, 16),
    (198, 18, 0, 0, 15),
    (198, 51, 100, 0, 24),
    (203, 0, 113, 0, 24),
    (224, 0, 0, 0, 4),
    (240, 0, 0, 0, 4),
];

/// The same for IPv6, by the first two groups: discard-only, IETF protocols (Teredo among them),
/// documentation, segment routing, unique local, link-local, site-local, multicast.
const NOT_PUBLIC_V6: &[(u16, u16, u8)] = &[
    (0x0100, 0, 64),
    (0x2001, 0, 23),
    (0x2001, 0x0db8, 32),
    (0x3fff, 0, 20),
    (0x5f00, 0, 16),
    (0xfc00, 0, 7),
    (0xfe80, 0, 10),
    (0xfec0, 0, 10),
    (0xff00, 0, 8),
];

/// Unspecified and loopback, and what is left of the compatible addresses around them.
const LOCAL_V6_BITS: u8 = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_left() {
        let guard = AddressGuard::public_only();
        for (why, address, permitted) in [
            ("a root server", "198.41.0.4", true),
            ("a root server", "2001:503:ba3e::2:30", true),
            ("below a private range", "9.255.255.255", true),
            ("private", "10.0.0.1", false),
            ("shared", "100.127.255.255", false),
            ("loopback", "127.8.8.8", false),
            ("link-local, where clouds keep their secrets", "169.254.169.254", false),
            ("private", "172.31.0.1", false),
            ("above a private range", "172.32.0.1", true),
            ("private", "192.168.0.1", false),
            ("this network", "0.0.0.0", false),
            ("multicast", "224.0.0.251", false),
            ("broadcast", "255.255.255.255", false),
            ("unspecified", "::", false),
            ("loopback", "::1", false),
            ("unique local", "fd00::1", false),
            ("link-local", "fe80::1", false),
            ("multicast", "ff02::1", false),
            ("documentation", "2001:db8::1", false),
            ("Teredo", "2001:0:4136:e378::", false),
            ("mapped loopback", "::ffff:127.0.0.1", false),
            ("mapped public", "::ffff:198.41.0.4", true),
            ("compatible private", "::10.0.0.1", false),
            ("NAT64 to a private address", "64:ff9b::10.0.0.1", false),
            ("NAT64 to a public address", "64:ff9b::198.41.0.4", true),
            ("NAT64 of the operator's own", "64:ff9b:1::1", false),
            ("6to4 of a private address", "2002:0a00:0001::1", false),
        ] {
            assert_eq!(guard.permits(address.parse().unwrap()), permitted, "{why}: {address}");
        }
    }

    #[test]
    fn what_is_permitted_expressly_wins() {
        let guard = AddressGuard::none()
            .refuse("0.0.0.0/0".parse().unwrap())
            .permit("127.0.0.1/32".parse().unwrap());
        assert!(guard.permits("127.0.0.1".parse().unwrap()));
        assert!(guard.permits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!guard.permits("127.0.0.2".parse().unwrap()));
        assert!(guard.permits("::2:1:1".parse().unwrap()), "no word about IPv6");
        assert!(AddressGuard::none().permits("127.0.0.1".parse().unwrap()));
    }
}
