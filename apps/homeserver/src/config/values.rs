//! The kinds of values that a key can have: how each is read from TOML, and how it is written in
//! the sample.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ruma::{OwnedServerName, RoomVersionId, ServerName};
use toml::de::DeValue;
use zeroize::Zeroize;

use super::document::found;

/// A value that a key can have.
pub(crate) trait ConfigValue: Sized {
    /// Reads it; the error says what was found and what was expected.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;

    /// Writes it as TOML, for the sample.
    fn write(&self) -> String;
}

fn wrong<T>(value: &DeValue<'_>, expected: &str) -> Result<T, String> {
    Err(format!("found {}, expected {expected}", found(value)))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl ConfigValue for bool {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().map_or_else(|| wrong(value, "true or false"), Ok)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for u16 {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        const EXPECTED: &str = "a port number from 0 to 65535 (0 takes a free one)";
        whole_number(value)
            .and_then(|number| u16::try_from(number).ok())
            .map_or_else(|| wrong(value, EXPECTED), Ok)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for NonZeroUsize {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        whole_number(value)
            .and_then(|number| usize::try_from(number).ok())
            // More threads than this is a slip of the pen, and would exhaust the system at start.
            .filter(|number| *number <= 1024)
            .and_then(NonZeroUsize::new)
            .map_or_else(|| wrong(value, "a whole number from 1 to 1024"), Ok)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for NonZeroU32 {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        whole_number(value)
            .and_then(|number| u32::try_from(number).ok())
            .and_then(NonZeroU32::new)
            .map_or_else(|| wrong(value, "a whole number from 1"), Ok)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

fn whole_number(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl ConfigValue for String {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map_or_else(|| wrong(value, "a string"), |text| Ok(text.to_owned()))
    }

    fn write(&self) -> String {
        quoted(self)
    }
}

impl ConfigValue for PathBuf {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map_or_else(|| wrong(value, "a path in quotes"), |text| Ok(text.into()))
    }

    fn write(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

/// Lists; each element is read by its own kind.
impl<T: ConfigValue> ConfigValue for Vec<T> {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let Some(array) = value.as_array() else { return wrong(value, "a list in brackets") };
        array.iter().map(|element| T::read(element.get_ref())).collect()
    }

    fn write(&self) -> String {
        let elements: Vec<String> = self.iter().map(T::write).collect();
        format!("[{}]", elements.join(", "))
    }
}

/// A value that can be left out: the empty string is the same as not writing the key.
impl<T: ConfigValue> ConfigValue for Option<T> {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        if value.as_str() == Some("") { Ok(None) } else { T::read(value).map(Some) }
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| "\"\"".to_owned(), T::write)
    }
}

impl ConfigValue for OwnedServerName {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        const EXPECTED: &str = "a server name such as \"example.org\" or \"example.org:8448\"";
        let Some(text) = value.as_str() else { return wrong(value, EXPECTED) };
        // Identifiers are at most 255 bytes; a name this long still leaves room for a localpart.
        let parsed = <&ServerName>::try_from(text).ok().filter(|_| text.len() <= 230);
        parsed.map_or_else(|| wrong(value, EXPECTED), |name| Ok(name.to_owned()))
    }

    fn write(&self) -> String {
        quoted(self.as_str())
    }
}

impl ConfigValue for RoomVersionId {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        const EXPECTED: &str = "a room version from \"6\" to \"12\", in quotes";
        let number = value.as_str().filter(|text| !text.starts_with(['0', '+']));
        match number.and_then(|text| text.parse::<u8>().ok()) {
            Some(6..=12) => RoomVersionId::try_from(value.as_str().unwrap_or_default())
                .or(wrong(value, EXPECTED)),
            _ => wrong(value, EXPECTED),
        }
    }

    fn write(&self) -> String {
        quoted(self.as_str())
    }
}

impl ConfigValue for log::LevelFilter {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().and_then(|text| text.parse().ok()).map_or_else(
            || wrong(value, "one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\""),
            Ok,
        )
    }

    fn write(&self) -> String {
        quoted(&self.as_str().to_ascii_lowercase())
    }
}

impl ConfigValue for Duration {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        const EXPECTED: &str =
            "a duration with its unit: \"500ms\", \"30s\", \"5m\", \"2h\", \"90d\"";
        value.as_str().and_then(parse_duration).map_or_else(|| wrong(value, EXPECTED), Ok)
    }

    fn write(&self) -> String {
        let milliseconds = self.as_millis();
        let (_, name, factor) = DURATION_UNITS
            .iter()
            .map(|(name, factor)| (milliseconds.is_multiple_of(u128::from(*factor)), name, factor))
            .rfind(|(whole, _, _)| *whole && milliseconds > 0)
            .unwrap_or((true, &"s", &1000));
        quoted(&format!("{}{name}", milliseconds / u128::from(*factor)))
    }
}

/// Unit and its length in milliseconds, the longest last.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

fn parse_duration(text: &str) -> Option<Duration> {
    let (count, unit) = count_and_unit(text)?;
    let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    count.checked_mul(*factor).map(Duration::from_millis)
}

fn count_and_unit(text: &str) -> Option<(u64, &str)> {
    let unit_at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (count, unit) = text.split_at(unit_at);
    Some((count.parse().ok()?, unit.trim_start()))
}

/// A number of bytes, written with its unit.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(pub u64);

/// Unit and its size in bytes, the largest last.
const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl ConfigValue for ByteSize {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        const EXPECTED: &str = "a size with its unit: \"512B\", \"64KiB\", \"50MiB\", \"2GiB\"";
        let parsed = value.as_str().and_then(|text| {
            let (count, unit) = count_and_unit(text)?;
            let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
            count.checked_mul(*factor).map(ByteSize)
        });
        parsed.map_or_else(|| wrong(value, EXPECTED), Ok)
    }

    fn write(&self) -> String {
        let (name, factor) = SIZE_UNITS
            .iter()
            .rfind(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&SIZE_UNITS[0]);
        quoted(&format!("{}{name}", self.0 / factor))
    }
}

/// How often something may happen, on average.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct PerSecond(pub f64);

impl ConfigValue for PerSecond {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let number = match value {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            // Counts beyond 2^53 are refused below, so nothing is lost.
            other => whole_number(other).map(|number| number as f64),
        };
        number
            .filter(|number| number.is_finite() && *number > 0.0 && *number <= 1e6)
            .map_or_else(|| wrong(value, "a number above 0, at most 1000000"), |n| Ok(PerSecond(n)))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// An `http://` or `https://` address, as written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebAddress(String);

impl WebAddress {
    /// Returns the address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address without trailing slashes, to put a path behind.
    pub fn without_slash(&self) -> &str {
        self.0.trim_end_matches('/')
    }
}

impl ConfigValue for WebAddress {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        const EXPECTED: &str = "an address that starts with \"https://\" or \"http://\"";
        let Some(text) = value.as_str() else { return wrong(value, EXPECTED) };
        let parsed = http::Uri::try_from(text).ok();
        let good = parsed.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if good { Ok(Self(text.to_owned())) } else { wrong(value, EXPECTED) }
    }

    fn write(&self) -> String {
        quoted(&self.0)
    }
}

/// A host and a port, `127.0.0.1:9092`; the host may be a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// A name or an address, IPv6 without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl ConfigValue for HostPort {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let parsed = value.as_str().and_then(|text| {
            let (host, port) = text.rsplit_once(':')?;
            let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
            (!host.is_empty()).then_some(())?;
            Some(Self { host: host.to_owned(), port: port.parse().ok()? })
        });
        parsed.map_or_else(|| wrong(value, "host and port, such as \"127.0.0.1:9092\""), Ok)
    }

    fn write(&self) -> String {
        quoted(&self.to_string())
    }
}

/// A range of addresses, `10.0.0.0/8`; a single address is a range of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Returns whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |a: u128, b: u128, width: u32| {
            let differing = a ^ b;
            differing.checked_shr(width - u32::from(self.prefix_bits)).unwrap_or(0) == 0
        };
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                shared(u32::from(ours).into(), u32::from(other).into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => shared(ours.into(), other.into(), 128),
            _ => false,
        }
    }
}

impl ConfigValue for Network {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let parsed = value.as_str().and_then(|text| {
            let (address, bits) = match text.split_once('/') {
                Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let prefix_bits = bits.unwrap_or(width);
            (prefix_bits <= width).then_some(Self { address, prefix_bits })
        });
        parsed.map_or_else(|| wrong(value, "an address or range such as \"10.0.0.0/8\""), Ok)
    }

    fn write(&self) -> String {
        quoted(&format!("{}/{}", self.address, self.prefix_bits))
    }
}

/// A secret string: wiped from memory when dropped, absent from `Debug`.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the secret itself; keep it out of logs and errors.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl ConfigValue for Secret {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Ok(Self(text.clone().into_owned())),
            // The value is not shown: it may be the secret with its quotes forgotten.
            _ => Err("expected a string in quotes".to_owned()),
        }
    }

    fn write(&self) -> String {
        quoted(&self.0)
    }
}

/// A map whose names the operator chooses.
impl<T: ConfigValue> ConfigValue for BTreeMap<String, T> {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let Some(table) = value.as_table() else { return wrong(value, "a section") };
        table
            .iter()
            .map(|(name, element)| {
                let name = name.get_ref().to_string();
                match T::read(element.get_ref()) {
                    Ok(read) => Ok((name, read)),
                    Err(trouble) => Err(format!("{name}: {trouble}")),
                }
            })
            .collect()
    }

    fn write(&self) -> String {
        let entries: Vec<String> =
            self.iter().map(|(name, value)| format!("{name} = {}", value.write())).collect();
        match entries.is_empty() {
            true => "{}".to_owned(),
            false => format!("{{ {} }}", entries.join(", ")),
        }
    }
}

/// Makes an enum whose variants are written as fixed words.
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $variant_doc:literal])* $variant:ident = $word:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[doc = $variant_doc])* $variant,)* }

        impl $crate::config::values::ConfigValue for $name {
            fn read(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => Err(format!(
                        "found {}, expected one of {}",
                        $crate::config::document::found(value),
                        [$(concat!("\"", $word, "\"")),*].join(", ")
                    )),
                }
            }

            fn write(&self) -> String {
                match self { $(Self::$variant => concat!("\"", $word, "\"").to_owned(),)* }
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: ConfigValue>(text: &str) -> Result<T, String> {
        T::read(DeValue::parse(text).expect("the test's TOML parses").get_ref())
    }

    #[test]
    fn durations_need_a_unit_and_survive_being_written() {
        for (text, expected) in [
            ("\"500ms\"", Some(Duration::from_millis(500))),
            ("\"30s\"", Some(Duration::from_secs(30))),
            ("\"5 m\"", Some(Duration::from_secs(300))),
            ("\"2h\"", Some(Duration::from_secs(7200))),
            ("\"90d\"", Some(Duration::from_secs(90 * 86_400))),
            ("\"0s\"", Some(Duration::ZERO)),
            ("\"30\"", None),
            ("30", None),
            ("\"-1s\"", None),
            ("\"s\"", None),
            ("\"1y\"", None),
            ("\"99999999999999999999d\"", None),
            ("\"9999999999999999d\"", None),
        ] {
            let got = read::<Duration>(text).ok();
            assert_eq!(got, expected, "{text}");
            if let Some(duration) = got {
                assert_eq!(
                    read::<Duration>(&duration.write()),
                    Ok(duration),
                    "{text} written again"
                );
            }
        }
    }

    #[test]
    fn sizes_need_a_unit_and_survive_being_written() {
        for (text, expected) in [
            ("\"0B\"", Some(0)),
            ("\"50MiB\"", Some(50 << 20)),
            ("\"64 KiB\"", Some(64 << 10)),
            ("\"3GiB\"", Some(3 << 30)),
            ("\"50MB\"", None),
            ("50", None),
            ("\"99999999999999999GiB\"", None),
        ] {
            let got = read::<ByteSize>(text).ok();
            assert_eq!(got.map(|size| size.0), expected, "{text}");
            if let Some(size) = got {
                assert_eq!(read::<ByteSize>(&size.write()), Ok(size), "{text} written again");
            }
        }
    }

    #[test]
    fn networks_contain_what_they_should() {
        for (network, address, expected) in [
            ("\"10.0.0.0/8\"", "10.255.0.1", true),
            ("\"10.0.0.0/8\"", "11.0.0.1", false),
            ("\"192.0.2.7\"", "192.0.2.7", true),
            ("\"192.0.2.7\"", "192.0.2.6", false),
            ("\"0.0.0.0/0\"", "203.0.113.9", true),
            ("\"fd00::/8\"", "fd12::1", true),
            ("\"fd00::/8\"", "fe80::1", false),
            ("\"::/0\"", "10.0.0.1", false),
        ] {
            let parsed = read::<Network>(network).expect("a network");
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(parsed.contains(address), expected, "{network} {address}");
        }
        for bad in ["\"10.0.0.0/33\"", "\"ten\"", "\"::/129\"", "7"] {
            assert!(read::<Network>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn room_versions_outside_those_we_speak_are_refused() {
        for (text, good) in [
            ("\"6\"", true),
            ("\"12\"", true),
            ("\"5\"", false),
            ("\"13\"", false),
            ("12", false),
            ("\"+7\"", false),
            ("\"org.example\"", false),
        ] {
            assert_eq!(read::<RoomVersionId>(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_secret_shows_itself_to_nobody_by_accident() {
        let secret = read::<Secret>("\"hunter2\"").expect("a string");
        assert_eq!(secret.expose(), "hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(!read::<Secret>("424242").expect_err("not a string").contains("424242"));
    }
}
