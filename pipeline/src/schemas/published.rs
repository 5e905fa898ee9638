//! The schemas that are published with the product, `pipeline/schemas/<topic>.v<N>.avsc`, ready for use.
//!
//! A released version never changes: a type that changes gets a next version, compatible with every earlier one, at
//! the end of its topic's list here. The tests of [`super`] hold both to it.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;

use super::error::SchemaError;
use super::shape::Shape;
use crate::kafka::topics::Topic;

/// Eight bytes that stand for a schema: CRC-64-AVRO of its parsing canonical form, little endian.
pub type Fingerprint = [u8; 8];

/// One version of one topic's schema.
#[derive(Debug)]
pub struct Version {
    /// From 1.
    pub number: usize,
    /// The text of the file.
    pub text: &'static str,
    /// Stands for the schema in single-object encoding.
    pub fingerprint: Fingerprint,
    pub(super) shape: Shape,
}

macro_rules! schema {
    ($name:literal) => {
        include_str!(concat!("../../schemas/", $name, ".avsc"))
    };
}

/// The texts of a topic's schemas, oldest first.
pub fn texts(topic: Topic) -> &'static [&'static str] {
    match topic.records() {
        Topic::Plates | Topic::BatchPlates => &[
            schema!("plates.v1"),
            schema!("plates.v2"),
            schema!("plates.v3"),
            schema!("plates.v4"),
        ],
        Topic::Tasks | Topic::BatchTasks => &[
            schema!("tasks.v1"),
            schema!("tasks.v2"),
            schema!("tasks.v3"),
            schema!("tasks.v4"),
            schema!("tasks.v5"),
        ],
        Topic::Features => &[schema!("features.v1"), schema!("features.v2")],
        Topic::Profiles => &[schema!("profiles.v1")],
        // Records of other topics, as they were.
        Topic::Retries => &[],
        Topic::Comparisons => &[schema!("comparisons.v1")],
        Topic::DeadLetters => &[schema!("dead-letters.v1"), schema!("dead-letters.v2")],
        Topic::Status => &[
            schema!("status.v1"),
            schema!("status.v2"),
            schema!("status.v3"),
            schema!("status.v4"),
            schema!("status.v5"),
            schema!("status.v6"),
            schema!("status.v7"),
        ],
    }
}

type Versions = Result<Vec<(Topic, Vec<Version>)>, SchemaError>;

static VERSIONS: LazyLock<Versions> = LazyLock::new(|| {
    let of_topic = |topic| {
        let versions = texts(topic).iter().zip(1..);
        let versions: Result<_, _> = versions.map(|(text, number)| version(number, text)).collect();
        versions.map(|versions| (topic, versions))
    };
    Topic::ALL.into_iter().map(of_topic).collect()
});

fn version(number: usize, text: &'static str) -> Result<Version, SchemaError> {
    let schema = parse(text)?;
    Ok(Version {
        number,
        text,
        fingerprint: fingerprint(&schema)?,
        shape: Shape::of(&schema)?,
    })
}

pub(super) fn parse(text: &str) -> Result<Schema, SchemaError> {
    Schema::parse_str(text).map_err(|error| SchemaError::NotASchema {
        reason: error.to_string(),
    })
}

pub(super) fn fingerprint(schema: &Schema) -> Result<Fingerprint, SchemaError> {
    let digest = schema.fingerprint::<Rabin>();
    digest.bytes.try_into().map_err(|_| SchemaError::Malformed {
        what: "a fingerprint that is not of 8 bytes",
    })
}

/// The versions of a topic's schema, oldest first.
pub fn versions(topic: Topic) -> Result<&'static [Version], SchemaError> {
    let all = VERSIONS.as_ref().map_err(Clone::clone)?;
    let found = all.iter().find(|(of, _)| *of == topic);
    Ok(found.map_or(&[][..], |(_, versions)| versions))
}

/// The version records are written with; `None` for a topic of other topics' records.
pub fn newest(topic: Topic) -> Result<Option<&'static Version>, SchemaError> {
    Ok(versions(topic)?.last())
}
