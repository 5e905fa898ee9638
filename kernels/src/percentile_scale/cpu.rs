//! CPU form of `percentile_scale`.

use super::{PercentileScale, ScaleRange, TINY};
use crate::kernel::per_channel;
use crate::order_statistics::{self, Split};
use crate::rows::Rows;

/// The range of one plane in the form the row loop uses.
#[derive(Clone, Copy)]
struct PlaneRange {
    lo: Split,
    inverse: f32,
}

impl PlaneRange {
    fn new(lo: Split, hi: Split) -> Self {
        let span = (hi.stored - lo.stored) + (hi.rest - lo.rest);
        Self {
            lo,
            inverse: 1.0 / if span > TINY { span } else { TINY },
        }
    }
}

pub(super) fn percentile_scale<'a>(kernel: &'a PercentileScale, input: Rows<'a>) -> Rows<'a> {
    let [items, channels, ..] = input.shape();
    let (input, ranges): (Rows<'a>, Vec<PlaneRange>) = match &kernel.range {
        ScaleRange::Given { lo, hi } => {
            let ranges = (0..items * channels).map(|p| {
                let c = p % channels;
                PlaneRange::new(Split::new(per_channel(lo, c)), Split::new(per_channel(hi, c)))
            });
            (input, ranges.collect())
        }
        ScaleRange::PerImage { lo, hi } => {
            let (input, found) = order_statistics::percentiles(input, [*lo, *hi]);
            (
                input,
                found
                    .into_iter()
                    .map(|[lo, hi]| PlaneRange::new(lo, hi))
                    .collect(),
            )
        }
    };
    let (scale, round) = (kernel.scale, kernel.round);
    input.then(true, move |at, row| {
        let PlaneRange { lo, inverse } = ranges[at.item * channels + at.channel];
        for v in row.iter_mut() {
            let z = ((*v - lo.stored) - lo.rest) * inverse;
            let z = if z > 0.0 { z } else { 0.0 };
            *v = if z < 1.0 { z } else { 1.0 } * scale;
        }
        if round {
            row.iter_mut().for_each(|v| *v = v.round_ties_even());
        }
    })
}
