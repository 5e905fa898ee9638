//! Settings of nuclei segmentation. Enters: values from a screen file. Leaves: checked values, or an error that names
//! the setting and its value.

use serde::{Deserialize, Serialize};

use crate::nuclei::error::ObjectError;

/// How the threshold between background and nuclei is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMethod {
    /// Li, or robust background where the contrast of the field is below [`DIM_CONTRAST`].
    #[default]
    Auto,
    /// Minimum cross-entropy (Li and Tam 1998), CellProfiler's choice.
    Li,
    /// Otsu 1979, 256 classes.
    Otsu,
    /// CellProfiler's robust background: mean plus two standard deviations of the middle 90 % of pixels.
    RobustBackground,
}

/// How nuclei that touch are parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Declump {
    /// By shape: watershed on the distance to the edge.
    #[default]
    Shape,
    /// By intensity: watershed on the smoothed image.
    Intensity,
    /// Not at all.
    None,
}

/// Below this contrast, [`ThresholdMethod::Auto`] uses the robust background: Li and Otsu count several times too many
/// nuclei in dim fields.
pub const DIM_CONTRAST: f64 = 15.0;

/// Settings of nuclei segmentation. Lengths are in pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NucleiSettings {
    /// Diameter of the smallest nucleus.
    pub min_diameter: f64,
    /// Diameter of the largest nucleus.
    pub max_diameter: f64,
    /// How the threshold is found.
    pub threshold: ThresholdMethod,
    /// Factor on the threshold; above 1 finds less.
    pub correction: f64,
    /// Least threshold, 0 to 1 of the 16-bit range, above the background.
    pub lower_bound: f64,
    /// Largest threshold, 0 to 1 of the 16-bit range, above the background.
    pub upper_bound: f64,
    /// Standard deviation of the Gaussian before the threshold; 0 for none.
    pub smoothing: f64,
    /// Whether the median of the field is subtracted first.
    pub subtract_background: bool,
    /// Whether holes in nuclei are filled.
    pub fill_holes: bool,
    /// How touching nuclei are parted.
    pub declump: Declump,
    /// Least distance between the centres of two nuclei; `min_diameter / 1.5` if not given.
    pub min_distance: Option<f64>,
    /// A field of less contrast is empty and has no nuclei; 0 looks for nuclei in every field.
    pub min_contrast: f64,
    /// Whether nuclei on the border of the image are left out. They count, but are cut off.
    pub exclude_border: bool,
}

impl Default for NucleiSettings {
    fn default() -> Self {
        Self {
            min_diameter: 10.0,
            max_diameter: 60.0,
            threshold: ThresholdMethod::Auto,
            correction: 1.0,
            lower_bound: 0.0,
            upper_bound: 1.0,
            smoothing: 1.0,
            subtract_background: true,
            fill_holes: true,
            declump: Declump::Shape,
            min_distance: None,
            min_contrast: crate::quality::EMPTY_CONTRAST,
            exclude_border: false,
        }
    }
}

/// Largest diameter and smoothing: half a large field; more is a mistake of units.
const LONGEST: f64 = 10_000.0;

/// Largest standard deviation of the smoothing.
const SMOOTHEST: f64 = 100.0;

impl NucleiSettings {
    /// Settings for nuclei of `min` to `max` micrometres at `pixel_size` micrometres per pixel; nuclei of human cells
    /// are 6 to 30 micrometres wide.
    ///
    /// # Errors
    /// A size that is not positive and finite, or `min` above `max`.
    pub fn for_micrometres(min: f64, max: f64, pixel_size: f64) -> Result<Self, ObjectError> {
        within(
            "pixel_size",
            pixel_size,
            f64::MIN_POSITIVE,
            LONGEST,
            "give micrometres per pixel, above 0",
        )?;
        let settings = Self {
            min_diameter: min / pixel_size,
            max_diameter: max / pixel_size,
            ..Self::default()
        };
        settings.check()?;
        Ok(settings)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first setting outside its range; NaN is outside every range.
    pub fn check(&self) -> Result<(), ObjectError> {
        within(
            "min_diameter",
            self.min_diameter,
            1.0,
            LONGEST,
            "give 1 to 10000 pixels",
        )?;
        within(
            "max_diameter",
            self.max_diameter,
            self.min_diameter,
            LONGEST,
            "give at least min_diameter and at most 10000 pixels",
        )?;
        within(
            "correction",
            self.correction,
            1e-3,
            1e3,
            "give a factor of 0.001 to 1000",
        )?;
        within(
            "lower_bound",
            self.lower_bound,
            0.0,
            1.0,
            "give 0 to 1 of the 16-bit range",
        )?;
        within(
            "upper_bound",
            self.upper_bound,
            self.lower_bound,
            1.0,
            "give at least lower_bound and at most 1",
        )?;
        within(
            "smoothing",
            self.smoothing,
            0.0,
            SMOOTHEST,
            "give a standard deviation of 0 to 100 pixels",
        )?;
        if let Some(distance) = self.min_distance {
            within("min_distance", distance, 1.0, LONGEST, "give 1 to 10000 pixels")?;
        }
        within("min_contrast", self.min_contrast, 0.0, 1e6, "give 0 or more")
    }

    /// The least distance between two centres.
    pub fn centre_distance(&self) -> f64 {
        self.min_distance.unwrap_or(self.min_diameter / 1.5).max(1.0)
    }

    /// Least and largest area of a nucleus: those of discs of the two diameters.
    pub fn areas(&self) -> (f64, f64) {
        let disc = |d: f64| std::f64::consts::PI * (d / 2.0) * (d / 2.0);
        (disc(self.min_diameter), disc(self.max_diameter))
    }
}

/// Checks that `value` lies in `low..=high`; NaN does not.
fn within(
    setting: &'static str,
    value: f64,
    low: f64,
    high: f64,
    expected: &'static str,
) -> Result<(), ObjectError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ObjectError::Setting {
        part: "nuclei",
        setting,
        value: value.to_string(),
        expected,
    })
}
