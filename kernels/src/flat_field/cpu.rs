//! CPU form of `flat_field`: a point-wise operation on rows.

use super::{FlatField, FlatFieldMode};
use crate::kernel::per_channel;
use crate::rows::{RowAt, Rows};

/// `v` where it is positive, else 0; NaN gives 0.
#[inline]
fn positive(v: f32) -> f32 {
    if v > 0.0 { v } else { 0.0 }
}

pub(super) fn flat_field<'a>(kernel: &'a FlatField, input: Rows<'a>) -> Rows<'a> {
    let width = input.shape()[3];
    let black = move |c| per_channel(&kernel.black_level, c);
    let Some(l) = &kernel.illumination else {
        return input.then(true, move |at: RowAt, row| {
            let b = black(at.channel);
            row.iter_mut().for_each(|v| *v = positive(*v - b));
        });
    };
    input.then(false, move |at, row| {
        let b = black(at.channel);
        let start = at.y * width + at.x;
        let l = &l.plane(at.channel)[start..start + row.len()];
        match kernel.mode {
            FlatFieldMode::Divide => row.iter_mut().zip(l).for_each(|(v, l)| *v = positive(*v - b) / l),
            FlatFieldMode::Subtract => row
                .iter_mut()
                .zip(l)
                .for_each(|(v, l)| *v = positive((*v - b) - l)),
        }
    })
}
