//! Dead letters: what failed for good, as records that say what, where, why and what to do.
//!
//! What failed and the place it happened enter; a record for the dead-letter topic leaves, with the original bytes in it
//! and class, stage, attempt, worker and error in its headers. Ids are deterministic, so that doing the work again
//! repeats no letter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

use crate::clock::now_ms;
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{DeadLetter, Origin, RunId};
use crate::failures;
use crate::kafka::OutRecord;
use crate::kafka::topics::Topic;
use crate::track::Ticket;

/// Records up to this size are kept whole in their dead letter: with base64 they fit into a record of Kafka's default
/// limit of 1 MB.
const WHOLE_BYTES: usize = 512 << 10;
/// Of larger ones, this much is kept to look at.
const BEGINNING_BYTES: usize = 64 << 10;

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

/// The letter for a failure of the ticket's record.
pub fn letter(
    place: Place,
    stage: Stage,
    class: FailureClass,
    message: String,
    ticket: &Ticket,
) -> DeadLetter {
    let original = &ticket.record().value;
    let id = id_of(&place, class, &message, original);
    let origin = ticket.origin();
    DeadLetter {
        id,
        run: place.run,
        class,
        stage,
        plate: place.plate,
        well: place.well,
        field: place.field,
        step: None,
        fields_lost: place.fields_lost,
        message,
        origin,
        attempt: failures::attempt(ticket.record()),
        worker: ticket.facts().worker.clone(),
        original: Some(kept(original)),
        original_bytes: original.len() as u64,
        time_ms: now_ms(),
    }
}

/// The letter for a step that gave no answer to `request` about a well, a plate or the screen. No record failed, so none
/// is sent back: whoever tries it again has the step asked again.
pub fn letter_of_step(
    place: Place,
    step: &str,
    class: FailureClass,
    message: String,
    request: &[u8],
    (attempt, worker): (u32, &str),
) -> DeadLetter {
    DeadLetter {
        id: id_of(&place, class, &message, step.as_bytes()),
        run: place.run,
        class,
        stage: Stage::External,
        plate: place.plate,
        well: place.well,
        field: None,
        step: Some(step.to_owned()),
        fields_lost: 0,
        message,
        origin: Origin {
            topic: String::new(),
            partition: -1,
            offset: -1,
            key: String::new(),
        },
        attempt,
        worker: worker.to_owned(),
        original: Some(kept(request)),
        original_bytes: request.len() as u64,
        time_ms: now_ms(),
    }
}

/// The same failure of the same has the same id.
fn id_of(place: &Place, class: FailureClass, message: &str, original: &[u8]) -> String {
    let mut id = Sha256::new();
    for part in [
        place.run.clone().unwrap_or_default(),
        place.plate.as_ref().map(ToString::to_string).unwrap_or_default(),
        place.well.map(|well| well.to_string()).unwrap_or_default(),
        place.field.map(|field| field.to_string()).unwrap_or_default(),
        class.to_string(),
        message.to_owned(),
    ] {
        id.update(part.as_bytes());
        id.update([0]);
    }
    id.update(original);
    id.finalize()
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// As much of a record as a letter has, in base64.
fn kept(original: &[u8]) -> String {
    let kept = if original.len() > WHOLE_BYTES {
        BEGINNING_BYTES
    } else {
        original.len()
    };
    STANDARD.encode(&original[..kept])
}

/// The record a letter is about, as it was; `None` where it was too large to be kept.
pub fn original(letter: &DeadLetter) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(letter.original.as_ref()?).ok()?;
    (bytes.len() as u64 == letter.original_bytes).then_some(bytes)
}

/// What a letter is about, in words: plate, well and field as far as they are known, and the step that was asked about them.
pub fn subject(letter: &DeadLetter) -> String {
    let parts = [
        letter.plate.as_ref().map(|plate| format!("plate {plate}")),
        letter.well.map(|well| format!("well {well}")),
        letter.field.map(|field| format!("field {field}")),
        letter.step.as_ref().map(|step| format!("step {step}")),
    ];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    if known.is_empty() {
        let Origin {
            topic,
            partition,
            offset,
            ..
        } = &letter.origin;
        return format!("record at offset {offset} of {topic}, partition {partition}");
    }
    known.join(" ")
}

/// The record that carries a letter.
pub fn record(letter: &DeadLetter) -> Result<OutRecord, StageError> {
    let key = letter.plate.as_ref().map(ToString::to_string).unwrap_or_default();
    let record = OutRecord::new(
        Topic::DeadLetters,
        key,
        letter.id.clone(),
        "wellspring.dead-letter.v1",
        letter,
    )
    .map_err(|error| StageError::internal(letter.stage, error))?;
    let mut headers = failures::of_failure(letter.class, letter.stage, &letter.worker, &letter.message);
    headers.push((failures::ATTEMPT, letter.attempt.to_string()));
    Ok(OutRecord { headers, ..record })
}
