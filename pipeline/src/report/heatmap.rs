//! Compounds against every disease model of the screen, as a heatmap. A [`ShownMatrix`] enters, HTML with SVG leaves.

use std::collections::BTreeMap;

use super::html::{Safe, put};
use super::number::{counted, dose_with_unit, fixed};
use super::plate::colour;
use crate::compare::ShownMatrix;

/// Width of the picture and of its row labels, in units of the drawing.
const WIDTH: f64 = 1_080.0;
const LABELS: f64 = 250.0;
const CELL_HEIGHT: f64 = 17.0;
/// Widest cell of a column.
const WIDEST: f64 = 46.0;
/// Narrowest cell that a number fits into.
const NUMBERED: f64 = 30.0;
/// Room of a slanted column label.
const COLUMN_LABEL: f64 = 10.0;
/// Letters of labels.
const LETTERS: usize = 34;
/// Shades from -1 to 1.
const SHADES: f64 = 20.0;

/// One row per compound, one column per disease model.
pub(super) fn heatmap(out: &mut String, matrix: &ShownMatrix, unit: &str) {
    let models = matrix.diseases.len();
    if models == 0 || matrix.rows.is_empty() {
        return;
    }
    let name = |text: &Option<String>| short(text.as_deref().unwrap_or("unnamed"));
    put!(
        out,
        "<figure><figcaption>Cosine of each compound's effect with the way back from each of all {}: blue goes the way \
         back, red the other way. The {} of {} that go furthest along any of them, each at the dose that does; outlined: \
         the model it was tested on. <code>signatures.parquet</code> has every compound and dose, with p and q.\
         </figcaption>",
        counted(models as u64, "disease model"),
        matrix.rows.len(),
        counted(matrix.compounds as u64, "compound"),
    );
    let cell = ((WIDTH - LABELS) / models as f64).min(WIDEST);
    let each = (COLUMN_LABEL / cell).ceil().max(1.0) as usize;
    let longest = matrix
        .diseases
        .iter()
        .map(|disease| name(disease).chars().count())
        .max();
    let top = 14.0 + 5.4 * longest.unwrap_or(0) as f64;
    let height = top + CELL_HEIGHT * matrix.rows.len() as f64 + 4.0;
    put!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"Cosines of {} with {}\" font-size=\"10\">",
        counted(matrix.rows.len() as u64, "compound"),
        counted(models as u64, "disease model")
    );
    for (column, disease) in matrix.diseases.iter().enumerate().step_by(each) {
        let x = LABELS + cell * (column as f64 + 0.5) + 3.0;
        put!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" transform=\"rotate(-70 {x:.1} {:.1})\">{}</text>",
            top - 5.0,
            top - 5.0,
            Safe(&name(disease))
        );
    }
    cells(out, matrix, (cell, top));
    for (row, shown) in matrix.rows.iter().enumerate() {
        let y = top + CELL_HEIGHT * row as f64;
        let dose = shown
            .dose
            .map_or(String::new(), |dose| format!(" {}", dose_with_unit(dose, unit)));
        put!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 6.0,
            y + 12.0,
            Safe(&format!("{}{dose}", name(&shown.compound)))
        );
        if cell >= NUMBERED {
            for (column, value) in shown
                .reversal
                .iter()
                .enumerate()
                .filter(|(_, value)| !value.is_nan())
            {
                let ink = if value.abs() > 0.7 { "#ffffff" } else { "#1b1f24" };
                put!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" style=\"fill:{ink}\">{}</text>",
                    LABELS + cell * (column as f64 + 0.5),
                    y + 12.0,
                    fixed(f64::from(*value))
                );
            }
        }
        if let Some(own) = shown.tested_on {
            put!(
                out,
                "<rect class=\"axis\" x=\"{:.2}\" y=\"{:.1}\" width=\"{cell:.2}\" height=\"{CELL_HEIGHT}\"/>",
                LABELS + cell * own as f64,
                y
            );
        }
    }
    out.push_str("</svg>");
    if each > 1 {
        put!(
            out,
            "<p class=\"note\">Models are in the order of their names; every {each}th is named.</p>"
        );
    }
    out.push_str("</figure>");
}

/// The cells, those of one shade as one path: 40 compounds on 500 models are 20,000 of them.
fn cells(out: &mut String, matrix: &ShownMatrix, (cell, top): (f64, f64)) {
    let mut paths: BTreeMap<i32, String> = BTreeMap::new();
    for (row, shown) in matrix.rows.iter().enumerate() {
        for (column, value) in shown
            .reversal
            .iter()
            .enumerate()
            .filter(|(_, value)| !value.is_nan())
        {
            let shade = (f64::from(*value) * SHADES / 2.0).round() as i32;
            put!(
                paths.entry(shade).or_default(),
                "M{:.2} {:.1}h{cell:.2}v{CELL_HEIGHT}h-{cell:.2}z",
                LABELS + cell * column as f64,
                top + CELL_HEIGHT * row as f64
            );
        }
    }
    for (shade, path) in paths {
        // From the way back, which is blue as the reference is, to the way away from it.
        let position = (1.0 - f64::from(shade) * 2.0 / SHADES) / 2.0;
        put!(out, "<path fill=\"{}\" d=\"{path}\"/>", colour(position));
    }
}

fn short(text: &str) -> String {
    if text.chars().count() <= LETTERS {
        return text.to_owned();
    }
    let start: String = text.chars().take(LETTERS - 1).collect();
    format!("{start}…")
}
