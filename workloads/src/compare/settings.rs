//! What a screen may choose about its comparison. Text of a screen file enters, checked settings leave.

use serde::{Deserialize, Serialize};

use super::{ActivitySettings, CompareError, Consensus, CurveLoss};
use crate::aggregate::Aggregate;
use crate::align::sphere::{SphereMethod, SphereSettings};
use crate::align::tvn::CoralSettings;
use crate::align::{ScaleMethod, Step};

/// What the screen asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Disease wells with compounds: does the compound bring them back? The null is the disease controls.
    #[default]
    Rescue,
    /// Does the treatment produce the phenotype? The null is the reference controls.
    Response,
    /// Does the treatment do anything at all? For screens with reference wells only, as most published tables are:
    /// no axis, distance from the reference wells; the null is the reference controls.
    Activity,
}

/// How each plate is scaled before anything is compared (SCIENCE 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Not at all: the profiles are already aligned, or the plate has too few wells to scale by.
    None,
    /// `(x - mean) / SD`, population SD; a feature with zero variance is divided by 1.
    #[default]
    Standardise,
    /// `(x - median) / (1.4826 MAD)`; a feature without spread takes the other plates' MAD, or is dropped.
    RobustMad,
    /// The share of the values of the fitted wells that lie below, from 0 to 1 (Gibbons et al. 2018). Differences beyond
    /// the range of the fitted wells are lost, and wells out there vary less than others: for features of very different
    /// shapes, not where lengths matter. Where the reference wells saturate at the phenotype, a rescued well looks far
    /// beside the axis, and may be called toxic.
    Percentile,
}

/// Which wells of a plate the scaling is fitted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FitOn {
    /// The reference wells; right with about 16 or more per plate.
    #[default]
    Reference,
    /// Every well; only when treatments are diverse and mostly inactive, or reference wells are few.
    All,
}

/// Which feature columns are compared (SCIENCE 5.5). Meant for classical features, of which many say the same;
/// embeddings are better left whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// All.
    #[default]
    None,
    /// Those that [`Operation::recommended`](crate::select::Operation::recommended) keeps of all wells, scaled per
    /// plate; with an alignment fitted before, its columns.
    Recommended,
}

impl Select {
    /// Screens that select nothing keep the hash they had before there was a choice.
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// The aligned space: fitted over all plates, so that what differs between plates and among controls weighs no more
/// than their noise. Off-axis lengths are measured there; positions on the axis are not, because whitening turns it
/// (SCIENCE 5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// `tvn` in rescue screens that have the reference wells for it, else `none`; a note says so where wells are
    /// missing.
    #[default]
    Auto,
    /// None: everything is measured on the scaled features.
    None,
    /// Principal components of all wells, no whitening.
    Pca,
    /// Principal components, white among the reference wells of all plates, then alike among those of each plate
    /// ([`Step::recommended`]).
    Tvn,
    /// All features, white among the reference wells of all plates.
    Sphere,
    /// Principal components, each plate moved towards the others where wells look alike
    /// ([`crate::align::harmony`]). Every disease must lie on several plates. Nothing is kept for later plates.
    Harmony,
}

/// The `[comparison.alignment]` table: numbers of [`Align`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlignmentSettings {
    /// `tvn`, `pca`: principal components kept at most, 2 to 4096.
    pub components: u32,
    /// `tvn`: added to every variance of a plate's reference wells before it is inverted, above 0.
    pub ridge: f64,
    /// `sphere`: which map.
    pub sphere: SphereMethod,
    /// `sphere`: added to singular values (variances, with `sphere = "eigen"`), at least 0.
    pub epsilon: f64,
}

impl Default for AlignmentSettings {
    fn default() -> Self {
        let sphere = SphereSettings::default();
        Self {
            components: Step::EFAAR_COMPONENTS as u32,
            ridge: CoralSettings::default().ridge,
            sphere: sphere.method,
            epsilon: sphere.epsilon,
        }
    }
}

/// Which controls a treatment is compared with (SCIENCE 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullFrom {
    /// Those of the plates it lies on. A treatment on more than [`super::WIDEST`] plates uses those of the screen.
    #[default]
    Plates,
    /// A sample of the controls of all plates of the disease: smaller p-values, where plates are alike.
    Screen,
}

/// How p-values become q-values (SCIENCE 6.4, 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Benjamini-Hochberg over all compounds and doses of a disease.
    #[default]
    Bh,
    /// First compounds (Šidák on each compound's smallest p, then Benjamini-Hochberg), then doses within a compound.
    Hierarchical,
}

/// Limits of the calls; defaults are those of SCIENCE 6.5 to 6.7.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Largest q-value (false discovery rate) that counts as significant, above 0 and below 1.
    pub q: f64,
    /// Smallest |fitted top| of an active compound, in axis lengths.
    pub active_top: f64,
    /// Smallest fitted top of a hit, in axis lengths.
    pub hit_top: f64,
    /// From this off-axis robust z on a treatment is off-axis (toxic); a hit lies below it.
    pub off_z: f64,
    /// Below this share of the controls' cells a treatment is toxic.
    pub toxic_cell_ratio: f64,
    /// A hit keeps at least this share of the controls' cells.
    pub hit_cell_ratio: f64,
    /// Effect robust z that at least half of a hit's wells reach at its best dose (of two replicates both); 0 asks for
    /// none below the controls' median.
    pub replicate_z: f64,
    /// Replicates also support a hit where the corrected p of their mean average precision is below this; 0, the default:
    /// never. In 48 made screens (`examples/calibration`) 0.1 changed no call, and retrieval alone as support lost 8 of
    /// 36 rescuers of very weak diseases: wells may find each other by what lies beside the axis.
    pub replicate_map_q: f64,
    /// Reference wells with a compound whose effect has at least this cosine with the way to the phenotype mimic it,
    /// from 0 to 1.
    pub mimic_cosine: f64,
    /// By how much AIC a dose curve must beat the zero and the constant model.
    pub aic_margin: f64,
    /// Nulls of up to this many combinations of controls are enumerated, larger ones are drawn.
    pub exact_combinations: u32,
    /// Draws of a null that is not enumerated.
    pub draws: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            q: 0.05,
            active_top: 0.3,
            hit_top: 0.5,
            off_z: 3.0,
            toxic_cell_ratio: 0.5,
            hit_cell_ratio: 0.7,
            replicate_z: 3.0,
            replicate_map_q: 0.0,
            mimic_cosine: 0.5,
            aic_margin: 2.0,
            exact_combinations: 100_000,
            draws: 10_000,
        }
    }
}

/// The `[comparison]` table of a screen file, as far as the mathematics is concerned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComparisonSettings {
    /// What the screen asks.
    pub question: Question,
    /// How each plate is scaled.
    pub normalise: Normalise,
    /// Which wells the scaling is fitted on.
    pub fit_on: FitOn,
    /// Whether what each well position has in common over all plates is taken out of the scaled profiles (SCIENCE 5.1).
    /// Needs 8 plates of every position, and layouts that differ between them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub well_position: bool,
    /// Whether profiles are also written without what follows the number of cells (SCIENCE 4,
    /// [`CellCountFit`](crate::aggregate::cell_count::CellCountFit)), for sensitivity analysis. No score changes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cell_count_residuals: bool,
    /// Which feature columns are compared.
    #[serde(skip_serializing_if = "Select::is_none")]
    pub select: Select,
    /// The space of off-axis lengths and similarity.
    pub align: Align,
    /// Numbers of `align`.
    pub alignment: AlignmentSettings,
    /// File of an alignment fitted before, which is used as it is: neither `align` nor `alignment` is looked at. Relative
    /// to the screen file until [`crate::screen::Screen::resolve_paths`]; empty: none.
    pub transform: String,
    /// Which controls a treatment is compared with.
    pub null_from: NullFrom,
    /// How p-values become q-values.
    pub correction: Correction,
    /// How replicate retrieval is judged.
    pub activity: ActivitySettings,
    /// How the fields of a well become its profile.
    pub aggregate: Aggregate,
    /// How the wells of a treatment become one profile.
    pub consensus: Consensus,
    /// Seed of every drawn null.
    pub seed: u64,
    /// What a residual of a dose curve costs.
    pub curve_loss: CurveLoss,
    /// Unit of the doses, as it is written in tables.
    pub dose_unit: String,
    /// Limits of the calls.
    pub thresholds: Thresholds,
}

impl Default for ComparisonSettings {
    fn default() -> Self {
        Self {
            question: Question::default(),
            normalise: Normalise::default(),
            fit_on: FitOn::default(),
            well_position: false,
            cell_count_residuals: false,
            select: Select::default(),
            align: Align::default(),
            alignment: AlignmentSettings::default(),
            transform: String::new(),
            null_from: NullFrom::default(),
            correction: Correction::default(),
            activity: ActivitySettings::default(),
            aggregate: Aggregate::default(),
            consensus: Consensus::default(),
            seed: 0,
            curve_loss: CurveLoss::default(),
            dose_unit: "uM".to_owned(),
            thresholds: Thresholds::default(),
        }
    }
}

impl ComparisonSettings {
    /// Checks every number.
    ///
    /// # Errors
    /// [`CompareError::Setting`] names the first setting that is out of range, its value and what is expected.
    pub fn check(&self) -> Result<(), CompareError> {
        let t = &self.thresholds;
        let positive = [
            ("thresholds.active_top", t.active_top),
            ("thresholds.hit_top", t.hit_top),
            ("thresholds.off_z", t.off_z),
        ];
        let not_negative = [
            ("thresholds.toxic_cell_ratio", t.toxic_cell_ratio),
            ("thresholds.hit_cell_ratio", t.hit_cell_ratio),
            ("thresholds.replicate_z", t.replicate_z),
            ("thresholds.aic_margin", t.aic_margin),
        ];
        let refuse = |setting, value: f64, expected| {
            Err(CompareError::Setting {
                setting,
                value,
                expected,
            })
        };
        if !(0.0..=1.0).contains(&t.mimic_cosine) {
            return refuse("thresholds.mimic_cosine", t.mimic_cosine, "a number from 0 to 1");
        }
        if !(0.0..=1.0).contains(&t.replicate_map_q) {
            return refuse(
                "thresholds.replicate_map_q",
                t.replicate_map_q,
                "a number from 0 to 1",
            );
        }
        if !(t.q > 0.0 && t.q < 1.0) {
            return refuse("thresholds.q", t.q, "a number above 0 and below 1");
        }
        for (setting, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return refuse(setting, value, "a number above 0");
            }
        }
        for (setting, value) in not_negative {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(setting, value, "a number of at least 0");
            }
        }
        let a = &self.alignment;
        if !(2..=4096).contains(&a.components) {
            let value = f64::from(a.components);
            return refuse("alignment.components", value, "a whole number from 2 to 4096");
        }
        if !(a.ridge.is_finite() && a.ridge > 0.0) {
            return refuse("alignment.ridge", a.ridge, "a number above 0");
        }
        if !(a.epsilon.is_finite() && a.epsilon >= 0.0) {
            return refuse("alignment.epsilon", a.epsilon, "a number of at least 0");
        }
        let counts = [
            ("thresholds.exact_combinations", t.exact_combinations),
            ("thresholds.draws", t.draws),
        ];
        for (setting, value) in counts {
            if !(1..=10_000_000).contains(&value) {
                return refuse(setting, f64::from(value), "a whole number from 1 to 10000000");
            }
        }
        Ok(())
    }

    /// The steps of an alignment; empty where there is none. `components` are as many as the wells allow.
    pub(super) fn steps(&self, align: Align, components: usize) -> Vec<Step> {
        let method = match self.normalise {
            Normalise::None => None,
            Normalise::Standardise => Some(ScaleMethod::Standardise),
            Normalise::RobustMad => Some(ScaleMethod::RobustMad),
            Normalise::Percentile => Some(ScaleMethod::Percentile),
        };
        let scaled = |on| method.map(|method| Step::Scale { method, on });
        let a = &self.alignment;
        match align {
            Align::Auto | Align::None => Vec::new(),
            Align::Pca | Align::Harmony => scaled(self.fit_on)
                .into_iter()
                .chain([Step::Pca { components }])
                .collect(),
            Align::Tvn => {
                // Not divided: a spoilt reference well would shrink its whole plate, and what follows scales anyway.
                // The off-axis length of made screens with such wells follows the truth with r = 0.93, not 0.72.
                let centred = Step::Scale {
                    method: ScaleMethod::Centre,
                    on: FitOn::Reference,
                };
                let coral = CoralSettings {
                    ridge: a.ridge,
                    ..CoralSettings::default()
                };
                scaled(FitOn::All)
                    .into_iter()
                    .chain([Step::Pca { components }])
                    .chain([centred, Step::Tvn, Step::Coral(coral)])
                    .collect()
            }
            Align::Sphere => scaled(self.fit_on)
                .into_iter()
                .chain([Step::Sphere(SphereSettings {
                    method: a.sphere,
                    epsilon: a.epsilon,
                })])
                .collect(),
        }
    }
}
