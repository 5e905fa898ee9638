//! How values that are not serde's usual stand in records.

/// `Vec<f32>` as its little-endian bytes, in JSON as their base64.
pub(super) mod f32_bytes {
    use std::fmt;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(in crate::events) fn serialize<S: Serializer>(
        values: &[f32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(bytes))
        } else {
            serializer.serialize_bytes(&bytes)
        }
    }

    pub(in crate::events) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<f32>, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Floats)
        } else {
            deserializer.deserialize_bytes(Floats)
        }
    }

    struct Floats;

    impl Visitor<'_> for Floats {
        type Value = Vec<f32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("32-bit floats as bytes, or as base64 of them")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<f32>, E> {
            let (values, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(E::custom(
                    "an embedding's bytes must be a whole number of 4-byte floats",
                ));
            }
            Ok(values.iter().map(|b| f32::from_le_bytes(*b)).collect())
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<f32>, E> {
            self.visit_bytes(&STANDARD.decode(text).map_err(E::custom)?)
        }
    }
}

/// A value as it is in JSON, and as JSON text in Avro: for what has a format of its own.
pub(super) mod json_text {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::value::MapAccessDeserializer;
    use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
    use serde::{Deserializer, Serialize, Serializer};

    pub(in crate::events) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return value.serialize(serializer);
        }
        let text = serde_json::to_string(value).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(in crate::events) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        // A status is buffered until its kind is known, and a buffer does not say what it was read from.
        deserializer.deserialize_any(Either(PhantomData))
    }

    struct Either<T>(PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object, or JSON text of one")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            serde_json::from_str(text).map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
}
