//! A configuration file as text with positions: tables, values, lines, and the list of everything
//! that is wrong with it. Owns the wording of errors; knows no key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigProblem {
    /// The line, counted from 1; `None` where a key is missing altogether.
    pub line: Option<usize>,
    /// The key with its section (`registration.open`), empty for errors of the file's syntax.
    pub key: String,
    /// What was found, and what was expected instead.
    pub trouble: String,
    /// A line that would do, or another way out.
    pub example: Option<String>,
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigErrors {
    /// The file as it was named on the command line; `None` if the server runs without one.
    pub file: Option<PathBuf>,
    /// At least one problem.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match &self.file {
                Some(file) => write!(f, "{}:", file.display())?,
                None => f.write_str("built-in configuration:")?,
            }
            if let Some(line) = problem.line {
                write!(f, "{line}:")?;
            }
            if !problem.key.is_empty() {
                write!(f, " {}:", problem.key)?;
            }
            write!(f, " {}", problem.trouble)?;
            if let Some(example) = &problem.example {
                write!(f, "; {example}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects problems while a document is read, and remembers on which line each key stood.
pub(crate) struct Reading<'t> {
    text: &'t str,
    problems: Vec<ConfigProblem>,
    lines: BTreeMap<String, usize>,
}

impl<'t> Reading<'t> {
    /// Parses `text`; syntax errors become problems and what could be understood is returned.
    pub(crate) fn parse(text: &'t str) -> (Reading<'t>, Spanned<DeTable<'t>>) {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut reading = Reading { text, problems: Vec::new(), lines: BTreeMap::new() };
        for error in errors {
            let line = error.span().map(|span| reading.line_of(&span));
            reading.problems.push(ConfigProblem {
                line,
                key: String::new(),
                trouble: format!("not TOML: {}", error.message()),
                example: None,
            });
        }
        (reading, document)
    }

    /// Returns whether the text is not even TOML.
    pub(crate) fn is_broken(&self) -> bool {
        self.problems.iter().any(|problem| problem.key.is_empty())
    }

    /// Adds a problem with `key`, at its line if the file has that key.
    pub(crate) fn problem(
        &mut self,
        key: &str,
        trouble: impl Into<String>,
        example: Option<String>,
    ) {
        let line = self.lines.get(key).copied();
        self.problems.push(ConfigProblem {
            line,
            key: key.to_owned(),
            trouble: trouble.into(),
            example,
        });
    }

    /// Returns whether the file has `key` (with its section), or anything below it.
    pub(crate) fn is_written(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }

    /// Returns the line of `key`, counted from 1.
    pub(crate) fn line_of_key(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// Returns whether nothing was found wrong with `key` so far.
    pub(crate) fn has_no_problem_with(&self, key: &str) -> bool {
        self.problems.iter().all(|problem| problem.key != key)
    }

    /// Returns the problems, in the order of lines; those without a line come last.
    pub(crate) fn into_problems(mut self) -> Vec<ConfigProblem> {
        self.problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        self.problems
    }

    fn remember(&mut self, key: &str, span: &Range<usize>) {
        let line = self.line_of(span);
        self.lines.entry(key.to_owned()).or_insert(line);
    }

    fn line_of(&self, span: &Range<usize>) -> usize {
        let end = span.start.min(self.text.len());
        1 + self.text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count()
    }
}

/// One table of the document and the name it goes by.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a, 't> {
    /// `""` for the top of the file, otherwise `rate_limits.login`.
    pub(crate) name: &'a str,
    entries: &'a DeTable<'t>,
}

impl<'a, 't> Table<'a, 't> {
    /// The top of the file.
    pub(crate) fn top(entries: &'a DeTable<'t>) -> Self {
        Self { name: "", entries }
    }

    /// Returns the value of `key`, noting its line.
    pub(crate) fn value(&self, key: &str, reading: &mut Reading<'t>) -> Option<&'a DeValue<'t>> {
        let (name, value) = self.entries.get_key_value(key)?;
        reading.remember(&self.full_name(key), &name.span());
        Some(value.get_ref())
    }

    /// Returns the table below `key`; something else standing there is a problem.
    pub(crate) fn section<'n>(
        &self,
        key: &str,
        full_name: &'n str,
        reading: &mut Reading<'t>,
    ) -> Option<Table<'n, 't>>
    where
        'a: 'n,
    {
        match self.value(key, reading)? {
            DeValue::Table(entries) => Some(Table { name: full_name, entries }),
            other => {
                reading.problem(
                    full_name,
                    format!("found {}, expected a section", found(other)),
                    Some(format!("write its keys below a line `[{full_name}]`")),
                );
                None
            }
        }
    }

    /// Reports each key that is not among `known`, naming the one that was probably meant.
    pub(crate) fn refuse_unknown(&self, known: &[&str], reading: &mut Reading<'t>) {
        for (name, _) in self.entries {
            let key: &str = name.get_ref();
            if known.contains(&key) {
                continue;
            }
            let full_name = self.full_name(key);
            reading.remember(&full_name, &name.span());
            reading.problem(&full_name, "unknown key", Some(suggestion(self.name, key, known)));
        }
    }

    fn full_name(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// Says what to write instead of an unknown key.
fn suggestion(section: &str, key: &str, known: &[&str]) -> String {
    // One slip in three letters is about what still reads as the same word.
    let slips_max = (key.len() / 3).max(2);
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(key, name), *name))
        .min()
        .filter(|(slips, _)| *slips <= slips_max);
    if let Some((_, name)) = nearest {
        return format!("did you mean `{name}`?");
    }
    if let Some(elsewhere) =
        super::sample::sections_with_key(key).into_iter().find(|name| *name != section)
    {
        return match elsewhere {
            "" => format!("`{key}` belongs at the top of the file, before the first section"),
            name => format!("`{key}` belongs below a line `[{name}]`"),
        };
    }
    match section {
        "" => "`homeserver init` writes a sample with all keys".to_owned(),
        name => format!("[{name}] knows {}", known.join(", ")),
    }
}

/// Describes a value for an error: its kind, and itself if it is short.
pub(crate) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() <= 60 => format!("the string {text:?}"),
        DeValue::String(_) => "a long string".to_owned(),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

/// Reads a file's text, turning the system's error into a configuration error.
pub(crate) fn read_file(path: &Path) -> Result<String, ConfigErrors> {
    std::fs::read_to_string(path).map_err(|error| ConfigErrors {
        file: Some(path.to_owned()),
        problems: vec![ConfigProblem {
            line: None,
            key: String::new(),
            trouble: format!("cannot be read: {error}"),
            example: Some("`homeserver init` writes one to start from".to_owned()),
        }],
    })
}
