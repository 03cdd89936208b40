//! The commented sample configuration, made from the same declarations as the reader.

use std::fmt::Write as _;

use super::rate_limits::{RateLimit, RateLimitSwitch, RateLimits};
use super::raw::RawConfig;
use super::section::{Key, Section};

/// A section as the sample shows it.
struct Shown {
    name: &'static str,
    doc: &'static [&'static str],
    keys: Vec<Key>,
    /// Off unless written, so that its heading is commented out as well.
    optional: bool,
}

fn shown<S: Section>(name: &'static str, section: &S) -> Shown {
    Shown { name, doc: S::DOC, keys: section.keys(), optional: false }
}

fn shown_optional<S: Section>(name: &'static str) -> Shown {
    Shown { name, doc: S::DOC, keys: S::default().keys(), optional: true }
}

/// Every section in the order of the sample.
fn sections() -> Vec<Shown> {
    let raw = RawConfig::default();
    let mut all = vec![
        shown("", &raw.server),
        shown("listen.http", &raw.listen.http),
        shown_optional::<super::listen::HttpsListener>("listen.https"),
        shown_optional::<super::listen::MetricsListener>("listen.metrics"),
        shown("database", &raw.database),
        shown("federation", &raw.federation),
        shown("outgoing", &raw.outgoing),
        shown("registration", &raw.registration),
        shown("passwords", &raw.passwords),
        shown("rate_limits", &RateLimitSwitch::default()),
    ];
    all.extend(rate_limits(raw.rate_limits));
    all.extend([
        shown("sync", &raw.sync),
        shown("media", &raw.media),
        shown("url_previews", &raw.url_previews),
        shown("room_directory", &raw.room_directory),
        shown("appservices", &raw.appservices),
        shown_optional::<super::smtp::Smtp>("smtp"),
        shown_optional::<super::recaptcha::Recaptcha>("recaptcha"),
        shown_optional::<super::cas::Cas>("cas"),
        shown("messages", &raw.messages),
        shown("presence", &raw.presence),
        shown_optional::<super::workers::Workers>("workers"),
        shown_optional::<super::replication::Replication>("replication"),
    ]);
    all
}

/// The limits share one documentation, which stands with the first.
fn rate_limits(mut limits: RateLimits) -> Vec<Shown> {
    let headings: [(&str, &'static str, &'static [&'static str]); 8] = [
        ("message", "rate_limits.message", &[" Events that a user sends."]),
        ("login", "rate_limits.login", &[" Attempts to log in, by address and by account."]),
        (
            "registration",
            "rate_limits.registration",
            &[" Attempts to make an account, by address."],
        ),
        ("join", "rate_limits.join", &[" Joins of a user."]),
        ("invite", "rate_limits.invite", &[" Invitations that a user sends."]),
        ("third_party", "rate_limits.third_party", &[" Requests that send a mail, by address."]),
        ("media", "rate_limits.media", &[" Uploads and downloads of a user."]),
        ("federation", "rate_limits.federation", &[" Requests of another server."]),
    ];
    let mut all = Vec::new();
    for (name, full_name, doc) in headings {
        let Some(limit) = limits.by_name_mut(name) else { continue };
        let mut keys = RateLimit::keys(limit);
        if !all.is_empty() {
            keys.iter_mut().for_each(|key| key.doc = &[]);
        }
        all.push(Shown { name: full_name, doc, keys, optional: false });
    }
    all
}

/// Returns the names of the sections that have a key called `key`.
pub(crate) fn sections_with_key(key: &str) -> Vec<&'static str> {
    let has_key = |section: &Shown| section.keys.iter().any(|known| known.name == key);
    sections().into_iter().filter(has_key).map(|section| section.name).collect()
}

/// Returns the sample: every key with its documentation and default, commented out, but for the
/// `live` lines, which take the place of the keys they set.
pub fn sample(live: &[(&str, &str)]) -> String {
    let mut text = String::from(
        "# Configuration of the Ropewalk homeserver.\n\
         #\n\
         # A line `#key = value` shows the default, or an example where it says so: take off the `#` to change it.\n\
         # Relative paths are relative to this file's folder, except where a comment says data_dir.\n\
         # `homeserver check-config --config FILE` says what is wrong with a file.\n",
    );
    for section in sections() {
        write_section(&mut text, &section, live);
    }
    text
}

fn write_section(text: &mut String, section: &Shown, live: &[(&str, &str)]) {
    text.push('\n');
    if !section.name.is_empty() {
        section.doc.iter().for_each(|line| push_line(text, &format!("#{line}")));
        let off = if section.optional { "#" } else { "" };
        push_line(text, &format!("{off}[{}]", section.name));
    }
    for key in &section.keys {
        for (index, line) in key.doc.iter().enumerate() {
            let last = index + 1 == key.doc.len();
            let example = if last && key.example.is_some() { " (example)" } else { "" };
            push_line(text, &format!("#{line}{example}"));
        }
        let full_name = match section.name {
            "" => key.name.to_owned(),
            name => format!("{name}.{}", key.name),
        };
        match live.iter().find(|(name, _)| *name == full_name) {
            Some((_, value)) => push_line(text, &format!("{} = {value}", key.name)),
            None => {
                let value = key.example.unwrap_or(&key.default);
                push_line(text, &format!("#{} = {value}", key.name));
            }
        }
    }
}

fn push_line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the `#` off every line that is a key or a heading, except examples.
    fn switched_on(sample: &str, headings: bool, examples: bool) -> String {
        let mut lines = Vec::new();
        let (mut is_example, mut in_optional) = (false, false);
        for line in sample.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                is_example = comment.ends_with("(example)");
            }
            let bare = line.strip_prefix('#').unwrap_or(line);
            if bare.starts_with('[') {
                in_optional = line.starts_with('#');
            }
            let is_key = !bare.starts_with(' ') && (bare.contains(" = ") || bare.starts_with('['));
            if is_key && (headings || !in_optional) && (examples || !is_example) {
                lines.push(bare.to_owned());
            }
            if is_key {
                is_example = false;
            }
        }
        lines.join("\n")
    }

    #[test]
    fn the_sample_as_written_is_the_defaults() {
        let (raw, reading) = RawConfig::read(&sample(&[])).clone_result();
        assert_eq!(reading, []);
        assert_eq!(raw, RawConfig::default());
    }

    #[test]
    fn the_sample_with_every_default_switched_on_is_the_defaults() {
        let text = switched_on(&sample(&[]), false, false);
        let (raw, problems) = RawConfig::read(&text).clone_result();
        assert_eq!(problems, [], "{text}");
        assert_eq!(raw, RawConfig::default());
    }

    #[test]
    fn every_key_and_example_of_the_sample_is_accepted() {
        let text = switched_on(&sample(&[]), true, true);
        let (raw, problems) = RawConfig::read(&text).clone_result();
        assert_eq!(problems, [], "{text}");
        assert_eq!(raw.smtp, Some(super::super::smtp::Smtp::default()));
        assert_eq!(raw.workers.expect("written").instances.len(), 1);
        assert!(raw.listen.https.is_some() && raw.listen.metrics.is_some());
    }

    #[test]
    fn live_lines_take_the_place_of_their_keys() {
        let text = sample(&[("server_name", "\"hs.example\""), ("listen.http.port", "0")]);
        let (raw, problems) = RawConfig::read(&text).clone_result();
        assert_eq!(problems, []);
        assert_eq!(raw.server.server_name.expect("live").as_str(), "hs.example");
        assert_eq!(raw.listen.http.port, 0);
    }

    #[test]
    fn the_sample_fits_a_hundred_and_twenty_columns() {
        for line in sample(&[]).lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }

    trait CloneResult {
        fn clone_result(self) -> (RawConfig, Vec<super::super::document::ConfigProblem>);
    }

    impl CloneResult for (RawConfig, super::super::document::Reading<'_>) {
        fn clone_result(self) -> (RawConfig, Vec<super::super::document::ConfigProblem>) {
            (self.0, self.1.into_problems())
        }
    }
}
