//! TVN with CORAL: fitted on the wells without a compound, applied plate by plate.

use wellspring_workloads::align::tvn::CoralSettings;
use wellspring_workloads::align::{PlateRows, Step, fit};
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::Args;
use super::input::{CONTROLS, PLATE_WELLS, Wells};
use super::limits::Limits;
use crate::cli::bench::{Line, Printer, seconds};

/// Components that are aligned, as in EFAAR_benchmarking.
const WIDTH: usize = Step::EFAAR_COMPONENTS;

pub(super) fn measure(args: &Args, limits: &Limits, printer: &mut Printer) -> anyhow::Result<()> {
    let wells = Wells::new(args.plates, args.features);
    let width = WIDTH.min(args.features);
    let rows: Vec<FeatureMatrix> = wells
        .by_plate()
        .map(|rows| FeatureMatrix::from_rows(width, rows.iter().map(|row| &row[..width])))
        .collect::<Result<_, _>>()?;
    let barcodes: Vec<Barcode> = (0..args.plates)
        .map(|plate| format!("P{plate:04}").parse())
        .collect::<Result<_, _>>()?;
    let positions: Vec<WellPosition> = (0..PLATE_WELLS)
        .filter_map(|index| WellPosition::new((index / 24 + 1) as u8, (index % 24 + 1) as u8))
        .collect();
    let controls: Vec<usize> = (0..CONTROLS).collect();
    let plates: Vec<PlateRows<'_>> = rows
        .iter()
        .zip(&barcodes)
        .map(|(rows, plate)| PlateRows {
            plate,
            wells: &positions,
            rows,
            controls: &controls,
        })
        .collect();
    let names: Vec<String> = (0..width).map(|i| format!("e_{i}")).collect();
    let steps = [Step::Tvn, Step::Coral(CoralSettings::efaar())];
    let time = seconds(|| fit(&plates, &names, &steps)?.apply_all(&plates).map(drop))?;
    let (p, n, d) = (args.plates as f64, wells.values.len() as f64, width as f64);
    let work = format!("TVN with CORAL, {n} wells x {d}, {p} plates");
    printer.push(Line::new("compare", work.clone(), time, "s"))?;
    // Scatters of the controls, of all and of each plate, and two maps applied to all wells; the eigenvectors of each
    // plate are work on top of that.
    let operations = 2.0 * p * CONTROLS as f64 * d * d + 4.0 * n * d * d;
    printer.push(limits.products(&work, operations, time))
}
