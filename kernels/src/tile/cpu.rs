//! CPU form of `tile`: reads each crop row through the pending operations, so pixels outside crops are never touched.

use rayon::prelude::*;

use super::Tile;
use crate::image::Tensor;
use crate::rows::{RowAt, Rows};

pub(super) fn tile<'a>(kernel: &Tile, input: Rows<'a>) -> Rows<'a> {
    let [items, channels, height, width] = input.shape();
    let layout = kernel.layout(height, width);
    let crops = layout.rows * layout.columns;
    let shape = [items * crops, channels, kernel.height, kernel.width];
    let mut data = vec![0.0; shape.iter().product()];
    data.par_chunks_mut(kernel.width)
        .with_min_len(32)
        .enumerate()
        .for_each(|(row, out)| {
            let (plane, y) = (row / kernel.height, row % kernel.height);
            let (item, channel) = (plane / channels, plane % channels);
            let crop = item % crops;
            input.read(
                RowAt {
                    item: item / crops,
                    channel,
                    y: layout.y + crop / layout.columns * kernel.height + y,
                    x: layout.x + crop % layout.columns * kernel.width,
                },
                out,
            );
        });
    Rows::float(Tensor::from_parts(shape, data))
}
