//! Dose curves: every well, the mean of each dose, the fitted curve within the tested doses.
//! Compound summaries and their comparison rows enter, SVG leaves.

use wellspring_workloads::compare::{Call, Comparison, CompoundSummary, CurveModel, Measure};

use super::html::{Safe, put};
use super::number::{dose, fixed, unit_text};

const WIDTH: f64 = 350.0;
const HEIGHT: f64 = 210.0;
/// The plotting area: left, right, top, bottom. Right of it stand the names of 0 and 1.
const BOX: (f64, f64, f64, f64) = (34.0, 286.0, 10.0, 172.0);
/// Where dose 0 stands, left of the break in the axis.
const ZERO_X: f64 = 50.0;
/// Where the logarithmic axis begins and ends.
const LOG_X: (f64, f64) = (84.0, 276.0);
/// Steps of a drawn curve.
const STEPS: usize = 72;
/// Most wells drawn in one chart; beyond that the means alone are drawn.
const MOST_POINTS: usize = 400;

/// What the chart shows of a row.
fn value_of(row: &Comparison, measure: Measure) -> f64 {
    match measure {
        Measure::OnAxis => row.on_axis.unwrap_or(f64::NAN),
        Measure::Rescue => row.rescue.unwrap_or(f64::NAN),
        // As the curve has it: above what a reference well shows.
        Measure::Activity => row.off_axis - 1.0,
        Measure::OffAxis => row.off_z.unwrap_or(0.0),
        Measure::CellLoss => row.cell_ratio.map_or(0.0, |ratio| 1.0 - ratio),
    }
}

/// The words of the vertical axis.
pub(super) fn measure_name(measure: Measure) -> &'static str {
    match measure {
        Measure::OnAxis => "position on the axis",
        Measure::Rescue => "rescue",
        Measure::OffAxis => "off-axis z",
        Measure::CellLoss => "loss of cells",
        Measure::Activity => "distance from the reference",
    }
}

struct Scale {
    low: f64,
    high: f64,
    log_low: f64,
    log_high: f64,
}

impl Scale {
    fn y(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        BOX.3 - share.clamp(0.0, 1.0) * (BOX.3 - BOX.2)
    }

    fn x(&self, dose: f64) -> f64 {
        if dose <= 0.0 {
            return ZERO_X;
        }
        let span = self.log_high - self.log_low;
        // A single dose stands in the middle.
        let share = if span > 0.0 {
            (dose.log10() - self.log_low) / span
        } else {
            0.5
        };
        LOG_X.0 + share * (LOG_X.1 - LOG_X.0)
    }
}

/// Doses to label: powers of ten where at least two fall into the range, else the tested doses.
fn ticks(doses: &[f64], scale: &Scale) -> Vec<f64> {
    let decades: Vec<f64> = ((scale.log_low - 1e-9).ceil() as i32..=(scale.log_high + 1e-9).floor() as i32)
        .map(|power| 10f64.powi(power))
        .collect();
    let wanted = if decades.len() >= 2 {
        decades
    } else {
        doses.to_vec()
    };
    let step = wanted.len().div_ceil(6).max(1);
    wanted.into_iter().step_by(step).collect()
}

/// The chart of one compound on one disease. `rows` are those of the compound and the disease's control rows.
pub(super) fn dose_curve(
    out: &mut String,
    summary: &CompoundSummary,
    rows: &[&Comparison],
    measure: Measure,
    unit: &str,
) {
    let measure = summary.curve.as_ref().map_or(measure, |curve| curve.measure);
    let vehicle = match measure {
        Measure::OnAxis | Measure::Activity => Call::Reference,
        Measure::Rescue | Measure::OffAxis | Measure::CellLoss => Call::Phenotype,
    };
    let mut points: Vec<(f64, f64)> = Vec::new();
    if let Some(curve) = &summary.curve {
        points.extend(curve.points.iter().map(|point| (point.dose, point.value)));
    }
    // Dose, mean, and whether the wells are controls: those are drawn hollow and grey.
    let means: Vec<(f64, f64, bool)> = rows
        .iter()
        .filter_map(|row| {
            let control = matches!(row.call, Call::Reference | Call::Phenotype);
            let own = row.compound == summary.compound;
            let at = match row.dose {
                Some(dose) if dose > 0.0 && own => dose,
                Some(dose) if dose > 0.0 => return None,
                _ if row.call == vehicle || own => 0.0,
                _ => return None,
            };
            Some((at, value_of(row, measure), control))
        })
        .collect();
    let mut doses: Vec<f64> = points
        .iter()
        .map(|p| p.0)
        .chain(means.iter().map(|m| m.0))
        .filter(|dose| *dose > 0.0 && dose.is_finite())
        .collect();
    doses.sort_by(f64::total_cmp);
    doses.dedup();
    let (Some(first), Some(last)) = (doses.first().copied(), doses.last().copied()) else {
        out.push_str("<p class=\"note\">No dose above 0.</p>");
        return;
    };
    let values = || {
        points
            .iter()
            .map(|p| p.1)
            .chain(means.iter().map(|m| m.1))
            .filter(|v| v.is_finite())
    };
    let scale = Scale {
        low: values().fold(-0.2, f64::min) - 0.05,
        high: values().fold(1.2, f64::max) + 0.05,
        log_low: first.log10(),
        log_high: last.log10(),
    };
    let name = summary.compound.as_deref().unwrap_or("untreated");
    put!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Dose curve of {}: {} from {} at {} to {} \
         {}\">",
        Safe(name),
        measure_name(measure),
        fixed(means.iter().find(|m| m.0 == first).map_or(f64::NAN, |m| m.1)),
        dose(first),
        dose(last),
        Safe(&unit_text(unit))
    );
    axes(
        out,
        &scale,
        &doses,
        means.iter().any(|m| m.0 == 0.0),
        measure,
        unit,
    );
    if points.len() <= MOST_POINTS {
        for (at, value) in points.iter().filter(|p| p.1.is_finite()) {
            put!(
                out,
                "<circle class=\"well\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\"/>",
                scale.x(*at),
                scale.y(*value)
            );
        }
    }
    fit(out, summary, &scale);
    for (at, value, control) in means.iter().filter(|m| m.1.is_finite()) {
        let (x, y) = (scale.x(*at), scale.y(*value));
        let class = if *control { "held" } else { "mean" };
        put!(
            out,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}{}: mean {}</title></circle>",
            if *control { "controls, " } else { "" },
            Safe(&super::number::dose_with_unit(*at, unit)),
            fixed(*value)
        );
    }
    out.push_str("</svg>");
}

fn axes(out: &mut String, scale: &Scale, doses: &[f64], with_zero: bool, measure: Measure, unit: &str) {
    let (left, right, top, bottom) = BOX;
    // Rescue turns the axis round: 0 is the phenotype, 1 the reference.
    let (reference, phenotype) = (("reference", "at-ref"), ("phenotype", "at-phe"));
    let (zero, one) = match measure {
        Measure::OnAxis => (reference, phenotype),
        Measure::Rescue | Measure::OffAxis | Measure::CellLoss => (phenotype, reference),
        Measure::Activity => (reference, ("", "at-phe")),
    };
    let step = if scale.high - scale.low > 6.0 {
        2.0
    } else if scale.high - scale.low > 2.6 {
        1.0
    } else {
        0.5
    };
    let mut at = (scale.low / step).ceil() * step;
    while at <= scale.high {
        let y = scale.y(at);
        let class = if at.abs() < 1e-9 {
            zero.1
        } else if (at - 1.0).abs() < 1e-9 {
            one.1
        } else {
            ""
        };
        let line = if class.is_empty() { "guide" } else { class };
        put!(
            out,
            "<path class=\"{line}\" d=\"M{left} {y:.1}H{right}\"/><text class=\"{class}\" x=\"{}\" y=\"{:.1}\" \
             font-size=\"11\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            y + 4.0,
            fixed(at).trim_end_matches('0').trim_end_matches('.')
        );
        at += step;
    }
    for (value, (word, class)) in [(1.0, one), (0.0, zero)] {
        put!(
            out,
            "<text class=\"{class}\" x=\"{}\" y=\"{:.1}\" font-size=\"10\">{word}</text>",
            right + 4.0,
            scale.y(value) + 3.5
        );
    }
    put!(
        out,
        "<path class=\"axis\" d=\"M{left} {top}V{bottom}H{}\"/>",
        if with_zero { 62.0 } else { right }
    );
    if with_zero {
        put!(
            out,
            "<path class=\"axis\" d=\"M72 {bottom}H{right}M59 {a}l6 -8M69 {a}l6 -8M{ZERO_X} {bottom}v4\"/>\
             <text x=\"{ZERO_X}\" y=\"{b}\" font-size=\"11\" text-anchor=\"middle\">0</text>",
            a = bottom + 4.0,
            b = bottom + 16.0
        );
    }
    for tested in doses {
        put!(
            out,
            "<path class=\"axis\" d=\"M{:.1} {bottom}v3\"/>",
            scale.x(*tested)
        );
    }
    for tick in ticks(doses, scale) {
        let x = scale.x(tick);
        put!(
            out,
            "<path class=\"axis\" d=\"M{x:.1} {bottom}v5\"/><text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"11\" \
             text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            dose(tick)
        );
    }
    let unit = unit_text(unit);
    let label = if unit.is_empty() {
        "dose".to_owned()
    } else {
        format!("dose ({unit})")
    };
    put!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" text-anchor=\"middle\">{}</text>",
        (LOG_X.0 + LOG_X.1) / 2.0,
        HEIGHT - 6.0,
        Safe(&label)
    );
}

fn fit(out: &mut String, summary: &CompoundSummary, scale: &Scale) {
    let Some(curve) = &summary.curve else { return };
    let (from, to) = curve.tested;
    if !(from > 0.0 && to > from && to.is_finite()) {
        return;
    }
    let mut path = String::new();
    for step in 0..=STEPS {
        let share = step as f64 / STEPS as f64;
        let at = 10f64.powf(from.log10() + share * (to.log10() - from.log10()));
        let value = curve.evaluate(at);
        if value.is_finite() {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            put!(path, "{letter}{:.1} {:.1}", scale.x(at), scale.y(value));
        }
    }
    let flat = matches!(curve.model, CurveModel::Zero | CurveModel::Constant);
    put!(
        out,
        "<path class=\"fit{}\" d=\"{path}\"/>",
        if flat { " flat" } else { "" }
    );
    if let Some(ec50) = curve.ec50 {
        let (x, y) = (scale.x(ec50), scale.y(curve.evaluate(ec50)));
        put!(
            out,
            "<path class=\"ec\" d=\"M{x:.1} {y:.1}V{}\"><title>EC50 {}</title></path>",
            BOX.3,
            dose(ec50)
        );
    }
}

/// A bar from 0 to 1 for table cells, clamped to −0.5 to 1.5.
pub(super) fn bar(out: &mut String, value: f64) {
    if !value.is_finite() {
        return;
    }
    let x = |v: f64| 30.0 + 60.0 * v.clamp(-0.5, 1.5);
    let (a, b) = (x(value.min(0.0)), x(value.max(0.0)));
    put!(
        out,
        "<svg viewBox=\"0 0 120 12\" style=\"width:96px\" aria-hidden=\"true\"><path class=\"track\" \
         d=\"M0 6H120\"/><rect class=\"bar\" x=\"{a:.1}\" y=\"2\" width=\"{:.1}\" height=\"8\"/><path class=\"axis\" \
         d=\"M30 0V12M90 0V12\"/></svg>",
        (b - a).max(0.5)
    );
}
