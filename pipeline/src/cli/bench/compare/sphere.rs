//! Sphering: fitted on the wells without a compound, applied to all.

use wellspring::memory::peak_rss_bytes;
use wellspring_workloads::align::moments::Moments;
use wellspring_workloads::align::sphere::{SphereSettings, Sphering};
use wellspring_workloads::matrix::FeatureMatrix;

use super::Args;
use super::input::{CONTROLS, PLATE_WELLS, Wells};
use super::limits::Limits;
use crate::cli::bench::{Line, Printer, seconds};

/// Most bytes (issue 7).
const BAR_BYTES: f64 = 500e6;

pub(super) fn measure(args: &Args, limits: &Limits, printer: &mut Printer) -> anyhow::Result<()> {
    let wells = Wells::new(args.plates, args.features);
    let names: Vec<String> = (0..args.features).map(|i| format!("e_{i}")).collect();
    let is_control = |row: &usize| row % PLATE_WELLS < CONTROLS;
    let controls = (0..wells.values.len())
        .filter(is_control)
        .map(|row| wells.values.row(row));
    let controls = FeatureMatrix::from_rows(args.features, controls)?;
    let time = seconds(|| {
        let fitted = Sphering::fit(&Moments::of(&controls), &names, SphereSettings::default())?;
        fitted.apply(&wells.values).map(drop)
    })?;
    let (n, c, d) = (
        wells.values.len() as f64,
        controls.len() as f64,
        args.features as f64,
    );
    let work = format!("sphering ZCA-cor, {n} wells x {d}, {c} controls");
    printer.push(Line::new("compare", work.clone(), time, "s"))?;
    // One triangle of the scatter, and the map applied to all wells; the eigenvectors are work on top of that.
    let operations = c * d * d + 2.0 * n * d * d;
    printer.push(limits.products(&work, operations, time))?;
    let peak = format!("peak memory of the process so far, with its input, {work}");
    printer.push(
        Line::new("compare", peak, peak_rss_bytes() as f64, "bytes")
            .beside("the bar", BAR_BYTES)
            .at_most(1.0),
    )
}
