//! The tables of the comparison: calls per compound, rows per dose, assay windows per plate.
//! A comparison enters, HTML leaves.

use wellspring_workloads::compare::{
    AssayWindow, Call, Censoring, Comparison, CompoundSummary, CurveModel, ScreenComparison,
};

use super::charts::bar;
use super::html::{Safe, put};
use super::number::{NONE, counted, dose, fixed, fixed_or_none, probability, unit_text};

/// Most rows of a table; the Parquet files hold all of them.
const MOST_COMPOUNDS: usize = 400;
const MOST_ROWS: usize = 1000;
/// Below this many wells per side Z′ and SSMD have a large sampling error (SCIENCE 6.3).
const ENOUGH_CONTROLS: usize = 16;

/// The call as a label.
pub(super) fn label(out: &mut String, call: Call) {
    let (class, words) = match call {
        Call::Reference => ("", "reference"),
        Call::Phenotype => ("", "phenotype"),
        Call::RescueHit => (" good", "rescue hit"),
        Call::Toxic => (" bad", "toxic"),
        Call::Active => (" mid", "active"),
        Call::Inactive => ("", "inactive"),
        Call::Underpowered => ("", "underpowered"),
        Call::Untested => ("", "untested"),
        Call::Mimic => (" bad", "mimic"),
    };
    put!(out, "<span class=\"call{class}\">{words}</span>");
}

/// EC50 in words: never extrapolated.
fn ec50(summary: &CompoundSummary) -> String {
    let Some(curve) = &summary.curve else {
        return NONE.to_owned();
    };
    match (curve.censoring, curve.ec50) {
        (Censoring::BelowTested, _) => format!("< {}", dose(curve.tested.0)),
        (Censoring::AboveTested, _) => format!("> {}", dose(curve.tested.1)),
        (Censoring::None, Some(value)) => dose(value),
        _ => NONE.to_owned(),
    }
}

/// Its 95 % interval, where the EC50 and both ends are known.
fn ec50_interval(summary: &CompoundSummary) -> Option<String> {
    let curve = summary.curve.as_ref()?;
    let known = curve.censoring == Censoring::None && curve.ec50.is_some();
    let (low, high) = curve.ec50_low.zip(curve.ec50_high).filter(|_| known)?;
    Some(format!("({} to {})", dose(low), dose(high)))
}

/// What the curve found, in words.
pub(super) fn curve_words(summary: &CompoundSummary, unit: &str) -> String {
    let Some(curve) = &summary.curve else {
        return "too few doses for a curve".to_owned();
    };
    let unit = unit_text(unit);
    let mut words = match curve.model {
        _ if curve.is_open() => "too few wells to tell a dose curve".to_owned(),
        CurveModel::Zero | CurveModel::Constant => "no dose dependence".to_owned(),
        CurveModel::Hill | CurveModel::GainLoss => {
            let interval = ec50_interval(summary).map_or_else(String::new, |interval| format!("{interval} "));
            format!(
                "EC50 {} {interval}{unit}, top {}",
                ec50(summary),
                fixed(curve.top)
            )
        }
    };
    if curve.model == CurveModel::GainLoss || !curve.monotone {
        words.push_str(", falls back at higher doses");
    }
    words
}

fn has_diseases(comparison: &ScreenComparison) -> bool {
    comparison.rows.iter().any(|row| row.disease.is_some())
}

fn head(out: &mut String, columns: &[(&str, bool)]) {
    out.push_str("<thead><tr>");
    for (name, number) in columns {
        put!(
            out,
            "<th scope=\"col\"{}>{name}</th>",
            if *number { " class=\"n\"" } else { "" }
        );
    }
    out.push_str("</tr></thead><tbody>");
}

fn number(out: &mut String, text: &str) {
    put!(out, "<td class=\"n\">{}</td>", Safe(text));
}

fn text(out: &mut String, text: Option<&str>) {
    put!(out, "<td>{}</td>", Safe(text.unwrap_or(NONE)));
}

/// What was left out of a table, where something was.
fn shortened(out: &mut String, shown: usize, of: usize, what: &str, file: &str) {
    if shown < of {
        put!(
            out,
            "<p class=\"note\">{shown} of {}; <code>{file}</code> holds all.</p>",
            counted(of as u64, what)
        );
    }
}

/// One row per compound and disease, best first.
pub(super) fn compounds(out: &mut String, comparison: &ScreenComparison, unit: &str) {
    let diseases = has_diseases(comparison);
    let unit = Safe(&unit_text(unit)).to_string();
    out.push_str("<div class=\"scroll\"><table><caption>Ranked by top effect, reduced by what happens beside the \
        axis. Top: largest fitted effect within the tested doses (1 is the full distance between phenotype and \
        reference). Off-axis z: at the best dose, against as many control wells.</caption>");
    let (best, ec) = (format!("Best dose<br>{unit}"), format!("EC50<br>{unit}"));
    let mut columns = vec![("Rank", true), ("Compound", false)];
    if diseases {
        columns.push(("Disease", false));
    }
    columns.extend([
        ("Call", false),
        ("Top", true),
        ("0 to 1", false),
        (ec.as_str(), true),
        (best.as_str(), true),
        ("Off-axis<br>z", true),
        ("Cell<br>ratio", true),
        ("Smallest<br>q", true),
        ("Score", true),
    ]);
    head(out, &columns);
    // A toxic compound ranks low: of what was called nothing is cut.
    let (first, rest) = comparison
        .compounds
        .split_at(comparison.compounds.len().min(MOST_COMPOUNDS));
    let called = rest.iter().filter(|summary| summary.call.is_finding());
    let shown: Vec<&CompoundSummary> = first.iter().chain(called).collect();
    for summary in &shown {
        put!(
            out,
            "<tr><td class=\"n\">{}</td><th scope=\"row\">{}</th>",
            summary.rank,
            Safe(summary.compound.as_deref().unwrap_or("untreated"))
        );
        if diseases {
            text(out, summary.disease.as_deref());
        }
        out.push_str("<td>");
        label(out, summary.call);
        out.push_str("</td>");
        number(out, &fixed(summary.top));
        out.push_str("<td>");
        bar(out, summary.top);
        out.push_str("</td>");
        // The interval stands below: beside the EC50 it would push the last columns off the page.
        put!(out, "<td class=\"n\">{}", Safe(&ec50(summary)));
        if let Some(interval) = ec50_interval(summary) {
            put!(out, "<br>{}", Safe(&interval));
        }
        out.push_str("</td>");
        number(out, &summary.best_dose.map_or_else(|| NONE.to_owned(), dose));
        number(out, &fixed_or_none(summary.best_off_z));
        number(out, &fixed_or_none(summary.best_cell_ratio));
        number(out, &probability(summary.min_q));
        number(out, &fixed(summary.score));
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    shortened(
        out,
        shown.len(),
        comparison.compounds.len(),
        "compound",
        "compounds.parquet",
    );
}

/// One row per compound, dose and disease, control wells included.
pub(super) fn rows(out: &mut String, comparison: &ScreenComparison, unit: &str) {
    let diseases = has_diseases(comparison);
    let dose_head = format!("Dose<br>{}", Safe(&unit_text(unit)));
    let open = if comparison.rows.len() <= 40 { " open" } else { "" };
    put!(
        out,
        "<details{open}><summary>Every dose ({})</summary><div class=\"scroll\"><table><caption>On axis: 0 \
         reference, 1 phenotype. Off axis: length beside the axis in the same unit; z and q against as many control \
         wells. Controls are scored on an axis built without them.</caption>",
        counted(comparison.rows.len() as u64, "row")
    );
    let mut columns = vec![("Compound", false)];
    if diseases {
        columns.push(("Disease", false));
    }
    columns.extend([
        (dose_head.as_str(), true),
        ("Wells", true),
        ("On axis", true),
        ("Rescue", true),
        ("Off axis", true),
        ("Off-axis z", true),
        ("Cell ratio", true),
        ("p", true),
        ("q", true),
        ("Call", false),
    ]);
    head(out, &columns);
    for row in comparison.rows.iter().take(MOST_ROWS) {
        one_row(out, row, diseases);
    }
    out.push_str("</tbody></table></div>");
    let shown = comparison.rows.len().min(MOST_ROWS);
    shortened(out, shown, comparison.rows.len(), "row", "comparisons.parquet");
    out.push_str("</details>");
}

fn one_row(out: &mut String, row: &Comparison, diseases: bool) {
    let control = matches!(row.call, Call::Reference | Call::Phenotype);
    put!(
        out,
        "<tr{}><th scope=\"row\">{}</th>",
        if control { " class=\"control\"" } else { "" },
        Safe(row.compound.as_deref().unwrap_or("untreated"))
    );
    if diseases {
        text(out, row.disease.as_deref());
    }
    number(out, &row.dose.map_or_else(|| NONE.to_owned(), dose));
    number(out, &row.n_wells.to_string());
    number(out, &fixed_or_none(row.on_axis));
    number(out, &fixed_or_none(row.rescue));
    number(out, &fixed(row.off_axis));
    number(out, &fixed_or_none(row.off_z));
    number(out, &fixed_or_none(row.cell_ratio));
    number(out, &probability(row.p_value));
    number(out, &probability(row.q_value));
    out.push_str("<td>");
    label(out, row.call);
    out.push_str("</td></tr>");
}

/// SCIENCE 6.3: at least 0.5 excellent, 0 to 0.5 usable, below 0 no window.
fn verdict(z_prime: Option<f64>) -> (&'static str, &'static str) {
    match z_prime {
        None => ("", "not defined"),
        Some(z) if z >= 0.5 => (" good", "excellent"),
        Some(z) if z >= 0.0 => (" mid", "usable"),
        Some(_) => (" bad", "no window"),
    }
}

/// How many control wells, and how many of them lie far from the others.
fn wells(wells: usize, outliers: Option<usize>, trimmed: bool) -> String {
    match outliers {
        Some(outliers) if outliers > 0 => {
            let trimmed = if trimmed { ", trimmed" } else { "" };
            format!("{wells} ({outliers} far{trimmed})")
        }
        _ => wells.to_string(),
    }
}

/// One row per plate and disease.
pub(super) fn windows(out: &mut String, windows: &[AssayWindow]) {
    let diseases = windows.iter().any(|window| window.disease.is_some());
    out.push_str("<div class=\"scroll\"><table><caption>How well each plate separates phenotype from reference wells \
        on the axis, each scored on an axis built without it. Z′ of at least 0.5 is excellent, 0 to 0.5 usable, below \
        0 no window; |SSMD| of at least 3 is strong. The robust forms use medians and decide the verdict.</caption>");
    let mut columns = vec![("Plate", false)];
    if diseases {
        columns.push(("Disease", false));
    }
    columns.extend([
        ("Reference<br>wells", true),
        ("Phenotype<br>wells", true),
        ("Z′", true),
        ("Robust Z′", true),
        ("SSMD", true),
        ("Robust<br>SSMD", true),
        ("Z′ over all<br>features", true),
        ("AUC", true),
        ("Window", false),
    ]);
    head(out, &columns);
    for window in windows.iter().take(MOST_COMPOUNDS) {
        put!(out, "<tr><th scope=\"row\">{}</th>", Safe(window.plate.as_str()));
        if diseases {
            text(out, window.disease.as_deref());
        }
        number(
            out,
            &wells(
                window.n_reference,
                window.reference_outliers,
                window.reference_trimmed,
            ),
        );
        number(
            out,
            &wells(
                window.n_phenotype,
                window.phenotype_outliers,
                window.phenotype_trimmed,
            ),
        );
        for value in [
            window.z_prime,
            window.robust_z_prime,
            window.ssmd,
            window.robust_ssmd,
            window.multivariate_z_prime,
            window.auc,
        ] {
            number(out, &fixed_or_none(value));
        }
        let (class, words) = verdict(window.robust_z_prime.or(window.z_prime));
        put!(out, "<td><span class=\"call{class}\">{words}</span></td></tr>");
    }
    out.push_str("</tbody></table></div>");
    let shown = windows.len().min(MOST_COMPOUNDS);
    shortened(out, shown, windows.len(), "window", "windows.parquet");
    if windows.iter().any(|w| w.reference_trimmed || w.phenotype_trimmed) {
        out.push_str(
            "<p class=\"note\">Trimmed: more than 5 % of the wells of that side lie far from the others, and their mean \
             was taken without the lowest and highest tenth of each feature.</p>",
        );
    }
    if windows
        .iter()
        .any(|w| w.n_reference.min(w.n_phenotype) < ENOUGH_CONTROLS)
    {
        put!(
            out,
            "<p class=\"note\">With fewer than {ENOUGH_CONTROLS} control wells on a side, Z′ and SSMD have a large \
             sampling error.</p>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assay_windows_are_named_by_the_usual_limits() {
        for (z, words) in [
            (Some(0.5), "excellent"),
            (Some(0.0), "usable"),
            (Some(-0.1), "no window"),
            (None, "not defined"),
        ] {
            assert_eq!(verdict(z).1, words);
        }
    }
}
