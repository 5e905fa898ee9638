//! Whitening with shrinkage: the covariance of the control wells becomes, as far as they are many enough to know it,
//! the identity (Kessy, Lewin and Strimmer, arXiv:1512.00809; SCIENCE 5.2 and 5.4).
//!
//! With the shrunk covariance `Σ* = (1 − δ) S + δ μ I` of the features, centred or standardised, the map is `Σ*^(-½)`
//! (ZCA) or its rows in the principal axes (PCA). Features are standardised by their own SD, but at least by the median of
//! all: many features of a network vary in one or two wells of some dozens, and divided by what little that comes to they
//! would be all that is left. Wells may be far fewer than features: only directions that they span
//! are kept, and along all others `Σ*` is `δ μ`, so nothing of features x features is ever made.

use std::str::FromStr;

use super::{Back, ControlWells, FitLimits, Head, HeadError, singles};
use crate::align::pca::Pca;
use crate::align::shrink::ledoit_wolf_shrinkage;
use crate::matrix::FeatureMatrix;

/// Which of the maps that whiten: they differ by a rotation, and by whether features are standardised first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhitenMethod {
    /// Principal components, each divided by its SD.
    Pca,
    /// Rotated back: as close to the centred features as can be. The default: the values of an embedding have one unit.
    #[default]
    Zca,
    /// Principal components of the standardised features.
    PcaCor,
    /// Rotated back: as close to the standardised features as can be.
    ZcaCor,
}

impl WhitenMethod {
    /// The words for them.
    pub const WORDS: [&'static str; 4] = ["pca", "zca", "pca-cor", "zca-cor"];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pca => "pca",
            Self::Zca => "zca",
            Self::PcaCor => "pca-cor",
            Self::ZcaCor => "zca-cor",
        }
    }
}

impl FromStr for WhitenMethod {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        let all = [Self::Pca, Self::Zca, Self::PcaCor, Self::ZcaCor];
        let found = all.into_iter().find(|method| method.word() == word);
        found.ok_or_else(|| format!("methods are {}", Self::WORDS.join(", ")))
    }
}

/// How far the covariance is moved towards a multiple of the identity.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Shrinkage {
    /// By the δ of least expected error (Ledoit and Wolf 2004, doi 10.1016/S0047-259X(03)00096-4).
    #[default]
    LedoitWolf,
    /// By this δ, 0 to 1.
    Fixed(f64),
}

/// How to whiten.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WhitenSettings {
    /// The map.
    pub method: WhitenMethod,
    /// The covariance.
    pub shrinkage: Shrinkage,
    /// Principal components kept, for the pca methods; `None`: all that the wells span.
    pub components: Option<usize>,
    /// What is refused.
    pub limits: FitLimits,
}

/// A whitening and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct WhitenFit {
    /// The map.
    pub head: Head,
    /// δ.
    pub shrinkage: f64,
    /// Directions that the wells span, or the fewer that were asked for.
    pub components: usize,
}

/// Fits a whitening on control wells.
///
/// # Errors
/// [`HeadError`]: too few wells, values that are not finite, features that do not vary, settings out of range, more
/// components than the wells span, and `zca` without shrinkage where the wells do not span all features.
pub fn fit_whitening(controls: &ControlWells, settings: &WhitenSettings) -> Result<WhitenFit, HeadError> {
    let WhitenSettings {
        method,
        shrinkage,
        components,
        limits,
    } = *settings;
    let back = matches!(method, WhitenMethod::Zca | WhitenMethod::ZcaCor);
    check_settings(settings, back)?;
    controls.check(limits.fewest_wells)?;
    let by_deviation = matches!(method, WhitenMethod::PcaCor | WhitenMethod::ZcaCor);
    let standardised = controls.standardised(by_deviation, limits)?;
    let rows = &standardised.rows;
    let (n, features) = (rows.len(), rows.width());
    let varying = standardised.gain.iter().filter(|gain| **gain != 0.0).count();
    let pca = Pca::fit_rows(rows, usize::MAX)?;
    // Population variances: SCIENCE 5.4 has n in the denominator.
    let population = (n - 1) as f64 / n as f64;
    let variances: Vec<f64> = pca
        .explained_variance
        .iter()
        .map(|value| value * population)
        .collect();
    let mean_variance = pca.total_variance * population / varying as f64;
    let delta = match shrinkage {
        Shrinkage::Fixed(delta) => delta,
        Shrinkage::LedoitWolf => {
            ledoit_wolf_shrinkage(&variances, varying, &squared_lengths(rows, &pca.mean))
        }
    };
    let floor_variance = delta * mean_variance;
    let rank = variances.len();
    if back && rank < varying && floor_variance == 0.0 {
        return Err(HeadError::Rank {
            wells: n,
            rank,
            features: varying,
        });
    }
    let kept = components.unwrap_or(rank);
    if kept > rank {
        return Err(HeadError::Setting {
            setting: "components",
            value: kept.to_string(),
            expected: format!("at most {rank}, the dimensions that the {n} control wells span"),
        });
    }
    let weights: Vec<f64> = variances[..kept]
        .iter()
        .map(|variance| ((1.0 - delta) * variance + floor_variance).sqrt().recip())
        .collect();
    // Where the wells span everything there is nothing else to weigh.
    let floor = if rank < varying {
        floor_variance.sqrt().recip()
    } else {
        0.0
    };
    let mut directions = FeatureMatrix::zeros(kept, features);
    for (k, weight) in weights.iter().enumerate() {
        let scale = if back { 1.0 } else { *weight };
        for (j, value) in directions.row_mut(k).iter_mut().enumerate() {
            *value = (pca.loadings[(j, k)] * scale) as f32;
        }
    }
    let head = Head {
        mean: singles(&standardised.mean),
        gain: singles(&standardised.gain),
        directions,
        bias: vec![0.0; kept],
        back: back.then(|| Back {
            gains: weights.iter().map(|weight| (weight - floor) as f32).collect(),
            floor: floor as f32,
        }),
    };
    Ok(WhitenFit {
        head: head.checked()?,
        shrinkage: delta,
        components: kept,
    })
}

fn check_settings(settings: &WhitenSettings, back: bool) -> Result<(), HeadError> {
    if let Shrinkage::Fixed(delta) = settings.shrinkage
        && !(0.0..=1.0).contains(&delta)
    {
        return Err(HeadError::Setting {
            setting: "shrinkage",
            value: delta.to_string(),
            expected: "a number from 0 to 1".to_owned(),
        });
    }
    match settings.components {
        Some(0) => Err(HeadError::Setting {
            setting: "components",
            value: "0".to_owned(),
            expected: "at least 1".to_owned(),
        }),
        Some(components) if back => Err(HeadError::Setting {
            setting: "components",
            value: components.to_string(),
            expected: format!("a pca method; {} keeps every feature", settings.method.word()),
        }),
        _ => Ok(()),
    }
}

/// `|x − mean|²` of every row.
fn squared_lengths(rows: &FeatureMatrix, mean: &[f64]) -> Vec<f64> {
    let length = |row: &[f32]| -> f64 {
        let differences = row.iter().zip(mean).map(|(&x, mean)| f64::from(x) - mean);
        differences.map(|difference| difference * difference).sum()
    };
    rows.rows().map(length).collect()
}
