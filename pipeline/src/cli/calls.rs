//! The table of calls that a person reads at the end of a run: compounds by rank, then assay windows.
//!
//! A comparison enters, aligned text leaves. Cannot fail.

use wellspring_workloads::compare::{
    Censoring, CompoundSummary, CurveModel, DoseCurve, Measure, ScreenComparison,
};

/// Compounds shown per disease; the rest is in the files.
const SHOWN: usize = 30;
/// Of those beyond, the most that are shown for what they were called.
const MOST_CALLED: usize = 200;
/// What stands for a number that does not exist.
const NONE: &str = "-";

/// The calls of a screen: per disease one line per compound, best first, then one line per plate and disease with
/// its assay window. Ends with a newline; empty where nothing was compared.
pub(crate) fn table(comparison: &ScreenComparison) -> String {
    let mut text = String::new();
    let unit = comparison.rows.first().map_or("", |row| row.dose_unit.as_str());
    let mut rest = comparison.compounds.as_slice();
    while let Some(first) = rest.first() {
        let same = rest
            .iter()
            .take_while(|summary| summary.disease == first.disease)
            .count();
        let (disease, after) = rest.split_at(same);
        rest = after;
        if let Some(name) = &first.disease {
            text.push_str(&format!("{name}\n"));
        }
        let shown = shown(disease);
        text.push_str(&compounds(comparison, &shown, unit));
        if disease.len() > shown.len() {
            text.push_str(&format!(
                "  and {} more in compounds.parquet\n",
                disease.len() - shown.len()
            ));
        }
        text.push('\n');
    }
    if !comparison.windows.is_empty() {
        text.push_str("Assay windows (Z' above 0.5 is a good assay)\n");
        text.push_str(&windows(comparison));
    }
    text
}

/// The first compounds by rank, and those further down that somebody must see: a toxic one ranks low.
fn shown(disease: &[CompoundSummary]) -> Vec<&CompoundSummary> {
    let (first, rest) = disease.split_at(disease.len().min(SHOWN));
    let called = rest.iter().filter(|summary| summary.call.is_finding());
    first.iter().chain(called.take(MOST_CALLED)).collect()
}

fn compounds(comparison: &ScreenComparison, disease: &[&CompoundSummary], unit: &str) -> String {
    // A response screen asks how far a treatment goes along the axis, a rescue screen how far back.
    let response = comparison
        .compounds
        .iter()
        .filter_map(|summary| summary.curve.as_ref());
    let response = response.map(|curve| curve.measure).next() == Some(Measure::OnAxis);
    let axis = disease.iter().any(|summary| summary.best_rescue.is_some());
    let measured = match (axis, response) {
        (false, _) => "distance",
        (true, true) => "on axis",
        (true, false) => "rescue",
    };
    let mut grid = Grid::new(&[
        ("rank", Side::Right),
        ("compound", Side::Left),
        ("call", Side::Left),
        ("best dose", Side::Right),
        (measured, Side::Right),
        ("off z", Side::Right),
        ("q", Side::Right),
        ("EC50", Side::Right),
        ("curve", Side::Left),
    ]);
    for summary in disease {
        let at_best = comparison.rows.iter().find(|row| {
            row.disease == summary.disease
                && row.compound == summary.compound
                && row.dose == summary.best_dose
        });
        grid.push(vec![
            summary.rank.to_string(),
            summary.compound.clone().unwrap_or_else(|| "(none)".to_owned()),
            summary.call.to_string(),
            summary
                .best_dose
                .map_or(NONE.to_owned(), |dose| with_unit(&short(dose), unit)),
            summary.best_rescue.map_or_else(
                || at_best.map_or(NONE.to_owned(), |row| format!("{:.2}", row.distance)),
                |rescue| format!("{:.2}", if response { 1.0 - rescue } else { rescue }),
            ),
            summary.best_off_z.map_or(NONE.to_owned(), |z| format!("{z:.1}")),
            at_best
                .and_then(|row| row.q_value)
                .map_or(NONE.to_owned(), probability),
            ec50(summary.curve.as_ref(), unit),
            curve(summary.curve.as_ref()),
        ]);
    }
    grid.text()
}

fn windows(comparison: &ScreenComparison) -> String {
    let mut grid = Grid::new(&[
        ("plate", Side::Left),
        ("disease", Side::Left),
        ("reference", Side::Right),
        ("phenotype", Side::Right),
        ("Z'", Side::Right),
        ("robust Z'", Side::Right),
        ("SSMD", Side::Right),
    ]);
    let number = |value: Option<f64>| value.map_or(NONE.to_owned(), |value| format!("{value:.2}"));
    for window in &comparison.windows {
        grid.push(vec![
            window.plate.to_string(),
            window.disease.clone().unwrap_or_else(|| NONE.to_owned()),
            wells(window.n_reference),
            wells(window.n_phenotype),
            number(window.z_prime),
            number(window.robust_z_prime),
            number(window.ssmd),
        ]);
    }
    grid.text()
}

fn wells(n: usize) -> String {
    super::say::counted(n, "well")
}

fn with_unit(number: &str, unit: &str) -> String {
    format!("{number} {unit}").trim_end().to_owned()
}

/// Three significant digits, without trailing zeros.
fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if !(1e-3..1e6).contains(&value.abs()) {
        return format!("{value:.2e}");
    }
    let decimals = (2 - value.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn probability(value: f64) -> String {
    if value < 1e-3 {
        format!("{value:.0e}")
    } else {
        format!("{value:.3}")
    }
}

/// The EC50, or on which side of the tested doses it lies; it is never extrapolated.
fn ec50(curve: Option<&DoseCurve>, unit: &str) -> String {
    let Some(curve) = curve else {
        return NONE.to_owned();
    };
    match (curve.censoring, curve.ec50) {
        (Censoring::None, Some(dose)) => with_unit(&short(dose), unit),
        (Censoring::BelowTested, _) => with_unit(&format!("< {}", short(curve.tested.0)), unit),
        (Censoring::AboveTested, _) => with_unit(&format!("> {}", short(curve.tested.1)), unit),
        (Censoring::Undefined | Censoring::None, _) => NONE.to_owned(),
    }
}

fn curve(curve: Option<&DoseCurve>) -> String {
    let Some(curve) = curve else {
        return NONE.to_owned();
    };
    let model = match curve.model {
        _ if curve.is_open() => "too few wells",
        CurveModel::Zero => "flat at 0",
        CurveModel::Constant => "flat",
        CurveModel::Hill => "Hill",
        CurveModel::GainLoss => "gain-loss",
    };
    if curve.monotone {
        model.to_owned()
    } else {
        format!("{model}, turns back")
    }
}

/// On which side a column is aligned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Aligned columns.
pub(crate) struct Grid {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub(crate) fn new(columns: &[(&str, Side)]) -> Self {
        Self {
            sides: columns.iter().map(|(_, side)| *side).collect(),
            rows: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Two spaces before each column, no space at the end of a line.
    pub(crate) fn text(&self) -> String {
        let cell = |row: &[String], i: usize| row.get(i).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> = (0..self.sides.len())
            .map(|i| self.rows.iter().map(|row| cell(row, i)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((value, side), width) in row.iter().zip(&self.sides).zip(&widths) {
                let pad = " ".repeat(width.saturating_sub(value.chars().count()));
                line.push_str("  ");
                match side {
                    Side::Left => line.extend([value.as_str(), &pad]),
                    Side::Right => line.extend([pad.as_str(), value]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_workloads::compare::{ComparisonSettings, compare};
    use wellspring_workloads::profile::{Role, Treatment, WellProfile};
    use wellspring_workloads::words::WellPosition;

    fn well(index: u8, role: Role, compound: &str, dose: Option<f64>, on_axis: f32) -> WellProfile {
        let wobble = f32::from(index % 5) * 0.02;
        WellProfile {
            plate: "P1".parse().unwrap(),
            well: WellPosition::new(1 + index / 12, 1 + index % 12).unwrap(),
            treatment: Treatment {
                role,
                disease: (role != Role::Reference).then(|| "model".to_owned()),
                compound: Some(compound.to_owned()),
                dose,
            },
            fields: 2,
            cell_count: None,
            values: vec![
                on_axis + wobble,
                wobble * (f32::from(index % 3) - 1.0),
                1.0 - wobble,
            ],
        }
    }

    fn comparison() -> ScreenComparison {
        let mut wells: Vec<WellProfile> = (0..12)
            .map(|i| well(i, Role::Reference, "DMSO", Some(0.0), 0.0))
            .collect();
        wells.extend((12..24).map(|i| well(i, Role::Phenotype, "DMSO", Some(0.0), 1.0)));
        for (i, dose) in [0.1, 1.0, 10.0, 100.0].into_iter().enumerate() {
            let i = 24 + 2 * i as u8;
            let rescued = (1.0 / (1.0 + dose)) as f32;
            wells.push(well(i, Role::Treated, "good", Some(dose), rescued));
            wells.push(well(i + 1, Role::Treated, "idle", Some(dose), 1.0));
        }
        compare(&wells, &ComparisonSettings::default()).unwrap()
    }

    #[test]
    fn the_best_compound_comes_first_and_every_line_is_aligned() {
        let text = table(&comparison());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "model");
        let header = lines[1];
        let (good, idle) = (lines[2], lines[3]);
        assert!(
            good.contains("good") && good.trim_start().starts_with('1'),
            "{text}"
        );
        assert!(
            idle.contains("idle") && idle.trim_start().starts_with('2'),
            "{text}"
        );
        for name in ["compound", "call", "curve"] {
            // Left-aligned columns start where their header does.
            let at = header.find(name).unwrap();
            for line in [good, idle] {
                assert_eq!(&line[at - 2..at], "  ", "{text}");
                assert_ne!(&line[at..=at], " ", "{text}");
            }
        }
        assert!(good.contains("100 uM"), "{text}");
        assert!(
            text.contains("Assay windows") && text.contains("12 wells"),
            "{text}"
        );
        assert!(lines.iter().all(|line| line.trim_end() == *line), "{text}");
    }

    #[test]
    fn a_response_screen_shows_the_way_along_the_axis() {
        let mut response = comparison();
        assert!(table(&response).contains("rescue "));
        for curve in response
            .compounds
            .iter_mut()
            .filter_map(|summary| summary.curve.as_mut())
        {
            curve.measure = Measure::OnAxis;
        }
        let text = table(&response);
        let on_axis = format!("{:.2}", 1.0 - response.compounds[0].best_rescue.unwrap());
        assert!(text.contains("on axis") && !text.contains("rescue "), "{text}");
        assert!(
            text.lines()
                .any(|line| line.contains("good") && line.contains(&on_axis)),
            "{text}"
        );
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let mut many = comparison();
        let one = many.compounds[0].clone();
        many.compounds = (1..=SHOWN + 7)
            .map(|rank| CompoundSummary { rank, ..one.clone() })
            .collect();
        let text = table(&many);
        assert!(text.contains("and 7 more in compounds.parquet"), "{text}");
        // Of what was called nothing is cut.
        many.compounds[SHOWN + 2].call = wellspring_workloads::compare::Call::Toxic;
        many.compounds[SHOWN + 2].compound = Some("poison".to_owned());
        let text = table(&many);
        assert!(text.contains("and 6 more in compounds.parquet"), "{text}");
        let poison = text.lines().find(|line| line.contains("poison")).unwrap();
        assert!(poison.contains("toxic") && poison.contains("33"), "{text}");
    }

    #[test]
    fn nothing_compared_is_nothing_printed() {
        let mut empty = comparison();
        (empty.compounds, empty.windows) = (Vec::new(), Vec::new());
        assert_eq!(table(&empty), "");
    }

    #[test]
    fn numbers_are_short_and_censoring_is_told() {
        for (value, expected) in [
            (0.1, "0.1"),
            (30.0, "30"),
            (0.8123, "0.812"),
            (1234.0, "1234"),
            (2e-5, "2.00e-5"),
            (0.0, "0"),
        ] {
            assert_eq!(short(value), expected);
        }
        let mut curve = comparison().compounds[0].curve.clone().unwrap();
        curve.tested = (0.1, 100.0);
        curve.censoring = Censoring::BelowTested;
        assert_eq!(ec50(Some(&curve), "uM"), "< 0.1 uM");
        curve.censoring = Censoring::AboveTested;
        assert_eq!(ec50(Some(&curve), "uM"), "> 100 uM");
        curve.censoring = Censoring::Undefined;
        assert_eq!(ec50(Some(&curve), "uM"), "-");
        curve.monotone = false;
        assert!(super::curve(Some(&curve)).contains("turns back"));
    }
}
