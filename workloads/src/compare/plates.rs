//! Every plate of the screen on its own axes: checked, sorted and scaled profiles enter, scored wells leave.
//!
//! Fails on profiles that contradict each other. A plate without an axis for a disease gives a note and no scores.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::axis::{self, Axis, ControlScore, Position};
use super::rows::effect;
use super::scale::Scaler;
use super::window::{median_and_mad, median_in_place, robust_separation, separation};
use super::{
    AssayWindow, CompareError, ComparisonSettings, FitOn, Normalise, Note, NoteKind, Question, WellScore,
};
use crate::profile::{Role, WellProfile};
use crate::words::Barcode;

/// Fewer reference wells than this per plate scale features unreliably (SCIENCE 5.1).
const FEW_CONTROLS: usize = 16;
/// Fewest null controls whose spread gives a robust z.
const FEWEST_FOR_Z: usize = 3;

/// A well on the axis of one disease.
pub(super) struct ScoredWell<'a> {
    pub(super) profile: &'a WellProfile,
    pub(super) position: Position,
    /// In axis lengths of the axis it was scored on.
    pub(super) scaled: Vec<f64>,
    pub(super) leave_one_out: bool,
    pub(super) effect_z: Option<f64>,
    /// Spread (1.4826 MAD) of the effect in the plate's null controls.
    pub(super) effect_mad: Option<f64>,
    pub(super) off_z: Option<f64>,
    pub(super) cell_ratio: Option<f64>,
}

/// The wells of a plate that concern one disease.
pub(super) struct ScoredPlate<'a> {
    pub(super) plate: &'a Barcode,
    pub(super) disease: Option<&'a str>,
    pub(super) axis: Axis,
    pub(super) reference: Vec<ScoredWell<'a>>,
    pub(super) phenotype: Vec<ScoredWell<'a>>,
    pub(super) treated: Vec<ScoredWell<'a>>,
}

impl<'a> ScoredPlate<'a> {
    /// The wells whose scores are the null.
    pub(super) fn null_wells(&self, question: Question) -> &[ScoredWell<'a>] {
        match question {
            Question::Rescue => &self.phenotype,
            Question::Response => &self.reference,
        }
    }

    fn all_wells(&self) -> impl Iterator<Item = &ScoredWell<'a>> {
        self.reference.iter().chain(&self.phenotype).chain(&self.treated)
    }

    /// One score per well, in no particular order.
    pub(super) fn well_scores(&self) -> impl Iterator<Item = WellScore> {
        self.all_wells().map(|well| WellScore {
            plate: self.plate.clone(),
            well: well.profile.well,
            disease: self.disease.map(str::to_owned),
            on_axis: well.position.on_axis,
            off_axis: well.position.off_axis,
            off_z: well.off_z,
            rescue: well.position.rescue(),
            cell_ratio: well.cell_ratio,
            leave_one_out: well.leave_one_out,
        })
    }

    /// Z′ and SSMD of the plate; `None` where a control was scored in-sample.
    pub(super) fn window(&self) -> AssayWindow {
        let positions = |wells: &[ScoredWell<'_>]| -> Vec<f64> {
            wells
                .iter()
                .filter(|w| w.leave_one_out)
                .map(|w| w.position.on_axis)
                .collect()
        };
        let (phenotype, reference) = (positions(&self.phenotype), positions(&self.reference));
        let plain = separation(&phenotype, &reference);
        let robust = robust_separation(&phenotype, &reference);
        AssayWindow {
            plate: self.plate.clone(),
            disease: self.disease.map(str::to_owned),
            n_reference: self.reference.len(),
            n_phenotype: self.phenotype.len(),
            z_prime: plain.z_prime,
            robust_z_prime: robust.z_prime,
            ssmd: plain.ssmd,
            robust_ssmd: robust.ssmd,
            axis_length: self.axis.length(),
        }
    }
}

/// Sorts profiles by plate and well and checks them.
pub(super) fn checked(profiles: &[WellProfile]) -> Result<Vec<&WellProfile>, CompareError> {
    let mut sorted: Vec<&WellProfile> = profiles.iter().collect();
    sorted.sort_by(|a, b| (&a.plate, a.well).cmp(&(&b.plate, b.well)));
    let expected = sorted
        .first()
        .ok_or(CompareError::NoProfiles)?
        .values
        .len()
        .max(1);
    for pair in sorted.windows(2) {
        if let [a, b] = pair
            && (&a.plate, a.well) == (&b.plate, b.well)
        {
            return Err(CompareError::DuplicateWell {
                plate: a.plate.clone(),
                well: a.well,
            });
        }
    }
    for profile in &sorted {
        let (plate, well) = (profile.plate.clone(), profile.well);
        if profile.values.len() != expected {
            return Err(CompareError::Width {
                plate,
                well,
                expected,
                found: profile.values.len(),
            });
        }
        if let Some((column, &value)) = profile.values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(CompareError::NotFinite {
                plate,
                well,
                column,
                value,
            });
        }
        let usable = |v: f64| v.is_finite() && v >= 0.0;
        if let Some(dose) = profile.treatment.dose.filter(|&dose| !usable(dose)) {
            return Err(CompareError::Dose { plate, well, dose });
        }
        if let Some(count) = profile.cell_count.filter(|&count| !usable(count)) {
            return Err(CompareError::CellCount { plate, well, count });
        }
    }
    Ok(sorted)
}

/// Scales and scores every plate. `sorted` comes from [`checked`]; plates leave by barcode, then disease.
pub(super) fn score<'a>(
    sorted: &[&'a WellProfile],
    settings: &ComparisonSettings,
) -> (Vec<ScoredPlate<'a>>, Vec<Note>) {
    let plates: Vec<&[&WellProfile]> = sorted.chunk_by(|a, b| a.plate == b.plate).collect();
    let mut scalers: Vec<Option<Scaler>> = plates
        .par_iter()
        .map(|wells| fit_scaler(wells, settings))
        .collect();
    let mut notes = Vec::new();
    if settings.normalise == Normalise::RobustMad {
        let fitted = scalers.clone();
        for (i, scaler) in scalers.iter_mut().enumerate() {
            if let Some(scaler) = scaler {
                let others: Vec<&Scaler> = fitted
                    .iter()
                    .enumerate()
                    .filter(|&(j, _)| j != i)
                    .filter_map(|(_, s)| s.as_ref())
                    .collect();
                scaler.repair(&others);
            }
        }
    }
    for (wells, scaler) in plates.iter().zip(&mut scalers) {
        let all = fit_wells(wells, FitOn::All);
        *scaler = scaler.take().map(|scaler| scaler.floored(&all));
    }
    let scored: Vec<(Vec<ScoredPlate<'a>>, Vec<Note>)> = plates
        .par_iter()
        .zip(&scalers)
        .map(|(wells, scaler)| score_plate(wells, scaler.as_ref(), settings))
        .collect();
    let mut plates = Vec::new();
    for (scored, plate_notes) in scored {
        plates.extend(scored);
        notes.extend(plate_notes);
    }
    (plates, notes)
}

fn fit_wells<'w>(wells: &[&'w WellProfile], fit_on: FitOn) -> Vec<&'w [f32]> {
    wells
        .iter()
        .filter(|w| fit_on == FitOn::All || w.treatment.role == Role::Reference)
        .map(|w| w.values.as_slice())
        .collect()
}

fn fit_scaler(wells: &[&WellProfile], settings: &ComparisonSettings) -> Option<Scaler> {
    let rows = fit_wells(wells, settings.fit_on);
    if rows.is_empty() {
        return None;
    }
    match settings.normalise {
        Normalise::None => None,
        Normalise::Standardise => Some(Scaler::standardise(&rows)),
        Normalise::RobustMad => Some(Scaler::robust(&rows)),
    }
}

fn score_plate<'a>(
    wells: &[&'a WellProfile],
    scaler: Option<&Scaler>,
    settings: &ComparisonSettings,
) -> (Vec<ScoredPlate<'a>>, Vec<Note>) {
    let Some(first) = wells.first() else {
        return (Vec::new(), Vec::new());
    };
    let mut notes = Notes {
        plate: &first.plate,
        notes: Vec::new(),
    };
    let mut diseases: BTreeMap<Option<&'a str>, usize> = BTreeMap::new();
    for well in wells.iter().filter(|w| w.treatment.role != Role::Reference) {
        *diseases.entry(well.treatment.disease.as_deref()).or_default() += 1;
    }
    let references = wells
        .iter()
        .filter(|w| w.treatment.role == Role::Reference)
        .count();
    if references > 0 {
        note_scaling(&mut notes, wells, scaler, settings);
    }
    let rows: Vec<Vec<f64>> = wells
        .iter()
        .map(|well| match scaler {
            Some(scaler) => scaler.apply(&well.values),
            None => well.values.iter().map(|&v| f64::from(v)).collect(),
        })
        .collect();
    let mut scored = Vec::new();
    for (disease, affected) in diseases {
        let side = |role: Role| -> Vec<usize> {
            (0..wells.len())
                .filter(|&i| wells[i].treatment.role == role)
                .filter(|&i| {
                    let own = wells[i].treatment.disease.as_deref();
                    own == disease || (role == Role::Reference && own.is_none())
                })
                .collect()
        };
        let (reference, phenotype, treated) =
            (side(Role::Reference), side(Role::Phenotype), side(Role::Treated));
        let lost = format!("its {affected} wells were not scored");
        if reference.is_empty() {
            notes.add(
                NoteKind::NoReference,
                disease,
                None,
                None,
                format!("no reference wells; {lost}"),
            );
            continue;
        }
        if phenotype.is_empty() {
            notes.add(
                NoteKind::NoPhenotype,
                disease,
                None,
                None,
                format!("no phenotype wells; {lost}"),
            );
            continue;
        }
        let of = |side: &[usize]| -> Vec<&[f64]> { side.iter().map(|&i| rows[i].as_slice()).collect() };
        let Some(controls) = axis::score_controls(&of(&reference), &of(&phenotype)) else {
            let text = format!("reference and phenotype wells have the same mean profile; {lost}");
            notes.add(NoteKind::NoAxis, disease, None, None, text);
            continue;
        };
        for (name, side) in [("reference", &reference), ("phenotype", &phenotype)] {
            if let [only] = side.as_slice() {
                let well = wells[*only].well;
                let text = format!(
                    "well {well} is the only {name} well: it was scored on an axis it defines, and gives no spread"
                );
                notes.add(NoteKind::SingleControl, disease, Some(well), None, text);
            }
        }
        let control = |side: &[usize], scores: Vec<ControlScore>| -> Vec<ScoredWell<'a>> {
            side.iter()
                .zip(scores)
                .map(|(&i, score)| ScoredWell {
                    profile: wells[i],
                    position: score.position,
                    scaled: score.scaled,
                    leave_one_out: score.leave_one_out,
                    effect_z: None,
                    effect_mad: None,
                    off_z: None,
                    cell_ratio: None,
                })
                .collect()
        };
        let treated = treated
            .iter()
            .map(|&i| {
                let scaled = controls.axis.scaled(&rows[i]);
                ScoredWell {
                    profile: wells[i],
                    position: axis::position(&scaled, controls.axis.unit()),
                    scaled,
                    leave_one_out: true,
                    effect_z: None,
                    effect_mad: None,
                    off_z: None,
                    cell_ratio: None,
                }
            })
            .collect();
        let mut plate = ScoredPlate {
            plate: &first.plate,
            disease,
            reference: control(&reference, controls.reference),
            phenotype: control(&phenotype, controls.phenotype),
            treated,
            axis: controls.axis,
        };
        calibrate(&mut plate, settings.question);
        scored.push(plate);
    }
    (scored, notes.notes)
}

/// Effect z, off-axis z and cell ratio of every well against the plate's null controls (SCIENCE 6.1).
fn calibrate(plate: &mut ScoredPlate<'_>, question: Question) {
    let null = plate.null_wells(question);
    let of = |value: fn(&ScoredWell<'_>, Question) -> f64| -> Vec<f64> {
        null.iter()
            .filter(|w| w.leave_one_out)
            .map(|w| value(w, question))
            .collect()
    };
    let spread = null_spread(&of(|w, _| w.position.off_axis));
    let effects = null_spread(&of(|w, question| effect(w.position.on_axis, question)));
    let mut counts: Vec<f64> = null.iter().filter_map(|w| w.profile.cell_count).collect();
    let cells = median_in_place(&mut counts).filter(|&cells| cells > 0.0);
    for well in plate
        .reference
        .iter_mut()
        .chain(&mut plate.phenotype)
        .chain(&mut plate.treated)
    {
        well.off_z = spread.map(|(median, mad)| (well.position.off_axis - median) / mad);
        well.effect_mad = effects.map(|(_, mad)| mad);
        well.effect_z = effects.map(|(median, mad)| (effect(well.position.on_axis, question) - median) / mad);
        well.cell_ratio = well
            .profile
            .cell_count
            .zip(cells)
            .map(|(count, cells)| count / cells);
    }
}

/// Median and MAD of null scores; `None` with fewer than three or without spread.
fn null_spread(scores: &[f64]) -> Option<(f64, f64)> {
    if scores.len() < FEWEST_FOR_Z {
        return None;
    }
    median_and_mad(scores).filter(|&(_, mad)| mad > 0.0)
}

fn note_scaling(
    notes: &mut Notes<'_>,
    wells: &[&WellProfile],
    scaler: Option<&Scaler>,
    settings: &ComparisonSettings,
) {
    let fitted = fit_wells(wells, settings.fit_on).len();
    if scaler.is_some() && fitted < FEW_CONTROLS {
        let text = format!(
            "features were scaled on {fitted} wells; below {FEW_CONTROLS} the scale of each feature is noisy: \
             consider fit_on = \"all\" or normalise = \"none\""
        );
        notes.add(NoteKind::FewControls, None, None, None, text);
    }
    if let Some(scaler) = scaler
        && let Some(&column) = scaler.flat_columns.first()
    {
        let (flat, width) = (scaler.flat_columns.len(), scaler.scale.len());
        let dropped = scaler.scale.iter().filter(|&&scale| scale == 0.0).count();
        let text = format!(
            "{flat} of {width} feature columns have no spread in the {fitted} wells they are scaled on (the first is \
             column {column}); {dropped} were dropped"
        );
        notes.add(NoteKind::ConstantFeatures, None, None, Some(column), text);
    }
}

struct Notes<'a> {
    plate: &'a Barcode,
    notes: Vec<Note>,
}

impl Notes<'_> {
    fn add(
        &mut self,
        kind: NoteKind,
        disease: Option<&str>,
        well: Option<crate::words::WellPosition>,
        column: Option<usize>,
        what: String,
    ) {
        let text = match disease {
            Some(disease) => format!("plate {} disease {disease}: {what}", self.plate),
            None => format!("plate {}: {what}", self.plate),
        };
        let (plate, disease) = (Some(self.plate.clone()), disease.map(str::to_owned));
        self.notes.push(Note {
            kind,
            plate,
            disease,
            well,
            column,
            text,
        });
    }
}
