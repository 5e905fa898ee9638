//! What the description of one image says of how it was taken: MetaMorph's (ImageXpress) and OME's.
//!
//! The bytes of a TIFF's tag 270 enter, [`ImageFacts`] leave; empty where the description is of another kind or broken,
//! because such facts only add to what is known.

use super::facts::{ImageFacts, micrometres, milliseconds, positive};
use super::xml::{Node, text_of, walk};

/// The facts a description holds.
pub(super) fn described(bytes: &[u8]) -> ImageFacts {
    let text = text_of(bytes);
    if text.contains("<MetaData>") {
        metaseries(&text)
    } else {
        ImageFacts::default()
    }
}

/// MetaMorph and MetaXpress: `<prop id="spatial-calibration-x" type="float" value="1.3668"/>`.
fn metaseries(text: &str) -> ImageFacts {
    let mut facts = ImageFacts::default();
    let (mut x, mut y, mut unit, mut calibrated) = (None, None, None, true);
    // Cut short or not: what was read is true.
    let _ = walk(text, |node| {
        let Node::Open(_, attributes) = node else { return };
        let (Some(id), Some(value)) = (attributes.get("id"), attributes.get("value")) else {
            return;
        };
        match id.as_str() {
            "spatial-calibration-state" => calibrated = value != "off",
            "spatial-calibration-x" => x = Some(value),
            "spatial-calibration-y" => y = Some(value),
            "spatial-calibration-units" => unit = Some(value),
            "wavelength" => facts.emission_nm = positive(&value),
            "_IllumSetting_" => facts.name = Some(value),
            "image-name" if facts.name.is_none() => facts.name = Some(value),
            "_MagSetting_" => facts.objective = Some(value),
            "ImageXpress Micro Objective" if facts.objective.is_none() => facts.objective = Some(value),
            "_MagNA_" => facts.numerical_aperture = positive(&value),
            "Camera Bit Depth" => facts.bit_depth = positive(&value).map(|bits| bits as u8),
            "Exposure Time" => facts.exposure_ms = exposure(&value),
            // Older versions have the exposure only in the text for people.
            "Description" if facts.exposure_ms.is_none() => {
                facts.exposure_ms = value
                    .lines()
                    .find_map(|line| exposure(line.trim().strip_prefix("Exposure:")?));
            }
            _ => {}
        }
    });
    if calibrated {
        let size = |value: Option<String>| micrometres(&value?, unit.as_deref());
        facts.pixel_size_um = size(x).zip(size(y));
    }
    facts.magnification = facts.objective.as_deref().and_then(magnification);
    facts.name = facts.name.filter(|name| !name.trim().is_empty());
    facts
}

/// `15 ms`, `0.1 s`.
fn exposure(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, unit) = text.split_once(' ').unwrap_or((text, "ms"));
    milliseconds(number, Some(unit.trim()))
}

/// The magnification in an objective's name: `20X Plan Apo Lambda`, `Plan 40x/0.95`.
fn magnification(name: &str) -> Option<f64> {
    name.split([' ', '/', '_', ',']).find_map(|word| {
        let number = word.strip_suffix(['x', 'X'])?;
        positive(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metaseries_description_has_pixel_size_exposure_and_objective() {
        let text = b"<MetaData>\n<prop id=\"Description\" type=\"string\" value=\"Plate&#13;&#10;Exposure: 15 ms&#13;&#10;\"/>\n\
            <prop id=\"spatial-calibration-x\" type=\"float\" value=\"1.3668\"/><prop id=\"spatial-calibration-y\" value=\"1.3668\"/>\
            <prop id=\"spatial-calibration-units\" value=\"um\"/><prop id=\"_MagSetting_\" value=\"20X Plan\xb5 Apo\"/>\
            <prop id=\"_MagNA_\" value=\"0.75\"/><custom-prop id=\"Camera Bit Depth\" value=\"16\"/><prop id=\"wavelength\" value=\"536\"/>\
            <prop id=\"_IllumSetting_\" value=\"FITC\"/></MetaData>";
        assert_eq!(
            described(text).to_string(),
            "FITC, 1.3668 um/pixel, 15 ms, 20x/0.75, objective '20X Plan\u{fffd} Apo', emission 536 nm, 16 bits"
        );
        let cut = described(&text[..140]);
        assert_eq!((cut.exposure_ms, cut.pixel_size_um), (Some(15.0), None));
        assert!(described(b"ImageJ=1.53").is_empty());
    }
}
