//! What the lists of runs, plates and screens are made of.

use serde::Serialize;
use wellspring::kafka::{KafkaFailure, KafkaSettings};
use wellspring::plates::{Board, InRun};
use wellspring::resolve::{LetterCounts, StoredLetter, read_letters};
use wellspring::unanswered::Unanswered;
use wellspring_workloads::words::Barcode;

use super::say;

/// Plates and runs, their dead letters, and what of them waits for workers.
pub(super) struct Overview {
    pub(super) board: Board,
    pub(super) letters: LetterCounts,
    unanswered: Unanswered,
}

impl Overview {
    pub(super) fn read(kafka: &KafkaSettings) -> Result<Self, KafkaFailure> {
        Self::with(kafka, &read_letters(kafka)?)
    }

    /// The same with letters that were read already.
    pub(super) fn with(kafka: &KafkaSettings, letters: &[StoredLetter]) -> Result<Self, KafkaFailure> {
        // What waits is read last: of a plate that is planned meanwhile nothing is done then, not everything.
        let board = Board::read(kafka)?;
        Ok(Self {
            board,
            letters: LetterCounts::among(letters),
            unanswered: Unanswered::read(kafka)?,
        })
    }

    /// A plate in a run, with what is done of it.
    pub(super) fn shown<'a>(&self, run: &str, plate: &Barcode, of_run: &'a InRun) -> Shown<'a> {
        Shown {
            of_run,
            fields_done: self.fields_done(run, plate, of_run),
            dead_letters_open: self.letters.open_of_plate(run, plate),
        }
    }

    /// Fields of a plate in a run whose features are published.
    pub(super) fn fields_done(&self, run: &str, plate: &Barcode, of_run: &InRun) -> u32 {
        let (waiting, failed) = (
            self.unanswered.of_plate(run, plate),
            self.letters.fields_failed(run, plate),
        );
        of_run
            .fields_planned
            .saturating_sub(waiting)
            .saturating_sub(failed)
    }
}

/// A plate in a run.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    #[serde(flatten)]
    of_run: &'a InRun,
    /// Fields whose features are published.
    fields_done: u32,
    /// Dead letters that nobody has dealt with yet, those of its steps included.
    dead_letters_open: usize,
}

/// Open letters as the end of a line.
pub(super) fn letters_told(letters: usize) -> String {
    match letters {
        0 => String::new(),
        letters => format!("\t{}", say::counted(letters, "dead letter")),
    }
}
