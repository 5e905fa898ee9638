//! The wells that benches and their Python peers share: plates of 384 wells, of which 48 are healthy, 48 of the plate's
//! disease, 48 of two other diseases, and 240 carry 40 compounds at six doses.
//!
//! A seed gives the same values on every machine. Leaves as `values.npy` and `wells.csv` for the peers.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::words::WellPosition;

use crate::cli::bench::Random;

/// Wells of a plate.
pub(crate) const PLATE_WELLS: usize = 384;
/// Healthy wells of a plate: the first ones.
pub(crate) const HEALTHY: usize = 48;
/// Wells of a plate without a compound: the first ones.
pub(crate) const CONTROLS: usize = 144;
/// Doses of a compound.
pub(crate) const DOSES: [f64; 6] = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Plates of made-up wells.
#[derive(Debug)]
pub(crate) struct Wells {
    /// One row per well, plate after plate.
    pub(crate) values: FeatureMatrix,
    /// The plates.
    pub(crate) plates: usize,
}

impl Wells {
    /// `plates` plates of wells with `features` values: a shift per plate, an effect per compound that grows with the
    /// dose, and noise.
    pub(crate) fn new(plates: usize, features: usize) -> Self {
        let mut random = Random(20_240_611);
        let axis = |random: &mut Random| -> Vec<f32> { (0..features).map(|_| normal(random)).collect() };
        let disease = axis(&mut random);
        let effects: Vec<Vec<f32>> = (0..8).map(|_| axis(&mut random)).collect();
        let mut values = FeatureMatrix::zeros(plates * PLATE_WELLS, features);
        let rows = values
            .as_mut_slice()
            .chunks_exact_mut(features.max(1) * PLATE_WELLS);
        for plate in rows {
            let shift = axis(&mut random);
            for (index, row) in plate.chunks_exact_mut(features.max(1)).enumerate() {
                let diseased = if index < HEALTHY { 0.0 } else { 0.5 };
                let (compound, dose) = treatment(index);
                let effect =
                    compound.map(|compound| (&effects[compound % effects.len()], dose / (1.0 + dose)));
                for (feature, value) in row.iter_mut().enumerate() {
                    let moved = effect.map_or(0.0, |(axis, size)| 0.4 * axis[feature] * size as f32);
                    *value = 0.3 * shift[feature] + diseased * disease[feature] + moved + normal(&mut random);
                }
            }
        }
        Self { values, plates }
    }

    /// The rows of each plate.
    pub(crate) fn by_plate(&self) -> impl Iterator<Item = Vec<&[f32]>> {
        (0..self.plates).map(|plate| {
            let wells = plate * PLATE_WELLS..(plate + 1) * PLATE_WELLS;
            wells.map(|well| self.values.row(well)).collect()
        })
    }

    /// Writes `values.npy` (f32) and `wells.csv` (plate, well, role, perturbation; a perturbation lies on two plates).
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        write_npy(
            &folder.join("values.npy"),
            self.values.as_slice(),
            self.values.len(),
            self.values.width(),
        )?;
        let mut wells = csv::Writer::from_path(folder.join("wells.csv"))?;
        wells.write_record(["plate", "well", "role", "perturbation"])?;
        for row in 0..self.values.len() {
            let (plate, index) = (row / PLATE_WELLS, row % PLATE_WELLS);
            let well = WellPosition::new((index / 24 + 1) as u8, (index % 24 + 1) as u8)
                .context("a plate of 384 wells has 16 rows of 24")?;
            let role = match index {
                i if i < HEALTHY => "healthy",
                i if i < CONTROLS => "disease",
                _ => "treated",
            };
            let perturbation = match treatment(index) {
                (Some(compound), dose) => format!("C{compound:02}@{dose}#{}", plate / 2),
                (None, _) => "control".to_owned(),
            };
            wells.write_record([
                format!("P{plate:04}"),
                well.to_string(),
                role.to_owned(),
                perturbation,
            ])?;
        }
        wells.flush()?;
        Ok(())
    }
}

/// Dose curves of 12 points: six doses, two replicates each.
#[derive(Debug)]
pub(crate) struct Curves {
    /// Of every curve.
    pub(crate) doses: Vec<f64>,
    /// A row of values per curve.
    pub(crate) values: Vec<f32>,
}

impl Curves {
    /// Seeded curves of every height, midpoint and slope, with noise.
    pub(crate) fn new(count: usize) -> Self {
        let mut random = Random(2);
        let doses: Vec<f64> = DOSES.iter().flat_map(|dose| [*dose; 2]).collect();
        let mut values = Vec::with_capacity(count * doses.len());
        for _ in 0..count {
            let (top, middle, slope) = (
                random.unit(),
                3.0 * random.unit() - 1.75,
                0.5 + 2.0 * random.unit(),
            );
            values.extend(doses.iter().map(|dose| {
                let curve = top / (1.0 + 10f64.powf(slope * (middle - dose.log10())));
                curve as f32 + 0.08 * normal(&mut random)
            }));
        }
        Self { doses, values }
    }

    /// Writes `curves.npy` (f32) and `doses.csv`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let rows = self.values.len() / self.doses.len().max(1);
        write_npy(&folder.join("curves.npy"), &self.values, rows, self.doses.len())?;
        let lines: Vec<String> = self.doses.iter().map(f64::to_string).collect();
        Ok(std::fs::write(folder.join("doses.csv"), lines.join("\n"))?)
    }
}

/// Compound and dose of the well at a place of its plate.
pub(crate) fn treatment(index: usize) -> (Option<usize>, f64) {
    match index.checked_sub(CONTROLS) {
        Some(treated) => (Some(treated / DOSES.len()), DOSES[treated % DOSES.len()]),
        None => (None, 0.0),
    }
}

/// NumPy's format, version 1: little-endian f32, row after row.
fn write_npy(path: &Path, values: &[f32], rows: usize, columns: usize) -> anyhow::Result<()> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Magic, version and length are ten bytes; the data begins at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for value in values {
        file.write_all(&value.to_le_bytes())?;
    }
    Ok(file.flush()?)
}

/// A standard normal number (the sum of twelve uniform ones: exact enough for a bench, and cheap).
fn normal(random: &mut Random) -> f32 {
    ((0..12).map(|_| random.unit()).sum::<f64>() - 6.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_read_what_we_measure() {
        let folder = tempfile::tempdir().unwrap();
        let wells = Wells::new(2, 5);
        wells.write(folder.path()).unwrap();
        let array = wellspring::npy::read(&std::fs::read(folder.path().join("values.npy")).unwrap()).unwrap();
        assert_eq!(array.shape, [768, 5]);
        assert_eq!(array.values, wells.values.as_slice());
        let text = std::fs::read_to_string(folder.path().join("wells.csv")).unwrap();
        assert_eq!(text.lines().count(), 769);
        assert!(text.contains("P0001,P24,treated,C39@10#0"), "{text}");
    }
}
