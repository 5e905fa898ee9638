//! What can be wrong with a value, its schema, or the way to it.

use std::fmt::Display;

/// A value does not fit a schema, or bytes are no value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The schema has something no record here uses.
    #[error("the schema has {what}, which is not supported")]
    Unsupported {
        /// The part of the schema.
        what: String,
    },
    /// The text is no Avro schema.
    #[error("not an Avro schema: {reason}")]
    NotASchema {
        /// The parser's reason.
        reason: String,
    },
    /// The type has a field that the schema lacks, or has it in another order.
    #[error("record {record} has no field '{field}' at this place in its schema")]
    NoSuchField {
        /// The schema's record.
        record: String,
        /// The type's field.
        field: String,
    },
    /// The schema has a field without default that the type lacks.
    #[error("record {record} wants the field '{field}'")]
    MissingField {
        /// The schema's record.
        record: String,
        /// Its field.
        field: String,
    },
    /// One kind of value where the schema has another.
    #[error("a {found} where the schema has a {expected}")]
    Mismatch {
        /// The schema's kind.
        expected: &'static str,
        /// The value's.
        found: &'static str,
    },
    /// The bytes end within the value.
    #[error("the value is cut short: {wanted} more bytes expected, {left} are left")]
    Truncated {
        /// Bytes the next part needs.
        wanted: u64,
        /// Bytes there are.
        left: u64,
    },
    /// The bytes go on after the value.
    #[error("{left} bytes follow the value")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// The bytes are no value of the schema.
    #[error("the bytes are not a value of the schema: {what}")]
    Malformed {
        /// What is wrong with them.
        what: &'static str,
    },
    /// The type refused the value, or the other way round.
    #[error("{message}")]
    Value {
        /// serde's or the type's words.
        message: String,
    },
}

impl serde::ser::Error for SchemaError {
    fn custom<T: Display>(message: T) -> Self {
        SchemaError::Value {
            message: message.to_string(),
        }
    }
}

impl serde::de::Error for SchemaError {
    fn custom<T: Display>(message: T) -> Self {
        SchemaError::Value {
            message: message.to_string(),
        }
    }
}
