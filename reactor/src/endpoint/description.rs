//! Descriptions of endpoints, as text: `kind:value:name=value`.
//!
//! Owns the cutting up, the escaping, and what an error says; which settings there are is said by a
//! [`Kind`], and what they mean by the modules for servers and clients.

use std::fmt;

/// What can be described.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// The settings that need no name, in their order.
    pub(super) positional: &'static [&'static str],
    /// Those that do.
    pub(super) named: &'static [&'static str],
    pub(super) example: &'static str,
}

/// The text does not describe an endpoint.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "cannot read endpoint {description:?}: {piece:?} at byte {position} {problem}; an example: {example:?}"
)]
#[non_exhaustive]
pub struct DescriptionError {
    /// The text, or its beginning.
    pub description: String,
    /// Where the offending piece begins, in bytes.
    pub position: usize,
    /// The offending piece, or its beginning, without escapes.
    pub piece: String,
    /// What is wrong with it.
    pub problem: String,
    /// What would do.
    pub example: &'static str,
}

/// A description in pieces.
pub(super) struct Settings<'a> {
    text: &'a str,
    kind: Piece,
    values: Vec<Setting>,
}

#[derive(Clone, Debug, Default)]
struct Piece {
    position: usize,
    text: String,
}

struct Setting {
    name: Option<Piece>,
    value: Piece,
    is_taken: bool,
}

impl<'a> Settings<'a> {
    /// Cuts a description up.
    pub(super) fn split(text: &'a str) -> Settings<'a> {
        let mut cutter = Cutter { text, position: 0 };
        let kind = cutter.value();
        let mut values = Vec::new();
        while cutter.skip(':') {
            let first = cutter.name_or_value();
            let is_named = cutter.skip('=');
            let (name, value) =
                if is_named { (Some(first), cutter.value()) } else { (None, first) };
            values.push(Setting { name, value, is_taken: false });
        }
        Settings { text, kind, values }
    }

    /// Finds out what is described.
    pub(super) fn kind(
        &self,
        kinds: &'static [&'static Kind],
    ) -> Result<&'static Kind, DescriptionError> {
        let known = || kinds.iter().map(|kind| kind.name);
        if let Some(kind) = kinds.iter().find(|kind| kind.name == self.kind.text) {
            return Ok(kind);
        }
        let names: Vec<_> = known().collect();
        let problem = format!(
            "is no kind of endpoint{}; known are {}",
            suggestion(&self.kind.text, known()),
            names.join(", ")
        );
        Err(self.error(&self.kind, problem, kinds.first().map_or("", |kind| kind.example)))
    }

    /// Takes a setting if it is there, and has `read` make something of it.
    pub(super) fn take<T>(
        &mut self,
        kind: &'static Kind,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, DescriptionError> {
        let position = kind.positional.iter().position(|&known| known == name);
        let mut found = None;
        let mut unnamed = 0;
        for index in 0..self.values.len() {
            let setting = &self.values[index];
            let is_it = match &setting.name {
                Some(given) => given.text == name,
                None => {
                    unnamed += 1;
                    position == Some(unnamed - 1)
                }
            };
            if !is_it {
                continue;
            }
            if found.is_some() {
                let piece = setting.name.as_ref().unwrap_or(&setting.value);
                let problem = format!("says a second time what {name} is");
                return Err(self.error(piece, problem, kind.example));
            }
            found = Some(index);
        }
        let Some(index) = found else { return Ok(None) };
        self.values[index].is_taken = true;
        match read(&self.values[index].value.text) {
            Ok(value) => Ok(Some(value)),
            Err(expected) => {
                let problem = format!("is no {name}; it should be {expected}");
                Err(self.error(&self.values[index].value, problem, kind.example))
            }
        }
    }

    /// Takes a setting that has to be there.
    pub(super) fn require<T>(
        &mut self,
        kind: &'static Kind,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, DescriptionError> {
        match self.take(kind, name, read)? {
            Some(value) => Ok(value),
            None => Err(self.missing(kind, &format!("lacks its {name}"))),
        }
    }

    /// Takes the empty value behind a colon that ends the description, if there is one.
    pub(super) fn take_nothing(&mut self) {
        if let [only] = &mut self.values[..]
            && only.name.is_none()
            && only.value.text.is_empty()
        {
            only.is_taken = true;
        }
    }

    /// Complains that something is not there.
    pub(super) fn missing(&self, kind: &'static Kind, problem: &str) -> DescriptionError {
        self.error(&self.kind, problem.to_owned(), kind.example)
    }

    /// Makes sure that nothing was left over.
    pub(super) fn finish(&self, kind: &'static Kind) -> Result<(), DescriptionError> {
        let Some(left) = self.values.iter().find(|setting| !setting.is_taken) else {
            return Ok(());
        };
        let Some(name) = &left.name else {
            let problem = match kind.positional {
                [] => format!("has no name, and {} takes only settings with one", kind.name),
                known => format!(
                    "is one too many: without a name, {} takes only its {}",
                    kind.name,
                    known.join(" and its ")
                ),
            };
            return Err(self.error(&left.value, problem, kind.example));
        };
        let problem = match RETIRED.iter().find(|(retired, _)| *retired == name.text) {
            Some((_, why)) => format!("is not a setting here: {why}"),
            None => {
                let known = kind.positional.iter().chain(kind.named).copied();
                let suggestion = suggestion(&name.text, known);
                format!("is no setting of {}{suggestion}", kind.name)
            }
        };
        Err(self.error(name, problem, kind.example))
    }

    fn error(&self, piece: &Piece, problem: String, example: &'static str) -> DescriptionError {
        let shortened = |text: &str| text.chars().take(SHOWN_CHARS_MAX).collect();
        DescriptionError {
            description: shortened(self.text),
            position: piece.position,
            piece: shortened(&piece.text),
            problem,
            example,
        }
    }
}

struct Cutter<'a> {
    text: &'a str,
    position: usize,
}

impl Cutter<'_> {
    fn skip(&mut self, separator: char) -> bool {
        let is_there = self.text[self.position..].starts_with(separator);
        if is_there {
            self.position += separator.len_utf8();
        }
        is_there
    }

    fn value(&mut self) -> Piece {
        self.piece(&[':'])
    }

    fn name_or_value(&mut self) -> Piece {
        self.piece(&[':', '='])
    }

    /// Takes what comes before one of these. A backslash takes the next character as it is; so do
    /// brackets, those of an IPv6 address, with all that is in them.
    fn piece(&mut self, ends: &[char]) -> Piece {
        let mut piece = Piece { position: self.position, text: String::new() };
        let rest = &self.text[self.position..];
        let bracketed = rest.strip_prefix('[').and_then(|rest| rest.find(']')).map(|end| end + 2);
        let mut characters = rest.char_indices();
        while let Some((index, character)) = characters.next() {
            if bracketed.is_none_or(|end| index >= end) && ends.contains(&character) {
                self.position += index;
                return piece;
            }
            match character {
                // At the very end it means itself.
                '\\' => piece.text.push(characters.next().map_or('\\', |(_, next)| next)),
                character => piece.text.push(character),
            }
        }
        self.position = self.text.len();
        piece
    }
}

/// Writes a description.
pub(super) struct Writer<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
}

impl<'a, 'b> Writer<'a, 'b> {
    pub(super) fn begin(
        out: &'a mut fmt::Formatter<'b>,
        kind: &Kind,
    ) -> Result<Writer<'a, 'b>, fmt::Error> {
        out.write_str(kind.name)?;
        Ok(Writer { out })
    }

    /// Writes a value without a name.
    pub(super) fn value(&mut self, value: impl fmt::Display) -> fmt::Result {
        write!(self.out, ":{}", escaped(&value.to_string(), &['\\', ':', '=']))
    }

    /// Writes a setting.
    pub(super) fn setting(&mut self, name: &str, value: impl fmt::Display) -> fmt::Result {
        write!(self.out, ":{name}={}", escaped(&value.to_string(), &['\\', ':']))
    }

    /// Writes a setting if it is there.
    pub(super) fn option(&mut self, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.setting(name, value))
    }

    /// Writes a setting if it is not what it would be anyway.
    pub(super) fn unless<T: fmt::Display + PartialEq>(
        &mut self,
        default: T,
        name: &str,
        value: T,
    ) -> fmt::Result {
        if value == default { Ok(()) } else { self.setting(name, value) }
    }
}

/// Puts a backslash before these, and before a bracket that is not an address's.
fn escaped(text: &str, special: &[char]) -> String {
    let is_address = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .is_some_and(|text| !text.contains(['[', ']', '\\']));
    if is_address {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len());
    for (index, character) in text.char_indices() {
        if special.contains(&character) || (index == 0 && character == '[') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Returns the known word that was probably meant.
fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known
        .map(|known| (distance(&word.to_lowercase(), &known.to_lowercase()), known))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, known)) if distance <= known.len() / 2 => {
            format!(", did you mean {known:?}?")
        }
        _ => String::new(),
    }
}

/// Returns how many letters have to be put in, left out, changed, or swapped with the next.
fn distance(one: &str, other: &str) -> usize {
    let letters = |text: &str| text.chars().take(SHOWN_CHARS_MAX).collect::<Vec<_>>();
    let (one, other) = (letters(one), letters(other));
    let mut rows: Vec<Vec<usize>> = vec![(0..=one.len()).collect()];
    for line in 1..=other.len() {
        let mut row = vec![line];
        for column in 1..=one.len() {
            let above = &rows[line - 1];
            let is_same = one[column - 1] == other[line - 1];
            let mut least = above[column - 1] + usize::from(!is_same);
            least = least.min(above[column] + 1).min(row[column - 1] + 1);
            let is_swapped = line > 1
                && column > 1
                && one[column - 1] == other[line - 2]
                && one[column - 2] == other[line - 1];
            if is_swapped {
                least = least.min(rows[line - 2][column - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[other.len()][one.len()]
}

/// Settings that Twisted's descriptions have and ours have no need of.
const RETIRED: &[(&str, &str)] = &[
    ("caCertsDir", "give the certificates in one file, as trustRoots"),
    ("dhParameters", "rustls has its own; leave it out"),
    ("lockfile", "a stale socket is found without one that lies there all the time; leave it out"),
    ("sslmethod", "both ends agree on a version; leave it out"),
];

/// What an error shows of a text that may be anything.
const SHOWN_CHARS_MAX: usize = 200;
