//! `[nuclei]`: nuclei are counted in every field, so that a treatment that kills cells is seen as one. A table of the
//! file enters, checked settings leave; every problem is reported.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::settings::words_of;
use super::table::{Report, Table};
use super::{ChannelSettings, QualitySettings};
use crate::words::Channel;

/// Largest diameter, in pixels: half a large field; more is a mistake of units.
const LONGEST: f64 = 10_000.0;
/// The largest diameter where none is said.
const LARGEST_USUAL: f64 = 60.0;

words_of!(
    /// How the threshold between background and nuclei is found (SCIENCE 3.1).
    NucleiThreshold {
        /// Li, or robust background in dim fields.
        #[default]
        Auto = "auto",
        /// Minimum cross-entropy.
        Li = "li",
        /// Otsu's.
        Otsu = "otsu",
        /// Mean plus two SDs of the middle 90 % of pixels.
        RobustBackground = "robust_background",
    }
);

words_of!(
    /// How nuclei that touch are parted.
    Declump {
        /// By shape: watershed on the distance to the edge.
        #[default]
        Shape = "shape",
        /// By intensity: watershed on the smoothed image.
        Intensity = "intensity",
        /// Not at all.
        None = "none",
    }
);

/// How nuclei are found. Lengths are in pixels of the images as they come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NucleiSettings {
    /// The channel they are found in. Default: `quality.nuclei_channel`.
    pub channel: Channel,
    /// Diameter of the smallest nucleus. Default 10.
    pub min_diameter: f64,
    /// Diameter of the largest. Default 60.
    pub max_diameter: f64,
    /// How the threshold between background and nuclei is found.
    pub threshold: NucleiThreshold,
    /// Factor on the threshold; above 1 finds less. Default 1.
    pub correction: f64,
    /// How nuclei that touch are parted.
    pub declump: Declump,
}

/// Reads the table; `None` where it cannot be used.
pub(super) fn nuclei(
    report: &mut Report,
    mut table: Table<'_>,
    channels: &[ChannelSettings],
    quality: &QualitySettings,
) -> Option<NucleiSettings> {
    let known: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
    // Where the quality gates know the channel, it need not be said twice.
    let value = match &quality.nuclei_channel {
        Some(_) => table.get("channel"),
        None => table.need(report, "channel", "the name of the channel that shows nuclei"),
    };
    let channel = match value {
        // What is wrong with the channels is told where they stand.
        Some(_) if channels.is_empty() => None,
        Some(value) => {
            let word = report.word(Some(value), &known);
            let named = channels
                .iter()
                .find(|channel| Some(channel.name.as_str()) == word);
            named.map(|channel| channel.name.clone())
        }
        None => quality.nuclei_channel.clone(),
    };
    let min_value = table.get("min_diameter");
    let min_diameter = report.number(min_value.clone(), 1.0..=LONGEST).unwrap_or(10.0);
    let max_value = table.get("max_diameter");
    let max_diameter = report.number(max_value.clone(), 1.0..=LONGEST);
    match (&max_value, max_diameter) {
        (Some(value), Some(max)) if max < min_diameter => {
            report.unusable(value, format!("below min_diameter, which is {min_diameter}"));
        }
        (None, _) if min_diameter > LARGEST_USUAL => {
            if let Some(value) = &min_value {
                report.unusable(
                    value,
                    format!("above the usual max_diameter ({LARGEST_USUAL}): say max_diameter too"),
                );
            }
        }
        _ => {}
    }
    let value = table.get("threshold");
    let threshold = report.word(value, NucleiThreshold::WORDS);
    let value = table.get("correction");
    let correction = report.number(value, 1e-3..=1e3).unwrap_or(1.0);
    let value = table.get("declump");
    let declump = report.word(value, Declump::WORDS);
    table.finish(report);
    Some(NucleiSettings {
        channel: channel?,
        min_diameter,
        max_diameter: max_diameter.unwrap_or(LARGEST_USUAL),
        threshold: threshold.and_then(NucleiThreshold::from_word).unwrap_or_default(),
        correction,
        declump: declump.and_then(Declump::from_word).unwrap_or_default(),
    })
}
