//! What a comparison leaves: one row per compound and dose, one per compound, one per plate, one per well.
//!
//! Every number is finite; what is undefined is `None`. Axis lengths: 0 is the plate's reference mean, 1 its
//! phenotype mean.

use std::convert::Infallible;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::window::WindowVerdict;
use super::{Activity, Sink};
use crate::position::EdgeEffect;
use crate::words::{Barcode, WellPosition};

/// What a biologist reads. Serialised and displayed as snake_case text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Wells that define 0.
    Reference,
    /// Wells that define 1.
    Phenotype,
    /// Rescue screens: brings the disease back by at least half without harm (SCIENCE 6.7).
    RescueHit,
    /// Off-axis effect or cell loss; goes before `active`, after `rescue_hit`.
    Toxic,
    /// Significant and large enough, but not a hit.
    Active,
    /// Tested, nothing found.
    Inactive,
    /// Scored, but with so few controls that no p-value could reach the limit. Read the scores, not the call.
    Underpowered,
    /// Scored, but without a usable null (a single control well).
    Untested,
    /// Reference wells with the compound look like the phenotype: the compound causes what it should cure.
    Mimic,
}

impl Call {
    /// Whether somebody must see it wherever it ranks: a hit, or harm.
    pub fn is_finding(self) -> bool {
        matches!(self, Self::RescueHit | Self::Toxic | Self::Mimic)
    }

    /// The snake_case text of tables and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Phenotype => "phenotype",
            Self::RescueHit => "rescue_hit",
            Self::Toxic => "toxic",
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Underpowered => "underpowered",
            Self::Untested => "untested",
            Self::Mimic => "mimic",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The whole comparison of a screen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ScreenComparison {
    /// One per disease x compound x dose over all plates; by disease, then reference, phenotype, treated and
    /// counter-screen rows, then compound, then dose.
    pub rows: Vec<Comparison>,
    /// One per disease x compound; by disease, then rank.
    pub compounds: Vec<CompoundSummary>,
    /// One per disease x compound x dose, and one per disease x compound after its doses.
    pub activities: Vec<Activity>,
    /// One per plate x disease; by plate, then disease.
    pub windows: Vec<AssayWindow>,
    /// One per well x disease; by plate, well, then disease. A reference well shared by diseases occurs once for each.
    pub wells: Vec<WellScore>,
    /// What a reader must know, such as plates that could not be scored.
    pub notes: Vec<Note>,
}

impl ScreenComparison {
    /// Puts what came in the order of reading into the order of the fields' descriptions.
    pub(super) fn sort(&mut self) {
        self.wells
            .sort_by(|a, b| (&a.plate, a.well, &a.disease).cmp(&(&b.plate, b.well, &b.disease)));
        self.windows
            .sort_by(|a, b| (&a.plate, &a.disease).cmp(&(&b.plate, &b.disease)));
        // Notes without a plate are about the whole screen and come last; the others keep their order on the plate.
        self.notes
            .sort_by(|a, b| (a.plate.is_none(), &a.plate).cmp(&(b.plate.is_none(), &b.plate)));
    }
}

impl Sink for ScreenComparison {
    type Error = Infallible;

    fn well(&mut self, score: WellScore) -> Result<(), Infallible> {
        self.wells.push(score);
        Ok(())
    }

    fn window(&mut self, window: AssayWindow) -> Result<(), Infallible> {
        self.windows.push(window);
        Ok(())
    }

    fn activity(&mut self, activity: Activity) -> Result<(), Infallible> {
        self.activities.push(activity);
        Ok(())
    }

    fn row(&mut self, row: Comparison) -> Result<(), Infallible> {
        self.rows.push(row);
        Ok(())
    }

    fn compound(&mut self, summary: CompoundSummary) -> Result<(), Infallible> {
        self.compounds.push(summary);
        Ok(())
    }

    fn note(&mut self, note: Note) -> Result<(), Infallible> {
        self.notes.push(note);
        Ok(())
    }
}

/// A compound at a dose on a disease, over all plates that carry it.
///
/// The control wells are rows too: the reference row lies near 0 on the axis and the phenotype row near 1, scored
/// leave-one-out; they have no p-value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The disease model; `None` where the screen names none.
    pub disease: Option<String>,
    /// The compound; `None` for untreated wells.
    pub compound: Option<String>,
    /// The dose in `dose_unit`; `None` where none was given.
    pub dose: Option<f64>,
    /// Unit of `dose`.
    pub dose_unit: String,
    /// True for reference wells that were given the compound: what it does to healthy cells. They are compared with
    /// the reference wells, and their `call` is [`Call::Mimic`] where they look like the phenotype.
    pub counter_screen: bool,
    /// Wells averaged.
    pub n_wells: usize,
    /// Plates they lie on.
    pub n_plates: usize,
    /// Mean position on the axis: 0 reference, 1 phenotype, below 0 overshoot, above 1 worse (SCIENCE 6.1). `None` in
    /// activity screens, which have no axis.
    pub on_axis: Option<f64>,
    /// Length beside the axis of the mean vector over wells, in axis lengths. For control rows the mean over wells,
    /// because their mean vector is on the axis by construction. In activity screens the whole distance from the
    /// reference, in median distances of a reference well.
    pub off_axis: f64,
    /// Mean position on the axis in the aligned space, where the screen has one; for comparison, `on_axis` is the
    /// better measure (SCIENCE 5.7).
    pub aligned_on_axis: Option<f64>,
    /// What `off_axis` is above noise: `sqrt(max(0, off_axis² − mean off_axis² of the null))` (SCIENCE 6.1). `None`
    /// without a null.
    pub excess: Option<f64>,
    /// Mean over wells of their off-axis robust z against the plate's null controls (see [`WellScore::off_z`]). Size, not
    /// significance: the latter is `p_off`, which averages vectors first. `None` with fewer than three controls.
    pub off_z: Option<f64>,
    /// The robust z that at least half of the wells reach (of two replicates the lower): support for `off_z`, which
    /// one well with debris can raise alone.
    pub off_z_support: Option<f64>,
    /// Mean over wells of the robust z of their effect (rescue, or position on the axis) against the plate's null
    /// controls. `None` with fewer than three controls.
    pub effect_z: Option<f64>,
    /// The effect z that at least half of the wells reach (of two replicates the lower): support for a hit, which one
    /// well alone does not give.
    pub effect_z_support: Option<f64>,
    /// `1 - on_axis`.
    pub rescue: Option<f64>,
    /// `rescue` less the largest rescue of the same compound and dose on another disease (SCIENCE 6.1). `None` where
    /// it was tested on this disease only.
    pub specificity: Option<f64>,
    /// Distance to the reference in axis lengths: `sqrt(on_axis² + off_axis²)`.
    pub distance: f64,
    /// Rescue screens: cosine of the compound's effect on the disease with the way back to the reference.
    /// Response screens and counter-screen rows: cosine of the effect on the reference with the way to the phenotype.
    /// `None` without effect, and in activity screens.
    pub direction_cosine: Option<f64>,
    /// Mean over wells of cells / the plate's median of control wells; `None` where cells were not counted.
    pub cell_ratio: Option<f64>,
    /// One-sided p-value on the axis (of the distance, in activity screens), `(1 + #{null >= observed}) / (1 + B)`;
    /// `None` without a usable null.
    pub p_value: Option<f64>,
    /// `p_value` corrected over the disease's treated rows (counter-screen rows among themselves).
    pub q_value: Option<f64>,
    /// One-sided p-value of `off_axis` against means of as many control wells.
    pub p_off: Option<f64>,
    /// `p_off` corrected over the disease's treated rows.
    pub q_off: Option<f64>,
    /// Corrected p of its mean average precision ([`Activity::corrected_p_value`]), of treated wells.
    pub map_q_value: Option<f64>,
    /// What to make of it.
    pub call: Call,
}

/// A compound on a disease, over its doses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompoundSummary {
    /// The disease model.
    pub disease: Option<String>,
    /// The compound.
    pub compound: Option<String>,
    /// What to make of it.
    pub call: Call,
    /// Place within the disease, 1 is best: by `score`, ties by EC50, then by name.
    pub rank: usize,
    /// `top · (1 − clip(off_z/10, 0, 1))` with `off_z` at the best dose (SCIENCE 6.7). Where too few wells leave the form
    /// of the curve open ([`DoseCurve::is_open`]), the mean effect at the highest doses stands for `top`.
    pub score: f64,
    /// Doses tested.
    pub n_doses: usize,
    /// The dose with the largest mean effect (rescue, or position on the axis): among the doses at which the effect is
    /// significant, large enough for a hit and free of harm where there are any, among all otherwise.
    pub best_dose: Option<f64>,
    /// Rescue at the best dose; `None` in activity screens.
    pub best_rescue: Option<f64>,
    /// [`Comparison::specificity`] at the best dose.
    pub best_specificity: Option<f64>,
    /// At the best dose, rescue along the signature of the disease it was tested on, less the largest along any other
    /// signature of the screen ([`crate::signature::Specificity`]): below 0 it brings another disease back further.
    /// `None` with one signature, and where the matrix was not made.
    pub best_model_specificity: Option<f64>,
    /// Off-axis robust z at the best dose.
    pub best_off_z: Option<f64>,
    /// Cell ratio at the best dose.
    pub best_cell_ratio: Option<f64>,
    /// The curve's top (see [`DoseCurve::top`]); without a curve the largest mean effect.
    pub top: f64,
    /// Smallest q-value over the doses.
    pub min_q: Option<f64>,
    /// Largest off-axis robust z over the doses.
    pub max_off_z: Option<f64>,
    /// Smallest cell ratio over the doses.
    pub min_cell_ratio: Option<f64>,
    /// Lowest dose that is toxic.
    pub toxic_dose: Option<f64>,
    /// `log10(toxic_dose / EC50)`; `None` unless both are known.
    pub therapeutic_window: Option<f64>,
    /// The effect z that at least half of the wells at the best dose reach.
    pub best_effect_z_support: Option<f64>,
    /// [`Comparison::map_q_value`] at the best dose.
    pub best_map_q_value: Option<f64>,
    /// The dose curve; `None` with fewer than four distinct doses above 0.
    pub curve: Option<DoseCurve>,
    /// Off-axis robust z against dose, without its points.
    pub off_curve: Option<DoseCurve>,
    /// Loss of cells (`1 −` cell ratio) against dose, without its points; `None` where cells were not counted.
    pub cell_curve: Option<DoseCurve>,
}

/// What a dose curve describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Position on the axis (response screens).
    OnAxis,
    /// `1 -` position on the axis (rescue screens).
    Rescue,
    /// Robust z of the length beside the axis.
    OffAxis,
    /// `1 -` cell ratio.
    CellLoss,
    /// Distance from the reference less that of the median reference well (activity screens).
    Activity,
}

/// The form of a dose curve (SCIENCE 6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CurveModel {
    /// `y = 0`.
    Zero,
    /// `y = top`.
    Constant,
    /// `y = bottom + (top − bottom) / (1 + 10^{hill (log10 EC50 − log10 dose)})`.
    Hill,
    /// A Hill rise times a Hill fall: `(top − bottom) · gain · loss + bottom` (tcplfit2 `gnls` with a bottom).
    GainLoss,
}

/// Whether the EC50 lies within the tested doses. It is never extrapolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Censoring {
    /// Within the tested doses.
    None,
    /// Below the lowest tested dose.
    BelowTested,
    /// Above the highest tested dose.
    AboveTested,
    /// The curve has no EC50: no dose dependence was found.
    Undefined,
}

/// The numbers of a fitted curve; those a model does not have are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurveParameters {
    /// Effect at dose 0, in axis lengths.
    pub bottom: f64,
    /// Asymptote, in axis lengths.
    pub top: f64,
    /// log10 of the EC50 parameter in the screen's dose unit (of the gain, for [`CurveModel::GainLoss`]).
    pub log10_ec50: Option<f64>,
    /// Hill slope of the rise.
    pub hill: Option<f64>,
    /// log10 of the dose at which half is lost again.
    pub log10_loss_ec50: Option<f64>,
    /// Hill slope of the fall.
    pub loss_hill: Option<f64>,
}

/// Information criterion of each model, lower is better: `n ln(SSE/n) + 2(k+1)`, with the small-sample correction
/// (AICc) where `n/k < 40`. `None` where the model has too many parameters for the points.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AicTable {
    /// Of [`CurveModel::Zero`].
    pub zero: Option<f64>,
    /// Of [`CurveModel::Constant`].
    pub constant: Option<f64>,
    /// Of [`CurveModel::Hill`].
    pub hill: Option<f64>,
    /// Of [`CurveModel::GainLoss`].
    pub gain_loss: Option<f64>,
}

/// One well of a dose curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DosePoint {
    /// The plate.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
    /// Dose, above 0.
    pub dose: f64,
    /// The measure, in axis lengths.
    pub value: f64,
    /// Left out of the fit: the well shows harm (SCIENCE 6.6), so that its effect is not the dose's.
    pub masked: bool,
}

/// A fitted dose curve. `evaluate` gives its value at a dose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoseCurve {
    /// What the values are.
    pub measure: Measure,
    /// The chosen form.
    pub model: CurveModel,
    /// Its numbers.
    pub parameters: CurveParameters,
    /// EC50 in the screen's dose unit, within the tested doses; see `censoring`.
    pub ec50: Option<f64>,
    /// Where the EC50 lies.
    pub censoring: Censoring,
    /// Dose at which the curve first reaches half of `top`, within the tested doses.
    pub ac50: Option<f64>,
    /// Standard error of log10 EC50 by the derivatives; Hill curves only, `None` where the points do not determine it.
    pub log10_ec50_se: Option<f64>,
    /// Lower end of the EC50's 95 % interval by profile likelihood, in the screen's dose unit; Hill curves only, `None`
    /// where the points allow any EC50 down to a decade below the tested doses.
    pub ec50_low: Option<f64>,
    /// Upper end of that interval; `None` where any EC50 up to a decade above the tested doses is allowed.
    pub ec50_high: Option<f64>,
    /// Dose within the tested ones at which the curve crosses 3 MAD of the controls (activity concentration at cutoff).
    pub cutoff_dose: Option<f64>,
    /// How likely the curve is a hit, 0 to 1 (after tcplfit2): it beats the constant, a dose lies beyond 3 MAD of the
    /// controls, and so does the top. `None` where the controls' spread is not known.
    pub hit_call: Option<f64>,
    /// Spearman's rank correlation of dose and mean effect.
    pub spearman: Option<f64>,
    /// One-sided p-value of the Jonckheere-Terpstra test for an effect that rises with the dose.
    pub trend_p: Option<f64>,
    /// Fitted value at the highest tested dose, or at the peak where the curve turns back before it.
    pub top: f64,
    /// False where the curve turns back within the tested doses.
    pub monotone: bool,
    /// Information criteria of all models.
    pub aic: AicTable,
    /// Residual sum of squares of the chosen model, or sum of losses under a robust loss.
    pub sse: f64,
    /// Lowest and highest tested dose.
    pub tested: (f64, f64),
    /// Every well, by dose, plate, well; those that are masked were not fitted.
    pub points: Vec<DosePoint>,
}

/// How well a plate separates phenotype from reference (SCIENCE 6.3), on leave-one-out positions on the axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssayWindow {
    /// The plate.
    pub plate: Barcode,
    /// The disease model.
    pub disease: Option<String>,
    /// Reference wells.
    pub n_reference: usize,
    /// Phenotype wells.
    pub n_phenotype: usize,
    /// Z′ = `1 − 3(σ₊+σ₋)/|μ₊−μ₋|`, sample SD; `None` with fewer than two wells on a side or equal means.
    pub z_prime: Option<f64>,
    /// Z′ from medians and 1.4826 MAD.
    pub robust_z_prime: Option<f64>,
    /// `(μ₊−μ₋)/√(σ₊²+σ₋²)`, sample variances.
    pub ssmd: Option<f64>,
    /// SSMD from medians and 1.4826 MAD.
    pub robust_ssmd: Option<f64>,
    /// Z′ over all features: on Fisher's direction, five-fold cross-validated ([`super::fisher`]).
    pub multivariate_z_prime: Option<f64>,
    /// The same from medians and 1.4826 MAD.
    pub multivariate_robust_z_prime: Option<f64>,
    /// SSMD on the same direction.
    pub multivariate_ssmd: Option<f64>,
    /// Share of pairs of controls in which the phenotype well lies further along the axis.
    pub auc: Option<f64>,
    /// `(μ₊−μ₋)/σ₋`, sample SD of the reference wells.
    pub signal_to_noise: Option<f64>,
    /// Coefficient of variation of the phenotype wells, percent.
    pub phenotype_cv: Option<f64>,
    /// Whether treatments can be judged by these controls.
    pub verdict: WindowVerdict,
    /// Length of the axis in normalised feature units.
    pub axis_length: f64,
    /// Reference wells that lie far from the others of their kind on the plate: where one in a million does, by the
    /// Mahalanobis distance among the screen's controls (SCIENCE 6, 8). `None` where these are too few to tell, or compared by
    /// ranks; of fewer than three wells none is judged.
    pub reference_outliers: Option<usize>,
    /// The same of the phenotype wells.
    pub phenotype_outliers: Option<usize>,
    /// Whether more than 5 % of the reference wells are outliers: their mean was then taken without the lowest and highest
    /// tenth of each feature ([`super::axis::Centre::Trimmed`]).
    pub reference_trimmed: bool,
    /// The same of the phenotype wells.
    pub phenotype_trimmed: bool,
    /// Whether reference wells on the rim of the plate lie elsewhere along the axis than those inside; `None` without
    /// reference wells on both. The plate is taken as [`crate::position::plate_format`] of its wells.
    pub reference_edge: Option<EdgeEffect>,
    /// The same of the phenotype wells.
    pub phenotype_edge: Option<EdgeEffect>,
}

/// One well on one disease's axis, for heatmaps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WellScore {
    /// The plate.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
    /// The disease model whose axis was used.
    pub disease: Option<String>,
    /// Position on the axis; controls leave-one-out. `None` in activity screens.
    pub on_axis: Option<f64>,
    /// Length beside the axis, in axis lengths; controls leave-one-out.
    pub off_axis: f64,
    /// Position on the axis in the aligned space, where the screen has one.
    pub aligned_on_axis: Option<f64>,
    /// Length beside the axis before alignment, where the screen has an aligned space and `off_axis` is of it.
    pub unaligned_off_axis: Option<f64>,
    /// `off_axis` as a robust z against the plate's null controls; `None` where they have no spread.
    pub off_z: Option<f64>,
    /// `1 - on_axis`.
    pub rescue: Option<f64>,
    /// Cells / the plate's median of control wells.
    pub cell_ratio: Option<f64>,
    /// False for a control that had to be scored on an axis it helped to build.
    pub leave_one_out: bool,
    /// B-score of the cell count: what its row and column do not explain, in robust SDs of the plate
    /// ([`crate::position::BScore`]). Of treated wells and the controls they are compared with; `None` for other wells,
    /// without counts, without spread, and in rows or columns of fewer than four such wells.
    pub cell_count_b_score: Option<f64>,
    /// B-score of `rescue`, under the same conditions.
    pub rescue_b_score: Option<f64>,
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// The plate has no reference wells; it was not scored.
    NoReference,
    /// The plate has no phenotype wells for a disease; it was not scored for it.
    NoPhenotype,
    /// Reference and phenotype have the same mean; the plate was not scored.
    NoAxis,
    /// A single control well: scored in-sample, no spread, no null.
    SingleControl,
    /// Too few reference wells to scale by reliably.
    FewControls,
    /// So many control wells of a plate are outliers that their mean was trimmed.
    ControlOutliers,
    /// Too few controls for any p-value to reach the limit.
    Underpowered,
    /// Feature columns without spread on a plate.
    ConstantFeatures,
    /// Fewer than four doses: no curve.
    FewDoses,
    /// Too few wells to tell a dose curve from a constant: ranked by the mean effect at the highest doses.
    OpenCurves,
    /// Treatments without replicates, or with more than are compared.
    FewReplicates,
    /// There is no disease signature to compare with.
    NoSignature,
    /// The aligned space is not as it was asked for.
    Alignment,
    /// The plate could not be aligned; it was not scored.
    NotAligned,
    /// Feature columns were selected.
    Selection,
    /// Wells have no profile without what follows the number of cells.
    NoResiduals,
    /// Profiles without what follows the cell count were written beside the comparison.
    Residuals,
}

/// Something a reader of the results must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// The plate it concerns.
    pub plate: Option<Barcode>,
    /// The disease it concerns.
    pub disease: Option<String>,
    /// The well it concerns.
    pub well: Option<WellPosition>,
    /// The 0-based feature column it concerns (the first one, where several).
    pub column: Option<usize>,
    /// The whole note in words.
    pub text: String,
}

impl Note {
    /// About no plate, disease, well or column more than another.
    pub fn of_screen(kind: NoteKind, text: String) -> Self {
        Self {
            kind,
            plate: None,
            disease: None,
            well: None,
            column: None,
            text,
        }
    }
}
