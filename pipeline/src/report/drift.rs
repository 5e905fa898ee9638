//! The section on control drift: what plates were judged by, and the plates that are not in control.

use wellspring_workloads::monitor::{DriftReport, Level};

use super::html::{Safe, put};

/// Most plates shown; `drift.parquet` has all.
const MOST_PLATES: usize = 200;

/// Appends a summary and a table of plates that are not in control.
pub(super) fn drift(out: &mut String, report: &DriftReport) {
    let number = |level: Level| report.plates.iter().filter(|plate| plate.level == level).count();
    put!(
        out,
        "<p>{} plates judged by {} accepted ones: {} in control, {} info, {} warn, {} alert; {} could not be judged. \
         <code>drift.parquet</code> has every statistic with its limit; <code>drift-reference.json</code> is what \
         later plates can be judged by.</p>",
        report.plates.len() - number(Level::Reference) - number(Level::NotMonitored),
        report.reference_plates.len(),
        number(Level::InControl),
        number(Level::Info),
        number(Level::Warn),
        number(Level::Alert),
        number(Level::NotMonitored)
    );
    let shown: Vec<_> = report
        .plates
        .iter()
        .filter(|plate| !matches!(plate.level, Level::Reference | Level::InControl))
        .collect();
    if shown.is_empty() {
        return;
    }
    out.push_str(
        "<div class=\"scroll\"><table><caption>Plates that are not in control</caption><thead><tr><th \
         scope=\"col\">Plate</th><th scope=\"col\">Level</th><th scope=\"col\" class=\"n\">Controls</th><th \
         scope=\"col\">Beyond its limit</th></tr></thead><tbody>",
    );
    for plate in shown.iter().take(MOST_PLATES) {
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            Safe(plate.plate.as_str()),
            plate.level,
            plate.controls,
            Safe(&plate.reason)
        );
    }
    out.push_str("</tbody></table></div>");
    if shown.len() > MOST_PLATES {
        put!(
            out,
            "<p class=\"note\">The first {MOST_PLATES} of {}.</p>",
            shown.len()
        );
    }
}
