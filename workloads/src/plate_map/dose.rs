//! Doses as people write them: `10`, `10 uM`, `10µM`, `250 nM`, `1,5 uM`, `5 ug/mL`.
//!
//! A cell and the screen's unit enter, the dose in that unit leaves, or what is wrong: no number, a unit that cannot be
//! turned into the screen's, moles that should be grams (or the other way round) without the compound's molecular mass.

use super::error::PlateMapProblem;

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

/// Units of what has neither moles nor grams; doses in them are not turned into others.
const OF_THEIR_OWN: [&str; 5] = ["%", "U/mL", "IU/mL", "Gy", "MOI"];

/// The units of the two kinds as people write them, and those of their own: what messages suggest.
pub(super) fn usual_units() -> impl Iterator<Item = &'static str> {
    let kinds = [
        "nM", "uM", "mM", "M", "pM", "fM", "ng/mL", "ug/mL", "mg/mL", "pg/mL", "mol/L", "mmol/L", "umol/L",
        "nmol/L", "pmol/L",
    ];
    kinds.into_iter().chain(OF_THEIR_OWN)
}

/// Whether doses can be in this unit.
pub(super) fn is_unit(unit: &str) -> bool {
    kind_of(unit).is_some() || OF_THEIR_OWN.iter().any(|own| plain(own) == plain(unit))
}

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

/// A cell of a column whose name says the unit `of_column`: that of the cell, where it has one, counts. `mass` is the text
/// of the compound's molecular mass in g/mol.
pub(super) fn parse_in(
    text: &str,
    of_column: Option<&str>,
    unit: &str,
    mass: Option<&str>,
) -> Result<f64, PlateMapProblem> {
    let shown = || text.chars().take(80).collect::<String>();
    let number = with_point(text.trim()).parse::<f64>().is_ok();
    let written = match of_column {
        Some(of_column) if number => format!("{text} {of_column}"),
        _ => text.to_owned(),
    };
    let dose = match parse(&written, unit) {
        Some(dose) => dose,
        None => match Amount::of(&written).zip(kind_of(unit)) {
            Some((amount, (kind, worth))) if amount.kind != kind => {
                let mass = mass.map(|mass| {
                    let parsed = with_point(mass.trim()).parse::<f64>().ok();
                    let parsed = parsed.filter(|mass| mass.is_finite() && *mass > 0.0);
                    parsed.ok_or_else(|| PlateMapProblem::Mass {
                        text: mass.chars().take(80).collect(),
                    })
                });
                let Some(mass) = mass.transpose()? else {
                    let (text, unit) = (shown(), unit.to_owned());
                    return Err(PlateMapProblem::NoMass { text, unit });
                };
                // Moles per litre times grams per mole are grams per litre.
                let base = if amount.kind == MOLES {
                    amount.base * mass
                } else {
                    amount.base / mass
                };
                tidy(base / worth)
            }
            _ => {
                let (text, unit) = (shown(), unit.to_owned());
                return Err(PlateMapProblem::Dose { text, unit });
            }
        },
    };
    // Minus zero would be a second spelling of "no dose".
    if dose.is_finite() && dose >= 0.0 {
        Ok(dose + 0.0)
    } else {
        Err(PlateMapProblem::DoseRange {
            text: text.to_owned(),
        })
    }
}

/// Without what division by a mass adds in the last digits.
fn tidy(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// The index of moles in [`KINDS`].
const MOLES: usize = 0;

/// A dose with a unit, in moles or grams per litre.
struct Amount {
    kind: usize,
    base: f64,
}

impl Amount {
    fn of(text: &str) -> Option<Self> {
        let text = with_point(text.trim());
        let (number, rest) = number_and_rest(&text)?;
        let (kind, worth) = kind_of(rest)?;
        Some(Self {
            kind,
            base: number * worth,
        })
    }
}

/// The kind of a unit, and what it is worth.
fn kind_of(unit: &str) -> Option<(usize, f64)> {
    let unit = plain(unit);
    KINDS.iter().enumerate().find_map(|(kind, units)| {
        let worth = units
            .iter()
            .find_map(|(name, worth)| (*name == unit).then_some(*worth))?;
        Some((kind, worth))
    })
}

/// The longest beginning that is a number, and what follows: the e of "1e-3" belongs to it, that of "1 each" does not.
fn number_and_rest(text: &str) -> Option<(f64, &str)> {
    text.char_indices()
        .map(|(at, _)| at)
        .rev()
        .find_map(|at| Some((text[..at].trim_end().parse::<f64>().ok()?, &text[at..])))
}

pub(super) fn parse(text: &str, unit: &str) -> Option<f64> {
    let text = &with_point(text.trim());
    let text = text.as_str();
    if let Ok(number) = text.parse::<f64>() {
        return Some(number);
    }
    let (number, rest) = number_and_rest(text)?;
    if plain(rest) == plain(unit) {
        return Some(number);
    }
    let (of, worth) = kind_of(rest)?;
    let (wanted, wanted_worth) = kind_of(unit)?;
    if of != wanted {
        return None;
    }
    let factor = worth / wanted_worth;
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

/// Small letters, without spaces, `u` for both micro signs, and for what is left of one in a text of another code page.
fn plain(unit: &str) -> String {
    let letters = unit.chars().filter(|c| !c.is_whitespace());
    letters
        .map(|c| {
            if matches!(c, 'µ' | 'μ' | '\u{fffd}') {
                'u'
            } else {
                c
            }
        })
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{PlateMapProblem, named_unit, names_with_unit, parse, parse_in};

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
        let dose = |text, of_column| parse_in(text, of_column, "uM", None);
        assert_eq!(dose("250", Some("nM")), Ok(0.25));
        assert_eq!(dose("0,5", Some("mM")), Ok(500.0));
        assert_eq!(dose("250 uM", Some("nM")), Ok(250.0));
        assert_eq!(dose("250", None), Ok(250.0));
        assert!(matches!(
            dose("5", Some("ug/ml")),
            Err(PlateMapProblem::NoMass { .. })
        ));
    }

    #[test]
    fn grams_become_moles_by_the_molecular_mass_and_not_without_it() {
        for (text, unit, mass, dose) in [
            ("5 ug/mL", "uM", "500", 10.0),
            ("50 ng/ml", "nM", "500.0", 100.0),
            ("10 uM", "ug/mL", "500", 5.0),
            ("1 \u{fffd}g/mL", "uM", "1000", 1.0),
            ("0 ug/mL", "uM", "318,4", 0.0),
        ] {
            assert_eq!(
                parse_in(text, None, unit, Some(mass)),
                Ok(dose),
                "{text} in {unit}"
            );
        }
        let problem = |text, mass| parse_in(text, None, "uM", mass).unwrap_err();
        assert!(problem("5 ug/mL", None).to_string().contains("molecular_weight"));
        for mass in ["0", "-3", "heavy"] {
            assert!(
                matches!(problem("5 ug/mL", Some(mass)), PlateMapProblem::Mass { .. }),
                "{mass}"
            );
        }
        assert!(matches!(
            problem("5 units", Some("500")),
            PlateMapProblem::Dose { .. }
        ));
        assert!(matches!(
            problem("-5 uM", None),
            PlateMapProblem::DoseRange { .. }
        ));
    }
}
