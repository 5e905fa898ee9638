//! Avro's binary encoding to values, straight into serde, guided by the [`Shape`] it was written with.
//!
//! Fields go by their names, so a type reads what any version of its schema wrote: fields it does not know are passed
//! over, fields that are null or absent are missing to it, and its serde defaults stand in. What fails: bytes that are
//! cut short, go on, or are no value of the schema; a value that the type refuses.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::error::SchemaError;
use super::shape::{RecordShape, Shape};

/// The value that `bytes` are, all of them.
pub(super) fn from_slice<'de, T: Deserialize<'de>>(
    shape: &Shape,
    mut bytes: &'de [u8],
) -> Result<T, SchemaError> {
    let value = T::deserialize(Decoder {
        input: &mut bytes,
        shape,
    })?;
    match bytes.len() {
        0 => Ok(value),
        left => Err(SchemaError::Trailing { left }),
    }
}

fn take<'de>(input: &mut &'de [u8], count: u64) -> Result<&'de [u8], SchemaError> {
    let left = input.len() as u64;
    let part = usize::try_from(count)
        .ok()
        .and_then(|at| input.split_at_checked(at));
    let (part, rest) = part.ok_or(SchemaError::Truncated { wanted: count, left })?;
    *input = rest;
    Ok(part)
}

fn array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], SchemaError> {
    let left = input.len() as u64;
    let (part, rest) = input.split_first_chunk::<N>().ok_or(SchemaError::Truncated {
        wanted: N as u64,
        left,
    })?;
    *input = rest;
    Ok(*part)
}

/// Variable-length zig-zag.
fn long(input: &mut &[u8]) -> Result<i64, SchemaError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = array::<1>(input)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(SchemaError::Malformed {
        what: "a number longer than 64 bits",
    })
}

fn length(input: &mut &[u8]) -> Result<u64, SchemaError> {
    u64::try_from(long(input)?).map_err(|_| SchemaError::Malformed {
        what: "a length below 0",
    })
}

pub(super) fn text<'de>(input: &mut &'de [u8]) -> Result<&'de str, SchemaError> {
    let count = length(input)?;
    let bytes = take(input, count)?;
    str::from_utf8(bytes).map_err(|_| SchemaError::Malformed {
        what: "text that is not UTF-8",
    })
}

fn branch<'s>(input: &mut &[u8], branches: &'s [Shape]) -> Result<&'s Shape, SchemaError> {
    let index = length(input)?;
    usize::try_from(index)
        .ok()
        .and_then(|index| branches.get(index))
        .ok_or(SchemaError::Malformed {
            what: "a branch that the union does not have",
        })
}

struct Decoder<'i, 'de, 's> {
    input: &'i mut &'de [u8],
    shape: &'s Shape,
}

impl<'i, 'de, 's> Decoder<'i, 'de, 's> {
    /// The value of a union as one of the branch that was written; unions hold no unions.
    fn chosen(self) -> Result<Self, SchemaError> {
        let Self { input, shape } = self;
        let shape = match shape {
            Shape::Union(branches) => branch(input, branches)?,
            shape => shape,
        };
        Ok(Self { input, shape })
    }
}

impl<'de> Deserializer<'de> for Decoder<'_, 'de, '_> {
    type Error = SchemaError;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        let Self { input, shape } = self;
        match shape {
            Shape::Null => visitor.visit_unit(),
            Shape::Boolean => match array::<1>(input)? {
                [0] => visitor.visit_bool(false),
                [1] => visitor.visit_bool(true),
                _ => Err(SchemaError::Malformed {
                    what: "a boolean other than 0 and 1",
                }),
            },
            Shape::Integer => visitor.visit_i64(long(input)?),
            Shape::Float => visitor.visit_f32(f32::from_le_bytes(array(input)?)),
            Shape::Double => visitor.visit_f64(f64::from_le_bytes(array(input)?)),
            Shape::Bytes => {
                let count = length(input)?;
                visitor.visit_borrowed_bytes(take(input, count)?)
            }
            Shape::Fixed(size) => visitor.visit_borrowed_bytes(take(input, *size as u64)?),
            Shape::String => visitor.visit_borrowed_str(text(input)?),
            Shape::Enum(symbols) => {
                let index = usize::try_from(length(input)?).unwrap_or(usize::MAX);
                let symbol = symbols.get(index).ok_or(SchemaError::Malformed {
                    what: "a symbol that the enum does not have",
                })?;
                visitor.visit_str(symbol)
            }
            Shape::Array(items) => {
                let mut blocks = Blocks::new(input, items);
                let value = visitor.visit_seq(&mut blocks)?;
                blocks.finish()?;
                Ok(value)
            }
            Shape::Map(values) => {
                let mut blocks = Blocks::new(input, values);
                let value = visitor.visit_map(&mut blocks)?;
                blocks.finish()?;
                Ok(value)
            }
            Shape::Union(branches) => {
                let shape = branch(input, branches)?;
                Decoder { input, shape }.deserialize_any(visitor)
            }
            Shape::Record(record) => {
                let mut fields = Fields::new(input, record);
                let value = visitor.visit_map(&mut fields)?;
                fields.finish()?;
                Ok(value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        let Self { input, shape } = self.chosen()?;
        match shape {
            Shape::Null => visitor.visit_none(),
            shape => visitor.visit_some(Decoder { input, shape }),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        let Self { input, shape } = self.chosen()?;
        match shape {
            Shape::String => visitor.visit_enum(BorrowedStrDeserializer::new(text(input)?)),
            Shape::Enum(symbols) => {
                let index = usize::try_from(length(input)?).unwrap_or(usize::MAX);
                let symbol = symbols.get(index).ok_or(SchemaError::Malformed {
                    what: "a symbol that the enum does not have",
                })?;
                let name: serde::de::value::StrDeserializer<'_, SchemaError> =
                    symbol.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            other => Err(SchemaError::Mismatch {
                expected: "name",
                found: other.kind(),
            }),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        let Self { input, shape } = self.chosen()?;
        match shape {
            // A tuple: fields by position.
            Shape::Record(record) => {
                let mut fields = Fields::new(input, record);
                let value = visitor.visit_seq(Positions(&mut fields))?;
                fields.finish()?;
                Ok(value)
            }
            shape => Decoder { input, shape }.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, SchemaError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        self.deserialize_seq(visitor)
    }

    /// A newer writer may know fields that the type does not, even one that takes no such key in JSON, where it would be a
    /// slip of the pen.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        let Self { input, shape } = self.chosen()?;
        match shape {
            Shape::Record(record) => {
                let mut fields = Fields::new(input, record);
                fields.known = Some(known);
                let value = visitor.visit_map(&mut fields)?;
                fields.finish()?;
                Ok(value)
            }
            shape => Decoder { input, shape }.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        map identifier ignored_any
    }
}

/// A record's fields, by name. Null counts as absent.
struct Fields<'i, 'de, 's> {
    input: &'i mut &'de [u8],
    record: &'s RecordShape,
    /// The fields of the type, where they are known.
    known: Option<&'static [&'static str]>,
    next: usize,
    /// The shape of the value whose name was given out.
    value: Option<&'s Shape>,
}

impl<'i, 'de, 's> Fields<'i, 'de, 's> {
    fn new(input: &'i mut &'de [u8], record: &'s RecordShape) -> Self {
        Self {
            input,
            record,
            known: None,
            next: 0,
            value: None,
        }
    }

    /// Passes over what the visitor did not ask for.
    fn finish(mut self) -> Result<(), SchemaError> {
        while self.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

impl<'de> MapAccess<'de> for Fields<'_, 'de, '_> {
    type Error = SchemaError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, SchemaError> {
        while let Some(field) = self.record.fields.get(self.next) {
            self.next += 1;
            let input = &mut *self.input;
            let shape = Decoder {
                input,
                shape: &field.shape,
            }
            .chosen()?
            .shape;
            if matches!(shape, Shape::Null) {
                continue;
            }
            if self
                .known
                .is_some_and(|known| !known.contains(&field.name.as_str()))
            {
                let input = &mut *self.input;
                IgnoredAny::deserialize(Decoder { input, shape })?;
                continue;
            }
            self.value = Some(shape);
            let name: serde::de::value::StrDeserializer<'_, SchemaError> =
                field.name.as_str().into_deserializer();
            return seed.deserialize(name).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, SchemaError> {
        let shape = self.value.take().ok_or(SchemaError::Malformed {
            what: "a value was asked for before its name",
        })?;
        seed.deserialize(Decoder {
            input: self.input,
            shape,
        })
    }
}

/// A record's fields as a tuple.
struct Positions<'f, 'i, 'de, 's>(&'f mut Fields<'i, 'de, 's>);

impl<'de> SeqAccess<'de> for Positions<'_, '_, 'de, '_> {
    type Error = SchemaError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, SchemaError> {
        let Some(field) = self.0.record.fields.get(self.0.next) else {
            return Ok(None);
        };
        self.0.next += 1;
        let decoder = Decoder {
            input: self.0.input,
            shape: &field.shape,
        };
        seed.deserialize(decoder).map(Some)
    }
}

/// The items of an array or map, which come in counted blocks.
struct Blocks<'i, 'de, 's> {
    input: &'i mut &'de [u8],
    items: &'s Shape,
    left: u64,
    done: bool,
}

impl<'i, 'de, 's> Blocks<'i, 'de, 's> {
    fn new(input: &'i mut &'de [u8], items: &'s Shape) -> Self {
        Self {
            input,
            items,
            left: 0,
            done: false,
        }
    }

    /// Whether there is another item.
    fn more(&mut self) -> Result<bool, SchemaError> {
        if self.left == 0 && !self.done {
            let count = long(self.input)?;
            if count < 0 {
                // The size of the block in bytes, for those who pass over it.
                length(self.input)?;
            }
            self.left = count.unsigned_abs();
            self.done = count == 0;
            // An item takes a byte at least, so a larger count can only be wrong.
            let there = self.input.len() as u64;
            if self.left > there {
                return Err(SchemaError::Truncated {
                    wanted: self.left,
                    left: there,
                });
            }
        }
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        Ok(more)
    }

    fn finish(mut self) -> Result<(), SchemaError> {
        while self.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

impl<'de> SeqAccess<'de> for Blocks<'_, 'de, '_> {
    type Error = SchemaError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, SchemaError> {
        if !self.more()? {
            return Ok(None);
        }
        let decoder = Decoder {
            input: self.input,
            shape: self.items,
        };
        seed.deserialize(decoder).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok()
    }
}

impl<'de> MapAccess<'de> for Blocks<'_, 'de, '_> {
    type Error = SchemaError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, SchemaError> {
        if !self.more()? {
            return Ok(None);
        }
        let name = text(self.input)?;
        seed.deserialize(BorrowedStrDeserializer::<SchemaError>::new(name))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, SchemaError> {
        seed.deserialize(Decoder {
            input: self.input,
            shape: self.items,
        })
    }
}
