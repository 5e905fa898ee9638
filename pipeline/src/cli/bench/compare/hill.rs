//! Dose curves: three parameters, bottom at 0, every replicate a point.

use rayon::prelude::*;
use wellspring_workloads::compare::curve::fit_hill;

use super::input::Curves;
use crate::cli::bench::{Line, Printer, seconds};

/// Curves that are fitted.
pub(super) const CURVES: usize = 10_000;

pub(super) fn measure(printer: &mut Printer) -> anyhow::Result<()> {
    let curves = Curves::new(CURVES);
    let points: Vec<Vec<(f64, f64)>> = curves
        .values
        .chunks_exact(curves.doses.len())
        .map(|values| {
            let doses = curves.doses.iter().copied();
            doses.zip(values.iter().map(|value| f64::from(*value))).collect()
        })
        .collect();
    let time = seconds(|| {
        let fitted: usize = points
            .par_iter()
            .filter(|points| fit_hill(points, false).is_some())
            .count();
        anyhow::ensure!(fitted == CURVES, "{} curves were not fitted", CURVES - fitted);
        Ok(())
    })?;
    printer.push(Line::new(
        "compare",
        format!("Hill fits, {CURVES} curves of 12 points"),
        time,
        "s",
    ))
}
