//! A made-up screen: plates with gains and shifts of their own, control wells, and treated wells with effects.

use wellspring_workloads::align::PlateRows;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::words::{Barcode, WellPosition};

/// Wells of a plate, the first of which are controls.
pub(crate) const WELLS: usize = 96;
pub(crate) const CONTROLS: usize = 40;
/// Features of a well.
pub(crate) const FEATURES: usize = 24;

/// Numbers from a counter: the same for everybody.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

#[derive(Clone)]
pub(crate) struct Plate {
    pub(crate) plate: Barcode,
    pub(crate) wells: Vec<WellPosition>,
    pub(crate) rows: FeatureMatrix,
    pub(crate) controls: Vec<usize>,
}

impl Plate {
    pub(crate) fn rows(&self) -> PlateRows<'_> {
        PlateRows {
            plate: &self.plate,
            wells: &self.wells,
            rows: &self.rows,
            controls: &self.controls,
        }
    }
}

pub(crate) fn rows(plates: &[Plate]) -> Vec<PlateRows<'_>> {
    plates.iter().map(Plate::rows).collect()
}

pub(crate) fn names() -> Vec<String> {
    (0..FEATURES).map(|i| format!("Nuclei_f{i:02}")).collect()
}

pub(crate) fn plates(count: usize) -> Vec<Plate> {
    let mut numbers = Numbers(7);
    let axes: Vec<f64> = (0..FEATURES * FEATURES).map(|_| numbers.normal()).collect();
    (0..count)
        .map(|plate| {
            let gain: Vec<f64> = (0..FEATURES).map(|_| 1.0 + 0.4 * numbers.uniform()).collect();
            let shift: Vec<f64> = (0..FEATURES).map(|_| 10.0 + numbers.normal()).collect();
            let mut rows = FeatureMatrix::zeros(WELLS, FEATURES);
            for well in 0..WELLS {
                let effect = if well < CONTROLS { 0.0 } else { (well % 7) as f64 };
                let hidden: Vec<f64> = (0..FEATURES)
                    .map(|i| (FEATURES - i) as f64 / 8.0 * numbers.normal())
                    .collect();
                for (j, value) in rows.row_mut(well).iter_mut().enumerate() {
                    let mixed: f64 = (0..FEATURES).map(|i| hidden[i] * axes[i * FEATURES + j]).sum();
                    *value = (gain[j] * (mixed + effect * axes[j]) + shift[j]) as f32;
                }
            }
            Plate {
                plate: format!("P{plate:02}").parse().unwrap(),
                wells: (0..WELLS)
                    .map(|i| WellPosition::new((i / 12 + 1) as u8, (i % 12 + 1) as u8).unwrap())
                    .collect(),
                rows,
                controls: (0..CONTROLS).collect(),
            }
        })
        .collect()
}

/// The largest difference of two matrices, in shares of the largest value.
pub(crate) fn difference(a: &FeatureMatrix, b: &FeatureMatrix) -> f64 {
    assert_eq!((a.len(), a.width()), (b.len(), b.width()));
    let pairs = || a.as_slice().iter().zip(b.as_slice());
    let largest = pairs().map(|(a, _)| a.abs()).fold(0.0, f32::max);
    let worst = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    f64::from(worst) / f64::from(largest)
}

/// Inner products of every two rows: what a similarity sees.
pub(crate) fn gram(rows: &FeatureMatrix) -> FeatureMatrix {
    let mut out = FeatureMatrix::zeros(rows.len(), rows.len());
    wellspring_workloads::linalg::inner_products(rows, rows, out.as_mut_slice());
    out
}
