//! Every compression, predictor and pixel type, on data that need no valid file around them: the fuzzer's bytes are one
//! strip or tile, its first ones say how it is to be read. What two ways of reading give must be the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wellspring_images::tiff::Tiff;
use wellspring_images::{Limits, Region};

fn entry(file: &mut Vec<u8>, tag: u16, value: u32) {
    file.extend(tag.to_le_bytes());
    file.extend(4u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(value.to_le_bytes());
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, format, width, height], data)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let (width, height) = (u32::from(width) * 4 + 1, u32::from(height) + 1);
    let compression = [1, 5, 8, 32773, 50000][usize::from(kind) % 5];
    let (bits, float) = [(8, 1), (12, 1), (16, 1), (32, 3)][usize::from(format) % 4];
    let predictor = u32::from(format) / 4 % 3 + 1;
    let tiled = kind >= 128;
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    let entries: u16 = if tiled { 11 } else { 10 };
    file.extend(entries.to_le_bytes());
    let start = 8 + 2 + 12 * u32::from(entries) + 4;
    entry(&mut file, 256, width);
    entry(&mut file, 257, height);
    entry(&mut file, 258, bits);
    entry(&mut file, 259, compression);
    entry(&mut file, 262, u32::from(format) / 16 % 2);
    if tiled {
        entry(&mut file, 322, width + 3);
        entry(&mut file, 323, height + 2);
        entry(&mut file, 324, start);
        entry(&mut file, 325, data.len() as u32);
    } else {
        entry(&mut file, 273, start);
        entry(&mut file, 278, height);
        entry(&mut file, 279, data.len() as u32);
    }
    entry(&mut file, 317, predictor);
    entry(&mut file, 339, float);
    file.extend([0; 4]);
    file.extend(data);
    let file = file.as_slice();
    let limits = Limits::default();
    let Ok(page) = Tiff::open(file, limits).and_then(|tiff| tiff.page(0)) else {
        return;
    };
    let whole = page.whole();
    let part = Region {
        rows: height / 3..height / 2 + 1,
        columns: width / 4..width / 3 + 1,
    };
    let places = places(&whole, &part);
    let same = |all: &dyn Fn(usize) -> u32, some: &dyn Fn(usize) -> u32| {
        for (index, place) in places.iter().enumerate() {
            assert_eq!(all(*place), some(index));
        }
    };
    let (mut all, mut some) = (vec![0; whole.pixels()], vec![0; part.pixels()]);
    if page.read_levels(file, &whole, &mut all).is_ok() {
        page.read_levels(file, &part, &mut some)
            .expect("the whole page can be read");
        same(&|i| u32::from(all[i]), &|i| u32::from(some[i]));
    }
    let (mut all, mut some) = (vec![0.0f32; whole.pixels()], vec![0.0f32; part.pixels()]);
    if page.read_floats(file, &whole, &mut all).is_ok() {
        page.read_floats(file, &part, &mut some)
            .expect("the whole page can be read");
        same(&|i| all[i].to_bits(), &|i| some[i].to_bits());
    }
});

/// Where the pixels of `part` are in `whole`.
fn places(whole: &Region, part: &Region) -> Vec<usize> {
    let width = whole.width();
    part.rows
        .clone()
        .flat_map(|y| part.columns.clone().map(move |x| y as usize * width + x as usize))
        .collect()
}
