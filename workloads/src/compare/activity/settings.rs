//! Settings of the measures of whole profiles: `[comparison] activity` and `[comparison] consensus`.

use serde::{Deserialize, Serialize};

use super::super::Correction;
use crate::aggregate::{Method, ModzSettings};
use crate::replicate::map::NullRule;

/// What a mean average precision is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapNull {
    /// Every well ranks at random on its own; ties count.
    #[default]
    Independent,
    /// As copairs 0.5.5 does, for comparison with published tables: wells with equal numbers of pairs share their draws.
    Copairs,
}

/// `[comparison] activity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActivitySettings {
    /// The null of the mean average precision.
    pub null: MapNull,
    /// How its p-values are corrected over the screen.
    pub correction: Correction,
}

impl ActivitySettings {
    pub(super) fn rule(&self) -> NullRule {
        match self.null {
            MapNull::Independent => NullRule::Independent,
            MapNull::Copairs => NullRule::Copairs,
        }
    }
}

/// `[comparison] consensus`: how the wells of a treatment become one profile (SCIENCE 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consensus {
    /// Mean of each feature: it commutes with rotations.
    #[default]
    Mean,
    /// Median of each feature.
    Median,
    /// Mean weighted by how well a well correlates with the others, weights rounded as pycytominer rounds them.
    Modz,
}

impl Consensus {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Mean => Method::Mean,
            Self::Median => Method::Median,
            Self::Modz => Method::Modz(ModzSettings::parity()),
        }
    }
}
