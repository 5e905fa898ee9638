//! Settings of object features. Enters: values from a screen file. Leaves: checked values, or an error that names the
//! setting and its value.

use serde::{Deserialize, Serialize};

use crate::nuclei::ObjectError;

/// Settings of [`crate::features::measure`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeatureSettings {
    /// Name of the objects, the first part of each column's name.
    pub objects: String,
    /// Which families are measured.
    pub families: Families,
    /// The grey level that stands for an intensity of 1: 65535 is CellProfiler's scale of 16-bit files. Textures have
    /// few levels, so give the ceiling of the detector where files hold 12 bits.
    pub white: f64,
    /// Texture.
    pub texture: Texture,
    /// Granularity.
    pub granularity: Granularity,
    /// Rings of the radial distribution.
    pub rings: usize,
    /// Colocalisation looks at pixels above this percentage of the largest value in the object.
    pub colocalisation_percent: f64,
}

impl Default for FeatureSettings {
    fn default() -> Self {
        Self {
            objects: "Nuclei".to_owned(),
            families: Families::default(),
            white: 65535.0,
            texture: Texture::default(),
            granularity: Granularity::default(),
            rings: 4,
            colocalisation_percent: 15.0,
        }
    }
}

/// Families of features; each is measured where its field is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Families {
    /// Size and shape.
    pub shape: bool,
    /// Spatial, central, normalised and Hu's moments of the shape.
    pub moments: bool,
    /// Zernike moments of the shape and, of each channel, of the intensity.
    pub zernike: bool,
    /// Distance to the nearest other object.
    pub neighbours: bool,
    /// Intensity, of each channel.
    pub intensity: bool,
    /// Haralick texture, of each channel.
    pub texture: bool,
    /// Granularity, of each channel.
    pub granularity: bool,
    /// Radial distribution, of each channel.
    pub radial: bool,
    /// Colocalisation, of each pair of channels.
    pub colocalisation: bool,
}

impl Families {
    /// Nothing; for choosing a few.
    pub const NONE: Self = Self {
        shape: false,
        moments: false,
        zernike: false,
        neighbours: false,
        intensity: false,
        texture: false,
        granularity: false,
        radial: false,
        colocalisation: false,
    };

    /// Everything there is.
    pub const ALL: Self = Self {
        shape: true,
        moments: true,
        zernike: true,
        neighbours: true,
        intensity: true,
        texture: true,
        granularity: true,
        radial: true,
        colocalisation: true,
    };
}

impl Default for Families {
    /// What scientists look at first: all but the moments, of which few can be read.
    fn default() -> Self {
        Self {
            moments: false,
            zernike: false,
            ..Self::ALL
        }
    }
}

/// Settings of texture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Texture {
    /// Pixels between the two of a pair.
    pub scale: usize,
    /// Levels of grey, 2 to 256.
    pub levels: usize,
}

impl Default for Texture {
    fn default() -> Self {
        Self {
            scale: 3,
            levels: 256,
        }
    }
}

/// Settings of granularity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Granularity {
    /// Part of the rows and columns that is sampled.
    pub subsample: f64,
    /// Part of those at which the background is found.
    pub background_subsample: f64,
    /// Radius of the disc of the background, in pixels at that sampling.
    pub radius: usize,
    /// Steps of the spectrum.
    pub length: usize,
}

impl Default for Granularity {
    fn default() -> Self {
        Self {
            subsample: 0.25,
            background_subsample: 0.25,
            radius: 10,
            length: 16,
        }
    }
}

/// Largest texture scale, radius, number of rings and of steps: more is a mistake.
const MOST: usize = 1000;

impl FeatureSettings {
    /// Checks every value.
    ///
    /// # Errors
    /// The first setting outside its range; NaN is outside every range.
    pub fn check(&self) -> Result<(), ObjectError> {
        let fail = |setting, value: String, expected| {
            Err(ObjectError::Setting {
                part: "features",
                setting,
                value,
                expected,
            })
        };
        if self.objects.is_empty() || self.objects.contains('_') {
            return fail(
                "objects",
                format!("{:?}", self.objects),
                "give a name without underscores",
            );
        }
        let floats = [
            ("white", self.white, 1.0, 65535.0, "give 1 to 65535 grey levels"),
            (
                "colocalisation_percent",
                self.colocalisation_percent,
                0.0,
                99.0,
                "give 0 to 99 percent",
            ),
            (
                "granularity.subsample",
                self.granularity.subsample,
                1e-3,
                1.0,
                "give 0.001 to 1",
            ),
            (
                "granularity.background_subsample",
                self.granularity.background_subsample,
                1e-3,
                1.0,
                "give 0.001 to 1",
            ),
        ];
        for (setting, value, low, high, expected) in floats {
            if !(low..=high).contains(&value) {
                return fail(setting, value.to_string(), expected);
            }
        }
        let counts = [
            (
                "texture.scale",
                self.texture.scale,
                1,
                MOST,
                "give 1 to 1000 pixels",
            ),
            (
                "texture.levels",
                self.texture.levels,
                2,
                256,
                "give 2 to 256 levels",
            ),
            (
                "granularity.radius",
                self.granularity.radius,
                1,
                MOST,
                "give 1 to 1000 pixels",
            ),
            (
                "granularity.length",
                self.granularity.length,
                1,
                MOST,
                "give 1 to 1000 steps",
            ),
            ("rings", self.rings, 1, MOST, "give 1 to 1000 rings"),
        ];
        for (setting, value, low, high, expected) in counts {
            if !(low..=high).contains(&value) {
                return fail(setting, value.to_string(), expected);
            }
        }
        Ok(())
    }
}
