//! What this machine can do at most: products of large matrices, and copying memory.
//!
//! Measured in the same run as what is compared with it, and in a process of its own: its buffers are larger than those
//! of most of the work, whose peak of memory they would hide.

use std::convert::Infallible;

use anyhow::{Context, bail};
use serde::Deserialize;
use wellspring_workloads::linalg::inner_products;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::signature::Vectors;
use wellspring_workloads::signature::vectors::cosines;

use super::own_process;
use crate::cli::bench::{Line, Printer, Random, seconds};

/// Rows of the two matrices whose product is timed, and their width.
const PRODUCT: (usize, usize) = (4096, 384);
/// Rows and width of the two in double precision.
const SIDE: usize = 2048;
/// Bytes of the copy: larger than caches.
const COPY_BYTES: usize = 256 << 20;

/// Measured limits.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Limits {
    /// Single-precision matrix products, floating point operations per second, all threads.
    pub(crate) singles: f64,
    /// The same in double precision.
    pub(crate) doubles: f64,
    /// Bytes read and written per second by a copy, all threads.
    pub(crate) bytes: f64,
}

/// A line as it is printed.
#[derive(Debug, Deserialize)]
struct Printed {
    work: String,
    ours: f64,
}

impl Limits {
    /// Asks a process of its own; takes a few seconds.
    pub(super) fn measure() -> anyhow::Result<Self> {
        let text = own_process(["bench", "compare", "--areas", "limits", "--json"])?;
        let mut limits = Self::default();
        for line in text.lines() {
            let Printed { work, ours } = serde_json::from_str(line).context("the limits cannot be read")?;
            for (name, limit) in limits.named() {
                if work == name {
                    *limit = ours * 1e9;
                }
            }
        }
        if let Some((name, _)) = limits.named().iter().find(|(_, limit)| **limit == 0.0) {
            bail!("the process that measures limits did not tell '{name}'");
        }
        Ok(limits)
    }

    /// What they are called, in billions per second.
    fn named(&mut self) -> [(String, &mut f64); 3] {
        let (rows, width) = PRODUCT;
        [
            (
                format!("limit: product of {rows} x {width} by {width} x {rows}, f32"),
                &mut self.singles,
            ),
            (
                format!("limit: product of {SIDE} x {SIDE}, f64"),
                &mut self.doubles,
            ),
            (
                format!("limit: copy of {} MiB, read and written", COPY_BYTES >> 20),
                &mut self.bytes,
            ),
        ]
    }

    /// Measures in this process.
    pub(super) fn measure_here() -> anyhow::Result<Self> {
        Ok(Self {
            singles: single_rate(),
            doubles: double_rate()?,
            bytes: copy_rate(),
        })
    }

    /// Prints what was measured.
    pub(super) fn print(mut self, printer: &mut Printer) -> anyhow::Result<()> {
        let units = ["GFLOP/s", "GFLOP/s", "GB/s"];
        for ((name, limit), unit) in self.named().into_iter().zip(units) {
            printer.push(Line::new("compare", name, *limit / 1e9, unit))?;
        }
        Ok(())
    }

    /// A line of `operations` in `time`, beside what the machine can do.
    pub(super) fn products(&self, work: &str, operations: f64, time: f64) -> Line {
        let line = Line::new(
            "compare",
            format!("{work}, products"),
            operations / time / 1e9,
            "GFLOP/s",
        );
        beside(line, "product of matrices, f64", self.doubles)
    }

    /// A line of `bytes` moved in `time`, beside what the machine can do.
    pub(super) fn moved(&self, work: &str, bytes: f64, time: f64) -> Line {
        let line = Line::new("compare", work, bytes / time / 1e9, "GB/s");
        beside(line, "copying memory", self.bytes)
    }
}

/// Where limits were not measured there is nothing to stand beside.
fn beside(line: Line, limit: &str, per_second: f64) -> Line {
    if per_second > 0.0 {
        line.beside(limit, per_second / 1e9)
    } else {
        line
    }
}

fn single_rate() -> f64 {
    let (rows, width) = PRODUCT;
    let mut random = Random(3);
    let mut matrix = FeatureMatrix::zeros(rows, width);
    matrix.as_mut_slice().fill_with(|| random.unit() as f32);
    let mut out = vec![0.0; rows * rows];
    let time = seconds(|| {
        inner_products(&matrix, &matrix, &mut out);
        Ok::<(), Infallible>(())
    });
    let Ok(time) = time;
    2.0 * (rows * rows * width) as f64 / time
}

fn double_rate() -> anyhow::Result<f64> {
    let mut random = Random(3);
    let mut square = Vectors::new(SIDE);
    for _ in 0..SIDE {
        let row: Vec<f64> = (0..SIDE).map(|_| random.unit() - 0.5).collect();
        square.push(&row)?;
    }
    Ok(product_rate(&square, &square))
}

/// Operations per second of the products of all rows of two matrices, in double precision.
pub(super) fn product_rate(a: &Vectors, b: &Vectors) -> f64 {
    let time = seconds(|| {
        std::hint::black_box(cosines(a, b));
        Ok::<(), Infallible>(())
    });
    let Ok(time) = time;
    2.0 * (a.len() * b.len() * a.width()) as f64 / time
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
        Ok::<(), Infallible>(())
    });
    let Ok(time) = time;
    2.0 * COPY_BYTES as f64 / time
}
