//! Dead letters: what failed for good, as records that say what, where, why and what to do.
//!
//! A [`StageError`] and the place it happened enter; a record for the dead-letter topic leaves, or the order to stop
//! where the program itself is at fault. Ids are deterministic, so that doing the work again repeats no letter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

use crate::clock::now_ms;
use crate::error::{Domain, FailureClass, Stage, StageError};
use crate::events::{DeadLetter, FieldTask, Origin, RunId};
use crate::kafka::OutRecord;
use crate::kafka::topics::Topic;
use crate::track::{Outcome, Ticket};

/// Bytes of an unreadable record kept in its dead letter.
const ORIGINAL_BYTES: usize = 64 << 10;

/// What a failure concerns, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The run.
    pub run: Option<RunId>,
    /// The plate.
    pub plate: Option<Barcode>,
    /// The well.
    pub well: Option<WellPosition>,
    /// The field.
    pub field: Option<u32>,
    /// Fields of view the failure costs.
    pub fields_lost: u32,
}

impl Place {
    /// One field.
    pub fn field(run: &RunId, field: &FieldId) -> Self {
        Self {
            run: Some(run.clone()),
            plate: Some(field.plate.clone()),
            well: Some(field.well),
            field: Some(field.field),
            fields_lost: 1,
        }
    }
}

/// The letter for a failure.
pub fn letter(
    place: Place,
    stage: Stage,
    class: FailureClass,
    message: String,
    origin: Origin,
    original: Option<&[u8]>,
) -> DeadLetter {
    let mut id = Sha256::new();
    for part in [
        place.run.clone().unwrap_or_default(),
        place.plate.as_ref().map(ToString::to_string).unwrap_or_default(),
        place.well.map(|well| well.to_string()).unwrap_or_default(),
        place.field.map(|field| field.to_string()).unwrap_or_default(),
        class.to_string(),
        message.clone(),
    ] {
        id.update(part.as_bytes());
        id.update([0]);
    }
    id.update(original.unwrap_or_default());
    let id: String = id
        .finalize()
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    DeadLetter {
        id,
        run: place.run,
        class,
        stage,
        plate: place.plate,
        well: place.well,
        field: place.field,
        fields_lost: place.fields_lost,
        message,
        origin,
        original: original.map(|bytes| STANDARD.encode(&bytes[..bytes.len().min(ORIGINAL_BYTES)])),
        time_ms: now_ms(),
    }
}

/// What a letter is about, in words: plate, well and field as far as they are known.
pub fn subject(letter: &DeadLetter) -> String {
    let parts = [
        letter.plate.as_ref().map(|plate| format!("plate {plate}")),
        letter.well.map(|well| format!("well {well}")),
        letter.field.map(|field| format!("field {field}")),
    ];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    if known.is_empty() {
        let Origin {
            topic,
            partition,
            offset,
        } = &letter.origin;
        return format!("record at offset {offset} of {topic}, partition {partition}");
    }
    known.join(" ")
}

/// The record that carries a letter.
pub fn record(letter: &DeadLetter) -> Result<OutRecord, StageError> {
    let key = letter.plate.as_ref().map(ToString::to_string).unwrap_or_default();
    OutRecord::new(
        Topic::DeadLetters,
        key,
        letter.id.clone(),
        "wellspring.dead-letter.v1",
        letter,
    )
    .map_err(|error| StageError::internal(letter.stage, error))
}

/// Settles a record that could not be read at all.
pub fn settle_bad_record(ticket: Ticket, original: &[u8], error: StageError) {
    settle(ticket, Place::default(), Some(original), error);
}

/// Settles a field that failed.
pub fn settle_field(ticket: Ticket, task: &FieldTask, error: StageError) {
    settle(ticket, Place::field(&task.run, &task.field), None, error);
}

fn settle(ticket: Ticket, place: Place, original: Option<&[u8]>, error: StageError) {
    if error.domain == Domain::Internal {
        ticket.settle(Outcome::Stop(error));
        return;
    }
    let message = error.chain();
    let well = place.well.map(|well| well.to_string());
    tracing::warn!(
        stage = %error.stage, class = %error.class, plate = ?place.plate, ?well, field = ?place.field, message,
        "dead letter"
    );
    let letter = letter(
        place,
        error.stage,
        error.class,
        message,
        ticket.origin(),
        original,
    );
    match record(&letter) {
        Ok(record) => ticket.settle(Outcome::Publish(vec![record])),
        Err(error) => ticket.settle(Outcome::Stop(error)),
    }
}
