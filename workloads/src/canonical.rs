//! JSON with its keys sorted, whatever order a map keeps.
//!
//! `serde_json` keeps objects by key, or, where some crate of the build asks for it, in the order of insertion. What is
//! hashed or compared as text goes through here, so that it does not depend on which crates there are.

use serde_json::Value;

/// The same value with the keys of every object in order.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<(String, Value)> = object.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect(),
            )
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}
