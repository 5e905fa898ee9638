//! Every kind of file that is read comes back as it was written, whole and in parts.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod common;

use common::writer::{Image, Writer, compress};
use proptest::prelude::*;
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use tiff::tags::Predictor;
use wellspring_images::tiff::{Sample, Tiff};
use wellspring_images::{ImageError, Limits, Region, Source, Sparse, decode, pages, pages_alike};

/// Pixels like those of a microscope: noise on a slope, with flat parts.
fn picture(width: usize, height: usize, bits: usize, seed: u32) -> Image {
    let mut state = seed | 1;
    let pixels = (0..width * height)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = if (i / width / 7).is_multiple_of(3) {
                0
            } else {
                state >> 27
            };
            ((i % width) as u32 / 3 + noise) & ((1u64 << bits) - 1) as u32
        })
        .collect();
    (width, height, pixels)
}

fn kinds() -> Vec<Writer> {
    let mut kinds = Vec::new();
    for big_endian in [false, true] {
        for big_tiff in [false, true] {
            for tile in [None, Some((16, 32))] {
                for compression in [1, 5, 8, 32946, 32773, 50000, 34926] {
                    for (bits, predictor, float) in [
                        (8, 1, false),
                        (8, 2, false),
                        (12, 1, false),
                        (16, 1, false),
                        (16, 2, false),
                        (32, 1, true),
                        (32, 2, true),
                        (32, 3, true),
                    ] {
                        if predictor > 1 && matches!(compression, 1 | 32773) {
                            continue;
                        }
                        kinds.push(Writer {
                            big_endian,
                            big_tiff,
                            tile,
                            compression,
                            predictor,
                            bits,
                            float,
                            ..Writer::default()
                        });
                    }
                }
            }
        }
    }
    kinds
}

fn as_stored(kind: &Writer, (width, height, levels): &Image) -> Image {
    let bits = levels.iter().map(|level| {
        if kind.float {
            (*level as u16 as f32).to_bits()
        } else {
            *level
        }
    });
    (*width, *height, bits.collect())
}

#[test]
fn every_kind_comes_back() {
    let kinds = kinds();
    assert_eq!(kinds.len(), 2 * 2 * 2 * (5 * 8 + 2 * 4));
    for kind in kinds {
        let depth = kind.bits.min(16);
        let images = [picture(61, 45, depth, 3), picture(8, 70, depth, 5)];
        let file = kind.file(&images.each_ref().map(|image| as_stored(&kind, image)));
        assert_eq!(pages(&file, &Limits::default()).unwrap(), 2, "{kind:?}");
        for (page, (width, height, levels)) in images.iter().enumerate() {
            let plane =
                decode(&file, page, &Limits::default()).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            assert_eq!((plane.width, plane.height), (*width, *height), "{kind:?}");
            assert!(
                plane
                    .pixels
                    .iter()
                    .map(|v| u32::from(*v))
                    .eq(levels.iter().copied()),
                "{kind:?}"
            );
            assert_eq!(
                plane.ceiling,
                if kind.float {
                    65535
                } else {
                    ((1u32 << kind.bits) - 1) as u16
                }
            );
        }
    }
}

#[test]
fn what_the_crate_tiff_writes_comes_back() {
    let (width, height, levels) = picture(300, 200, 16, 9);
    let levels: Vec<u16> = levels.iter().map(|v| *v as u16).collect();
    let deflate = Compression::Deflate(DeflateLevel::Balanced);
    for compression in [
        Compression::Uncompressed,
        Compression::Lzw,
        deflate,
        Compression::Packbits,
    ] {
        for predictor in [Predictor::None, Predictor::Horizontal] {
            if predictor == Predictor::Horizontal
                && matches!(compression, Compression::Uncompressed | Compression::Packbits)
            {
                continue;
            }
            let mut file = std::io::Cursor::new(Vec::new());
            TiffEncoder::new(&mut file)
                .unwrap()
                .with_compression(compression)
                .with_predictor(predictor)
                .write_image::<colortype::Gray16>(width as u32, height as u32, &levels)
                .unwrap();
            let plane = decode(&file.into_inner(), 0, &Limits::default()).unwrap();
            assert_eq!(plane.pixels, levels, "{predictor:?}");
        }
    }
}

#[test]
fn floats_come_back_bit_by_bit_and_as_levels_only_without_loss() {
    let values = [0.5f32, -1.25, f32::INFINITY, 3e-40, 65536.0, 1e30];
    let kind = Writer {
        bits: 32,
        float: true,
        compression: 8,
        predictor: 3,
        ..Writer::default()
    };
    let file = kind.file(&[(3, 2, values.iter().map(|v| v.to_bits()).collect())]);
    let tiff = Tiff::open(file.as_slice(), Limits::default()).unwrap();
    let page = tiff.page(0).unwrap();
    assert_eq!(page.sample(), Sample::F32);
    let mut read = [0.0; 6];
    page.read_floats(file.as_slice(), &page.whole(), &mut read)
        .unwrap();
    assert_eq!(read, values);

    let error = decode(&file, 0, &Limits::default()).unwrap_err().to_string();
    assert!(
        error.contains("from -1.25 to inf") && error.contains("0.5, in row 0, column 0"),
        "{error}"
    );
    let nan = kind.file(&[(2, 1, vec![9f32.to_bits(), f32::NAN.to_bits()])]);
    let error = decode(&nan, 0, &Limits::default()).unwrap_err().to_string();
    assert!(
        error.contains("from 9 to 9") && error.contains("NaN, in row 0, column 1"),
        "{error}"
    );
}

#[test]
fn white_as_zero_and_palettes() {
    for (bits, white) in [(8, 255), (12, 4095), (16, 65535)] {
        for (photometric, expected) in [(0, [white, white - 5]), (3, [0, 5])] {
            let file = Writer {
                bits,
                photometric,
                ..Writer::default()
            }
            .file(&[(2, 1, vec![0, 5])]);
            assert_eq!(decode(&file, 0, &Limits::default()).unwrap().pixels, expected);
        }
    }
}

#[test]
fn a_last_strip_may_be_as_long_as_the_others() {
    for compression in [1, 5, 8, 32773, 50000] {
        let kind = Writer {
            compression,
            fill_last_strip: true,
            ..Writer::default()
        };
        let (width, height, levels) = picture(40, 20, 16, 2);
        let plane = decode(
            &kind.file(&[(width, height, levels.clone())]),
            0,
            &Limits::default(),
        )
        .unwrap();
        assert!(
            plane.pixels.iter().map(|v| u32::from(*v)).eq(levels),
            "{compression}"
        );
    }
}

#[test]
fn thumbnails_are_no_pages_alike() {
    let alike = |sizes: &[(usize, usize)]| {
        let pages: Vec<Image> = sizes
            .iter()
            .map(|(width, height)| picture(*width, *height, 16, 1))
            .collect();
        pages_alike(&Writer::default().file(&pages), &Limits::default()).unwrap()
    };
    assert_eq!(alike(&[(8, 8)]), 1);
    assert_eq!(alike(&[(8, 8), (4, 4), (8, 4)]), 1);
    assert_eq!(alike(&[(8, 8), (4, 4), (8, 8), (8, 8)]), 3);
}

#[test]
fn text_that_is_not_utf8_does_not_matter() {
    let file = Writer::default().file(&[picture(4, 4, 16, 1)]);
    let tiff = Tiff::open(file.as_slice(), Limits::default()).unwrap();
    assert_eq!(
        tiff.description(0).unwrap().as_deref(),
        Some("not UTF-8: \u{fffd}m")
    );
}

/// Fetches what is missing until the question is answered; returns the answer and the bytes fetched.
fn fetch<T>(
    file: &[u8],
    known: &mut Sparse<Vec<u8>>,
    ask: impl Fn(&Sparse<Vec<u8>>) -> Result<T, ImageError>,
) -> (T, u64) {
    let mut fetched = 0;
    loop {
        match ask(known) {
            Ok(answer) => return (answer, fetched),
            Err(ImageError::NotFetched { start, end }) => {
                fetched += end - start;
                known.insert(start, file[start as usize..end as usize].to_vec());
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_region_is_read_from_the_parts_of_the_file_it_needs() {
    for tile in [None, Some((64, 64))] {
        let kind = Writer {
            tile,
            compression: 8,
            ..Writer::default()
        };
        let images = [picture(300, 300, 16, 4), picture(256, 512, 16, 8)];
        let file = kind.file(&images);
        let mut known = Sparse::new(file.len() as u64);
        let (page, directories) = fetch(&file, &mut known, |known| {
            Tiff::open(known, Limits::default())?.page(1)
        });
        let region = Region {
            rows: 100..140,
            columns: 70..120,
        };
        let ranges = page.ranges(&region).unwrap();
        let needed: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        assert!(
            directories + needed < file.len() as u64 / 8,
            "{directories} {needed} {}",
            file.len()
        );
        for range in ranges {
            known.insert(
                range.start,
                file[range.start as usize..range.end as usize].to_vec(),
            );
        }
        let mut pixels = vec![0; region.pixels()];
        page.read_levels(&known, &region, &mut pixels).unwrap();
        let expected = (100..140).flat_map(|y| (70..120).map(move |x| (y, x)));
        assert!(
            pixels
                .iter()
                .map(|v| u32::from(*v))
                .eq(expected.map(|(y, x)| images[1].2[y * 256 + x]))
        );
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (width, height, levels) = picture(700, 900, 16, 6);
    for (tile, compression) in [(None, 5), (Some((64, 48)), 8), (None, 50000)] {
        let file = Writer {
            tile,
            compression,
            predictor: 2,
            ..Writer::default()
        }
        .file(&[(width, height, levels.clone())]);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let plane = pool.install(|| decode(&file, 0, &Limits::default())).unwrap();
            assert!(
                plane
                    .pixels
                    .iter()
                    .map(|v| u32::from(*v))
                    .eq(levels.iter().copied())
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_region_of_any_kind(
        kind in 0usize..384, width in 1usize..90, height in 1usize..90, strip in 1usize..40,
        a in 0u32..90, b in 0u32..90, c in 0u32..90, d in 0u32..90, seed: u32,
    ) {
        let mut kind = kinds().swap_remove(kind);
        kind.rows_per_strip = strip;
        let image = picture(width, height, kind.bits.min(16), seed);
        let file = kind.file(&[as_stored(&kind, &image)]);
        let span = |a: u32, b: u32, size: usize| {
            let (a, b) = (a % size as u32, b % size as u32);
            a.min(b)..a.max(b) + 1
        };
        let region = Region { rows: span(a, b, height), columns: span(c, d, width) };
        let page = Tiff::open(file.as_slice(), Limits::default()).unwrap().page(0).unwrap();
        let mut pixels = vec![0; region.pixels()];
        page.read_levels(file.as_slice(), &region, &mut pixels).unwrap();
        let rows = region.rows.clone().flat_map(|y| region.columns.clone().map(move |x| (y, x)));
        let expected: Vec<u16> = rows.map(|(y, x)| image.2[y as usize * width + x as usize] as u16).collect();
        prop_assert_eq!(pixels, expected);
    }

    #[test]
    fn any_bytes_come_back_from_every_compression(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 1..3000)) {
        for compression in [1, 5, 8, 32773, 50000] {
            let file = Writer { bits: 8, compression, rows_per_strip: 1, ..Writer::default() }
                .file(&[(bytes.len(), 1, bytes.iter().map(|b| u32::from(*b)).collect())]);
            let plane = decode(&file, 0, &Limits::default()).unwrap();
            prop_assert!(plane.pixels.iter().map(|v| *v as u8).eq(bytes.iter().copied()));
            prop_assert!(!compress(compression, &bytes).is_empty());
        }
    }
}

#[test]
fn parts_of_a_file_answer_only_for_their_bytes() {
    let mut parts = Sparse::new(100);
    parts.insert(10, vec![1; 10]);
    parts.insert(10, vec![2; 5]);
    assert_eq!(parts.bytes(12..20, "it").unwrap(), [1; 8]);
    assert!(matches!(
        parts.bytes(5..12, "it"),
        Err(ImageError::NotFetched { start: 5, end: 12 })
    ));
    assert!(matches!(
        parts.bytes(15..21, "it"),
        Err(ImageError::NotFetched { .. })
    ));
    assert!(matches!(
        parts.bytes(90..101, "it"),
        Err(ImageError::Truncated { length: 100, .. })
    ));
}
