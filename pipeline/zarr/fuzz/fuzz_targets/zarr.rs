//! Documents of arrays and stored chunks: up to the first zero the input is the document, behind it what every object of
//! the array holds.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use wellspring_zarr::{Chunk, IndexPlace, Limits, Plane, ZarrArray};

fuzz_target!(|input: &[u8]| {
    let split = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (document, stored) = (&input[..split], input.get(split + 1..).unwrap_or_default());
    let limits = Limits {
        pixels: 1 << 20,
        free_bytes: 1 << 21,
        ratio: 64,
    };
    let Ok(array) = ZarrArray::parse(document, limits) else {
        return;
    };
    let array = Arc::new(array);
    let length = stored.len() as u64;
    let index = array.index_place().map(|place| {
        let part = match place {
            IndexPlace::Start(bytes) => stored.get(..bytes as usize),
            IndexPlace::End(bytes) => stored.len().checked_sub(bytes as usize).map(|at| &stored[at..]),
        };
        array.shard_index(part.unwrap_or_default(), length)
    });
    for page in [0, 1, u32::MAX] {
        let Ok(tiles) = array.tiles(page) else { continue };
        // Many tiles say nothing new of the same bytes.
        if tiles.len() > 64 {
            continue;
        }
        let tiles = tiles.into_iter().map(|tile| {
            let bytes = match (&index, tile.inner) {
                (Some(Ok(index)), Some(inner)) => match index.range(inner) {
                    Ok(Some(range)) => Some(&stored[range.start as usize..range.end as usize]),
                    _ => None,
                },
                (Some(Err(_)), _) => None,
                _ => Some(stored),
            };
            let chunk = bytes.map(|bytes| Arc::new(Chunk::new(bytes.to_vec().into(), page == 1)));
            (tile, chunk)
        });
        let tiles = tiles.collect();
        let mut pixels = vec![0; array.height() * array.width()];
        let _whatever = Plane::new(array.clone(), tiles).read(&mut pixels);
    }
});
