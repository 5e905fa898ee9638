//! Mean average precision with p-values: replicates on two plates, told apart from the healthy wells of their plate.

use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::replicate::average_precision::{Negatives, Place, average_precision};
use wellspring_workloads::replicate::map::{MapSettings, Nulls, mean_average_precision};

use super::Args;
use super::input::{CONTROLS, HEALTHY, PLATE_WELLS, Wells};
use super::limits::Limits;
use crate::cli::bench::{Line, Printer, seconds};

/// Features of a profile: those of an aligned space.
const FEATURES: usize = 128;

pub(super) fn measure(args: &Args, limits: &Limits, printer: &mut Printer) -> anyhow::Result<()> {
    let wells = Wells::new(args.plates, args.features);
    let width = FEATURES.min(args.features);
    let mut rows = FeatureMatrix::new(width);
    let mut places = Vec::new();
    for row in 0..wells.values.len() {
        let (plate, index) = (row / PLATE_WELLS, row % PLATE_WELLS);
        // Untreated diseased wells are neither asked nor compared with.
        if (HEALTHY..CONTROLS).contains(&index) {
            continue;
        }
        rows.push(&wells.values.row(row)[..width])?;
        let treatment = index.checked_sub(CONTROLS);
        places.push(Place {
            group: treatment.map(|treatment| plate / 2 * PLATE_WELLS + treatment),
            stratum: plate,
        });
    }
    let groups: Vec<Option<usize>> = places.iter().map(|place| place.group).collect();
    let settings = MapSettings::default();
    let time = seconds(|| {
        let found = average_precision(&rows, &places, Negatives::Controls)?;
        let groups = mean_average_precision(&found.rows, &groups, settings, &mut Nulls::default());
        anyhow::ensure!(!groups.is_empty(), "no group has a mean average precision");
        Ok(())
    })?;
    let work = format!(
        "mean average precision, {} wells x {width}, {} draws",
        wells.values.len(),
        settings.draws
    );
    printer.push(Line::new("compare", work.clone(), time, "s"))?;
    // Of every treated well with its replicate and the healthy wells of its plate; ranks and draws are work on top of
    // that.
    let asked = groups.iter().flatten().count() as f64;
    let operations = 2.0 * asked * (HEALTHY + 1) as f64 * width as f64;
    printer.push(limits.products(&work, operations, time))
}
