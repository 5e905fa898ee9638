//! Plate heatmaps: every well coloured by its position on the axis, 0 the reference and 1 the phenotype.
//! Plate facts and well scores enter, SVG leaves.

use std::collections::HashMap;

use wellspring_workloads::compare::WellScore;
use wellspring_workloads::profile::Role;
use wellspring_workloads::words::WellPosition;

use super::html::{Safe, put};
use super::number::{dose_with_unit, fixed, fixed_or_none};
use super::{PlateFacts, WellFacts};

/// Positions on the axis and their colours: blue to red by way of a light neutral, which people with any of the
/// common colour deficiencies tell apart; beyond 0 and 1 the colours darken.
const STOPS: [(f64, [u8; 3]); 5] = [
    (-0.5, [10, 54, 112]),
    (0.0, [67, 147, 195]),
    (0.5, [244, 242, 238]),
    (1.0, [222, 102, 78]),
    (1.5, [110, 8, 32]),
];

/// The colour of a position, as `#rrggbb`; positions outside the scale take its ends.
pub(super) fn colour(position: f64) -> String {
    let last = STOPS.len() - 1;
    let at = position.clamp(STOPS[0].0, STOPS[last].0);
    let i = STOPS
        .iter()
        .rposition(|(p, _)| *p <= at)
        .unwrap_or(0)
        .min(last - 1);
    let ((from, a), (to, b)) = (STOPS[i], STOPS[i + 1]);
    let share = (at - from) / (to - from);
    let mix = |k: usize| (f64::from(a[k]) + share * (f64::from(b[k]) - f64::from(a[k]))).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

/// The key to the colours and outlines.
pub(super) fn legend(out: &mut String) {
    put!(
        out,
        "<svg class=\"legend\" viewBox=\"0 0 580 56\" role=\"img\" aria-label=\"Key: colours from −0.5 to 1.5 on \
         the axis, 0 is the reference and 1 the phenotype; solid outline: reference well, dashed outline: phenotype \
         well, crossed: no score, dot: not in the plate map\"><defs><linearGradient id=\"scale\">"
    );
    for (position, _) in STOPS {
        put!(
            out,
            "<stop offset=\"{}%\" stop-color=\"{}\"/>",
            (position + 0.5) * 50.0,
            colour(position)
        );
    }
    put!(
        out,
        "</linearGradient></defs><rect x=\"24\" y=\"6\" width=\"240\" height=\"14\" fill=\"url(#scale)\"/>"
    );
    for (position, text) in [
        (-0.5, "≤ −0.5"),
        (0.0, "0"),
        (0.5, "0.5"),
        (1.0, "1"),
        (1.5, "≥ 1.5"),
    ] {
        let x = 24.0 + (position + 0.5) * 120.0;
        put!(
            out,
            "<path class=\"axis\" d=\"M{x} 20v4\"/><text x=\"{x}\" y=\"35\" font-size=\"11\" \
             text-anchor=\"middle\">{text}</text>"
        );
    }
    put!(
        out,
        "<text x=\"84\" y=\"50\" font-size=\"11\" text-anchor=\"middle\">reference</text>\
         <text x=\"204\" y=\"50\" font-size=\"11\" text-anchor=\"middle\">phenotype</text>\
         <rect class=\"ref\" x=\"315\" y=\"6\" width=\"14\" height=\"14\" rx=\"2\" fill=\"{}\"/>\
         <text x=\"336\" y=\"17\" font-size=\"11\">reference well</text>\
         <rect class=\"phe\" x=\"315\" y=\"32\" width=\"14\" height=\"14\" rx=\"2\" fill=\"{}\"/>\
         <text x=\"336\" y=\"43\" font-size=\"11\">phenotype well</text>\
         <rect class=\"lost\" x=\"450\" y=\"6\" width=\"14\" height=\"14\" rx=\"2\"/>\
         <path class=\"cross\" d=\"M453 9l8 8m0-8l-8 8\"/><text x=\"471\" y=\"17\" font-size=\"11\">no score</text>\
         <circle class=\"void\" cx=\"457\" cy=\"39\" r=\"2\"/>\
         <text x=\"471\" y=\"43\" font-size=\"11\">not in plate map</text></svg>",
        colour(0.0),
        colour(1.0)
    );
}

/// What a reader learns by pointing at a well.
fn tooltip(out: &mut String, facts: &WellFacts, scores: &[&WellScore], unit: &str) {
    put!(out, "<title>{}: ", facts.well);
    match (&facts.compound, facts.role) {
        (Some(compound), _) => put!(out, "{}", Safe(compound)),
        (None, Role::Reference) => out.push_str("reference"),
        (None, Role::Phenotype) => out.push_str("phenotype"),
        (None, Role::Treated) => out.push_str("treated"),
    }
    if let Some(dose) = facts.dose {
        put!(out, ", {}", Safe(&dose_with_unit(dose, unit)));
    }
    if let Some(disease) = &facts.disease {
        put!(out, ", {}", Safe(disease));
    }
    for score in scores {
        match score.on_axis {
            Some(on_axis) => put!(
                out,
                "\non axis {}, off axis {}",
                fixed(on_axis),
                fixed(score.off_axis)
            ),
            None => put!(out, "\ndistance {}", fixed(score.off_axis)),
        }
        if score.off_z.is_some() {
            put!(out, " (z {})", fixed_or_none(score.off_z));
        }
        if let Some(ratio) = score.cell_ratio {
            put!(out, ", cells {} of controls", fixed(ratio));
        }
        if let (Some(disease), true) = (&score.disease, scores.len() > 1) {
            put!(out, " ({})", Safe(disease));
        }
    }
    if scores.is_empty() {
        out.push_str("\nno score");
    }
    put!(
        out,
        "\n{} of {} fields passed</title>",
        facts.fields_passed,
        facts.fields_expected
    );
}

/// Row letters of a 1-based row.
fn letters(row: u8) -> String {
    WellPosition::new(row, 1)
        .map(WellPosition::row_letters)
        .unwrap_or_default()
}

/// The heatmap of one plate. `scores` are those of this plate.
pub(super) fn heatmap(out: &mut String, plate: &PlateFacts, scores: &[&WellScore], unit: &str) {
    let mut by_well: HashMap<WellPosition, Vec<&WellScore>> = HashMap::new();
    for score in scores {
        by_well.entry(score.well).or_default().push(score);
    }
    let used = |of: fn(WellPosition) -> u8| plate.wells.iter().map(|facts| of(facts.well)).max().unwrap_or(1);
    let rows = plate
        .shape
        .0
        .max(used(WellPosition::row))
        .min(WellPosition::MAX.0);
    let columns = plate
        .shape
        .1
        .max(used(WellPosition::column))
        .min(WellPosition::MAX.1);
    const PITCH: u32 = 20;
    const MARGIN: u32 = 22;
    let (width, height) = (
        MARGIN + PITCH * u32::from(columns) + 2,
        MARGIN + PITCH * u32::from(rows) + 2,
    );
    put!(
        out,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Plate {}: position on the axis of {} \
         wells\">",
        Safe(plate.barcode.as_str()),
        by_well.len()
    );
    let centre = |index: u8| MARGIN + PITCH * (u32::from(index) - 1) + PITCH / 2;
    for column in 1..=columns {
        put!(
            out,
            "<text x=\"{}\" y=\"14\" font-size=\"10\" text-anchor=\"middle\">{column}</text>",
            centre(column)
        );
    }
    for row in 1..=rows {
        put!(
            out,
            "<text x=\"16\" y=\"{}\" font-size=\"10\" text-anchor=\"end\">{}</text>",
            centre(row) + 4,
            letters(row)
        );
    }
    let mapped: HashMap<WellPosition, &WellFacts> = plate.wells.iter().map(|f| (f.well, f)).collect();
    for well in
        (1..=rows).flat_map(|row| (1..=columns).filter_map(move |column| WellPosition::new(row, column)))
    {
        let (x, y) = (centre(well.column()), centre(well.row()));
        let Some(facts) = mapped.get(&well) else {
            put!(out, "<circle class=\"void\" cx=\"{x}\" cy=\"{y}\" r=\"1.6\"/>");
            continue;
        };
        let scores = by_well.get(&well).map(Vec::as_slice).unwrap_or_default();
        // A well on several axes is coloured by its own disease, a shared reference by the first.
        let own = scores
            .iter()
            .find(|score| score.disease == facts.disease)
            .or(scores.first());
        let (left, top, side) = (x - PITCH / 2 + 2, y - PITCH / 2 + 2, PITCH - 4);
        let class = match (own.is_some(), facts.role) {
            (false, _) => "lost",
            (true, Role::Reference) => "ref",
            (true, Role::Phenotype) => "phe",
            (true, Role::Treated) => "spot",
        };
        put!(
            out,
            "<g><rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{side}\" height=\"{side}\" rx=\"2\""
        );
        match own {
            Some(score) => put!(
                out,
                " fill=\"{}\"/>",
                colour(score.on_axis.unwrap_or(score.off_axis))
            ),
            None => put!(
                out,
                "/><path class=\"cross\" d=\"M{} {}l8 8m0-8l-8 8\"/>",
                left + (side - 8) / 2,
                top + (side - 8) / 2
            ),
        }
        tooltip(out, facts, scores, unit);
        out.push_str("</g>");
    }
    out.push_str("</svg>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_passes_through_its_stops_and_ends_at_its_ends() {
        assert_eq!(colour(0.0), "#4393c3");
        assert_eq!(colour(1.0), "#de664e");
        assert_eq!(colour(-9.0), colour(-0.5));
        assert_eq!(colour(9.0), colour(1.5));
        assert_eq!(colour(0.5), "#f4f2ee");
    }
}
