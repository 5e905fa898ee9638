//! Every record that travels on Kafka, with the meaning of its fields.
//!
//! Values are Avro or JSON ([`crate::schemas`]; `pipeline/schemas` has the schema of every topic). Vectors are
//! little-endian `f32`, in JSON as base64 of these bytes. Unknown fields are ignored on reading (a newer producer may
//! add some); missing required fields are an error that names them. Fields stand in the order of their schema. Ids are
//! deterministic: the same work has the same id, whichever worker did it and however often.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use wellspring_workloads::compare::{Comparison, CompoundSummary};
use wellspring_workloads::screen::{Screen, edits};
use wellspring_workloads::words::{Barcode, Channel, FieldId, WellPosition};

use crate::error::{FailureClass, Stage};
use crate::kafka::topics::Urgency;

/// A plate's images are complete, or come in. Topic `plates`, keyed by plate.
///
/// Who writes it as JSON may say which `version` it is of: 1. Another one is refused, since what it means is not known here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Announcement")]
pub struct PlateReady {
    /// The plate's barcode.
    pub plate: Barcode,
    /// The run that should take it; every open run whose screen includes the plate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// How urgent it is; live when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Urgency>,
    /// What is known of a plate that is still being imaged. All of its images are there when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<AcquisitionProgress>,
}

impl PlateReady {
    /// The event's CloudEvents type.
    pub const TYPE: &str = "wellspring.plate-ready.v1";
    /// The type of one about a plate that is still being imaged.
    pub const PROGRESS_TYPE: &str = "wellspring.acquisition-progress.v1";

    /// The event's CloudEvents type.
    pub fn kind(&self) -> &'static str {
        match self.progress {
            None => Self::TYPE,
            Some(_) => Self::PROGRESS_TYPE,
        }
    }
}

/// How far the imaging of a plate is. Events of one plate may come repeatedly and in any order: wells add up, and of counts and
/// deadlines the largest holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcquisitionProgress {
    /// Wells whose images are all there. When absent, every field is taken that has all channels, no empty file and as many
    /// planes as the fullest field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wells: Option<Vec<WellPosition>>,
    /// Fields that the plate will have, 1 or more: it is complete when so many are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields_expected: Option<u32>,
    /// When to wait no longer, in milliseconds since 1970 UTC; when absent, as long as the screen says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The deadline that has passed. Written by the planner's clock, and by nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_ms: Option<u64>,
}

impl AcquisitionProgress {
    /// Why it cannot be meant so.
    fn problem(&self, lane: Option<Urgency>) -> Option<&'static str> {
        if lane == Some(Urgency::Batch) {
            return Some("a plate that is still being imaged goes through the live lane: leave lane out");
        }
        if self.wells.as_ref().is_some_and(Vec::is_empty) {
            return Some(
                "progress.wells names no well: leave it out where all fields may be taken that are there",
            );
        }
        (self.fields_expected == Some(0))
            .then_some("progress.fields_expected is 0; a plate has at least one field")
    }
}

/// A [`PlateReady`] as it may be written. It may hold more than is known here, but no misspelt `progress`: the plate would be
/// taken for complete.
#[derive(Deserialize)]
struct Announcement {
    plate: Barcode,
    #[serde(default)]
    run: Option<RunId>,
    #[serde(default)]
    lane: Option<Urgency>,
    #[serde(default)]
    progress: Option<AcquisitionProgress>,
    #[serde(default)]
    version: Option<Version>,
    #[serde(flatten)]
    more: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Version {
    Number(f64),
    Text(String),
}

impl TryFrom<Announcement> for PlateReady {
    type Error = String;

    fn try_from(written: Announcement) -> Result<Self, String> {
        let Announcement {
            plate,
            run,
            lane,
            progress,
            version,
            more,
        } = written;
        if let Some(key) = more.keys().find(|key| edits(key, "progress") <= 1) {
            return Err(format!(
                "'{key}' is no key of a plate event; did you mean 'progress'?"
            ));
        }
        if let Some(problem) = progress.as_ref().and_then(|progress| progress.problem(lane)) {
            return Err(problem.to_owned());
        }
        let unknown = match version {
            None => None,
            Some(Version::Number(number)) => (number != 1.0).then(|| number.to_string()),
            Some(Version::Text(text)) => (!matches!(&*text, "1" | "1.0" | "v1")).then_some(text),
        };
        match unknown {
            None => Ok(Self {
                plate,
                run,
                lane,
                progress,
            }),
            Some(version) => Err(format!(
                "plate-ready events of version {version} are not known here, those of version 1 are"
            )),
        }
    }
}

/// A run's name: the screen's name and the first eight digits of its hash, so that submitting the same screen
/// twice is the same run.
pub type RunId = String;

/// The images of one channel of a field: one, or the planes of a z stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelImages {
    /// The channel.
    pub channel: Channel,
    /// Its planes in z order; several become one, by maximum projection or as the sharpest.
    pub planes: Vec<ImageRef>,
}

/// One image object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRef {
    /// Path of the object, relative to the screen's image store.
    pub path: String,
    /// Size of the object in bytes, as listed.
    pub bytes: u64,
    /// Which image of the object, from 0: the directory of a TIFF. The first, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// The z plane as name or metadata number it; only for planes of a stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub z: Option<u32>,
    /// What told the object's state from others when it was listed: its entity tag without quotation marks, or, in a store
    /// without tags, `@` and when it was last written, in milliseconds since 1970 UTC. Absent where the store said neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Box<str>>,
}

/// One field of view to embed. Topic `tasks`, keyed by plate and well so that one plate spreads over all workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldTask {
    /// The run.
    pub run: RunId,
    /// Plate, well and field.
    #[serde(flatten)]
    pub field: FieldId,
    /// The images per channel, in the screen's channel order.
    pub images: Vec<ChannelImages>,
    /// Grey levels that become 0 and 1, per channel, where they are pooled over the plate's controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Vec<(f32, f32)>>,
    /// Hash of the illumination functions and dark-fields that the plate was planned with, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shading: Option<String>,
}

/// Quality of one channel of one field: named measures and the flags they raised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelMeasures {
    /// The channel.
    pub channel: Channel,
    /// Measures by CellProfiler's name without prefix and channel, such as `PowerLogLogSlope`. Of a z stack also `Planes`, how
    /// many it has, and, where one of them was taken, its number: `FocusPlane`.
    pub measures: Vec<(String, f64)>,
    /// Flags with metric, value and limit in words; empty when the channel passes.
    pub flags: Vec<String>,
    /// Address of the channel's image; of a z stack that of the plane that was taken, else of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// The features of one field. Topic `features`, keyed by plate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldFeatures {
    /// The run.
    pub run: RunId,
    /// Plate, well and field.
    #[serde(flatten)]
    pub field: FieldId,
    /// The network's name and version.
    pub model: String,
    /// How many tiles were averaged per channel.
    pub tiles: u32,
    /// Whether every required channel passed the quality gates.
    pub passed: bool,
    /// Quality per channel.
    pub quality: Vec<ChannelMeasures>,
    /// Channel embeddings one after the other in the screen's channel order, then the columns of external steps in the
    /// order of the screen.
    #[serde(with = "f32_bytes")]
    pub embedding: Vec<f32>,
}

/// The profile of one well. Topic `profiles`, keyed by plate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WellRecord {
    /// The run.
    pub run: RunId,
    /// The plate.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
    /// How many passing fields were averaged.
    pub fields: u32,
    /// Mean embedding of the passing fields.
    #[serde(with = "f32_bytes")]
    pub embedding: Vec<f32>,
}

/// One comparison of a compound with a disease model. Topic `comparisons`, keyed by compound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "level")]
pub enum ComparisonRecord {
    /// One compound at one dose.
    Dose {
        /// The run.
        run: RunId,
        /// sha256 of the alignment, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transform_sha256: Option<String>,
        /// All components of the comparison.
        #[serde(flatten)]
        comparison: Box<Comparison>,
    },
    /// One compound over all doses.
    Compound {
        /// The run.
        run: RunId,
        /// sha256 of the alignment, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transform_sha256: Option<String>,
        /// The call, the dose curve and all components.
        #[serde(flatten)]
        summary: Box<CompoundSummary>,
    },
}

/// Something that failed for good. Topic `dead-letters`, keyed by plate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Deterministic: the same failure has the same id on every attempt.
    pub id: String,
    /// The run; absent when the event could not be read far enough to tell.
    pub run: Option<RunId>,
    /// What kind of failure.
    pub class: FailureClass,
    /// Where it happened.
    pub stage: Stage,
    /// The plate, where known.
    pub plate: Option<Barcode>,
    /// The well, where known.
    pub well: Option<WellPosition>,
    /// The field, where known.
    pub field: Option<u32>,
    /// How many fields of view this failure cost.
    pub fields_lost: u32,
    /// What was wrong, where, and what to do.
    pub message: String,
    /// Topic, partition, offset and key of the record that failed.
    pub origin: Origin,
    /// How often the record had been begun, this time included.
    #[serde(default = "first")]
    pub attempt: u32,
    /// The process that gave up.
    #[serde(default)]
    pub worker: String,
    /// The record's bytes in base64, to look at and to try again; of one larger than 512 KiB the first 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// Size of the record in bytes.
    #[serde(default)]
    pub original_bytes: u64,
    /// When, in milliseconds since 1970 UTC.
    pub time_ms: u64,
}

fn first() -> u32 {
    1
}

/// Where a record came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The key.
    #[serde(default)]
    pub key: String,
}

/// What became of a run or a plate. Topic `status`, keyed by run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// A screen was submitted. Read by every worker to know what to do with the run's tasks.
    RunSubmitted {
        /// The run.
        run: RunId,
        /// The checked screen; JSON text in Avro.
        #[serde(with = "json_text")]
        screen: Box<Screen>,
        /// Plates that were announced with it; the run is done when all of them are.
        plates: Vec<Barcode>,
        /// When, in milliseconds since 1970 UTC.
        time_ms: u64,
        /// The network that the run is made with; absent in records of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelIdentity>,
    },
    /// A plate waits to be planned in the batch lane; written in one transaction with its event there.
    PlateQueued {
        /// The run.
        run: RunId,
        /// The plate.
        plate: Barcode,
    },
    /// A plate is still being imaged, and some of its fields were planned.
    PlateImaging {
        /// The run.
        run: RunId,
        /// The plate.
        plate: Barcode,
        /// Fields that the plate will have, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fields_expected: Option<u32>,
        /// Hash of the plate's illumination functions and dark-fields, where it has any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shading: Option<String>,
        /// Fields for which tasks were published with this status.
        planned: Vec<WellFields>,
        /// Wells that were said to be imaged; when absent, every field that is there may be taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wells: Option<Vec<WellPosition>>,
        /// When it is waited for no longer, in milliseconds since 1970 UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
        /// `Some(false)` where no event has said the deadline, and the screen's minutes after the last event hold.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_said: Option<bool>,
        /// Why fields that are there wait until the plate is complete, where they do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits: Option<String>,
    },
    /// A plate was planned: this many fields are to come.
    PlatePlanned {
        /// The run.
        run: RunId,
        /// The plate.
        plate: Barcode,
        /// Fields the plate should have.
        fields_expected: u32,
        /// Fields for which tasks were published; the rest are dead letters already.
        fields_planned: u32,
        /// Dead letters published with this status. They are on another topic, so a reader may see them later.
        dead_letters: u32,
        /// Hash of the plate's illumination functions and dark-fields, where it has any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shading: Option<String>,
        /// What of a plate that was still being imaged never came, where it was finished without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incomplete: Option<String>,
        /// What was passed over of its files, such as files that belong to no image, in words: how many, the first of them, and
        /// why. No field is lost by it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
    },
    /// A plate's profiles are published; written in one transaction with them.
    PlateProfiled {
        /// The run.
        run: RunId,
        /// The plate.
        plate: Barcode,
        /// Why it is held back from the comparison, where it is; it has no profiles then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held: Option<String>,
    },
    /// An operator lets a plate that is held back into the comparison. A run that was finished is not any more.
    PlateReleased {
        /// The run.
        run: RunId,
        /// The plate.
        plate: Barcode,
        /// When, in milliseconds since 1970 UTC.
        time_ms: u64,
    },
    /// So many of the run's comparisons are published; written in one transaction with the last of them. Only where they
    /// are too many for one transaction.
    ComparisonsPublished {
        /// The run.
        run: RunId,
        /// Records so far, in the order in which a run finds them.
        records: u64,
    },
    /// Every plate is accounted for and the comparisons are published; written in one transaction with the last of them.
    RunFinished {
        /// The run.
        run: RunId,
        /// Fields with features.
        fields_done: u32,
        /// Fields that failed for good.
        fields_failed: u32,
    },
    /// An operator paused a run, let it go on, or ended it for good. A worker that reads this begins no more of its fields;
    /// what is in its stages is finished.
    RunSteered {
        /// The run.
        run: RunId,
        /// What is to become of it.
        action: Steering,
        /// When, in milliseconds since 1970 UTC.
        time_ms: u64,
    },
    /// An operator dealt with dead letters; written in one transaction with the records that are tried again. A run
    /// whose letters are tried again is not finished any more.
    LettersResolved {
        /// The run; empty for letters of no run.
        run: RunId,
        /// The letters' plates.
        plates: Vec<Barcode>,
        /// What was done.
        action: LetterAction,
        /// Offsets of the letters on the dead-letter topic.
        offsets: Vec<i64>,
        /// When, in milliseconds since 1970 UTC.
        time_ms: u64,
    },
}

/// Fields of one well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WellFields {
    /// The well.
    pub well: WellPosition,
    /// The fields' numbers.
    pub fields: Vec<u32>,
}

/// A network as it was when a run was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Its name.
    pub name: String,
    /// The version of its card.
    pub version: String,
    /// Digest of its weights, as its card has it.
    pub weights_sha256: String,
    /// Digest of what else its card says about how an embedding is made
    /// ([`wellspring_models::ModelCard::contract_sha256`]).
    pub card_sha256: String,
}

/// What an operator does with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steering {
    /// Its fields and plates wait.
    Paused,
    /// It goes on where it was.
    Resumed,
    /// It ends without results; what waits is dropped.
    Cancelled,
}

/// What an operator did with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterAction {
    /// The original record was published again.
    Retried,
    /// The failure stands.
    Discarded,
}

impl Status {
    /// The run the status speaks of.
    pub fn run(&self) -> &RunId {
        match self {
            Status::RunSubmitted { run, .. }
            | Status::PlateQueued { run, .. }
            | Status::PlateImaging { run, .. }
            | Status::PlatePlanned { run, .. }
            | Status::PlateProfiled { run, .. }
            | Status::PlateReleased { run, .. }
            | Status::ComparisonsPublished { run, .. }
            | Status::RunFinished { run, .. }
            | Status::RunSteered { run, .. }
            | Status::LettersResolved { run, .. } => run,
        }
    }
}

/// `Vec<f32>` as its little-endian bytes, in JSON as their base64.
mod f32_bytes {
    use std::fmt;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(bytes))
        } else {
            serializer.serialize_bytes(&bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
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
mod json_text {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::value::MapAccessDeserializer;
    use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
    use serde::{Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return value.serialize(serializer);
        }
        let text = serde_json::to_string(value).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plate_event_of_an_unknown_version_is_refused() {
        for version in ["1", "1.0", "\"1\"", "\"v1\"", "null"] {
            let event = format!(r#"{{"plate":"BR1","version":{version},"new":[1]}}"#);
            let read: PlateReady = serde_json::from_str(&event).unwrap();
            assert_eq!(read.plate.as_str(), "BR1");
        }
        for version in ["2", "99", "1.5", "\"v2\"", "true"] {
            let event = format!(r#"{{"plate":"BR1","version":{version}}}"#);
            assert!(serde_json::from_str::<PlateReady>(&event).is_err(), "{version}");
        }
        let refused = serde_json::from_str::<PlateReady>(r#"{"plate":"BR1","version":99}"#);
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("version 99"), "{said}");
    }
}
