//! Doses as people write them: `10`, `10 uM`, `10µM`, `250 nM`, `1,5 uM`.
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
        ("fm", 1e-15),
        ("molar", 1.0),
        ("millimolar", 1e-3),
        ("micromolar", 1e-6),
        ("nanomolar", 1e-9),
        ("picomolar", 1e-12),
    ],
    &[("mg/ml", 1.0), ("ug/ml", 1e-3), ("ng/ml", 1e-6), ("pg/ml", 1e-9)],
];

/// Units as they stand at the end of a column's plain name.
const IN_NAMES: [(&str, &str); 12] = [
    ("pm", "pM"),
    ("nm", "nM"),
    ("um", "uM"),
    ("µm", "uM"),
    ("mm", "mM"),
    ("m", "M"),
    ("micromolar", "uM"),
    ("nanomolar", "nM"),
    ("ng_ml", "ng/ml"),
    ("ug_ml", "ug/ml"),
    ("mg_ml", "mg/ml"),
    ("ug/ml", "ug/ml"),
];

/// The plain name of a column without the unit at its end, and the unit: `dose_um`, `concentration (nm)`.
pub(super) fn named_unit(name: &str) -> Option<(&str, &'static str)> {
    let name = name.trim_end_matches([')', ']']);
    IN_NAMES.iter().find_map(|(end, unit)| {
        let rest = name.strip_suffix(end)?;
        let stem = rest.trim_end_matches(['_', '(', '[', ' ']);
        (stem.len() < rest.len()).then_some((stem, *unit))
    })
}

/// The plain names that such columns have.
pub(super) fn names_with_unit(stem: &str) -> impl Iterator<Item = String> {
    let ends = IN_NAMES.iter().map(|(end, _)| *end);
    ends.flat_map(move |end| {
        [
            format!("{stem}_{end}"),
            format!("{stem}_({end})"),
            format!("{stem}_[{end}]"),
        ]
    })
}

/// A cell of a column whose name says the unit `of_column`: that of the cell, where it has one, counts.
pub(super) fn parse_in(text: &str, of_column: Option<&str>, unit: &str) -> Option<f64> {
    let number = with_point(text.trim()).parse::<f64>().is_ok();
    match of_column {
        Some(of_column) if number => parse(&format!("{text} {of_column}"), unit),
        _ => parse(text, unit),
    }
}

pub(super) fn parse(text: &str, unit: &str) -> Option<f64> {
    let text = &with_point(text.trim());
    let text = text.as_str();
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

/// A decimal comma becomes a point: `1,5 uM`. Before three digits it may separate thousands, and stays: no number.
fn with_point(text: &str) -> String {
    let comma = text.find(',').filter(|at| {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        text.matches([',', '.']).count() == 1 && digits > 0 && digits != 3
    });
    match comma {
        Some(_) => text.replacen(',', ".", 1),
        None => text.to_owned(),
    }
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
    use super::{named_unit, names_with_unit, parse, parse_in};

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
            ("1,5 uM", "uM", Some(1.5)),
            ("0,25", "uM", Some(0.25)),
            ("1 M", "uM", Some(1e6)),
            ("3 micromolar", "nM", Some(3000.0)),
            ("10 %", "%", Some(10.0)),
            ("20 ug/mL", "mg/mL", Some(0.02)),
            ("1,500 nM", "uM", None),
            ("1.5,5", "uM", None),
            ("10 %", "uM", None),
            ("20 ug/mL", "uM", None),
            ("5 ng/ml", "uM", None),
            ("10 units", "uM", None),
            ("high", "uM", None),
            ("", "uM", None),
            ("µM", "uM", None),
        ] {
            assert_eq!(parse(text, unit), dose, "{text} in {unit}");
        }
    }

    #[test]
    fn the_name_of_a_column_says_the_unit_of_its_numbers() {
        for (name, found) in [
            ("dose_um", Some(("dose", "uM"))),
            ("concentration_(nm)", Some(("concentration", "nM"))),
            ("dose_[µm]", Some(("dose", "uM"))),
            ("conc_ug_ml", Some(("conc", "ug/ml"))),
            ("dose_mm", Some(("dose", "mM"))),
            ("conc_m", Some(("conc", "M"))),
            ("dose", None),
            ("column", None),
            ("mm", None),
        ] {
            assert_eq!(named_unit(name), found, "{name}");
        }
        assert!(
            names_with_unit("dose").all(|name| named_unit(&name).is_some_and(|(stem, _)| stem == "dose"))
        );
        assert_eq!(parse_in("250", Some("nM"), "uM"), Some(0.25));
        assert_eq!(parse_in("0,5", Some("mM"), "uM"), Some(500.0));
        assert_eq!(parse_in("250 uM", Some("nM"), "uM"), Some(250.0));
        assert_eq!(parse_in("250", None, "uM"), Some(250.0));
        assert_eq!(parse_in("5", Some("ug/ml"), "uM"), None);
    }
}
