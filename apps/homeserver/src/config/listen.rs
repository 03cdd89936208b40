//! `[listen.*]`: where the server waits for connections.

use std::net::IpAddr;
use std::path::PathBuf;

use super::section::section;

section! {
    /// Plain HTTP: client, federation, media and key APIs. On anything but loopback put a proxy in
    /// front that speaks TLS.
    HttpListener {
        /// An address or a name; "::" and "0.0.0.0" listen everywhere.
        host: String = "127.0.0.1".to_owned();
        /// The port; 0 takes a free one.
        port: u16 = 8008;
    }
}

section! {
    /// The same over TLS. Certificate and key are read again on SIGHUP.
    HttpsListener {
        /// An address or a name; "::" and "0.0.0.0" listen everywhere.
        host: String = "0.0.0.0".to_owned();
        /// The port; 0 takes a free one.
        port: u16 = 8448;
        /// The certificate and its chain, in PEM.
        certificate: PathBuf = PathBuf::new(), example "\"fullchain.pem\"";
        /// The certificate's private key, in PEM.
        private_key: PathBuf = PathBuf::new(), example "\"privkey.pem\"";
    }
}

section! {
    /// Metrics for Prometheus.
    MetricsListener {
        /// An address or a name; the page needs no password, so keep it on a private network.
        host: String = "127.0.0.1".to_owned();
        /// The port; 0 takes a free one.
        port: u16 = 9008;
    }
}

/// All listeners; `None` is off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listen {
    /// Plain HTTP is on unless configured otherwise.
    pub http: HttpListener,
    /// HTTP over TLS.
    pub https: Option<HttpsListener>,
    /// The metrics page.
    pub metrics: Option<MetricsListener>,
}

/// Returns whether a listener on `host` can be reached from this machine only.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => {
            address.to_ipv4_mapped().map_or(address.is_loopback(), |mapped| mapped.is_loopback())
        }
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_is_told_from_the_rest_of_the_world() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("::1", true),
            ("[::1]", true),
            ("::ffff:127.0.0.1", true),
            ("localhost", true),
            ("0.0.0.0", false),
            ("::", false),
            ("192.0.2.1", false),
            ("::ffff:192.0.2.1", false),
            ("matrix.example.org", false),
            ("localhost.example.org", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
