//! `event_fields`: events cut down to the fields that a filter names.

use serde_json::{Map, Value};

/// The most fields that one filter may name; what goes beyond is ignored, and nobody needs it.
const FIELDS_MAX: usize = 200;

/// The fields that a client wants to see of each event.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct EventFields {
    /// Each field as the keys on the way to it.
    paths: Vec<Vec<String>>,
}

impl EventFields {
    /// Reads field names: dots separate keys, a backslash makes a dot or backslash part of a key.
    pub(crate) fn new(fields: &[String]) -> Self {
        let paths = fields.iter().take(FIELDS_MAX);
        Self { paths: paths.map(|field| keys_of(field)).collect() }
    }

    /// Returns the event with only the named fields. Fields that it lacks are not made up.
    pub(crate) fn of(&self, event: &Value) -> Value {
        let mut kept = Value::Object(Map::new());
        for path in &self.paths {
            copy(event, &mut kept, path);
        }
        kept
    }
}

fn keys_of(field: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => keys.push(String::new()),
            '\\' => match characters.next() {
                Some(escaped @ ('.' | '\\')) => push(&mut keys, escaped),
                Some(other) => {
                    push(&mut keys, '\\');
                    push(&mut keys, other);
                }
                None => push(&mut keys, '\\'),
            },
            other => push(&mut keys, other),
        }
    }
    keys
}

fn push(keys: &mut [String], character: char) {
    if let Some(key) = keys.last_mut() {
        key.push(character);
    }
}

fn copy(from: &Value, to: &mut Value, path: &[String]) {
    let Some((key, rest)) = path.split_first() else { return };
    let (Some(found), Value::Object(to)) = (from.get(key), to) else { return };
    if rest.is_empty() {
        to.insert(key.clone(), found.clone());
    } else if found.is_object() && reaches(found, rest) {
        copy(found, to.entry(key.as_str()).or_insert_with(|| Value::Object(Map::new())), rest);
    }
}

fn reaches(from: &Value, path: &[String]) -> bool {
    path.iter().try_fold(from, |value, key| value.get(key)).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_named_fields_stay() {
        let event = json!({
            "type": "m.room.message",
            "sender": "@anna:hs",
            "content": {"body": "x", "m.relates_to": {"event_id": "$e"}, "a\\b": 1, "n": 2},
        });
        for (why, fields, expected) in [
            ("none", vec![], json!({})),
            ("a top one", vec!["type"], json!({"type": "m.room.message"})),
            ("an inner one", vec!["content.body"], json!({"content": {"body": "x"}})),
            (
                "an escaped dot",
                vec![r"content.m\.relates_to.event_id"],
                json!({"content": {"m.relates_to": {"event_id": "$e"}}}),
            ),
            ("an escaped backslash", vec![r"content.a\\b"], json!({"content": {"a\\b": 1}})),
            ("another backslash is itself", vec![r"content.a\b"], json!({"content": {"a\\b": 1}})),
            ("a missing one", vec!["content.absent", "absent.too"], json!({})),
            ("a key below text", vec!["type.x"], json!({})),
            (
                "two of one object",
                vec!["content.body", "content.n"],
                json!({"content": {"body": "x", "n": 2}}),
            ),
            (
                "a whole and a part of it",
                vec!["content", "content.n"],
                json!({"content": event["content"]}),
            ),
        ] {
            let fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
            assert_eq!(EventFields::new(&fields).of(&event), expected, "{why}");
        }
    }
}
