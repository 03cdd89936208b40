//! Values on their way into statements and out of rows.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::StorageError;

/// One value of SQL, borrowed: a statement's parameter or a row's column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Param<'a> {
    /// Raw bytes.
    Blob(&'a [u8]),
    /// A whole number.
    Integer(i64),
    /// SQL's NULL.
    Null,
    /// A floating-point number.
    Real(f64),
    /// Text.
    Text(&'a str),
}

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::Integer(number) => ValueRef::Integer(number),
            Self::Null => ValueRef::Null,
            Self::Real(number) => ValueRef::Real(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl From<i64> for Param<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Param<'_> {
    fn from(value: u32) -> Self {
        Self::Integer(i64::from(value))
    }
}

impl From<bool> for Param<'_> {
    fn from(value: bool) -> Self {
        Self::Integer(i64::from(value))
    }
}

impl From<f64> for Param<'_> {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Param<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Blob(value)
    }
}

impl<'a> From<&'a Vec<u8>> for Param<'a> {
    fn from(value: &'a Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

macro_rules! identifiers_are_text {
    ($($name:ident / $owned:ident),*) => {
        $(
            impl<'a> From<&'a ruma::$name> for Param<'a> {
                fn from(value: &'a ruma::$name) -> Self {
                    Self::Text(value.as_str())
                }
            }

            impl<'a> From<&'a ruma::$owned> for Param<'a> {
                fn from(value: &'a ruma::$owned) -> Self {
                    Self::Text(value.as_str())
                }
            }
        )*
    };
}

identifiers_are_text!(
    DeviceId / OwnedDeviceId,
    EventId / OwnedEventId,
    RoomAliasId / OwnedRoomAliasId,
    RoomId / OwnedRoomId,
    ServerName / OwnedServerName,
    TransactionId / OwnedTransactionId,
    UserId / OwnedUserId
);

impl<'a, T: Into<Param<'a>>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Makes a parameter list out of anything that turns into a [`Param`].
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::storage::engine::Param::from($value)),*]
    };
}
pub(crate) use params;

/// A row that a query has just produced; its text and blobs are borrowed until the next one.
pub struct Row<'r> {
    inner: &'r rusqlite::Row<'r>,
}

impl<'r> Row<'r> {
    pub(super) fn new(inner: &'r rusqlite::Row<'r>) -> Self {
        Self { inner }
    }

    /// Returns the column at `index`, counted from zero.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`] if the column does not hold a `T`.
    pub fn get<T: FromColumn<'r>>(&self, index: usize) -> Result<T, StorageError> {
        let value = self.value(index)?;
        T::from_column(value).ok_or_else(|| {
            StorageError::damaged(format!(
                "column {index} ({}) holds {value:?}, not {}",
                self.inner.as_ref().column_name(index).unwrap_or("?"),
                std::any::type_name::<T>()
            ))
        })
    }

    /// Returns the text of the column at `index` parsed, as for identifiers.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`] if there is no text, or it does not parse.
    pub fn parse<T>(&self, index: usize) -> Result<T, StorageError>
    where
        T: for<'t> TryFrom<&'t str>,
    {
        let text: &str = self.get(index)?;
        T::try_from(text).map_err(|_| {
            StorageError::damaged(format!("{text:?} is no {}", std::any::type_name::<T>()))
        })
    }

    fn value(&self, index: usize) -> Result<Param<'r>, StorageError> {
        let value = self.inner.get_ref(index).map_err(|source| {
            StorageError::statement(&format!("column {index} of a result"), source)
        })?;
        Ok(match value {
            ValueRef::Blob(bytes) => Param::Blob(bytes),
            ValueRef::Integer(number) => Param::Integer(number),
            ValueRef::Null => Param::Null,
            ValueRef::Real(number) => Param::Real(number),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Param::Text(text),
                Err(_) => return Err(StorageError::damaged("a text column is not UTF-8")),
            },
        })
    }
}

/// A Rust type that a column can be read as.
pub trait FromColumn<'r>: Sized {
    /// Returns the value, or `None` if it has another type.
    fn from_column(value: Param<'r>) -> Option<Self>;
}

impl FromColumn<'_> for i64 {
    fn from_column(value: Param<'_>) -> Option<Self> {
        if let Param::Integer(number) = value { Some(number) } else { None }
    }
}

impl FromColumn<'_> for u32 {
    fn from_column(value: Param<'_>) -> Option<Self> {
        i64::from_column(value).and_then(|number| number.try_into().ok())
    }
}

impl FromColumn<'_> for bool {
    fn from_column(value: Param<'_>) -> Option<Self> {
        i64::from_column(value).map(|number| number != 0)
    }
}

impl FromColumn<'_> for f64 {
    fn from_column(value: Param<'_>) -> Option<Self> {
        if let Param::Real(number) = value { Some(number) } else { None }
    }
}

impl<'r> FromColumn<'r> for &'r str {
    fn from_column(value: Param<'r>) -> Option<Self> {
        if let Param::Text(text) = value { Some(text) } else { None }
    }
}

impl FromColumn<'_> for String {
    fn from_column(value: Param<'_>) -> Option<Self> {
        <&str>::from_column(value).map(str::to_owned)
    }
}

impl<'r> FromColumn<'r> for &'r [u8] {
    fn from_column(value: Param<'r>) -> Option<Self> {
        if let Param::Blob(bytes) = value { Some(bytes) } else { None }
    }
}

impl FromColumn<'_> for Vec<u8> {
    fn from_column(value: Param<'_>) -> Option<Self> {
        <&[u8]>::from_column(value).map(<[u8]>::to_vec)
    }
}

impl<'r, T: FromColumn<'r>> FromColumn<'r> for Option<T> {
    fn from_column(value: Param<'r>) -> Option<Self> {
        if value == Param::Null { Some(None) } else { T::from_column(value).map(Some) }
    }
}
