//! The scalers: fitted on the healthy wells of each plate, applied to all its wells.

use rayon::prelude::*;
use wellspring_workloads::compare::scale::Scaler;

use super::Args;
use super::input::{HEALTHY, PLATE_WELLS, Wells};
use super::limits::Limits;
use crate::cli::bench::{Line, Printer, seconds};

pub(super) fn measure(args: &Args, limits: &Limits, printer: &mut Printer) -> anyhow::Result<()> {
    let wells = Wells::new(args.plates, args.features);
    let plates: Vec<Vec<&[f32]>> = wells.by_plate().collect();
    let bytes = (wells.values.as_slice().len() * 2 * size_of::<f32>()) as f64;
    for (name, fit) in [
        ("robust MAD", Scaler::robust as fn(&[&[f32]]) -> Scaler),
        ("standardise", Scaler::standardise),
    ] {
        let mut scaled = vec![0.0f32; wells.values.as_slice().len()];
        let time = seconds(|| {
            let parts = scaled.par_chunks_mut(args.features.max(1) * PLATE_WELLS);
            plates.par_iter().zip(parts).for_each(|(rows, scaled)| {
                let scaler = fit(&rows[..HEALTHY]);
                for (row, scaled) in rows.iter().zip(scaled.chunks_exact_mut(args.features.max(1))) {
                    scaler.apply_to(row, scaled);
                }
            });
            std::hint::black_box(&scaled);
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(time) = time;
        let work = format!(
            "{name} per plate, {} wells x {}",
            wells.values.len(),
            args.features
        );
        printer.push(Line::new("compare", work.clone(), time, "s"))?;
        printer.push(limits.moved(&format!("{work}, values read and written"), bytes, time))?;
    }
    Ok(())
}
