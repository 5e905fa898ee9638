//! The disease matrix of a screen: every compound against every disease signature.
//!
//! Plates enter in the space in which they are compared; `signatures.parquet` leaves, and how specific each compound is.
//! The vectors of effects wait in a temporary file; memory grows with the names of treatments and with diseases. Fails
//! where a plate contradicts the others or the disk refuses; a screen without a disease axis has no matrix, and a note
//! that says so.

use std::fs::File;
use std::path::Path;

use wellspring_workloads::compare::{ComparisonSettings, Design, Note, NoteKind, PlateRows, Question};
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::profile::Treatment;
use wellspring_workloads::signature::{
    LeftOut, Origin, SignatureColumn, SignatureError, SignatureGatherer, SignatureScreen, SignatureSettings,
    Specificity, TreatedCells, score, vectors,
};
use wellspring_workloads::words::WellPosition;

use crate::results::{Provenance, SignatureTable, WriteError};
use crate::scratch::{ScratchError, unnamed_file};

/// Why there is no matrix.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// Plates contradict each other.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The table could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Effects cannot be put aside.
    #[error(transparent)]
    Aside(#[from] ScratchError),
}

/// Gathers a screen plate by plate.
#[derive(Debug)]
pub(super) struct Signatures {
    gatherer: Gathering,
    settings: SignatureSettings,
    dose_unit: String,
    plates: usize,
}

#[derive(Debug)]
enum Gathering {
    On(Box<SignatureGatherer<File>>),
    /// A screen without a disease axis.
    NoAxis,
}

/// Compounds that a page shows against every disease model.
const SHOWN: usize = 40;

/// What a page can show of the matrix: the compounds that go furthest back along any disease signature, against all of
/// them.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownMatrix {
    /// The disease models, by name.
    pub diseases: Vec<Option<String>>,
    /// The compounds, those that go furthest first.
    pub rows: Vec<ShownEffect>,
    /// Compounds in all.
    pub compounds: usize,
}

/// A compound at one dose against every disease model.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownEffect {
    /// The compound.
    pub compound: Option<String>,
    /// The dose, in the screen's unit.
    pub dose: Option<f64>,
    /// The place of the disease model whose cells it was given to; `None` of healthy cells.
    pub tested_on: Option<usize>,
    /// `cos(e, −v)` with each signature, in [-1, 1]; NaN where one of the two has no length.
    pub reversal: Vec<f32>,
}

/// What the matrix came to.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    /// How specific compounds are; `None` with fewer than two signatures.
    pub(super) specificity: Option<Specificity>,
    /// What the report shows; `None` likewise.
    pub(super) shown: Option<ShownMatrix>,
    /// What a reader must know.
    pub(super) notes: Vec<Note>,
}

impl Signatures {
    /// Nothing gathered yet. Effects wait in a temporary file in folder `aside`.
    ///
    /// # Errors
    /// Settings out of range, or no file can be made there.
    pub(super) fn new(
        design: &Design,
        comparison: &ComparisonSettings,
        aside: &Path,
    ) -> Result<Self, MatrixError> {
        let settings = SignatureSettings {
            treated: match comparison.question {
                Question::Response => TreatedCells::Healthy,
                Question::Rescue | Question::Activity => TreatedCells::Diseased,
            },
            exact_combinations: comparison.thresholds.exact_combinations,
            draws: comparison.thresholds.draws,
            seed: comparison.seed,
            ..SignatureSettings::default()
        };
        Ok(Self {
            gatherer: match comparison.question {
                Question::Activity => Gathering::NoAxis,
                Question::Rescue | Question::Response => {
                    let gatherer = SignatureGatherer::new(&settings, unnamed_file(aside)?)?;
                    Gathering::On(Box::new(gatherer.of_design(design)))
                }
            },
            settings,
            dose_unit: comparison.dose_unit.clone(),
            plates: 0,
        })
    }

    /// Takes a plate.
    ///
    /// # Errors
    /// It contradicts the others.
    pub(super) fn plate(&mut self, plate: &PlateRows<'_>) -> Result<(), MatrixError> {
        let Gathering::On(gatherer) = &mut self.gatherer else {
            return Ok(());
        };
        let wells: Vec<(WellPosition, &Treatment)> = plate
            .wells
            .iter()
            .map(|well| (well.well, &well.treatment))
            .collect();
        gatherer.plate_with_outliers(plate.plate, &wells, &values_of(plate)?, plate.outliers)?;
        self.plates += 1;
        Ok(())
    }

    /// No more wells of a compound at a dose will come.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn settle(&mut self, compound: Option<&str>, dose: Option<f64>) -> Result<(), MatrixError> {
        match &mut self.gatherer {
            Gathering::On(gatherer) => Ok(gatherer.settle(compound, dose)?),
            Gathering::NoAxis => Ok(()),
        }
    }

    /// Scores what was gathered and writes `signatures.parquet` into folder `out`; a screen without signatures, or
    /// without treated wells, has no such file.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn write(self, out: &Path, provenance: &Provenance) -> Result<Matrix, MatrixError> {
        let without = |why: &str| Matrix {
            notes: vec![note(why.to_owned())],
            ..Matrix::default()
        };
        let gatherer = match self.gatherer {
            Gathering::On(gatherer) => gatherer,
            Gathering::NoAxis => {
                return Ok(without(
                    "there are no disease signatures: the screen asks for activity, and has no phenotype wells to make \
                     them of",
                ));
            }
        };
        if self.plates == 0 {
            return Ok(Matrix::default());
        }
        let mut screen = match gatherer.finish() {
            Ok(screen) => screen,
            Err(error @ SignatureError::NoSignature) => return Ok(without(&error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let mut notes: Vec<Note> = left_out(&screen.left_out).collect();
        if screen.effects.is_empty() {
            notes.push(note(
                "no treated well has controls to measure its effect from: there are no signatures to compare"
                    .to_owned(),
            ));
            return Ok(Matrix {
                notes,
                ..Matrix::default()
            });
        }
        let mut specificity = (screen.signatures.len() > 1).then(|| Specificity::new(&screen));
        let mut table = SignatureTable::create(out, &screen, &self.dose_unit, provenance)?;
        score(&mut screen, &self.settings, |column: &SignatureColumn| {
            if let Some(specificity) = &mut specificity {
                specificity.take(column);
            }
            table.push(column).map_err(MatrixError::from)
        })?;
        table.finish()?;
        let shown = match &specificity {
            Some(specificity) => Some(shown(&mut screen, specificity)?),
            None => None,
        };
        Ok(Matrix {
            specificity,
            shown,
            notes,
        })
    }
}

/// The rows of a plate in single precision.
///
/// # Errors
/// They differ in length.
pub(super) fn values_of(plate: &PlateRows<'_>) -> Result<FeatureMatrix, SignatureError> {
    let width = plate.rows.first().map_or(0, Vec::len);
    let values = plate.rows.iter().flatten().map(|&value| value as f32).collect();
    FeatureMatrix::from_values(width, values).map_err(|error| SignatureError::Width {
        plate: plate.plate.clone(),
        expected: error.expected,
        found: error.found,
    })
}

/// The compounds that a page shows.
fn shown(
    screen: &mut SignatureScreen<File>,
    specificity: &Specificity,
) -> Result<ShownMatrix, SignatureError> {
    let (furthest, compounds) = specificity.furthest(SHOWN);
    let diseases: Vec<Option<String>> = screen
        .signatures
        .iter()
        .map(|signature| signature.disease.clone())
        .collect();
    let mut rows = Vec::with_capacity(furthest.len());
    for at in furthest {
        let vector = screen.effect_vectors.read(at..at + 1)?;
        let cosines = vectors::cosines(&vector, &screen.signature_vectors);
        let Some(effect) = screen.effects.get(at) else {
            continue;
        };
        let tested_on = match effect.origin {
            Origin::Disease(disease) => diseases.iter().position(|other| other == disease),
            Origin::Healthy => None,
        };
        rows.push(ShownEffect {
            compound: effect.compound.map(str::to_owned),
            dose: effect.dose,
            tested_on,
            reversal: cosines.iter().map(|&cosine| -cosine as f32).collect(),
        });
    }
    Ok(ShownMatrix {
        diseases,
        rows,
        compounds,
    })
}

/// Most notes about wells that were left out.
const MOST_NOTES: usize = 20;

fn left_out(wells: &[LeftOut]) -> impl Iterator<Item = Note> {
    let more = (wells.len() > MOST_NOTES).then(|| {
        let more = wells.len() - MOST_NOTES;
        note(format!(
            "and wells of {more} more plates have no place among the disease signatures"
        ))
    });
    let of = |wells: &LeftOut| Note {
        kind: NoteKind::NoPhenotype,
        plate: Some(wells.plate.clone()),
        disease: wells.disease.clone(),
        well: None,
        column: None,
        text: format!(
            "plate {}: {} treated wells are not compared with the disease signatures: {}",
            wells.plate, wells.wells, wells.reason
        ),
    };
    wells.iter().take(MOST_NOTES).map(of).chain(more)
}

fn note(text: String) -> Note {
    Note::of_screen(NoteKind::NoSignature, text)
}
