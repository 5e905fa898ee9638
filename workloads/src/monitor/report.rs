//! What monitoring leaves: every statistic with its limit, and a level per plate.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::{Barcode, WellPosition};

/// What measured something. Displayed as snake_case text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detector {
    /// Share of control wells beyond the χ² limit of the reference's wells.
    OutlierShare,
    /// One control well's squared Mahalanobis distance, where it is beyond the limit.
    OutlierWell,
    /// Hotelling's T² of the plate's mean against the noise of wells.
    MeanWithin,
    /// T² of the plate's mean against the ordinary differences between plates.
    MeanBetween,
    /// Unbiased MMD² of wells.
    Mmd,
    /// Energy distance of wells.
    Energy,
    /// Largest population stability index over the components.
    Stability,
    /// EWMA of a component or scalar.
    Ewma,
    /// CUSUM of a component or scalar.
    Cusum,
    /// Robust leave-one-out Z′.
    ZPrime,
    /// Cosine of the disease vector with the reference's.
    DiseaseCosine,
}

impl Detector {
    /// The snake_case text of tables and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutlierShare => "outlier_share",
            Self::OutlierWell => "outlier_well",
            Self::MeanWithin => "mean_within",
            Self::MeanBetween => "mean_between",
            Self::Mmd => "mmd",
            Self::Energy => "energy",
            Self::Stability => "stability",
            Self::Ewma => "ewma",
            Self::Cusum => "cusum",
            Self::ZPrime => "z_prime",
            Self::DiseaseCosine => "disease_cosine",
        }
    }
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one statistic says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Within its limit, or shown beside another that decides.
    Quiet,
    /// Beyond its limit: one witness.
    Signal,
    /// A warning by itself.
    Warn,
    /// An alert by itself.
    Alert,
}

impl Severity {
    /// The snake_case text of tables and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Signal => "signal",
            Self::Warn => "warn",
            Self::Alert => "alert",
        }
    }
}

/// What a plate comes to (SCIENCE 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One of the plates the others are judged by.
    Reference,
    /// Too few control wells to say anything.
    NotMonitored,
    /// Nothing beyond its limit.
    InControl,
    /// One witness.
    Info,
    /// Two witnesses, or the same one on two plates running, or a statistic that warns by itself.
    Warn,
    /// The plate is not to be trusted.
    Alert,
}

impl Level {
    /// The snake_case text of tables and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::NotMonitored => "not_monitored",
            Self::InControl => "in_control",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Alert => "alert",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One statistic of one plate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftRow {
    /// What measured it.
    pub detector: Detector,
    /// The well, for an outlying one.
    pub well: Option<WellPosition>,
    /// The component (`pc1`), scalar or disease, where the detector has several.
    pub quantity: Option<String>,
    /// What was measured; finite.
    pub statistic: f64,
    /// What it is compared with.
    pub limit: f64,
    /// p-value of the statistic, for the tests that have one.
    pub p_value: Option<f64>,
    /// `p_value` corrected over the plates judged together (Benjamini-Hochberg).
    pub q_value: Option<f64>,
    /// What it says.
    pub severity: Severity,
}

impl DriftRow {
    /// Statistics that can only be high or low for one reason are one witness: both T² see the plate's mean, MMD and
    /// energy distance the law of its wells, EWMA and CUSUM one quantity.
    pub(super) fn witness(&self) -> String {
        match self.detector {
            Detector::OutlierShare | Detector::OutlierWell => "outliers".to_owned(),
            Detector::MeanWithin | Detector::MeanBetween => "mean".to_owned(),
            Detector::Mmd | Detector::Energy => "distribution".to_owned(),
            Detector::Stability => "stability".to_owned(),
            Detector::ZPrime => "z_prime".to_owned(),
            Detector::DiseaseCosine => "disease".to_owned(),
            Detector::Ewma | Detector::Cusum => {
                format!("trend:{}", kind(self.quantity.as_deref().unwrap_or_default()))
            }
        }
    }
}

/// `pc` of `pc3`, `z_prime` of `z_prime:D1`: quantities of one kind share their error rate.
pub(super) fn kind(quantity: &str) -> &str {
    let component = quantity
        .strip_prefix("pc")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    if component {
        return "pc";
    }
    quantity.split(':').next().unwrap_or(quantity)
}

/// One plate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlateDrift {
    /// The plate.
    pub plate: Barcode,
    /// Its control wells.
    pub controls: usize,
    /// What it comes to.
    pub level: Level,
    /// Every statistic, in the order of [`Detector`].
    pub rows: Vec<DriftRow>,
    /// In words, for an operator: what is beyond its limit, or why nothing could be said. Empty where all is well.
    pub reason: String,
}

/// All plates that were judged together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftReport {
    /// In the order given.
    pub plates: Vec<PlateDrift>,
    /// The plates they are judged by, oldest first.
    pub reference_plates: Vec<Barcode>,
    /// sha256 of the reference.
    pub reference_sha256: String,
    /// sha256 of the model's weights.
    pub model_sha256: String,
    /// Seed of the permutations.
    pub seed: u64,
}

impl DriftReport {
    /// Plates that are alerts.
    pub fn alerts(&self) -> impl Iterator<Item = &PlateDrift> {
        self.plates.iter().filter(|plate| plate.level == Level::Alert)
    }
}
