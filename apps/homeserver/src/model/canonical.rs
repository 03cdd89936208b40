//! Reading JSON that must be canonical: event contents from clients, whole events from elsewhere.
//!
//! ruma does the parsing; what this adds is one error per way of being wrong, so that the edge can
//! tell `M_NOT_JSON` from `M_BAD_JSON`, and a limit on nesting.

use ruma::CanonicalJsonObject;

/// How deep objects and arrays may nest. serde_json refuses 128 levels; events are parsed again
/// inside their federation and client envelopes, which must not push an accepted one over that.
pub const NESTING_LEVELS_MAX: usize = 100;

/// Why text is not the JSON that an event may carry.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    /// JSON, but with a number that events cannot hold, or not an object.
    #[error("not canonical JSON: {reason}")]
    NotCanonical {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// Not JSON.
    #[error("not JSON: {reason}")]
    NotJson {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// Objects and arrays are nested too deeply.
    #[error("JSON nested {levels} levels deep; at most {NESTING_LEVELS_MAX} are accepted")]
    TooDeep {
        /// How deep it is.
        levels: usize,
    },
}

/// Parses an object whose numbers must be integers of at most 53 bits.
///
/// Of a key that comes twice the last value counts, as in all of ruma.
///
/// # Errors
///
/// [`CanonicalError`], by the way in which the text is wrong.
pub fn parse_object(text: &str) -> Result<CanonicalJsonObject, CanonicalError> {
    let levels = nesting_levels(text);
    if levels > NESTING_LEVELS_MAX {
        return Err(CanonicalError::TooDeep { levels });
    }
    serde_json::from_str(text).map_err(|error| {
        let reason = error.to_string();
        if error.is_data() {
            CanonicalError::NotCanonical { reason }
        } else {
            CanonicalError::NotJson { reason }
        }
    })
}

/// Counts how deep brackets nest, without recursion. Text that is not JSON gives some number.
fn nesting_levels(text: &str) -> usize {
    let mut levels = 0_usize;
    let mut levels_max = 0;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                levels += 1;
                levels_max = levels_max.max(levels);
            }
            b'}' | b']' => levels = levels.saturating_sub(1),
            b'"' => {
                while let Some(inside) = bytes.next() {
                    match inside {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    levels_max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_wrong_json_has_its_own_error() {
        type Check = fn(&CanonicalError) -> bool;
        let not_canonical: Check = |error| matches!(error, CanonicalError::NotCanonical { .. });
        let not_json: Check = |error| matches!(error, CanonicalError::NotJson { .. });
        let too_deep: Check = |error| matches!(error, CanonicalError::TooDeep { .. });
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        for (why, text, check) in [
            ("a fraction", r#"{"a":1.5}"#, not_canonical),
            ("an integer written as a fraction", r#"{"a":1.0}"#, not_canonical),
            ("an exponent", r#"{"a":1e3}"#, not_canonical),
            ("minus zero", r#"{"a":-0}"#, not_canonical),
            ("2^53", r#"{"a":9007199254740992}"#, not_canonical),
            ("-2^53", r#"{"a":-9007199254740992}"#, not_canonical),
            ("a number beyond 64 bits", r#"{"a":99999999999999999999999}"#, not_canonical),
            ("inside a list", r#"{"a":[{"b":0.1}]}"#, not_canonical),
            ("an array", "[]", not_canonical),
            ("a string", r#""text""#, not_canonical),
            ("nothing", "", not_json),
            ("cut off", r#"{"a":"#, not_json),
            ("text behind it", "{} {}", not_json),
            ("a lone surrogate", r#"{"a":"\ud800"}"#, not_json),
            ("deep lists", &format!(r#"{{"a":{deep}}}"#), too_deep),
        ] {
            let error = parse_object(text).expect_err(why);
            assert!(check(&error), "{why}: {error:?}");
        }
    }

    #[test]
    fn the_largest_integers_and_the_deepest_nesting_pass() {
        let text = r#"{"a":9007199254740991,"b":-9007199254740991}"#;
        assert_eq!(serde_json::to_string(&parse_object(text).unwrap()).unwrap(), text);

        let lists = NESTING_LEVELS_MAX - 1;
        let deepest = format!(r#"{{"a":{}{}}}"#, "[".repeat(lists), "]".repeat(lists));
        parse_object(&deepest).expect("at the limit");
        // Brackets inside strings do not count, escaped quotes do not end a string.
        parse_object(&format!(r#"{{"a":"\"{}"}}"#, "[".repeat(500))).expect("text");
    }

    #[test]
    fn output_is_canonical() {
        for (text, canonical) in [
            (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
            (r#"{ "本": 2, "日": 1 }"#, r#"{"日":1,"本":2}"#),
            (r#"{"a":"\u65E5"}"#, r#"{"a":"日"}"#),
            (r#"{"a":"\/\u2028\u0007\n"}"#, "{\"a\":\"/\u{2028}\\u0007\\n\"}"),
        ] {
            let object = parse_object(text).unwrap();
            assert_eq!(serde_json::to_string(&object).unwrap(), canonical);
        }
    }
}
