//! CPU form of `flat_field`: point-wise operations on rows, of floats and of raw pixels. The black level is the first number
//! of a plane.

use crate::point::positive;
use crate::simd::vectorised;

vectorised! {
    pub(super) fn black_level(row: &mut [f32], p: [f32; 4], _map: &[f32]) {
        for v in row {
            *v = positive(*v - p[0]);
        }
    }

    pub(super) fn raw_black_level(pixels: &[u16], row: &mut [f32], p: [f32; 4], _map: &[f32]) {
        for (v, x) in row.iter_mut().zip(pixels) {
            *v = positive(f32::from(*x) - p[0]);
        }
    }

    pub(super) fn divide(row: &mut [f32], p: [f32; 4], map: &[f32]) {
        for (v, l) in row.iter_mut().zip(map) {
            *v = positive(*v - p[0]) * l;
        }
    }

    pub(super) fn raw_divide(pixels: &[u16], row: &mut [f32], p: [f32; 4], map: &[f32]) {
        for ((v, x), l) in row.iter_mut().zip(pixels).zip(map) {
            *v = positive(f32::from(*x) - p[0]) * l;
        }
    }

    pub(super) fn subtract(row: &mut [f32], p: [f32; 4], map: &[f32]) {
        for (v, l) in row.iter_mut().zip(map) {
            *v = positive((*v - p[0]) - l);
        }
    }

    pub(super) fn raw_subtract(pixels: &[u16], row: &mut [f32], p: [f32; 4], map: &[f32]) {
        for ((v, x), l) in row.iter_mut().zip(pixels).zip(map) {
            *v = positive((f32::from(*x) - p[0]) - l);
        }
    }
}
