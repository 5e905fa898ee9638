//! The bytes of records: events to values on Kafka and back, by the schemas that are published with the product.
//!
//! A record is written in Avro with its topic's newest schema, in one of two forms: with a schema registry, in
//! Confluent's wire format (a 0 byte, the schema's id in the registry as four bytes, the value); without one, in Avro's
//! single-object encoding (`C3 01`, the schema's [`Fingerprint`], the value). Where asked for, it is JSON. Read is all
//! of it, always: both forms, every published version, and JSON. What fails: a value that is cut short, a schema nobody
//! here knows, a registry that does not answer ([`Unreadable`], [`RegistryError`]).

mod decode;
mod encode;
mod error;
pub mod published;
pub mod registry;
mod shape;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::error::SchemaError;
use self::published::{Fingerprint, newest, versions};
use self::registry::{Registry, RegistryError, RegistrySettings};
use crate::error::{Domain, FailureClass, Retry, Stage, StageError};
use crate::events::{
    ComparisonRecord, DeadLetter, FieldFeatures, FieldTask, Origin, PlateReady, Status, WellRecord,
};
use crate::kafka::topics::Topic;

/// The first bytes of Avro's single-object encoding.
const SINGLE_OBJECT: [u8; 2] = [0xc3, 0x01];
/// Bytes before the value in single-object encoding.
const SINGLE_OBJECT_HEADER: usize = 10;
/// The first byte of Confluent's wire format.
const CONFLUENT: u8 = 0;

/// What records are written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Avro.
    #[default]
    Avro,
    /// JSON, for consumers that know nothing else.
    Json,
}

/// How records are written and read; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Schemas {
    format: Format,
    registry: Option<Arc<Registry>>,
}

/// A value as it goes to Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framed<'a> {
    /// The bytes.
    pub value: Cow<'a, [u8]>,
    /// CloudEvents `datacontenttype`.
    pub content_type: &'static str,
    /// CloudEvents `dataschema`: where the registry has the schema, else a name of the published version.
    pub schema: Option<String>,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// There is no value.
    #[error("it has no value; records here always have one")]
    Empty,
    /// The value is not JSON of the topic's type.
    #[error("{}", match source.classify() {
        serde_json::error::Category::Data => "its JSON is not a record of this topic",
        _ => "it is neither Avro nor readable JSON",
    })]
    Json {
        /// serde's error.
        source: serde_json::Error,
    },
    /// The value does not hold what its schema says.
    #[error(
        "its value does not fit version {version} of the schema of {topic}; look at the program that wrote it"
    )]
    Avro {
        /// The topic.
        topic: &'static str,
        /// The published version, or an id in the registry.
        version: String,
        /// What does not fit.
        source: SchemaError,
    },
    /// The fingerprint is none of the topic's published versions.
    #[error(
        "its schema has the fingerprint {fingerprint}, which is none of the versions 1 to {newest} of {topic} known here; \
         a newer Wellspring wrote it: upgrade this one, then retry the record"
    )]
    UnknownFingerprint {
        /// The topic.
        topic: &'static str,
        /// The fingerprint in hexadecimal.
        fingerprint: String,
        /// The newest version known here.
        newest: usize,
    },
    /// Confluent's wire format where no registry is configured.
    #[error(
        "it is in Confluent's wire format with schema id {id}, and no schema registry is configured; \
         name one with --schema-registry, then retry the record"
    )]
    NoRegistry {
        /// The id.
        id: u32,
    },
    /// The registry has no such schema, or none that can be used.
    #[error(
        "its schema id {id} cannot be used; check that --schema-registry names the registry it was written with"
    )]
    BadId {
        /// The id.
        id: u32,
        /// The registry's answer, or what is wrong with the schema.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry could not be asked.
    #[error("its schema id {id} cannot be looked up")]
    Registry {
        /// The id.
        id: u32,
        /// Why.
        source: RegistryError,
    },
    /// The published schemas cannot be used.
    #[error("the schemas of this program cannot be used")]
    Schemas {
        /// Why.
        #[from]
        source: SchemaError,
    },
}

/// An unreadable record and where it is.
#[derive(Debug, thiserror::Error)]
#[error("the record at offset {} of {}, partition {}, cannot be read", .origin.offset, .origin.topic, .origin.partition)]
pub struct UnreadableAt {
    /// Topic, partition and offset.
    pub origin: Origin,
    /// What is wrong with it.
    pub source: Unreadable,
}

impl Unreadable {
    /// The stage's failure: the input's fault, but for a registry that does not answer, which stops the reader so that
    /// nothing readable is given up.
    pub fn at(self, stage: Stage, origin: Origin) -> StageError {
        let source = self;
        UnreadableAt { origin, source }.stage_error(stage)
    }
}

impl UnreadableAt {
    /// As [`Unreadable::at`].
    pub fn stage_error(self, stage: Stage) -> StageError {
        if matches!(
            self.source,
            Unreadable::Registry { .. } | Unreadable::Schemas { .. }
        ) {
            return StageError {
                stage,
                class: FailureClass::Network,
                domain: Domain::Internal,
                retry: Retry::Never,
                source: self.into(),
            };
        }
        StageError::input(stage, FailureClass::BadEvent, self)
    }
}

/// Why a record cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// The published schemas cannot be used.
    #[error("the schemas of this program cannot be used")]
    Schemas(#[from] SchemaError),
    /// The registry has no id for the schema.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// JSON was asked for and cannot be made.
    #[error("a {topic} record cannot be written as JSON")]
    Json {
        /// The topic.
        topic: &'static str,
        /// Why.
        source: Box<Unreadable>,
    },
}

/// An event in single-object encoding by its topic's newest schema. Pure; [`Schemas::frame`] makes of it what is
/// configured.
pub fn encode<E: Serialize>(topic: Topic, event: &E) -> Result<Vec<u8>, SchemaError> {
    let version = newest(topic)?.ok_or(SchemaError::NotASchema {
        reason: format!("topic {} has none", topic.suffix()),
    })?;
    let mut value = Vec::with_capacity(256);
    value.extend_from_slice(&SINGLE_OBJECT);
    value.extend_from_slice(&version.fingerprint);
    encode::append(&mut value, &version.shape, event)?;
    Ok(value)
}

/// The data of a CloudEvent in structured form.
fn data_of(json: &[u8]) -> Option<serde_json::Value> {
    let mut event: serde_json::Value = serde_json::from_slice(json).ok()?;
    event.get("specversion")?;
    event.get_mut("data").map(serde_json::Value::take)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn published_name(topic: Topic, version: usize) -> String {
    format!("urn:wellspring:schema:{}:{version}", topic.records().suffix())
}

impl Schemas {
    /// Records in `format`, by the registry where one is configured.
    pub fn new(format: Format, registry: Option<RegistrySettings>) -> Result<Self, RegistryError> {
        Ok(Self {
            format,
            registry: registry.map(Registry::open).transpose()?.map(Arc::new),
        })
    }

    /// The registry.
    pub fn registry(&self) -> Option<&Registry> {
        self.registry.as_deref()
    }

    /// Learns the id of every topic's newest schema, and registers those the registry lacks. Blocks; nothing without a
    /// registry.
    pub fn register(&self, prefix: &str) -> Result<(), Unwritable> {
        let Some(registry) = &self.registry else {
            return Ok(());
        };
        for topic in Topic::ALL {
            if let Some(newest) = newest(topic)? {
                registry.id_of(topic, &topic.name(prefix), newest)?;
            }
        }
        Ok(())
    }

    /// What goes to Kafka for a value of [`encode`]; other bytes, such as those of a record that is passed on, go as
    /// they are. `topic_name` is the full name. With a registry it blocks the first time, to learn the schema's id.
    pub fn frame<'a>(
        &self,
        topic: Topic,
        topic_name: &str,
        value: &'a [u8],
    ) -> Result<Framed<'a>, Unwritable> {
        let newest = newest(topic)?;
        let as_it_is = |content_type| Framed {
            value: Cow::Borrowed(value),
            content_type,
            schema: newest.map(|newest| published_name(topic, newest.number)),
        };
        if !value.starts_with(&SINGLE_OBJECT) {
            let json = value.first() != Some(&CONFLUENT);
            return Ok(as_it_is(if json {
                "application/json"
            } else {
                "application/avro"
            }));
        }
        if self.format == Format::Json {
            let json = self.to_json(topic, value).map_err(|source| Unwritable::Json {
                topic: topic.suffix(),
                source: Box::new(source),
            })?;
            return Ok(Framed {
                value: Cow::Owned(json),
                ..as_it_is("application/json")
            });
        }
        let (header, datum) = value.split_at(SINGLE_OBJECT_HEADER.min(value.len()));
        let fingerprint = header.get(SINGLE_OBJECT.len()..);
        let (Some(registry), Some(newest)) = (
            &self.registry,
            newest.filter(|newest| fingerprint == Some(&newest.fingerprint[..])),
        ) else {
            return Ok(as_it_is("application/avro"));
        };
        let id = registry.id_of(topic, topic_name, newest)?;
        let mut framed = Vec::with_capacity(datum.len() + 5);
        framed.push(CONFLUENT);
        framed.extend_from_slice(&id.to_be_bytes());
        framed.extend_from_slice(datum);
        Ok(Framed {
            value: Cow::Owned(framed),
            content_type: "application/avro",
            schema: Some(registry.schema_url(id)),
        })
    }

    /// The event in a record of `topic`, whichever form it has.
    pub fn read<E: DeserializeOwned>(&self, topic: Topic, value: &[u8]) -> Result<E, Unreadable> {
        if let Some(rest) = value.strip_prefix(&SINGLE_OBJECT) {
            return read_single_object(topic, rest);
        }
        match value {
            [] => Err(Unreadable::Empty),
            [CONFLUENT, rest @ ..] => self.read_confluent(topic, rest),
            json => serde_json::from_slice(json)
                .or_else(|source| data_of(json).map_or(Err(source), serde_json::from_value))
                .map_err(|source| Unreadable::Json { source }),
        }
    }

    fn read_confluent<E: DeserializeOwned>(&self, topic: Topic, rest: &[u8]) -> Result<E, Unreadable> {
        let Some((id, datum)) = rest.split_first_chunk::<4>() else {
            return Err(cut_short(topic, "of the registry".to_owned(), 4, rest.len()));
        };
        let id = u32::from_be_bytes(*id);
        let registry = self.registry.as_ref().ok_or(Unreadable::NoRegistry { id })?;
        let shape = registry.shape_of(id)?;
        decode::from_slice(&shape, datum).map_err(|source| Unreadable::Avro {
            topic: topic.suffix(),
            version: format!("of id {id}"),
            source,
        })
    }

    /// A record's event as JSON, whichever form it has.
    pub fn to_json(&self, topic: Topic, value: &[u8]) -> Result<Vec<u8>, Unreadable> {
        fn through<E: DeserializeOwned + Serialize>(
            schemas: &Schemas,
            topic: Topic,
            value: &[u8],
        ) -> Result<Vec<u8>, Unreadable> {
            let event: E = schemas.read(topic, value)?;
            serde_json::to_vec(&event).map_err(|source| Unreadable::Json { source })
        }
        match topic {
            Topic::Plates | Topic::BatchPlates => through::<PlateReady>(self, topic, value),
            Topic::Tasks | Topic::BatchTasks => through::<FieldTask>(self, topic, value),
            Topic::Features => through::<FieldFeatures>(self, topic, value),
            Topic::Profiles => through::<WellRecord>(self, topic, value),
            Topic::Comparisons => through::<ComparisonRecord>(self, topic, value),
            // Records of plates or tasks: which, their headers say.
            Topic::Retries => through::<FieldTask>(self, Topic::Tasks, value)
                .or_else(|_| through::<PlateReady>(self, Topic::Plates, value)),
            Topic::DeadLetters => through::<DeadLetter>(self, topic, value),
            Topic::Status => through::<Status>(self, topic, value),
        }
    }
}

fn cut_short(topic: Topic, version: String, wanted: u64, left: usize) -> Unreadable {
    Unreadable::Avro {
        topic: topic.suffix(),
        version,
        source: SchemaError::Truncated {
            wanted,
            left: left as u64,
        },
    }
}

fn read_single_object<E: DeserializeOwned>(topic: Topic, rest: &[u8]) -> Result<E, Unreadable> {
    let Some((fingerprint, datum)) = rest.split_first_chunk::<8>() else {
        return Err(cut_short(topic, "unknown".to_owned(), 8, rest.len()));
    };
    let fingerprint: Fingerprint = *fingerprint;
    let known = versions(topic)?;
    let version = known
        .iter()
        .rev()
        .find(|version| version.fingerprint == fingerprint)
        .ok_or_else(|| Unreadable::UnknownFingerprint {
            topic: topic.suffix(),
            fingerprint: hex(&fingerprint),
            newest: known.len(),
        })?;
    decode::from_slice(&version.shape, datum).map_err(|source| Unreadable::Avro {
        topic: topic.suffix(),
        version: version.number.to_string(),
        source,
    })
}
