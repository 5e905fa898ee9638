//! Doses as people write them: `10`, `10 uM`, `10µM`, `250 nM`.
//!
//! A cell and the screen's unit enter, the dose in that unit leaves; `None` where it is no number, or carries a unit
//! that cannot be turned into the screen's.

/// Units of one kind and what they are worth: moles per litre, and grams per litre.
const KINDS: [&[(&str, f64)]; 2] = [
    &[
        ("m", 1.0),
        ("mm", 1e-3),
        ("um", 1e-6),
        ("nm", 1e-9),
        ("pm", 1e-12),
        ("mol/l", 1.0),
        ("mmol/l", 1e-3),
        ("umol/l", 1e-6),
        ("nmol/l", 1e-9),
        ("pmol/l", 1e-12),
    ],
    &[("mg/ml", 1.0), ("ug/ml", 1e-3), ("ng/ml", 1e-6), ("pg/ml", 1e-9)],
];

pub(super) fn parse(text: &str, unit: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return Some(number);
    }
    // The longest beginning that is a number: the e of "1e-3" belongs to it, that of "1 each" does not.
    let (number, rest) = text
        .char_indices()
        .map(|(at, _)| at)
        .rev()
        .find_map(|at| Some((text[..at].trim_end().parse::<f64>().ok()?, &text[at..])))?;
    let (written, wanted) = (plain(rest), plain(unit));
    if written == wanted {
        return Some(number);
    }
    let worth = |kind: &[(&str, f64)], unit: &str| {
        kind.iter()
            .find_map(|(name, worth)| (*name == unit).then_some(*worth))
    };
    let factor = KINDS
        .iter()
        .find_map(|kind| Some(worth(kind, &written)? / worth(kind, &wanted)?))?;
    // A power of ten, up to rounding; dividing by its inverse where that is exact keeps 250 nM at 0.25 uM.
    Some(if factor < 1.0 {
        number / (1.0 / factor).round()
    } else {
        number * factor.round()
    })
}

/// Small letters, without spaces, `u` for both micro signs.
fn plain(unit: &str) -> String {
    let letters = unit.chars().filter(|c| !c.is_whitespace());
    letters
        .map(|c| if matches!(c, 'µ' | 'μ') { 'u' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_turned_into_the_screens() {
        for (text, unit, dose) in [
            ("10", "uM", Some(10.0)),
            ("10 uM", "uM", Some(10.0)),
            ("10µM", "uM", Some(10.0)),
            ("10 μM", "µM", Some(10.0)),
            ("250 nM", "uM", Some(0.25)),
            ("0.3nM", "uM", Some(0.0003)),
            ("1 mM", "uM", Some(1000.0)),
            ("1e-3 mM", "uM", Some(1.0)),
            ("2 umol/L", "nM", Some(2000.0)),
            ("5 ng/ml", "ug/ml", Some(0.005)),
            ("3 J/cm2", "J/cm2", Some(3.0)),
            ("5 ng/ml", "uM", None),
            ("10 units", "uM", None),
            ("high", "uM", None),
            ("", "uM", None),
            ("µM", "uM", None),
        ] {
            assert_eq!(parse(text, unit), dose, "{text} in {unit}");
        }
    }
}
