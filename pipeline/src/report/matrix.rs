//! Compounds against all disease models of the screen: one cell per pair. A comparison enters, HTML leaves.

use std::collections::{BTreeMap, BTreeSet};

use wellspring_workloads::compare::{Call, CompoundSummary, ScreenComparison};

use super::html::{Safe, put};
use super::number::{NONE, counted, fixed};

/// Most compounds and disease models of the matrix; `compounds.parquet` holds all.
const MOST_COMPOUNDS: usize = 60;
const MOST_DISEASES: usize = 24;

/// Whether the screen has more than one disease model.
pub(super) fn has_many_diseases(comparison: &ScreenComparison) -> bool {
    let mut diseases = comparison.compounds.iter().map(|summary| &summary.disease);
    let first = diseases.next();
    diseases.any(|disease| Some(disease) != first)
}

/// One row per compound, one column per disease model; compounds with the highest score on any of them first.
pub(super) fn matrix(out: &mut String, comparison: &ScreenComparison) {
    let name = |text: &Option<String>| text.clone().unwrap_or_else(|| NONE.to_owned());
    let diseases: BTreeSet<String> = comparison
        .compounds
        .iter()
        .map(|row| name(&row.disease))
        .collect();
    let mut rows: BTreeMap<String, BTreeMap<String, &CompoundSummary>> = BTreeMap::new();
    for summary in &comparison.compounds {
        let row = rows.entry(name(&summary.compound)).or_default();
        row.insert(name(&summary.disease), summary);
    }
    let (all_rows, all_columns) = (rows.len(), diseases.len());
    let best = |row: &BTreeMap<String, &CompoundSummary>| {
        row.values()
            .map(|summary| summary.score)
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(a, left), (b, right)| best(right).total_cmp(&best(left)).then_with(|| a.cmp(b)));
    let diseases: Vec<&String> = diseases.iter().take(MOST_DISEASES).collect();
    out.push_str(
        "<div class=\"scroll\"><table><caption>Top effect of each compound on each disease model. Green: rescue hit, \
         amber: active, red: toxic or mimic.</caption><thead><tr><th scope=\"col\">Compound</th>",
    );
    for disease in &diseases {
        put!(out, "<th scope=\"col\" class=\"n\">{}</th>", Safe(disease));
    }
    out.push_str("</tr></thead><tbody>");
    for (compound, row) in rows.iter().take(MOST_COMPOUNDS) {
        put!(out, "<tr><th scope=\"row\">{}</th>", Safe(compound));
        for disease in &diseases {
            match row.get(*disease) {
                None => put!(out, "<td class=\"n\">{NONE}</td>"),
                Some(summary) => put!(
                    out,
                    "<td class=\"n\"><span class=\"call{}\" title=\"{}\">{}</span></td>",
                    colour(summary.call),
                    Safe(summary.call.as_str()),
                    fixed(summary.top)
                ),
            }
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    if all_rows > MOST_COMPOUNDS || all_columns > MOST_DISEASES {
        put!(
            out,
            "<p class=\"note\">The first {} of {} and {} of {}; <code>compounds.parquet</code> holds all.</p>",
            all_rows.min(MOST_COMPOUNDS),
            counted(all_rows as u64, "compound"),
            diseases.len(),
            counted(all_columns as u64, "disease model")
        );
    }
}

fn colour(call: Call) -> &'static str {
    match call {
        Call::RescueHit => " good",
        Call::Active => " mid",
        Call::Toxic | Call::Mimic => " bad",
        _ => "",
    }
}
