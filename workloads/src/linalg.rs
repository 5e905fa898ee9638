//! The linear algebra of alignment and similarity, on faer. Feature rows enter in `f32`; sums, decompositions and
//! products that are decomposed again are `f64`.
//!
//! Every product is split into blocks of fixed size that are worked on in parallel and added in order, so that the
//! same rows give the same bytes on any number of threads. A decomposition that does not converge is an error.

use faer::linalg::matmul::{matmul, triangular};
use faer::prelude::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use rayon::prelude::*;

use crate::matrix::FeatureMatrix;

/// Rows of a block: enough for the product to run at full speed, few enough to stay in the cache.
const BLOCK_ROWS: usize = 256;

/// Blocks whose sums may be held at once; they are added from left to right whatever their number.
const IN_FLIGHT: usize = 16;

/// Features above which a scatter matrix per block of rows is too much memory (8 MiB each at this width).
const WIDE: usize = 1024;

/// An eigendecomposition that did not converge: the matrix holds values that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the eigendecomposition of a {size} x {size} matrix did not converge: are all features finite?")]
pub struct EigenError {
    /// Rows and columns.
    pub size: usize,
}

/// Mean of every column, in `f64`; zeros where there are no rows.
pub fn column_means(rows: &FeatureMatrix) -> Vec<f64> {
    let sums = ordered_sum(rows, |block| {
        let mut sums = vec![0.0; rows.width()];
        for row in block.chunks_exact(rows.width()) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value);
            }
        }
        sums
    });
    let n = rows.len().max(1) as f64;
    sums.map_or_else(
        || vec![0.0; rows.width()],
        |sums| sums.iter().map(|sum| sum / n).collect(),
    )
}

/// `Σ (x − centre)(x − centre)ᵀ` over the rows, width x width, both triangles.
pub fn scatter(rows: &FeatureMatrix, centre: &[f64]) -> Mat<f64> {
    let d = rows.width();
    if d > WIDE {
        return wide_scatter(rows, centre);
    }
    let sum = ordered_sum(rows, |block| {
        let values = centred(block, centre);
        let block = MatRef::from_row_major_slice(&values, values.len() / d, d);
        let mut product = vec![0.0; d * d];
        lower_product(
            MatMut::from_column_major_slice_mut(&mut product, d, d),
            block.transpose(),
            block,
        );
        product
    })
    .unwrap_or_else(|| vec![0.0; d * d]);
    Mat::from_fn(d, d, |i, j| {
        let (low, high) = (i.max(j), i.min(j));
        sum[high * d + low]
    })
}

/// [`scatter`] of many features: blocks of columns in parallel, since a matrix per block of rows would not fit.
fn wide_scatter(rows: &FeatureMatrix, centre: &[f64]) -> Mat<f64> {
    let d = rows.width();
    let mut sums = vec![0.0; d * d];
    sums.par_chunks_mut(BLOCK_ROWS * d)
        .enumerate()
        .for_each(|(panel, out)| {
            let (from, columns) = (panel * BLOCK_ROWS, out.len() / d);
            let mut out = MatMut::from_column_major_slice_mut(out, d, columns).subrows_mut(from, d - from);
            for block in rows.as_slice().chunks(BLOCK_ROWS * d) {
                let values = centred(block, centre);
                let block = MatRef::from_row_major_slice(&values, values.len() / d, d);
                let (left, right) = (block.subcols(from, d - from), block.subcols(from, columns));
                matmul(out.rb_mut(), Accum::Add, left.transpose(), right, 1.0, Par::Seq);
            }
        });
    Mat::from_fn(d, d, |i, j| {
        let (low, high) = (i.max(j), i.min(j));
        sums[high * d + low]
    })
}

/// `(x_i − centre) · (x_j − centre)` of every two rows, rows x rows, both triangles. Smaller than [`scatter`] where there
/// are fewer rows than features, with the same eigenvalues.
pub fn gram(rows: &FeatureMatrix, centre: &[f64]) -> Mat<f64> {
    let (n, d) = (rows.len(), rows.width());
    let values = centred(rows.as_slice(), centre);
    let all = MatRef::from_row_major_slice(&values, n, d);
    // Blocks of whole columns, below and on the diagonal: every entry is one product, so threads do not matter.
    let mut product = vec![0.0; n * n];
    product
        .par_chunks_mut((BLOCK_ROWS * n).max(1))
        .enumerate()
        .for_each(|(block, out)| {
            let (from, columns) = (block * BLOCK_ROWS, out.len() / n);
            let out = MatMut::from_column_major_slice_mut(out, n, columns).subrows_mut(from, n - from);
            let (left, right) = (all.subrows(from, n - from), all.subrows(from, columns));
            matmul(out, Accum::Replace, left, right.transpose(), 1.0, Par::Seq);
        });
    Mat::from_fn(n, n, |i, j| {
        let (low, high) = (i.max(j), i.min(j));
        product[high * n + low]
    })
}

/// The rows as `f64`, less `centre`.
pub fn centred_rows(rows: &FeatureMatrix, centre: &[f64]) -> Mat<f64> {
    let values = centred(rows.as_slice(), centre);
    MatRef::from_row_major_slice(&values, rows.len(), rows.width()).to_owned()
}

/// `rowsᵀ · rows`, both triangles.
pub fn inner_square(rows: MatRef<'_, f64>) -> Mat<f64> {
    let d = rows.ncols();
    let mut product = Mat::zeros(d, d);
    lower_product(product.as_mut(), rows.transpose(), rows);
    for j in 0..d {
        for i in 0..j {
            product[(i, j)] = product[(j, i)];
        }
    }
    product
}

/// The lower triangle of `left · right`.
fn lower_product(out: MatMut<'_, f64>, left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    use triangular::BlockStructure::{Rectangular, TriangularLower};
    triangular::matmul(
        out,
        TriangularLower,
        Accum::Replace,
        left,
        Rectangular,
        right,
        Rectangular,
        1.0,
        Par::Seq,
    );
}

/// Eigenvalues, descending, and their vectors as columns. Signs are free: see [`fix_signs`].
#[derive(Debug, Clone)]
pub struct Eigen {
    /// Descending.
    pub values: Vec<f64>,
    /// Column `i` belongs to `values[i]`.
    pub vectors: Mat<f64>,
}

/// Decomposes a symmetric matrix; only its lower triangle is read.
///
/// # Errors
/// [`EigenError`] where it does not converge.
pub fn symmetric_eigen(matrix: MatRef<'_, f64>) -> Result<Eigen, EigenError> {
    let size = matrix.nrows();
    if size == 0 {
        let (values, vectors) = (Vec::new(), Mat::zeros(0, 0));
        return Ok(Eigen { values, vectors });
    }
    let evd = matrix
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| EigenError { size })?;
    let (ascending, vectors) = (evd.S().column_vector(), evd.U());
    let values: Vec<f64> = (0..size).rev().map(|i| ascending[i]).collect();
    if values.iter().any(|value| !value.is_finite()) {
        return Err(EigenError { size });
    }
    Ok(Eigen {
        values,
        vectors: Mat::from_fn(size, size, |i, j| vectors[(i, size - 1 - j)]),
    })
}

impl Eigen {
    /// `V diag(f(λ)) Vᵀ`: the function of the decomposed matrix.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Mat<f64> {
        let scaled = scale_columns(
            self.vectors.as_ref(),
            &self.values.iter().map(|&value| f(value)).collect::<Vec<_>>(),
        );
        product(scaled.as_ref(), self.vectors.transpose())
    }
}

/// `left · right`.
pub fn product(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(left.nrows(), right.ncols());
    matmul(&mut out, Accum::Replace, left, right, 1.0, Par::Seq);
    out
}

/// `weightsᵀ · rows` of as many rows: the sums of the rows weighted by each column of `weights`.
pub fn weighted_sums(weights: &FeatureMatrix, rows: &FeatureMatrix) -> Mat<f64> {
    debug_assert_eq!(weights.len(), rows.len(), "a row of weights for each row");
    let (k, d) = (weights.width(), rows.width());
    let none = (vec![0.0; k], vec![0.0; d]);
    let sums = |(weights, rows): (&[f32], &[f32])| {
        let (weights, rows) = (centred(weights, &none.0), centred(rows, &none.1));
        let n = rows.len() / d;
        product(
            MatRef::from_row_major_slice(&weights, n, k).transpose(),
            MatRef::from_row_major_slice(&rows, n, d),
        )
    };
    let mut total = Mat::zeros(k, d);
    if k == 0 || d == 0 {
        return total;
    }
    let many = IN_FLIGHT * BLOCK_ROWS;
    let portions = weights
        .as_slice()
        .chunks(many * k)
        .zip(rows.as_slice().chunks(many * d));
    for (weights, rows) in portions {
        let parts: Vec<Mat<f64>> = weights
            .par_chunks(BLOCK_ROWS * k)
            .zip(rows.par_chunks(BLOCK_ROWS * d))
            .map(sums)
            .collect();
        for part in parts {
            total += part;
        }
    }
    total
}

/// Adds `left · right` to `sum`.
pub fn add_product(sum: &mut Mat<f64>, left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    matmul(sum, Accum::Add, left, right, 1.0, Par::Seq);
}

/// Column `j` times `factors[j]`.
pub fn scale_columns(matrix: MatRef<'_, f64>, factors: &[f64]) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[(i, j)] * factors[j])
}

/// Turns every column so that its entry of largest magnitude is positive (the first of equals).
pub fn fix_signs(vectors: &mut Mat<f64>) {
    for j in 0..vectors.ncols() {
        let mut largest = 0.0f64;
        for i in 0..vectors.nrows() {
            let entry = vectors[(i, j)];
            if entry.abs() > largest.abs() {
                largest = entry;
            }
        }
        if largest < 0.0 {
            for i in 0..vectors.nrows() {
                vectors[(i, j)] = -vectors[(i, j)];
            }
        }
    }
}

/// `(x − centre) · map` for every row; `map` is width x new width.
pub fn project(rows: &FeatureMatrix, centre: &[f64], map: MatRef<'_, f64>) -> FeatureMatrix {
    let (d, k) = (rows.width(), map.ncols());
    let mut out = FeatureMatrix::zeros(rows.len(), k);
    if d == 0 || k == 0 {
        return out;
    }
    out.as_mut_slice()
        .par_chunks_mut(BLOCK_ROWS * k)
        .zip(rows.as_slice().par_chunks(BLOCK_ROWS * d))
        .for_each(|(out, block)| {
            let values = centred(block, centre);
            let n = values.len() / d;
            let mut product = vec![0.0; n * k];
            matmul(
                MatMut::from_row_major_slice_mut(&mut product, n, k),
                Accum::Replace,
                MatRef::from_row_major_slice(&values, n, d),
                map,
                1.0,
                Par::Seq,
            );
            for (value, &sum) in out.iter_mut().zip(&product) {
                *value = sum as f32;
            }
        });
    out
}

/// Inner products of every row of `a` with every row of `b`, in `f32`: `out[i * b.len() + j] = a_i · b_j`.
///
/// `out` has `a.len() * b.len()` places and is filled in parallel; both have one width.
pub fn inner_products(a: &FeatureMatrix, b: &FeatureMatrix, out: &mut [f32]) {
    debug_assert_eq!(a.width(), b.width(), "rows of one space");
    debug_assert_eq!(out.len(), a.len() * b.len(), "a place for each pair");
    let (d, n) = (a.width(), b.len());
    if d == 0 || n == 0 {
        out.fill(0.0);
        return;
    }
    let right = MatRef::from_row_major_slice(b.as_slice(), n, d);
    out.par_chunks_mut(BLOCK_ROWS * n)
        .zip(a.as_slice().par_chunks(BLOCK_ROWS * d))
        .for_each(|(out, block)| {
            let m = block.len() / d;
            let left = MatRef::from_row_major_slice(block, m, d);
            let product = MatMut::from_row_major_slice_mut(out, m, n);
            matmul(product, Accum::Replace, left, right.transpose(), 1.0f32, Par::Seq);
        });
}

/// A block of rows as `f64`, less `centre`, row after row.
fn centred(block: &[f32], centre: &[f64]) -> Vec<f64> {
    let mut values = Vec::with_capacity(block.len());
    for row in block.chunks_exact(centre.len().max(1)) {
        values.extend(row.iter().zip(centre).map(|(&x, c)| f64::from(x) - c));
    }
    values
}

/// Runs `sums` over blocks of rows in parallel and adds its results in the order of the blocks. `None` without rows.
fn ordered_sum(rows: &FeatureMatrix, sums: impl Fn(&[f32]) -> Vec<f64> + Sync) -> Option<Vec<f64>> {
    let width = rows.width().max(1);
    let mut total: Option<Vec<f64>> = None;
    for blocks in rows.as_slice().chunks(IN_FLIGHT * BLOCK_ROWS * width) {
        let parts: Vec<Vec<f64>> = blocks.par_chunks(BLOCK_ROWS * width).map(&sums).collect();
        for part in parts {
            match &mut total {
                None => total = Some(part),
                Some(total) => total
                    .iter_mut()
                    .zip(part)
                    .for_each(|(total, part)| *total += part),
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> FeatureMatrix {
        let values = (0..700 * 5).map(|i| ((i * 37 % 101) as f32).sin()).collect();
        FeatureMatrix::from_values(5, values).unwrap()
    }

    #[test]
    fn scatter_and_means_equal_the_written_sums() {
        let rows = rows();
        let means = column_means(&rows);
        let scatter = scatter(&rows, &means);
        for a in 0..5 {
            let mean = rows.rows().map(|row| f64::from(row[a])).sum::<f64>() / 700.0;
            assert!((mean - means[a]).abs() < 1e-12);
            for b in 0..5 {
                let expected: f64 = rows
                    .rows()
                    .map(|row| (f64::from(row[a]) - means[a]) * (f64::from(row[b]) - means[b]))
                    .sum();
                assert!((scatter[(a, b)] - expected).abs() < 1e-9, "{a} {b}");
            }
        }
    }

    #[test]
    fn eigenvectors_rebuild_the_matrix_in_descending_order() {
        let rows = rows();
        let scatter = scatter(&rows, &column_means(&rows));
        let mut eigen = symmetric_eigen(scatter.as_ref()).unwrap();
        fix_signs(&mut eigen.vectors);
        assert!(eigen.values.is_sorted_by(|a, b| a >= b));
        for a in 0..5 {
            for b in 0..5 {
                let rebuilt: f64 = (0..5)
                    .map(|k| eigen.values[k] * eigen.vectors[(a, k)] * eigen.vectors[(b, k)])
                    .sum();
                assert!((rebuilt - scatter[(a, b)]).abs() < 1e-9);
            }
            let largest = (0..5)
                .map(|i| eigen.vectors[(i, a)])
                .max_by(|x, y| x.abs().total_cmp(&y.abs()));
            assert!(largest.is_some_and(|entry| entry > 0.0));
        }
    }

    #[test]
    fn gram_and_scatter_have_the_same_eigenvalues() {
        let rows = rows().select(&(0..300).collect::<Vec<_>>());
        let means = column_means(&rows);
        let tall = symmetric_eigen(scatter(&rows, &means).as_ref()).unwrap();
        let gram = gram(&rows, &means);
        let wide = symmetric_eigen(gram.as_ref()).unwrap();
        for (a, b) in tall.values.iter().zip(&wide.values) {
            assert!((a - b).abs() < 1e-9 * tall.values[0], "{a} {b}");
        }
        let centred = centred_rows(&rows, &means);
        let expected: f64 = (0..5).map(|c| centred[(299, c)] * centred[(2, c)]).sum();
        assert!((gram[(2, 299)] - expected).abs() < 1e-9);
        let square = inner_square(centred.as_ref());
        assert!((square[(1, 4)] - scatter(&rows, &means)[(4, 1)]).abs() < 1e-9);
    }

    #[test]
    fn many_features_have_the_scatter_that_few_have() {
        let width = WIDE + 300;
        let values = (0..530 * width).map(|i| ((i * 37 % 101) as f32).sin()).collect();
        let rows = FeatureMatrix::from_values(width, values).unwrap();
        let means = column_means(&rows);
        let wide = scatter(&rows, &means);
        for (a, b) in [(0, 0), (3, 1200), (1323, 700), (256, 255), (1023, 1024)] {
            let expected: f64 = rows
                .rows()
                .map(|row| (f64::from(row[a]) - means[a]) * (f64::from(row[b]) - means[b]))
                .sum();
            assert!((wide[(a, b)] - expected).abs() < 1e-8, "{a} {b}");
        }
    }

    #[test]
    fn a_function_of_a_matrix_acts_on_its_eigenvalues() {
        let rows = rows();
        let scatter = scatter(&rows, &column_means(&rows));
        let root = symmetric_eigen(scatter.as_ref()).unwrap().map(f64::sqrt);
        let squared = product(root.as_ref(), root.as_ref());
        assert!((squared[(3, 1)] - scatter[(3, 1)]).abs() < 1e-9 * scatter[(0, 0)]);
    }

    #[test]
    fn a_matrix_that_is_not_finite_is_an_error() {
        let matrix = Mat::from_fn(3, 3, |_, _| f64::NAN);
        assert_eq!(
            symmetric_eigen(matrix.as_ref()).unwrap_err(),
            EigenError { size: 3 }
        );
        let nothing = symmetric_eigen(Mat::zeros(0, 0).as_ref()).unwrap();
        assert!(nothing.values.is_empty());
    }

    #[test]
    fn products_equal_the_written_sums_on_any_number_of_threads() {
        let rows = rows();
        let few = rows.select(&[3, 600, 1]);
        let mut products = vec![0.0; 700 * 3];
        inner_products(&rows, &few, &mut products);
        for (i, a) in rows.rows().enumerate() {
            for (j, b) in few.rows().enumerate() {
                let expected: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((products[i * 3 + j] - expected).abs() < 1e-5);
            }
        }
        let means = column_means(&rows);
        let map = Mat::from_fn(5, 2, |i, j| (i + 3 * j) as f64);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let run = || (project(&rows, &means, map.as_ref()), scatter(&rows, &means));
        let (a, b) = (one.install(run), three.install(run));
        assert_eq!(a.0, b.0);
        assert_eq!(a.1, b.1);
        let x = rows.row(42);
        let expected: f64 = (0..5)
            .map(|i| (f64::from(x[i]) - means[i]) * (i + 3) as f64)
            .sum();
        assert!((f64::from(a.0.row(42)[1]) - expected).abs() < 1e-5);
    }
}
