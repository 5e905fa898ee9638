//! Every record that travels on Kafka, with the meaning of its fields.
//!
//! Values are Avro or JSON ([`crate::schemas`]; `pipeline/schemas` has the schema of every topic). Vectors are
//! little-endian `f32`, in JSON as base64 of these bytes. Unknown fields are ignored on reading (a newer producer may
//! add some); missing required fields are an error that names them. Fields stand in the order of their schema. Ids are
//! deterministic: the same work has the same id, whichever worker did it and however often.

mod forms;
mod plates;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wellspring_workloads::compare::{Comparison, CompoundSummary};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, Channel, FieldId, WellPosition};

use self::forms::{f32_bytes, json_text};
pub use self::plates::{AcquisitionProgress, PlateReady, TakenOver};
use crate::error::{FailureClass, Stage};

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
    /// The external step that gave no answer about a well, a plate or the screen; of those about fields the message names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
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
        /// Hash of its profiles; absent in records of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<String>,
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
        /// Hash of all profiles that they come from; absent in records of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<String>,
    },
    /// Every plate is accounted for and the comparisons are published; written in one transaction with the last of them.
    RunFinished {
        /// The run.
        run: RunId,
        /// Fields with features.
        fields_done: u32,
        /// Fields that failed for good.
        fields_failed: u32,
        /// Why there is no comparison, where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        no_comparison: Option<String>,
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
    /// An operator paused a plate in a run, let it go on, or took it out of the run for good, as if it had never been announced.
    PlateSteered {
        /// The run.
        run: RunId,
        /// The plate.
        plate: Barcode,
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

impl WellFields {
    /// Fields, well by well.
    pub fn of(fields: impl IntoIterator<Item = (WellPosition, u32)>) -> Vec<Self> {
        let mut by_well: BTreeMap<WellPosition, Vec<u32>> = BTreeMap::new();
        for (well, field) in fields {
            by_well.entry(well).or_default().push(field);
        }
        let of_well = |(well, fields)| Self { well, fields };
        by_well.into_iter().map(of_well).collect()
    }

    /// Each of the fields with its well.
    pub fn each(&self) -> impl Iterator<Item = (WellPosition, u32)> {
        self.fields.iter().map(|field| (self.well, *field))
    }
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

/// What an operator does with a run, or with a plate in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steering {
    /// Its work waits.
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
    /// The plate the status speaks of, where it is about one.
    pub fn plate(&self) -> Option<&Barcode> {
        match self {
            Status::PlateQueued { plate, .. }
            | Status::PlateImaging { plate, .. }
            | Status::PlatePlanned { plate, .. }
            | Status::PlateProfiled { plate, .. }
            | Status::PlateReleased { plate, .. }
            | Status::PlateSteered { plate, .. } => Some(plate),
            Status::RunSubmitted { .. }
            | Status::ComparisonsPublished { .. }
            | Status::RunFinished { .. }
            | Status::RunSteered { .. }
            | Status::LettersResolved { .. } => None,
        }
    }

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
            | Status::PlateSteered { run, .. }
            | Status::LettersResolved { run, .. } => run,
        }
    }
}
