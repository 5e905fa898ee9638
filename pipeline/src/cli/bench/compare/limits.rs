//! What this machine can do at most: products of large matrices, and copying memory. Measured in the same run as what
//! is compared with it.

use wellspring_workloads::linalg::inner_products;
use wellspring_workloads::matrix::FeatureMatrix;

use crate::cli::bench::{Line, Printer, Random, seconds};

/// Rows of the two matrices whose product is timed, and their width.
const PRODUCT: (usize, usize) = (4096, 384);
/// Bytes of the copy: larger than caches.
const COPY_BYTES: usize = 256 << 20;

/// Measured limits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Single-precision matrix products, floating point operations per second, all threads.
    pub(crate) flops: f64,
    /// Bytes read and written per second by a copy, all threads.
    pub(crate) bytes: f64,
}

impl Limits {
    /// Takes a few seconds.
    pub(crate) fn measure() -> Self {
        Self {
            flops: product_rate(),
            bytes: copy_rate(),
        }
    }

    pub(super) fn print(&self, printer: &mut Printer) -> anyhow::Result<()> {
        let (rows, width) = PRODUCT;
        printer.push(Line::new(
            "compare",
            format!("limit: product of {rows} x {width} by {width} x {rows}, f32"),
            self.flops / 1e9,
            "GFLOP/s",
        ))?;
        printer.push(Line::new(
            "compare",
            format!("limit: copy of {} MiB, read and written", COPY_BYTES >> 20),
            self.bytes / 1e9,
            "GB/s",
        ))
    }
}

fn product_rate() -> f64 {
    let (rows, width) = PRODUCT;
    let mut random = Random(3);
    let mut matrix = FeatureMatrix::zeros(rows, width);
    matrix.as_mut_slice().fill_with(|| random.unit() as f32);
    let mut out = vec![0.0; rows * rows];
    let time = seconds(|| {
        inner_products(&matrix, &matrix, &mut out);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(time) = time;
    2.0 * (rows * rows * width) as f64 / time
}

fn copy_rate() -> f64 {
    let source = vec![1.0f32; COPY_BYTES / 4];
    let mut target = vec![0.0f32; COPY_BYTES / 4];
    let part = source.len().div_ceil(rayon::current_num_threads());
    let time = seconds(|| {
        rayon::scope(|scope| {
            for (source, target) in source.chunks(part).zip(target.chunks_mut(part)) {
                scope.spawn(move |_| target.copy_from_slice(source));
            }
        });
        std::hint::black_box(&target);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(time) = time;
    2.0 * COPY_BYTES as f64 / time
}
