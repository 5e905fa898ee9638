//! A schema made ready for encoding and decoding: named types looked up, defaults encoded.
//!
//! An Avro schema enters, a [`Shape`] leaves. What fails: a schema that refers to itself, which no record here does.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;

use super::encode;
use super::error::SchemaError;

/// What a value looks like in Avro's binary encoding.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Null,
    Boolean,
    /// `int` and `long`: the same bytes.
    Integer,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Arc<[String]>),
    Array(Arc<Shape>),
    Map(Arc<Shape>),
    Union(Arc<[Shape]>),
    Record(Arc<RecordShape>),
}

/// A record: its fields in the order of the encoding.
#[derive(Debug)]
pub(super) struct RecordShape {
    pub(super) name: String,
    pub(super) fields: Vec<FieldShape>,
}

#[derive(Debug)]
pub(super) struct FieldShape {
    pub(super) name: String,
    pub(super) shape: Shape,
    /// The default as it is encoded.
    pub(super) default: Option<Vec<u8>>,
}

impl Shape {
    pub(super) fn of(schema: &Schema) -> Result<Shape, SchemaError> {
        build(schema, &mut HashMap::new())
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Shape::Null => "null",
            Shape::Boolean => "boolean",
            Shape::Integer => "long",
            Shape::Float => "float",
            Shape::Double => "double",
            Shape::Bytes => "bytes",
            Shape::String => "string",
            Shape::Fixed(_) => "fixed",
            Shape::Enum(_) => "enum",
            Shape::Array(_) => "array",
            Shape::Map(_) => "map",
            Shape::Union(_) => "union",
            Shape::Record(_) => "record",
        }
    }
}

fn build(schema: &Schema, named: &mut HashMap<String, Shape>) -> Result<Shape, SchemaError> {
    Ok(match schema {
        Schema::Null => Shape::Null,
        Schema::Boolean => Shape::Boolean,
        Schema::Int
        | Schema::Long
        | Schema::Date
        | Schema::TimeMillis
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Shape::Integer,
        Schema::Float => Shape::Float,
        Schema::Double => Shape::Double,
        Schema::Bytes => Shape::Bytes,
        Schema::String => Shape::String,
        Schema::Array(array) => Shape::Array(Arc::new(build(&array.items, named)?)),
        Schema::Map(map) => Shape::Map(Arc::new(build(&map.types, named)?)),
        Schema::Union(union) => {
            let branches: Result<Vec<Shape>, _> = union.variants().iter().map(|b| build(b, named)).collect();
            Shape::Union(branches?.into())
        }
        Schema::Fixed(fixed) => {
            let shape = Shape::Fixed(fixed.size);
            named.insert(fixed.name.fullname(None), shape.clone());
            shape
        }
        Schema::Enum(symbols) => {
            let shape = Shape::Enum(symbols.symbols.clone().into());
            named.insert(symbols.name.fullname(None), shape.clone());
            shape
        }
        Schema::Record(record) => {
            let mut fields = Vec::with_capacity(record.fields.len());
            for field in &record.fields {
                let shape = build(&field.schema, named)?;
                let default = match &field.default {
                    Some(default) => Some(encode::to_vec(&shape, default)?),
                    None => None,
                };
                fields.push(FieldShape {
                    name: field.name.clone(),
                    shape,
                    default,
                });
            }
            let name = record.name.fullname(None);
            let shape = Shape::Record(Arc::new(RecordShape {
                name: name.clone(),
                fields,
            }));
            named.insert(name, shape.clone());
            shape
        }
        // Known only once its record is complete, so a record that holds itself is not found.
        Schema::Ref { name } => {
            let name = name.fullname(None);
            named
                .get(&name)
                .cloned()
                .ok_or(SchemaError::Unsupported { what: name })?
        }
        Schema::Decimal(_) | Schema::BigDecimal | Schema::Uuid(_) | Schema::Duration(_) => {
            return Err(SchemaError::Unsupported {
                what: schema.canonical_form(),
            });
        }
    })
}
