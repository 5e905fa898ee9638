//! Plates of which there are only the names of their images: planners look no further.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use wellspring_workloads::words::Barcode;

use crate::cli::bench::wells::{position, role};

/// Wells and fields of a batch plate.
const BATCH: (u32, u32) = (24, 4);
/// The same of a live one.
const LIVE: (u32, u32) = (96, 8);
/// Fields of a live plate.
pub(super) const LIVE_FIELDS: u32 = LIVE.0 * LIVE.1;
/// Fields of a batch plate.
pub(super) const BATCH_FIELDS: u32 = BATCH.0 * BATCH.1;
/// Columns of a plate of 96 wells.
const COLUMNS: u32 = 12;

/// Writes the images of plates; their barcodes.
pub(super) fn write(
    folder: &Path,
    names: impl Iterator<Item = String>,
    live: bool,
) -> anyhow::Result<Vec<Barcode>> {
    let (wells, fields) = if live { LIVE } else { BATCH };
    let mut barcodes = Vec::new();
    for name in names {
        let plate: Barcode = name.parse()?;
        let images = folder.join("plates").join(&name);
        std::fs::create_dir_all(&images)?;
        for well in 0..wells {
            let well = position(well, COLUMNS)?;
            for field in 1..=fields {
                std::fs::write(images.join(format!("{name}_{well}_s{field}_w1.tif")), "pixels")
                    .with_context(|| format!("an image of plate {name} cannot be written"))?;
            }
        }
        barcodes.push(plate);
    }
    Ok(barcodes)
}

/// A screen of them, and the plate map that all have.
pub(super) fn screen(folder: &Path, name: &str, live: bool) -> anyhow::Result<String> {
    let mut map = "well,compound,dose,role\n".to_owned();
    std::fs::create_dir_all(folder.join("plates"))?;
    for well in 0..if live { LIVE.0 } else { BATCH.0 } {
        let role = role(well, COLUMNS);
        let well = position(well, COLUMNS)?;
        writeln!(map, "{well},c,1,{role}")?;
    }
    let file = folder.join("platemap.csv");
    std::fs::write(&file, map)?;
    Ok(format!(
        "[screen]\nname = \"{name}\"\n[images]\nstore = \"{}\"\nlayout = \"imagexpress\"\n\
         channels = [{{ name = \"DNA\", match = \"w1\" }}]\n[plate_map]\nfile = \"{}\"\n[controls]\n\
         reference = {{ role = \"healthy\" }}\nphenotype = {{ role = \"disease\" }}\n",
        folder.join("plates").display(),
        file.display()
    ))
}
