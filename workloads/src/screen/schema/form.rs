//! The forms a value of a screen file may have, as JSON Schema (draft 7, which editors of TOML read).

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

/// A key of a table: its name, the form of its value, and whether it must be there.
pub(super) struct Key {
    name: &'static str,
    form: Value,
    needed: bool,
}

/// A key that may be left out.
pub(super) fn key(name: &'static str, about: &str, mut form: Value) -> Key {
    if let Value::Object(form) = &mut form {
        form.insert("description".to_owned(), about.into());
    }
    Key {
        name,
        form,
        needed: false,
    }
}

/// A key that must be there.
pub(super) fn needed(name: &'static str, about: &str, form: Value) -> Key {
    Key {
        needed: true,
        ..key(name, about, form)
    }
}

/// A table with these keys and no others.
pub(super) fn table(keys: impl IntoIterator<Item = Key>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for Key { name, form, needed } in keys {
        if needed {
            required.push(Value::from(name));
        }
        properties.insert(name.to_owned(), form);
    }
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if let (false, Value::Object(table)) = (required.is_empty(), &mut table) {
        table.insert("required".to_owned(), required.into());
    }
    table
}

/// Text that is not blank.
pub(super) fn text() -> Value {
    json!({ "type": "string", "pattern": "\\S" })
}

/// Text of a pattern.
pub(super) fn pattern(regex: &str) -> Value {
    json!({ "type": "string", "pattern": regex })
}

/// One of a few words.
pub(super) fn word(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// A number in a range.
pub(super) fn number(range: RangeInclusive<f64>) -> Value {
    json!({ "type": "number", "minimum": range.start(), "maximum": range.end() })
}

/// A number of at least this.
pub(super) fn at_least(low: f64) -> Value {
    json!({ "type": "number", "minimum": low })
}

/// A number above this.
pub(super) fn above(low: f64) -> Value {
    json!({ "type": "number", "exclusiveMinimum": low })
}

/// A whole number in a range.
pub(super) fn whole(range: RangeInclusive<u64>) -> Value {
    json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
}

/// `true` or `false`.
pub(super) fn yes_or_no() -> Value {
    json!({ "type": "boolean" })
}

/// A list of one form.
pub(super) fn list(of: &Value) -> Value {
    json!({ "type": "array", "items": of })
}

/// A list of one form with at least this many entries.
pub(super) fn list_of(least: usize, of: &Value) -> Value {
    json!({ "type": "array", "minItems": least, "items": of })
}

/// One of several forms.
pub(super) fn either(forms: impl IntoIterator<Item = Value>) -> Value {
    json!({ "anyOf": forms.into_iter().collect::<Vec<_>>() })
}

/// With the value that stands where the file says nothing.
pub(super) fn or_else(mut form: Value, default: impl Into<Value>) -> Value {
    if let Value::Object(form) = &mut form {
        form.insert("default".to_owned(), default.into());
    }
    form
}
