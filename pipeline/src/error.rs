//! What went wrong in a stage: whose fault it is, whether trying again can help, and what a person can do.
//!
//! A [`StageError`] decides between three ends: try again, dead letter (the field is marked failed and the plate
//! goes on), or stop (nothing is committed, so nothing is lost).

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};
use wellspring_kernels::KernelError;

/// The stages of the flow, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Reading a record from Kafka.
    Source,
    /// Turning a plate event into one task per field of view.
    Plan,
    /// Reading image bytes from object storage.
    Fetch,
    /// Turning bytes into pixels.
    Decode,
    /// Turning pixels into the network's input.
    Preprocess,
    /// Measuring image quality.
    Quality,
    /// Running the network.
    Embed,
    /// Asking steps outside this program.
    External,
    /// Writing features to Kafka.
    Publish,
    /// Gathering fields into wells and plates.
    Collect,
    /// Comparing treatments with controls.
    Compare,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Source => "source",
            Stage::Plan => "plan",
            Stage::Fetch => "fetch",
            Stage::Decode => "decode",
            Stage::Preprocess => "preprocess",
            Stage::Quality => "quality",
            Stage::Embed => "embed",
            Stage::External => "external",
            Stage::Publish => "publish",
            Stage::Collect => "collect",
            Stage::Compare => "compare",
        })
    }
}

/// What kind of failure it was, as operators sort dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// An event that cannot be read: truncated, not JSON, missing fields.
    BadEvent,
    /// An image that should exist does not.
    MissingImage,
    /// An image that exists but cannot be decoded, or does not fit its siblings.
    BadImage,
    /// A metadata file of a plate that cannot be used.
    BadMetadata,
    /// The plate map and the images do not agree.
    PlateMap,
    /// The object store or a broker could not be reached.
    Network,
    /// The object store asked for fewer requests.
    Throttled,
    /// A device or the machine had no memory left.
    OutOfMemory,
    /// A graphics device was lost, with what lay in its memory.
    Device,
    /// The object store refused access.
    Access,
    /// The network gave no usable embedding.
    Model,
    /// The screen asks for something that cannot work.
    Configuration,
    /// A step outside this program gave no usable answer.
    External,
    /// The record ended every process that worked on it.
    Poison,
    /// A defect of the program.
    Internal,
}

impl FailureClass {
    /// All classes.
    pub const ALL: [FailureClass; 15] = [
        FailureClass::BadEvent,
        FailureClass::MissingImage,
        FailureClass::BadImage,
        FailureClass::BadMetadata,
        FailureClass::PlateMap,
        FailureClass::Network,
        FailureClass::Throttled,
        FailureClass::OutOfMemory,
        FailureClass::Device,
        FailureClass::Access,
        FailureClass::Model,
        FailureClass::Configuration,
        FailureClass::External,
        FailureClass::Poison,
        FailureClass::Internal,
    ];

    /// The class with this name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.to_string() == word)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureClass::BadEvent => "bad_event",
            FailureClass::MissingImage => "missing_image",
            FailureClass::BadImage => "bad_image",
            FailureClass::BadMetadata => "bad_metadata",
            FailureClass::PlateMap => "plate_map",
            FailureClass::Network => "network",
            FailureClass::Throttled => "throttled",
            FailureClass::OutOfMemory => "out_of_memory",
            FailureClass::Device => "device",
            FailureClass::Access => "access",
            FailureClass::Model => "model",
            FailureClass::Configuration => "configuration",
            FailureClass::External => "external",
            FailureClass::Poison => "poison",
            FailureClass::Internal => "internal",
        })
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// The input: the rest of the plate goes on without it.
    Input,
    /// Something outside this process: the store, the broker.
    External,
    /// This program: stop and keep the work uncommitted.
    Internal,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same input gives the same failure.
    Never,
    /// It may pass: wait, with jitter, and try again.
    Backoff,
}

/// A failure in one stage.
#[derive(Debug)]
pub struct StageError {
    /// Where it happened.
    pub stage: Stage,
    /// What kind of failure it was.
    pub class: FailureClass,
    /// Whose fault it is.
    pub domain: Domain,
    /// Whether trying again can help.
    pub retry: Retry,
    /// The cause; its message says what was wrong, where, and what to do.
    pub source: Box<dyn Error + Send + Sync>,
}

impl StageError {
    /// The input is at fault: dead letter, and the rest goes on.
    pub fn input(stage: Stage, class: FailureClass, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            stage,
            class,
            domain: Domain::Input,
            retry: Retry::Never,
            source: source.into(),
        }
    }

    /// Something outside failed and may recover.
    pub fn external(
        stage: Stage,
        class: FailureClass,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            stage,
            class,
            domain: Domain::External,
            retry: Retry::Backoff,
            source: source.into(),
        }
    }

    /// This program or machine is at fault: the process stops, the work stays uncommitted.
    pub fn internal(stage: Stage, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            stage,
            class: FailureClass::Internal,
            domain: Domain::Internal,
            retry: Retry::Never,
            source: source.into(),
        }
    }

    /// A kernel failed: too little memory and a lost device may pass, anything else is this program's or this machine's fault.
    pub fn of_kernel(stage: Stage, error: KernelError) -> Self {
        match error {
            KernelError::OutOfMemory { .. } => Self::external(stage, FailureClass::OutOfMemory, error),
            KernelError::DeviceLost { .. } => Self::external(stage, FailureClass::Device, error),
            error => Self::internal(stage, error),
        }
    }

    /// The same failure, of which more is known: what it is of.
    pub fn of(self, what: String) -> Self {
        let source = self.source;
        Self {
            source: Box::new(Of { what, source }),
            ..self
        }
    }

    /// The messages of the whole cause chain, joined by `: `, without repeating a message that contains its cause.
    pub fn chain(&self) -> String {
        chain(self.source.as_ref())
    }
}

/// A cause with what it is of.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Of {
    what: String,
    source: Box<dyn Error + Send + Sync>,
}

/// The messages of an error and its causes, joined by `: `.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({}): {}", self.stage, self.class, self.chain())
    }
}

impl Error for StageError {}
