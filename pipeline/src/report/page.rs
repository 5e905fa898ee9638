//! The page from top to bottom: sections in the order a scientist asks for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use wellspring_workloads::compare::{Call, Comparison, Measure, Question, ScreenComparison, WellScore};

use super::html::{Safe, put};
use super::number::{count, counted, duration};
use super::{ReportError, ReportInput, calls, charts, drift, heatmap, matrix, plate};
use crate::compare::ReplicateCounts;

const STYLE: &str = include_str!("style.css");
/// Most dose curves; the best ranked are drawn.
const MOST_CURVES: usize = 48;
/// Most wells drawn in heatmaps: the page stays under 2 MB.
const MOST_WELLS: usize = 4000;
/// Most lines of the dead-letter table.
const MOST_DEAD_LETTERS: usize = 100;
/// Most characters of a reason.
const MOST_REASON: usize = 400;

/// The page as text, to be written as `report.html`.
///
/// # Errors
/// The montage cannot be made.
pub fn render(input: &ReportInput<'_>) -> Result<String, ReportError> {
    let mut out = String::with_capacity(256 << 10);
    let title = Safe(&input.run.provenance.screen).to_string();
    put!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}: screen \
         report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    header(&mut out, input);
    match input.comparison {
        Some(comparison) => {
            findings(&mut out, input, comparison);
            section(&mut out, "calls", "Calls");
            if comparison.compounds.is_empty() {
                out.push_str("<p>No treated wells to call.</p>");
            } else {
                if matrix::has_many_diseases(comparison) {
                    matrix::matrix(&mut out, comparison);
                }
                calls::compounds(&mut out, comparison, input.dose_unit);
            }
            if !comparison.rows.is_empty() {
                calls::rows(&mut out, comparison, input.dose_unit);
            }
            if let Some(matrix) = input.matrix {
                section(&mut out, "models", "Against all disease models");
                heatmap::heatmap(&mut out, matrix, input.dose_unit);
            }
            curves(&mut out, input, comparison);
            montage(&mut out, input)?;
            if !comparison.windows.is_empty() {
                section(&mut out, "windows", "Assay window");
                calls::windows(&mut out, &comparison.windows);
            }
            plates(&mut out, input, &comparison.wells);
        }
        None => {
            put!(
                out,
                "<h2>No comparison</h2><p>{}</p>",
                Safe(input.comparison_failed.unwrap_or("No well could be compared."))
            );
            montage(&mut out, input)?;
            plates(&mut out, input, &[]);
        }
    }
    if let Some(report) = input.drift {
        section(&mut out, "drift", "Control drift");
        drift::drift(&mut out, report);
    }
    losses(&mut out, input);
    provenance(&mut out, input);
    out.push_str("</main>\n</body>\n</html>\n");
    Ok(out)
}

fn section(out: &mut String, id: &str, title: &str) {
    put!(out, "\n<h2 id=\"{id}\">{title}</h2>\n");
}

fn header(out: &mut String, input: &ReportInput<'_>) {
    let run = input.run;
    put!(
        out,
        "<header><p class=\"eyebrow\">Wellspring screen report · run {} · {}</p><h1>{}</h1>",
        Safe(&run.provenance.run),
        Safe(&run.finished),
        Safe(&run.provenance.screen)
    );
    if !run.description.is_empty() {
        put!(out, "<p>{}</p>", Safe(&run.description));
    }
    let lost = run
        .fields_expected
        .saturating_sub(run.fields_done + run.fields_failed);
    out.push_str("<dl class=\"facts\">");
    let mut fact = |name: &str, value: String, bad: bool| {
        put!(
            out,
            "<div{}><dt>{name}</dt><dd>{value}</dd></div>",
            if bad { " class=\"bad\"" } else { "" }
        );
    };
    fact("Plates", count(run.plates), false);
    fact("Wells", count(run.wells), false);
    fact(
        "Fields done",
        format!("{} of {}", count(run.fields_done), count(run.fields_expected)),
        lost > 0,
    );
    fact("Fields failed", count(run.fields_failed), run.fields_failed > 0);
    if lost > 0 {
        fact("Fields unaccounted for", count(lost), true);
    }
    fact("Dead letters", count(run.dead_letters), run.dead_letters > 0);
    fact("Time", duration(run.seconds), false);
    out.push_str("</dl></header>");
}

/// The result in a sentence, and what a reader must know first.
fn findings(out: &mut String, input: &ReportInput<'_>, comparison: &ScreenComparison) {
    let n = |call| comparison.compounds.iter().filter(|c| c.call == call).count() as u64;
    let mut parts = Vec::new();
    if input.question == Question::Rescue {
        parts.push(counted(n(Call::RescueHit), "rescue hit"));
    }
    for (call, words) in [
        (Call::Active, "active"),
        (Call::Toxic, "toxic"),
        (Call::Inactive, "inactive"),
        (Call::Underpowered, "with too few controls to tell"),
        (Call::Untested, "without a usable null"),
    ] {
        if n(call) > 0 {
            parts.push(format!("{} {words}", count(n(call))));
        }
    }
    if parts.is_empty() {
        parts.push("nothing to call".to_owned());
    }
    let pairs = comparison.compounds.len() as u64;
    let diseases = comparison.compounds.iter().any(|c| c.disease.is_some());
    let noun = if diseases {
        "compound and disease pair"
    } else {
        "compound"
    };
    put!(
        out,
        "<p class=\"lead\">{}: {}.</p>",
        counted(pairs, noun),
        parts.join(", ")
    );
    out.push_str(match input.question {
        Question::Rescue => {
            "<p>Positions are measured along the line from the reference wells (0) to the disease wells (1) of each \
             plate. Rescue is 1 minus the position: 1 brings the disease back to the reference.</p>"
        }
        Question::Response => {
            "<p>Positions are measured along the line from the reference wells (0) to the wells that define the \
             phenotype (1) of each plate.</p>"
        }
        Question::Activity => {
            "<p>Distances are measured from the reference wells of each plate; 1 is the distance of the median \
             reference well from the mean of the others.</p>"
        }
    });
    if let Some(counts) = input.replicates {
        replicates(out, counts);
    }
    if !comparison.notes.is_empty() {
        const SHOWN: usize = 20;
        out.push_str("<ul class=\"notes\">");
        for note in comparison.notes.iter().take(SHOWN) {
            put!(out, "<li>{}</li>", Safe(&note.text));
        }
        if comparison.notes.len() > SHOWN {
            put!(out, "<li>and {} more</li>", comparison.notes.len() - SHOWN);
        }
        out.push_str("</ul>");
    }
}

/// How many treatments replicate, in a sentence.
fn replicates(out: &mut String, counts: ReplicateCounts) {
    let percent = |part: u64, whole: u64| {
        let tenths = (1000.0 * part as f64 / whole as f64).round() / 10.0;
        format!("{tenths} %")
    };
    if counts.treatments > 0 && counts.retrieved == 0 {
        out.push_str("<p>No treatment has replicates: whether they agree cannot be told.</p>");
    } else if counts.retrieved > 0 {
        put!(
            out,
            "<p>Of {} with replicates, those of {} ({}) find each other among the controls (mean average precision).",
            counted(counts.retrieved, "treatment"),
            count(counts.active),
            percent(counts.active, counts.retrieved)
        );
        if counts.correlated > 0 {
            put!(
                out,
                " Percent replicating: {}.",
                percent(counts.replicating, counts.correlated)
            );
        }
        out.push_str("</p>");
    }
}

fn curves(out: &mut String, input: &ReportInput<'_>, comparison: &ScreenComparison) {
    let measure = match input.question {
        Question::Rescue => Measure::Rescue,
        Question::Response => Measure::OnAxis,
        Question::Activity => Measure::Activity,
    };
    let with_doses = |summary: &&wellspring_workloads::compare::CompoundSummary| summary.n_doses > 0;
    let mut chosen: Vec<_> = comparison.compounds.iter().filter(with_doses).collect();
    if chosen.is_empty() {
        return;
    }
    let all = chosen.len();
    // Best first over all diseases; the order within a rank is that of the comparison.
    chosen.sort_by_key(|summary| summary.rank);
    chosen.truncate(MOST_CURVES);
    section(out, "curves", "Dose curves");
    put!(
        out,
        "<p class=\"note\">Vertical: {}. Small dots are wells, circles are means over wells, grey circles are \
         controls. The line is the fitted curve within the tested doses; dashed where no dose dependence was \
         found.</p>",
        charts::measure_name(measure)
    );
    if chosen.len() < all {
        put!(
            out,
            "<p class=\"note\">The {MOST_CURVES} best of {all} curves.</p>"
        );
    }
    put!(
        out,
        "<div class=\"grid curves{}\">",
        if chosen.len() <= 2 { " few" } else { "" }
    );
    for summary in chosen {
        let rows: Vec<&Comparison> = comparison
            .rows
            .iter()
            .filter(|row| row.disease == summary.disease || row.disease.is_none())
            .filter(|row| {
                row.compound == summary.compound || matches!(row.call, Call::Reference | Call::Phenotype)
            })
            .collect();
        out.push_str("<figure><h3>");
        put!(
            out,
            "{}",
            Safe(summary.compound.as_deref().unwrap_or("untreated"))
        );
        if let Some(disease) = &summary.disease {
            put!(out, " on {}", Safe(disease));
        }
        out.push(' ');
        calls::label(out, summary.call);
        out.push_str("</h3>");
        charts::dose_curve(out, summary, &rows, measure, input.dose_unit);
        put!(
            out,
            "<figcaption>{}</figcaption></figure>\n",
            Safe(&calls::curve_words(summary, input.dose_unit))
        );
    }
    out.push_str("</div>");
}

fn montage(out: &mut String, input: &ReportInput<'_>) -> Result<(), ReportError> {
    let Some(montage) = input.montage else {
        return Ok(());
    };
    let (pictures, scalings) = montage.pictures()?;
    section(out, "images", "Images");
    out.push_str(
        "<p class=\"note\">Centre crops of single fields. Each channel has one scale for all crops, so \
        brightness can be compared: ",
    );
    for (i, scaling) in scalings.iter().enumerate() {
        let [r, g, b] = scaling.colour;
        put!(
            out,
            "{}<span class=\"swatch\" style=\"background:rgb({r},{g},{b})\"></span>{} {} to {}",
            if i > 0 { ", " } else { "" },
            Safe(scaling.channel.as_str()),
            scaling.low,
            scaling.high
        );
    }
    out.push_str(".</p><div class=\"grid tiles\">");
    for picture in &pictures {
        put!(
            out,
            "<figure><img width=\"{}\" height=\"{}\" alt=\"Microscope image: {}\" \
             src=\"data:image/png;base64,{}\"><figcaption><b>{}</b>{}</figcaption></figure>\n",
            picture.width,
            picture.height,
            Safe(&picture.label),
            BASE64.encode(&picture.png),
            Safe(&picture.label),
            Safe(&picture.place)
        );
    }
    out.push_str("</div>");
    Ok(())
}

fn plates(out: &mut String, input: &ReportInput<'_>, scores: &[WellScore]) {
    if input.plates.is_empty() {
        return;
    }
    section(out, "plates", "Plates");
    out.push_str(
        "<p class=\"note\">Each well by its position on the axis. Point at a well for its treatment and \
        numbers.</p>",
    );
    plate::legend(out);
    let wide = input.plates.iter().any(|plate| plate.shape.1 > 24);
    put!(
        out,
        "<div class=\"grid plates{}\">",
        if wide { " wide" } else { "" }
    );
    let mut wells = 0;
    let mut shown = 0u64;
    for facts in input.plates {
        wells += facts.wells.len();
        if wells > MOST_WELLS && shown > 0 {
            break;
        }
        shown += 1;
        let own: Vec<&WellScore> = scores
            .iter()
            .filter(|score| score.plate == facts.barcode)
            .collect();
        put!(out, "<figure><h3>{}</h3>", Safe(facts.barcode.as_str()));
        plate::heatmap(out, facts, &own, input.dose_unit);
        out.push_str("</figure>\n");
    }
    out.push_str("</div>");
    if shown < input.run.plates {
        put!(
            out,
            "<p class=\"note\">The first {shown} of {} plates; <code>profiles.parquet</code> holds all.</p>",
            input.run.plates
        );
    }
}

/// What failed and what was flagged.
fn losses(out: &mut String, input: &ReportInput<'_>) {
    section(out, "failures", "Failures and quality flags");
    if input.run.dead_letters == 0 && input.dead_letters.is_empty() {
        out.push_str("<p>Nothing failed: there are no dead letters.</p>");
    } else {
        out.push_str(
            "<div class=\"scroll\"><table><caption>Dead letters: what could not be processed. All of them \
            are in <code>dead-letters.jsonl</code>.</caption><thead><tr><th scope=\"col\">Stage</th><th \
            scope=\"col\">What</th><th scope=\"col\">Why</th></tr></thead><tbody>",
        );
        for line in input.dead_letters.iter().take(MOST_DEAD_LETTERS) {
            let reason: String = line.reason.chars().take(MOST_REASON).collect();
            put!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                Safe(&line.stage),
                Safe(&line.subject),
                Safe(&reason)
            );
        }
        out.push_str("</tbody></table></div>");
        let shown = input.dead_letters.len().min(MOST_DEAD_LETTERS) as u64;
        let all = input.run.dead_letters.max(input.dead_letters.len() as u64);
        if shown < all {
            put!(
                out,
                "<p class=\"note\">The first {} of {}.</p>",
                count(shown),
                count(all)
            );
        }
    }
    if input.quality_flags.is_empty() {
        out.push_str("<p>No field carries a quality flag.</p>");
        return;
    }
    out.push_str("<div class=\"scroll\"><table class=\"narrow\"><caption>Quality flags: fields that were flagged, and those left out \
        because of it. <code>quality.parquet</code> has the measures of every field.</caption><thead><tr><th \
        scope=\"col\">Flag</th><th scope=\"col\" class=\"n\">Fields flagged</th><th scope=\"col\" class=\"n\">Left \
        out</th></tr></thead><tbody>");
    for flag in input.quality_flags {
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            Safe(&flag.flag),
            count(flag.fields),
            count(flag.failed)
        );
    }
    out.push_str("</tbody></table></div>");
}

fn provenance(out: &mut String, input: &ReportInput<'_>) {
    let run = input.run;
    section(out, "provenance", "Provenance");
    out.push_str("<table class=\"plain\"><tbody>");
    let mut row = |name: &str, value: &str, code: bool| {
        let (open, close) = if code { ("<code>", "</code>") } else { ("", "") };
        if !value.is_empty() {
            put!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{open}{}{close}</td></tr>",
                Safe(name),
                Safe(value)
            );
        }
    };
    row("Run", &run.provenance.run, true);
    row("Screen definition, sha256", &run.provenance.screen_sha256, true);
    row("Model", &run.provenance.model, false);
    row("Model weights, sha256", &run.provenance.model_sha256, true);
    row(
        "Alignment, sha256",
        run.provenance.transform_sha256.as_deref().unwrap_or_default(),
        true,
    );
    row("Seed", &run.provenance.seed.to_string(), true);
    row("Engine", &run.engine, false);
    row("Device", &run.device, false);
    row("Finished", &run.finished, false);
    for (name, value) in &run.more {
        row(name, value, false);
    }
    put!(
        out,
        "</tbody></table><footer>Made by Wellspring {}. This page holds everything it shows; the numbers behind it \
         are in the Parquet files beside it.</footer>",
        Safe(&run.version)
    );
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
