//! Values to Avro's binary encoding, straight from serde, guided by a [`Shape`].
//!
//! <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>. A type's fields must come in the order of the
//! schema; those it leaves out get their defaults. A tuple becomes a record by position, an `Option` a union with null,
//! an enum without data its name. What fails: a type that the schema does not describe.

use serde::Serialize;
use serde::ser::{
    Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct, Serializer,
};

use super::error::SchemaError;
use super::shape::{RecordShape, Shape};

pub(super) fn to_vec<T: Serialize + ?Sized>(shape: &Shape, value: &T) -> Result<Vec<u8>, SchemaError> {
    // Most records fit.
    let mut out = Vec::with_capacity(128);
    append(&mut out, shape, value)?;
    Ok(out)
}

pub(super) fn append<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    shape: &Shape,
    value: &T,
) -> Result<(), SchemaError> {
    value.serialize(Encoder { out, shape })
}

/// Variable-length zig-zag.
fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn length(out: &mut Vec<u8>, length: usize) -> Result<(), SchemaError> {
    long(out, i64::try_from(length).map_err(serde::ser::Error::custom)?);
    Ok(())
}

struct Encoder<'o, 's> {
    out: &'o mut Vec<u8>,
    shape: &'s Shape,
}

impl<'s> Encoder<'_, 's> {
    /// The shape to write a value that is there: a union's first branch that is not null.
    fn branch(&mut self) -> Result<&'s Shape, SchemaError> {
        let Shape::Union(branches) = self.shape else {
            return Ok(self.shape);
        };
        let (index, branch) = branches
            .iter()
            .enumerate()
            .find(|(_, branch)| !matches!(branch, Shape::Null))
            .ok_or(SchemaError::Malformed {
                what: "a union of nothing but null",
            })?;
        length(self.out, index)?;
        Ok(branch)
    }

    fn mismatch<T>(shape: &Shape, found: &'static str) -> Result<T, SchemaError> {
        Err(SchemaError::Mismatch {
            expected: shape.kind(),
            found,
        })
    }

    fn null(self) -> Result<(), SchemaError> {
        match self.shape {
            Shape::Null => Ok(()),
            Shape::Union(branches) => {
                match branches.iter().position(|branch| matches!(branch, Shape::Null)) {
                    Some(index) => length(self.out, index),
                    None => Self::mismatch(self.shape, "null"),
                }
            }
            other => Self::mismatch(other, "null"),
        }
    }
}

/// What has elements of one shape, or fields by position.
pub(super) enum Elements<'o, 's> {
    Array {
        out: &'o mut Vec<u8>,
        items: &'s Shape,
        /// Elements come in one block, whose length is written already; otherwise in one block each.
        counted: bool,
    },
    Record(Fields<'o, 's>),
}

impl<'o, 's> Encoder<'o, 's> {
    fn elements(mut self, len: Option<usize>) -> Result<Elements<'o, 's>, SchemaError> {
        match self.branch()? {
            Shape::Array(items) => {
                if let Some(len) = len.filter(|len| *len > 0) {
                    length(self.out, len)?;
                }
                Ok(Elements::Array {
                    out: self.out,
                    items,
                    counted: len.is_some(),
                })
            }
            Shape::Record(record) => Ok(Elements::Record(Fields {
                out: self.out,
                record,
                next: 0,
            })),
            other => Self::mismatch(other, "sequence"),
        }
    }
}

impl Elements<'_, '_> {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SchemaError> {
        match self {
            Elements::Array {
                out, items, counted, ..
            } => {
                if !*counted {
                    long(out, 1);
                }
                append(out, items, value)
            }
            Elements::Record(fields) => {
                let name = fields.record.fields.get(fields.next).map(|field| &field.name);
                let name = name.ok_or(SchemaError::Malformed {
                    what: "a tuple with more values than its record has fields",
                })?;
                fields.push(name, value)
            }
        }
    }

    fn close(self) -> Result<(), SchemaError> {
        match self {
            Elements::Array { out, .. } => {
                long(out, 0);
                Ok(())
            }
            Elements::Record(fields) => fields.close(),
        }
    }
}

/// The fields of a record, in order.
pub(super) struct Fields<'o, 's> {
    out: &'o mut Vec<u8>,
    record: &'s RecordShape,
    next: usize,
}

impl Fields<'_, '_> {
    fn push<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), SchemaError> {
        let ahead = self.record.fields.get(self.next..).unwrap_or_default();
        let Some(skipped) = ahead.iter().position(|field| field.name == name) else {
            return Err(SchemaError::NoSuchField {
                record: self.record.name.clone(),
                field: name.to_owned(),
            });
        };
        self.defaults(self.next + skipped)?;
        let record = self.record;
        append(self.out, &record.fields[self.next].shape, value)?;
        self.next += 1;
        Ok(())
    }

    /// Writes the defaults of the fields before `until`.
    fn defaults(&mut self, until: usize) -> Result<(), SchemaError> {
        for field in &self.record.fields[self.next..until] {
            let default = field.default.as_ref().ok_or_else(|| SchemaError::MissingField {
                record: self.record.name.clone(),
                field: field.name.clone(),
            })?;
            self.out.extend_from_slice(default);
        }
        self.next = until;
        Ok(())
    }

    fn close(mut self) -> Result<(), SchemaError> {
        self.defaults(self.record.fields.len())
    }
}

/// A struct or map: a record, or a map of strings.
pub(super) enum Entries<'o, 's> {
    Record(Fields<'o, 's>, Option<String>),
    Map { out: &'o mut Vec<u8>, values: &'s Shape },
}

impl<'o, 's> Encoder<'o, 's> {
    fn entries(mut self) -> Result<Entries<'o, 's>, SchemaError> {
        match self.branch()? {
            Shape::Record(record) => Ok(Entries::Record(
                Fields {
                    out: self.out,
                    record,
                    next: 0,
                },
                None,
            )),
            Shape::Map(values) => Ok(Entries::Map {
                out: self.out,
                values,
            }),
            other => Self::mismatch(other, "record"),
        }
    }
}

impl<'o, 's> Serializer for Encoder<'o, 's> {
    type Ok = ();
    type Error = SchemaError;
    type SerializeSeq = Elements<'o, 's>;
    type SerializeTuple = Elements<'o, 's>;
    type SerializeTupleStruct = Elements<'o, 's>;
    type SerializeTupleVariant = Impossible<(), SchemaError>;
    type SerializeMap = Entries<'o, 's>;
    type SerializeStruct = Entries<'o, 's>;
    type SerializeStructVariant = Impossible<(), SchemaError>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(mut self, value: bool) -> Result<(), SchemaError> {
        match self.branch()? {
            Shape::Boolean => self.out.push(u8::from(value)),
            other => return Self::mismatch(other, "boolean"),
        }
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), SchemaError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), SchemaError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), SchemaError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(mut self, value: i64) -> Result<(), SchemaError> {
        match self.branch()? {
            Shape::Integer => long(self.out, value),
            // A default of 0 is written without a point.
            Shape::Float => self.out.extend_from_slice(&(value as f32).to_le_bytes()),
            Shape::Double => self.out.extend_from_slice(&(value as f64).to_le_bytes()),
            other => return Self::mismatch(other, "long"),
        }
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), SchemaError> {
        self.serialize_i64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), SchemaError> {
        self.serialize_i64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), SchemaError> {
        self.serialize_i64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), SchemaError> {
        self.serialize_i64(i64::try_from(value).map_err(serde::ser::Error::custom)?)
    }

    fn serialize_f32(mut self, value: f32) -> Result<(), SchemaError> {
        match self.branch()? {
            Shape::Float => self.out.extend_from_slice(&value.to_le_bytes()),
            Shape::Double => self.out.extend_from_slice(&f64::from(value).to_le_bytes()),
            other => return Self::mismatch(other, "float"),
        }
        Ok(())
    }

    fn serialize_f64(mut self, value: f64) -> Result<(), SchemaError> {
        match self.branch()? {
            Shape::Double => self.out.extend_from_slice(&value.to_le_bytes()),
            Shape::Float => self.out.extend_from_slice(&(value as f32).to_le_bytes()),
            other => return Self::mismatch(other, "double"),
        }
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), SchemaError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(mut self, value: &str) -> Result<(), SchemaError> {
        match self.branch()? {
            Shape::String => {
                length(self.out, value.len())?;
                self.out.extend_from_slice(value.as_bytes());
                Ok(())
            }
            Shape::Enum(symbols) => match symbols.iter().position(|symbol| symbol == value) {
                Some(index) => length(self.out, index),
                None => Err(SchemaError::Malformed {
                    what: "a name that is not among the enum's symbols",
                }),
            },
            other => Self::mismatch(other, "string"),
        }
    }

    fn serialize_bytes(mut self, value: &[u8]) -> Result<(), SchemaError> {
        match self.branch()? {
            Shape::Bytes => length(self.out, value.len())?,
            Shape::Fixed(size) if *size == value.len() => {}
            other => return Self::mismatch(other, "bytes"),
        }
        self.out.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), SchemaError> {
        self.null()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), SchemaError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), SchemaError> {
        self.null()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), SchemaError> {
        self.null()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), SchemaError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), SchemaError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), SchemaError> {
        Self::mismatch(self.shape, "enum variant with data")
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'o, 's>, SchemaError> {
        self.elements(len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Elements<'o, 's>, SchemaError> {
        self.elements(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Elements<'o, 's>, SchemaError> {
        self.elements(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, SchemaError> {
        Self::mismatch(self.shape, "enum variant with data")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'o, 's>, SchemaError> {
        self.entries()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries<'o, 's>, SchemaError> {
        self.entries()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, SchemaError> {
        Self::mismatch(self.shape, "enum variant with data")
    }
}

impl SerializeSeq for Elements<'_, '_> {
    type Ok = ();
    type Error = SchemaError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SchemaError> {
        self.push(value)
    }
    fn end(self) -> Result<(), SchemaError> {
        self.close()
    }
}

impl SerializeTuple for Elements<'_, '_> {
    type Ok = ();
    type Error = SchemaError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SchemaError> {
        self.push(value)
    }
    fn end(self) -> Result<(), SchemaError> {
        self.close()
    }
}

impl SerializeTupleStruct for Elements<'_, '_> {
    type Ok = ();
    type Error = SchemaError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SchemaError> {
        self.push(value)
    }
    fn end(self) -> Result<(), SchemaError> {
        self.close()
    }
}

impl SerializeStruct for Entries<'_, '_> {
    type Ok = ();
    type Error = SchemaError;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), SchemaError> {
        match self {
            Entries::Record(fields, _) => fields.push(key, value),
            Entries::Map { .. } => SerializeMap::serialize_entry(self, key, value),
        }
    }
    fn end(self) -> Result<(), SchemaError> {
        SerializeMap::end(self)
    }
}

impl SerializeMap for Entries<'_, '_> {
    type Ok = ();
    type Error = SchemaError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), SchemaError> {
        match self {
            Entries::Record(_, name) => {
                let mut text = Vec::new();
                append(&mut text, &Shape::String, key)?;
                // The length comes first; what is left of it is the name.
                let mut rest = text.as_slice();
                let written = super::decode::text(&mut rest)?;
                *name = Some(written.to_owned());
                Ok(())
            }
            Entries::Map { out, .. } => {
                long(out, 1);
                append(out, &Shape::String, key)
            }
        }
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SchemaError> {
        match self {
            Entries::Record(fields, name) => {
                let name = name.take().unwrap_or_default();
                fields.push(&name, value)
            }
            Entries::Map { out, values } => append(out, values, value),
        }
    }
    fn end(self) -> Result<(), SchemaError> {
        match self {
            Entries::Record(fields, _) => fields.close(),
            Entries::Map { out, .. } => {
                long(out, 0);
                Ok(())
            }
        }
    }
}
