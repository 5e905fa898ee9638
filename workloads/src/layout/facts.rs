//! What a format says of how images were taken. Metadata enters through the formats; [`ImageFacts`] leave. Cannot fail.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::Channel;

/// How the images of one channel were taken, as far as the format says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The channel's name in the microscope's software, such as `HOECHST 33342`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Width and height of a pixel on the sample, in micrometres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_size_um: Option<(f64, f64)>,
    /// Exposure time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure_ms: Option<f64>,
    /// The objective's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// The objective's magnification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magnification: Option<f64>,
    /// The objective's numerical aperture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerical_aperture: Option<f64>,
    /// Wavelength of the excitation in nanometres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excitation_nm: Option<f64>,
    /// Wavelength of the emission in nanometres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emission_nm: Option<f64>,
    /// Bits of the detector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_depth: Option<u8>,
}

/// The facts of one channel of the screen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelFacts {
    /// The channel.
    pub channel: Channel,
    /// What is known of its images.
    #[serde(flatten)]
    pub facts: ImageFacts,
}

impl ImageFacts {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes from `other` what is not known here.
    pub(super) fn fill(&mut self, other: &Self) {
        fn fill<T: Clone>(mine: &mut Option<T>, other: &Option<T>) {
            if mine.is_none() {
                mine.clone_from(other);
            }
        }
        fill(&mut self.name, &other.name);
        fill(&mut self.pixel_size_um, &other.pixel_size_um);
        fill(&mut self.exposure_ms, &other.exposure_ms);
        fill(&mut self.objective, &other.objective);
        fill(&mut self.magnification, &other.magnification);
        fill(&mut self.numerical_aperture, &other.numerical_aperture);
        fill(&mut self.excitation_nm, &other.excitation_nm);
        fill(&mut self.emission_nm, &other.emission_nm);
        fill(&mut self.bit_depth, &other.bit_depth);
    }
}

impl fmt::Display for ImageFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.name.clone());
        if let Some((x, y)) = self.pixel_size_um {
            parts.push(if x == y {
                format!("{x} um/pixel")
            } else {
                format!("{x} x {y} um/pixel")
            });
        }
        parts.extend(self.exposure_ms.map(|ms| format!("{ms} ms")));
        let lens = match (self.magnification, self.numerical_aperture) {
            (Some(times), Some(aperture)) => Some(format!("{times}x/{aperture}")),
            (Some(times), None) => Some(format!("{times}x")),
            (None, Some(aperture)) => Some(format!("NA {aperture}")),
            (None, None) => None,
        };
        parts.extend(lens);
        parts.extend(self.objective.as_ref().map(|name| format!("objective '{name}'")));
        parts.extend(self.excitation_nm.map(|nm| format!("excitation {nm} nm")));
        parts.extend(self.emission_nm.map(|nm| format!("emission {nm} nm")));
        parts.extend(self.bit_depth.map(|bits| format!("{bits} bits")));
        f.write_str(&parts.join(", "))
    }
}

/// The number in `text`, where it is one that can be a measure: finite and above 0.
pub(super) fn positive(text: &str) -> Option<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && *value > 0.0)
}

/// A length in micrometres from its number and unit; a unit that is absent is micrometres.
pub(super) fn micrometres(value: &str, unit: Option<&str>) -> Option<f64> {
    let factor = match unit.map(str::trim).unwrap_or_default() {
        "m" | "meter" => 1e6,
        "mm" | "millimeter" => 1e3,
        "nm" | "nanometer" => 1e-3,
        "pm" | "picometer" => 1e-6,
        "cm" => 1e4,
        "Å" | "angstrom" => 1e-4,
        "" => 1.0,
        // The micro sign comes in two code points, as `u`, spelled out, and as what a wrong code page makes of it.
        unit if unit.ends_with('m') && unit.chars().count() == 2 => 1.0,
        "micron" | "microns" | "micrometer" | "micrometers" => 1.0,
        // A size in pixels says nothing of the sample.
        _ => return None,
    };
    positive(value).map(|value| rounded(value * factor))
}

/// A time in milliseconds from its number and unit; a unit that is absent is seconds.
pub(super) fn milliseconds(value: &str, unit: Option<&str>) -> Option<f64> {
    let factor = match unit.map(str::trim).unwrap_or_default() {
        "" | "s" | "second" => 1e3,
        "ms" | "msec" => 1.0,
        "ns" => 1e-6,
        "min" => 6e4,
        unit if unit.ends_with('s') && unit.chars().count() == 2 => 1e-3,
        _ => return None,
    };
    positive(value).map(|value| rounded(value * factor))
}

/// Without what the change of unit added: twelve digits are kept, and `1.1959e-6 m` is 1.1959 um.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// Bits of a detector whose largest level is `level`, which some software gives as 65535 and some as 65536.
pub(super) fn bits_of_level(level: f64) -> Option<u8> {
    if !(2.0..=4_294_967_296.0).contains(&level) {
        return None;
    }
    let last = level as u64 - 1;
    u8::try_from(64 - last.leading_zeros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_become_micrometres_milliseconds_and_bits() {
        for (value, unit, expected) in [
            ("1.1959e-06", Some("m"), Some(1.1959)),
            ("0.325", None, Some(0.325)),
            ("0.325", Some("µm"), Some(0.325)),
            ("0.325", Some("\u{fffd}m"), Some(0.325)),
            ("325", Some("nm"), Some(0.325)),
            ("3", Some("pixel"), None),
            ("0", Some("um"), None),
            ("x", Some("um"), None),
        ] {
            assert_eq!(micrometres(value, unit), expected, "{value} {unit:?}");
        }
        assert_eq!(milliseconds("0.1", Some("s")), Some(100.0));
        assert_eq!(milliseconds("15", Some("ms")), Some(15.0));
        for (level, bits) in [
            (65535.0, 16),
            (65536.0, 16),
            (4095.0, 12),
            (4096.0, 12),
            (255.0, 8),
        ] {
            assert_eq!(bits_of_level(level), Some(bits));
        }
        assert_eq!(bits_of_level(f64::NAN), None);
    }

    #[test]
    fn facts_are_one_line() {
        let facts = ImageFacts {
            name: Some("DAPI".to_owned()),
            pixel_size_um: Some((0.5, 0.5)),
            exposure_ms: Some(20.0),
            magnification: Some(20.0),
            bit_depth: Some(12),
            ..ImageFacts::default()
        };
        assert_eq!(facts.to_string(), "DAPI, 0.5 um/pixel, 20 ms, 20x, 12 bits");
        assert!(ImageFacts::default().is_empty());
    }
}
