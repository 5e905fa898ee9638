//! A plate on its own axes: checked wells and their rows enter, scored wells leave.
//!
//! Nothing fails: a plate without an axis for a disease gives a note and no scores.

use std::collections::BTreeMap;

use super::axis::{self, Axis, Centre, Centres, ControlScore, Position};
use super::design::Kind;
use super::design::counter_screen;
use super::fisher;
use super::frames::Framed;
use super::position::{self, EdgeEffects};
use super::series::effect;
use super::window::{
    WindowVerdict, area_under_curve, coefficient_of_variation, median_and_mad, median_in_place,
    robust_separation, separation, signal_to_noise,
};
use super::{AssayWindow, ComparisonSettings, Normalise, Note, NoteKind, Question, WellScore};
use crate::position::plate_format;
use crate::profile::{Role, WellProfile};
use crate::words::Barcode;

/// Fewer reference wells than this per plate scale features unreliably (SCIENCE 5.1).
const FEW_CONTROLS: usize = 16;
/// Outliers that a note names.
const MOST_NAMED: usize = 8;
/// Fewest null controls whose spread gives a robust z.
const FEWEST_FOR_Z: usize = 3;

/// A well on the axis of one disease.
pub(super) struct ScoredWell<'a> {
    pub(super) profile: &'a WellProfile,
    /// Along the axis in the space of the axis, beside it in the aligned space where there is one.
    pub(super) position: Position,
    /// Position along the axis in the aligned space, and beside it in the space of the axis.
    pub(super) elsewhere: Option<Position>,
    /// In axis lengths of the axis it was scored on, in the aligned space where there is one.
    pub(super) scaled: Vec<f64>,
    pub(super) leave_one_out: bool,
    pub(super) effect_z: Option<f64>,
    /// Spread (1.4826 MAD) of the effect in the plate's null controls.
    pub(super) effect_mad: Option<f64>,
    pub(super) off_z: Option<f64>,
    pub(super) cell_ratio: Option<f64>,
    pub(super) cell_count_b_score: Option<f64>,
    pub(super) rescue_b_score: Option<f64>,
}

impl ScoredWell<'_> {
    /// Where the well lies on the axis; in activity screens, which have none, how far from the reference wells.
    pub(super) fn position_of(&self, question: Question) -> f64 {
        match question {
            Question::Activity => self.position.off_axis,
            Question::Rescue | Question::Response => self.position.on_axis,
        }
    }
}

/// The wells of a plate that concern one disease.
pub(super) struct ScoredPlate<'a> {
    pub(super) plate: &'a Barcode,
    pub(super) disease: Option<&'a str>,
    /// In the space in which positions along it are measured.
    pub(super) axis: Axis,
    /// The axis in the aligned space.
    pub(super) aligned: Option<Axis>,
    pub(super) reference: Vec<ScoredWell<'a>>,
    pub(super) phenotype: Vec<ScoredWell<'a>>,
    pub(super) treated: Vec<ScoredWell<'a>>,
    /// Reference wells with a compound.
    pub(super) counter: Vec<ScoredWell<'a>>,
    /// Positions of reference and phenotype wells on Fisher's direction.
    pub(super) discriminant: Option<(Vec<f64>, Vec<f64>)>,
    /// What the axis runs between.
    pub(super) centres: Centres,
    /// Outliers among reference and phenotype wells; `None` where no well was judged.
    outliers: Option<(usize, usize)>,
    pub(super) edge: EdgeEffects,
}

impl<'a> ScoredPlate<'a> {
    /// The wells whose scores are the null of treated wells.
    pub(super) fn null_wells(&self, question: Question) -> &[ScoredWell<'a>] {
        match question {
            Question::Rescue => &self.phenotype,
            Question::Response | Question::Activity => &self.reference,
        }
    }

    /// What [`Self::null_wells`] are measured from.
    pub(super) fn null_centre(&self, question: Question) -> Centre {
        match question {
            Question::Rescue => self.centres.phenotype,
            Question::Response | Question::Activity => self.centres.reference,
        }
    }

    /// The direction beside which wells are measured, in the space of their `scaled` rows.
    pub(super) fn unit(&self) -> &[f64] {
        self.aligned.as_ref().unwrap_or(&self.axis).unit()
    }

    fn sides(&mut self) -> [&mut Vec<ScoredWell<'a>>; 4] {
        [
            &mut self.reference,
            &mut self.phenotype,
            &mut self.treated,
            &mut self.counter,
        ]
    }

    /// Takes from the same plate in the aligned space what is measured there: lengths beside the axis (SCIENCE 5.7:
    /// whitening turns an axis, so that positions along it are better measured before).
    fn align(&mut self, mut aligned: Self) {
        for (wells, there) in self.sides().into_iter().zip(aligned.sides()) {
            for (well, there) in wells.iter_mut().zip(there.drain(..)) {
                well.elsewhere = Some(Position {
                    on_axis: there.position.on_axis,
                    off_axis: well.position.off_axis,
                });
                well.position.off_axis = there.position.off_axis;
                well.scaled = there.scaled;
            }
        }
        self.aligned = Some(aligned.axis);
    }

    fn all_wells(&self) -> impl Iterator<Item = &ScoredWell<'a>> {
        let controls = self.reference.iter().chain(&self.phenotype);
        controls.chain(&self.treated).chain(&self.counter)
    }

    /// One score per well, in no particular order.
    pub(super) fn well_scores(&self, question: Question) -> impl Iterator<Item = WellScore> {
        let on_an_axis = question != Question::Activity;
        self.all_wells().map(move |well| WellScore {
            plate: self.plate.clone(),
            well: well.profile.well,
            disease: self.disease.map(str::to_owned),
            on_axis: on_an_axis.then_some(well.position.on_axis),
            off_axis: well.position.off_axis,
            off_z: well.off_z,
            aligned_on_axis: well.elsewhere.filter(|_| on_an_axis).map(|there| there.on_axis),
            unaligned_off_axis: well.elsewhere.map(|there| there.off_axis),
            rescue: on_an_axis.then(|| well.position.rescue()),
            cell_ratio: well.cell_ratio,
            leave_one_out: well.leave_one_out,
            cell_count_b_score: well.cell_count_b_score,
            rescue_b_score: well.rescue_b_score,
        })
    }

    /// Z′ and SSMD of the plate, on positions on the axis (on distances, where there is none); `None` where a control
    /// was scored in-sample.
    pub(super) fn window(&self, question: Question) -> AssayWindow {
        let positions = |wells: &[ScoredWell<'_>]| -> Vec<f64> {
            wells
                .iter()
                .filter(|w| w.leave_one_out)
                .map(|w| w.position_of(question))
                .collect()
        };
        let (phenotype, reference) = (positions(&self.phenotype), positions(&self.reference));
        let plain = separation(&phenotype, &reference);
        let robust = robust_separation(&phenotype, &reference);
        let (multivariate, multivariate_robust) = self
            .discriminant
            .as_ref()
            .map(|(reference, phenotype)| {
                (
                    separation(phenotype, reference),
                    robust_separation(phenotype, reference),
                )
            })
            .unzip();
        AssayWindow {
            plate: self.plate.clone(),
            disease: self.disease.map(str::to_owned),
            n_reference: self.reference.len(),
            n_phenotype: self.phenotype.len(),
            z_prime: plain.z_prime,
            robust_z_prime: robust.z_prime,
            ssmd: plain.ssmd,
            robust_ssmd: robust.ssmd,
            multivariate_z_prime: multivariate.and_then(|window| window.z_prime),
            multivariate_robust_z_prime: multivariate_robust.and_then(|window| window.z_prime),
            multivariate_ssmd: multivariate.and_then(|window| window.ssmd),
            auc: area_under_curve(&phenotype, &reference),
            signal_to_noise: signal_to_noise(&phenotype, &reference),
            phenotype_cv: coefficient_of_variation(&phenotype),
            verdict: WindowVerdict::of(robust.z_prime, plain.ssmd, reference.len().min(phenotype.len())),
            axis_length: self.axis.length(),
            reference_outliers: self.outliers.map(|(reference, _)| reference),
            phenotype_outliers: self.outliers.map(|(_, phenotype)| phenotype),
            reference_trimmed: self.centres.reference.is_trimmed(),
            phenotype_trimmed: self.centres.phenotype.is_trimmed(),
            reference_edge: self.edge.reference,
            phenotype_edge: self.edge.phenotype,
        }
    }
}

/// Scores a plate on each of its diseases. `wells`: by well; `framed`: their rows, in the same order.
pub(super) fn score<'a>(
    wells: &[&'a WellProfile],
    framed: &Framed,
    settings: &ComparisonSettings,
) -> (Vec<ScoredPlate<'a>>, Vec<Note>) {
    let Some(first) = wells.first() else {
        return (Vec::new(), Vec::new());
    };
    let mut notes = Notes {
        plate: &first.plate,
        notes: Vec::new(),
    };
    if wells.iter().any(|well| well.treatment.role == Role::Reference) {
        note_scaling(&mut notes, framed);
    }
    let mut plates = score_rows(
        wells,
        &framed.rows,
        framed.outliers.as_deref(),
        settings,
        &mut notes,
    );
    if let Some(aligned) = &framed.aligned {
        // What is missing in one space is missing in the other, but for an axis: it is noted once.
        let mut unsaid = Notes {
            plate: &first.plate,
            notes: Vec::new(),
        };
        let mut there = score_rows(wells, aligned, framed.outliers.as_deref(), settings, &mut unsaid);
        plates.retain_mut(|plate| {
            let Some(at) = there.iter().position(|there| there.disease == plate.disease) else {
                let text =
                    "reference and phenotype wells coincide in the aligned space; its wells were not scored";
                notes.add(NoteKind::NoAxis, plate.disease, None, None, text.to_owned());
                return false;
            };
            plate.align(there.swap_remove(at));
            true
        });
    }
    let shape = plate_format(wells.iter().map(|well| well.well));
    for plate in &mut plates {
        calibrate(plate, settings.question);
        position::measure(plate, shape, settings.question);
    }
    (plates, notes.notes)
}

/// Scores a plate by its rows in one space.
fn score_rows<'a>(
    wells: &[&'a WellProfile],
    rows: &[Vec<f64>],
    outliers: Option<&[bool]>,
    settings: &ComparisonSettings,
    notes: &mut Notes<'_>,
) -> Vec<ScoredPlate<'a>> {
    let counters = counter_screen(wells.iter().map(|well| {
        let phenotype = well.treatment.role == Role::Phenotype;
        (phenotype, well.treatment.disease.as_deref())
    }));
    let is_counter = |well: &WellProfile| {
        counters && well.treatment.role == Role::Treated && well.treatment.disease.is_none()
    };
    let mut diseases: BTreeMap<Option<&'a str>, usize> = BTreeMap::new();
    for well in wells {
        if well.treatment.role != Role::Reference && !is_counter(well) {
            *diseases.entry(well.treatment.disease.as_deref()).or_default() += 1;
        }
    }
    let mut scored = Vec::new();
    for (disease, affected) in diseases {
        let side = |role: Role| -> Vec<usize> {
            (0..wells.len())
                .filter(|&i| wells[i].treatment.role == role && !is_counter(wells[i]))
                .filter(|&i| {
                    let own = wells[i].treatment.disease.as_deref();
                    own == disease || (role == Role::Reference && own.is_none())
                })
                .collect()
        };
        let (reference, phenotype, treated) =
            (side(Role::Reference), side(Role::Phenotype), side(Role::Treated));
        let counter: Vec<usize> = (0..wells.len()).filter(|&i| is_counter(wells[i])).collect();
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
        let around = settings.question == Question::Activity;
        if phenotype.is_empty() && !around {
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
        let far = |side: &[usize]| -> Vec<usize> {
            let is_far = |i: &usize| outliers.is_some_and(|outliers| outliers.get(*i) == Some(&true));
            side.iter().copied().filter(is_far).collect()
        };
        let (far_reference, far_phenotype) = (far(&reference), far(&phenotype));
        let centres = Centres {
            reference: Centre::with(far_reference.len(), reference.len()),
            phenotype: if around {
                Centre::Mean
            } else {
                Centre::with(far_phenotype.len(), phenotype.len())
            },
        };
        let scores = if around {
            axis::score_around(&of(&reference), centres.reference)
        } else {
            axis::score_controls(&of(&reference), &of(&phenotype), centres)
        };
        let Some(controls) = scores else {
            let why = if around {
                "its reference wells are fewer than two or do not differ: there is no unit of distance"
            } else {
                "reference and phenotype wells have the same mean profile"
            };
            notes.add(NoteKind::NoAxis, disease, None, None, format!("{why}; {lost}"));
            continue;
        };
        for (name, side) in [("reference", &reference), ("phenotype", &phenotype)] {
            if let ([only], false) = (side.as_slice(), around) {
                let well = wells[*only].well;
                let of_null = match settings.question {
                    Question::Rescue => "phenotype",
                    Question::Response | Question::Activity => "reference",
                };
                let untested = if name == of_null {
                    ": treatments with wells on this plate have no null, hence no p-value"
                } else {
                    ""
                };
                let text = format!(
                    "well {well} is the only {name} well: it was scored on an axis it defines, and gives no spread{untested}"
                );
                notes.add(NoteKind::SingleControl, disease, Some(well), None, text);
            }
        }
        for (name, centre, far, side) in [
            ("reference", centres.reference, &far_reference, &reference),
            ("phenotype", centres.phenotype, &far_phenotype, &phenotype),
        ] {
            if centre.is_trimmed() {
                let first = far.first().map(|&i| wells[i].well);
                let named = far.iter().take(MOST_NAMED).map(|&i| wells[i].well.to_string());
                let named = named.collect::<Vec<_>>().join(", ");
                let more = if far.len() > MOST_NAMED { " and others" } else { "" };
                let scaled = match settings.normalise {
                    Normalise::None => "",
                    _ => ", and features are scaled without these wells",
                };
                let text = format!(
                    "{} of {} {name} wells lie far from the others ({named}{more}): the {name} mean is taken without the \
                     lowest and highest tenth of each feature{scaled}",
                    far.len(),
                    side.len()
                );
                notes.add(NoteKind::ControlOutliers, disease, first, None, text);
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
                    elsewhere: None,
                    effect_z: None,
                    effect_mad: None,
                    off_z: None,
                    cell_ratio: None,
                    cell_count_b_score: None,
                    rescue_b_score: None,
                })
                .collect()
        };
        let tested = |side: &[usize]| -> Vec<ScoredWell<'a>> {
            side.iter()
                .map(|&i| {
                    let scaled = controls.axis.scaled(&rows[i]);
                    ScoredWell {
                        profile: wells[i],
                        position: axis::position(&scaled, controls.axis.unit()),
                        scaled,
                        leave_one_out: true,
                        elsewhere: None,
                        effect_z: None,
                        effect_mad: None,
                        off_z: None,
                        cell_ratio: None,
                        cell_count_b_score: None,
                        rescue_b_score: None,
                    }
                })
                .collect()
        };
        scored.push(ScoredPlate {
            plate: &wells[0].plate,
            disease,
            discriminant: if around {
                None
            } else {
                fisher::positions(&of(&reference), &of(&phenotype))
            },
            treated: tested(&treated),
            counter: tested(&counter),
            reference: control(&reference, controls.reference),
            phenotype: if around {
                tested(&phenotype)
            } else {
                control(&phenotype, controls.phenotype)
            },
            axis: controls.axis,
            centres,
            outliers: outliers.map(|_| (far_reference.len(), far_phenotype.len())),
            aligned: None,
            edge: EdgeEffects::default(),
        });
    }
    scored
}

/// Effect z, off-axis z and cell ratio of every well against the plate's null controls (SCIENCE 6.1); of reference wells with a
/// compound, against the reference wells.
fn calibrate(plate: &mut ScoredPlate<'_>, question: Question) {
    let against = Calibration::of(plate.null_wells(question), Kind::Treated, question);
    let healthy = Calibration::of(&plate.reference, Kind::Counter, question);
    let controls = plate.reference.iter_mut().chain(&mut plate.phenotype);
    for well in controls.chain(&mut plate.treated) {
        against.judge(well, Kind::Treated, question);
    }
    for well in &mut plate.counter {
        healthy.judge(well, Kind::Counter, question);
    }
}

/// What is usual among control wells.
struct Calibration {
    effect: Option<(f64, f64)>,
    off_axis: Option<(f64, f64)>,
    cells: Option<f64>,
}

impl Calibration {
    fn of(null: &[ScoredWell<'_>], kind: Kind, question: Question) -> Self {
        let of = |value: &dyn Fn(Position) -> f64| -> Vec<f64> {
            let usable = null.iter().filter(|w| w.leave_one_out);
            usable.map(|w| value(w.position)).collect()
        };
        let mut counts: Vec<f64> = null.iter().filter_map(|w| w.profile.cell_count).collect();
        Self {
            effect: null_spread(&of(&|position| effect(position, kind, question))),
            off_axis: null_spread(&of(&|position| position.off_axis)),
            cells: median_in_place(&mut counts).filter(|&cells| cells > 0.0),
        }
    }

    fn judge(&self, well: &mut ScoredWell<'_>, kind: Kind, question: Question) {
        let z = |value: f64, spread: Option<(f64, f64)>| spread.map(|(median, mad)| (value - median) / mad);
        well.off_z = z(well.position.off_axis, self.off_axis);
        well.effect_mad = self.effect.map(|(_, mad)| mad);
        well.effect_z = z(effect(well.position, kind, question), self.effect);
        well.cell_ratio = well
            .profile
            .cell_count
            .zip(self.cells)
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

fn note_scaling(notes: &mut Notes<'_>, framed: &Framed) {
    let fitted = framed.fitted;
    let scaling = framed.scaling.as_ref();
    if scaling.is_some() && fitted < FEW_CONTROLS {
        let text = format!(
            "features were scaled on {fitted} wells; below {FEW_CONTROLS} the scale of each feature is noisy: \
             consider fit_on = \"all\" or normalise = \"none\""
        );
        notes.add(NoteKind::FewControls, None, None, None, text);
    }
    if let Some(scaling) = scaling
        && let Some((column, name)) = &framed.first_flat
    {
        let width = framed.rows.first().map_or(0, Vec::len);
        let (flat, dropped) = (scaling.flat_columns().len(), scaling.dropped());
        let text = format!(
            "{flat} of {width} feature columns have no spread in the {fitted} wells they are scaled on (the first is \
             column {name}); {dropped} were dropped"
        );
        notes.add(NoteKind::ConstantFeatures, None, None, Some(*column), text);
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
