//! What a section of the file is: typed fields, each with its name, documentation and default in
//! one place, from which the reader, the defaults and the sample are made.

use super::document::{Reading, Table};

/// One key, as the sample shows it.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The lines of the field's documentation, each with its leading space.
    pub(crate) doc: &'static [&'static str],
    /// The default as TOML.
    pub(crate) default: String,
    /// What the sample shows where the default is empty and says nothing.
    pub(crate) example: Option<&'static str>,
}

/// A section of the file.
pub(crate) trait Section: Default {
    /// The lines of the section's documentation, each with its leading space.
    const DOC: &'static [&'static str];
    /// The names of its keys.
    const NAMES: &'static [&'static str];

    /// Reads the section: keys that are not written keep what `defaults` has, keys that are neither
    /// its own nor among `subsections` are problems.
    fn read<'t>(
        table: &Table<'_, 't>,
        defaults: Self,
        subsections: &[&str],
        reading: &mut Reading<'t>,
    ) -> Self;

    /// Describes its keys, with the values of `self` as the defaults.
    fn keys(&self) -> Vec<Key>;
}

/// Declares a section: documentation, and for each key its documentation, type, default and perhaps
/// an example.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $section:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $kind:ty = $default:expr $(, example $example:literal)?; )*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $section { $( $(#[doc = $doc])* pub $key: $kind, )* }

        impl Default for $section {
            fn default() -> Self {
                Self { $( $key: $default, )* }
            }
        }

        impl $crate::config::section::Section for $section {
            const DOC: &'static [&'static str] = &[$($section_doc),*];
            const NAMES: &'static [&'static str] = &[$(stringify!($key)),*];

            fn read<'t>(
                table: &$crate::config::document::Table<'_, 't>,
                defaults: Self,
                subsections: &[&str],
                reading: &mut $crate::config::document::Reading<'t>,
            ) -> Self {
                use $crate::config::section::read_key;
                let known: Vec<&str> = Self::NAMES.iter().chain(subsections).copied().collect();
                table.refuse_unknown(&known, reading);
                let keys = Self::keys(&defaults);
                let mut described = keys.iter();
                Self { $( $key: read_key(table, described.next(), defaults.$key, reading), )* }
            }

            fn keys(&self) -> Vec<$crate::config::section::Key> {
                use $crate::config::values::ConfigValue;
                vec![$( $crate::config::section::Key {
                    name: stringify!($key),
                    doc: &[$($doc),*],
                    default: ConfigValue::write(&self.$key),
                    example: [$($example)?].first().copied(),
                } ),*]
            }
        }
    };
}

pub(crate) use section;

/// Reads one key of a section; a value of the wrong kind becomes a problem with an example that
/// would do.
pub(crate) fn read_key<'t, T: super::values::ConfigValue>(
    table: &Table<'_, 't>,
    key: Option<&Key>,
    default: T,
    reading: &mut Reading<'t>,
) -> T {
    let Some(key) = key else { return default };
    let Some(value) = table.value(key.name, reading) else { return default };
    match T::read(value) {
        Ok(value) => value,
        Err(trouble) => {
            let full_name = match table.name {
                "" => key.name.to_owned(),
                section => format!("{section}.{}", key.name),
            };
            let would_do = key.example.unwrap_or(&key.default);
            let example = format!("for example `{} = {would_do}`", key.name);
            reading.problem(&full_name, trouble, Some(example));
            default
        }
    }
}
