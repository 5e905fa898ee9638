//! Files that are no images, or not whole, or forged: each is an error that says what and where, and costs little memory.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod common;

use common::writer::Writer;
use proptest::prelude::*;
use wellspring_images::tiff::Tiff;
use wellspring_images::{ChunkKind, CodecError, ImageError, Limits, Region, decode, pages};

fn read(bytes: &[u8]) -> Result<(), ImageError> {
    decode(bytes, 0, &Limits::default()).map(drop)
}

fn levels(count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7 % 251) as u32).collect()
}

/// A little-endian classic file of one page, `64 x 64` pixels of 16 bit in four strips.
fn file(compression: u16) -> Vec<u8> {
    let kind = Writer {
        compression,
        ..Writer::default()
    };
    kind.file(&[(64, 64, levels(64 * 64))])
}

/// Where the entry of a tag is.
fn entry(bytes: &[u8], tag: u16) -> usize {
    let directory = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    (0..100)
        .map(|entry| directory + 2 + 12 * entry)
        .find(|at| bytes[*at..*at + 2] == tag.to_le_bytes())
        .unwrap()
}

/// The file with another value of a tag that fits in its entry.
fn with(compression: u16, tag: u16, value: u32) -> Vec<u8> {
    let mut bytes = file(compression);
    let at = entry(&bytes, tag);
    let long = bytes[at + 2] == 4;
    let width = if long { 4 } else { 2 };
    bytes[at + 8..at + 8 + width].copy_from_slice(&value.to_le_bytes()[..width]);
    bytes
}

/// The file with another number in a list outside its entry.
fn with_listed(compression: u16, tag: u16, index: usize, value: u32) -> Vec<u8> {
    let mut bytes = file(compression);
    let at = entry(&bytes, tag);
    let list = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize + 4 * index;
    bytes[list..list + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn nothing_and_something_else() {
    assert!(matches!(read(b""), Err(ImageError::Empty)));
    let error = read(b"GIF89a..").unwrap_err();
    assert!(matches!(&error, ImageError::Format { start } if start == b"GIF89a.."));
    assert!(error.to_string().contains("starts with 47 49 46"));
    assert!(matches!(
        read(b"II*\0"),
        Err(ImageError::Truncated {
            end: 8,
            length: 4,
            ..
        })
    ));
    assert!(matches!(
        read(b"II+\0\x08\0\0\0"),
        Err(ImageError::Truncated { end: 16, .. })
    ));
    assert!(matches!(
        read(b"II+\0\x04\0\0\0\0\0\0\0\0\0\0\0"),
        Err(ImageError::OffsetSize { bytes: 4 })
    ));
    assert!(matches!(
        read(b"II*\0\0\0\0\0"),
        Err(ImageError::NoPage { page: 0, pages: 0 })
    ));
    assert!(matches!(
        pages(b"MM\0*\0\0\0\0", &Limits::default()),
        Err(ImageError::NoPage { .. })
    ));
}

#[test]
fn a_truncated_file_is_an_error_wherever_it_ends() {
    for compression in [1, 5, 8, 32773, 50000] {
        let whole = file(compression);
        read(&whole).unwrap();
        // After the directory there is only the offset of the next one, which is not asked for.
        for length in 0..whole.len() - 4 {
            assert!(
                read(&whole[..length]).is_err(),
                "compression {compression}, {length} of {} bytes",
                whole.len()
            );
        }
    }
}

#[test]
fn a_strip_outside_the_file_is_named() {
    let error = read(&with_listed(1, 273, 2, 1_000_000)).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::Outside {
                kind: ChunkKind::Strip,
                index: 2,
                start: 1_000_000,
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        read(&with_listed(8, 279, 3, u32::MAX)),
        Err(ImageError::Outside { index: 3, .. })
    ));
    assert!(matches!(
        read(&with_listed(8, 279, 1, 0)),
        Err(ImageError::Blank { index: 1, .. })
    ));
}

#[test]
fn strips_that_share_bytes_are_refused() {
    let error = read(&with_listed(1, 273, 1, 10)).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::Overlap {
                first: 0,
                second: 1,
                offset: 10,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn pages_that_form_a_loop_are_refused() {
    let kind = Writer::default();
    let mut bytes = kind.file(&[(4, 4, levels(16)), (4, 4, levels(16))]);
    let first = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&first.to_le_bytes());
    let error = pages(&bytes, &Limits::default()).unwrap_err();
    assert!(
        matches!(error, ImageError::Loop { page: 2, offset } if offset == u64::from(first)),
        "{error}"
    );
    // The first page is whole for those who want only that one.
    read(&bytes).unwrap();
    let error = decode(&bytes, 7, &Limits::default()).unwrap_err();
    assert!(matches!(error, ImageError::Loop { .. }));
}

#[test]
fn a_page_that_is_not_there_is_named() {
    let error = decode(&file(1), 3, &Limits::default()).unwrap_err();
    assert!(
        matches!(error, ImageError::NoPage { page: 3, pages: 1 }),
        "{error}"
    );
    let few = Limits {
        pages: 1,
        ..Limits::default()
    };
    let two = Writer::default().file(&[(4, 4, levels(16)), (4, 4, levels(16))]);
    assert!(matches!(pages(&two, &few), Err(ImageError::Pages { limit: 1 })));
}

#[test]
fn forged_sizes_are_refused_before_memory_is_reserved() {
    assert!(matches!(
        read(&with(1, 256, 0)),
        Err(ImageError::Size { width: 0, .. })
    ));
    assert!(matches!(
        read(&with(1, 256, u32::MAX)),
        Err(ImageError::Size { .. })
    ));
    // 16000 x 64 pixels of 4 strips: more than the strips can hold.
    let error = read(&with(1, 256, 16_000)).unwrap_err();
    assert!(
        matches!(
            &error,
            ImageError::Chunk {
                index: 0,
                source: CodecError::Short { .. },
                ..
            }
        ),
        "{error}"
    );
    // Tiles larger than any image.
    let kind = Writer {
        tile: Some((16, 16)),
        ..Writer::default()
    };
    let mut bytes = kind.file(&[(16, 16, levels(256))]);
    for tag in [322, 323] {
        let at = entry(&bytes, tag);
        bytes[at + 8..at + 10].copy_from_slice(&u16::MAX.to_le_bytes());
    }
    assert!(matches!(
        read(&bytes),
        Err(ImageError::Size {
            chunk_width: 65535,
            ..
        })
    ));
}

#[test]
fn a_decompression_bomb_is_an_error() {
    let limits = Limits {
        free_bytes: 1 << 16,
        ratio: 10,
        ..Limits::default()
    };
    for compression in [5, 8, 50000] {
        let kind = Writer {
            compression,
            rows_per_strip: 512,
            ..Writer::default()
        };
        let bomb = kind.file(&[(512, 512, vec![0; 512 * 512])]);
        let error = decode(&bomb, 0, &limits).map(|_| bomb.len()).unwrap_err();
        assert!(
            matches!(error, ImageError::Bomb { decoded: 524_288, .. }),
            "{error}"
        );
        // An image of one level, of a size that cameras have, is not one.
        read(&bomb).unwrap();
    }
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 512, 512);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0; 512 * 512]).unwrap();
    writer.finish().unwrap();
    assert!(matches!(
        decode(&png, 0, &limits),
        Err(ImageError::Bomb { .. } | ImageError::Png { .. })
    ));
    read(&png).unwrap();
}

#[test]
fn what_is_not_read_is_named() {
    for (tag, value, word) in [
        (259, 34925, "Compression"),
        (259, 7, "Compression"),
        (262, 2, "RGB, 1 x 16 bit unsigned"),
        (277, 3, "grey, 3 x 16 bit"),
        (339, 2, "signed"),
        (258, 32, "32 bit unsigned"),
        (258, 1, "1 bit"),
        (317, 3, "Predictor"),
        (317, 9, "Predictor"),
    ] {
        let error = read(&with(5, tag, value)).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("page 0"), "{error}");
    }
}

#[test]
fn absent_tags_and_short_lists_are_named() {
    for (tag, name) in [
        (256, "ImageWidth"),
        (273, "StripOffsets"),
        (279, "StripByteCounts"),
    ] {
        let mut bytes = file(8);
        let at = entry(&bytes, tag);
        bytes[at..at + 2].copy_from_slice(&60_000u16.to_le_bytes());
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    let error = read(&with(8, 278, 8)).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::TagCount {
                found: 4,
                expected: 8,
                ..
            }
        ),
        "{error}"
    );
    // Lengths follow from the size where nothing is compressed.
    let mut bytes = file(1);
    let at = entry(&bytes, 279);
    bytes[at..at + 2].copy_from_slice(&60_000u16.to_le_bytes());
    read(&bytes).unwrap();
    // A number where no number can be.
    let mut bytes = file(1);
    let at = entry(&bytes, 256);
    bytes[at + 2] = 2;
    assert!(matches!(read(&bytes), Err(ImageError::TagType { found: 2, .. })));
}

#[test]
fn damaged_strips_are_named() {
    for (compression, expected) in [(8, "Deflate"), (50000, "ZSTD"), (5, "LZW")] {
        let mut bytes = file(compression);
        let at = entry(&bytes, 273);
        let list = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize + 8;
        let strip = u32::from_le_bytes(bytes[list..list + 4].try_into().unwrap()) as usize;
        bytes[strip..strip + 12].fill(0xf7);
        let error = read(&bytes).unwrap_err();
        let ImageError::Chunk {
            index: 2,
            offset,
            source,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(*offset, strip as u64);
        assert!(source.to_string().contains(expected), "{source}");
    }
}

#[test]
fn lzw_of_before_1992_is_named() {
    let kind = Writer {
        bits: 8,
        compression: 1,
        ..Writer::default()
    };
    let mut bytes = kind.file(&[(16, 1, [vec![0, 1], vec![3; 14]].concat())]);
    let at = entry(&bytes, 259);
    bytes[at + 8] = 5;
    let error = read(&bytes).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::Chunk {
                source: CodecError::LzwReversed,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn more_data_than_pixels_is_an_error_where_it_shows() {
    // Strips of Deflate and ZSTD say how long they are; the others end where the pixels do.
    for compression in [8, 50000] {
        let error = read(&with(compression, 256, 32)).unwrap_err();
        assert!(
            matches!(
                error,
                ImageError::Chunk {
                    source: CodecError::Long { expected: 1024 },
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn regions_and_buffers_are_checked() {
    let bytes = file(1);
    let page = Tiff::open(bytes.as_slice(), Limits::default())
        .unwrap()
        .page(0)
        .unwrap();
    for (rows, columns) in [(0..65, 0..64), (0..64, 1..65), (3..3, 0..64), (0..64, 9..9)] {
        let region = Region { rows, columns };
        assert!(matches!(
            page.read_levels(bytes.as_slice(), &region, &mut []),
            Err(ImageError::Region { .. })
        ));
        assert!(page.ranges(&region).is_err());
    }
    assert!(matches!(
        page.read_levels(bytes.as_slice(), &page.whole(), &mut [0; 9]),
        Err(ImageError::Buffer {
            found: 9,
            expected: 4096
        })
    ));
    assert!(matches!(
        page.read_floats(bytes.as_slice(), &page.whole(), &mut [0.0; 4096]),
        Err(ImageError::SampleType { .. })
    ));
}

#[test]
fn colour_and_damage_in_png() {
    let png = |color: png::ColorType, data: &[u8]| {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 3, 1);
        encoder.set_color(color);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        file
    };
    let grey = png(png::ColorType::Grayscale, &[0, 7, 255]);
    let plane = decode(&grey, 0, &Limits::default()).unwrap();
    assert_eq!(
        (plane.ceiling, plane.pixels.as_slice()),
        (255, [0, 7, 255].as_slice())
    );
    assert!(matches!(
        decode(&grey, 1, &Limits::default()),
        Err(ImageError::NoPage { page: 1, pages: 1 })
    ));
    for length in 8..grey.len() - 12 {
        assert!(read(&grey[..length]).is_err(), "{length}");
    }
    let error = read(&png(png::ColorType::Rgb, &[0; 9])).unwrap_err().to_string();
    assert!(error.contains("Rgb, 8 bit, but greyscale"), "{error}");
}

/// A file of the fuzz targets' seeds.
fn seed(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/jpeg2000");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn colour_damage_and_bombs_in_jpeg_2000() {
    let error = read(&seed("colour.jp2")).unwrap_err().to_string();
    assert!(error.contains("of 3 components, but greyscale"), "{error}");
    for name in ["16.jp2", "16.j2k"] {
        let whole = seed(name);
        // The last two bytes say that it is the end.
        for length in 12..whole.len() - 2 {
            assert!(
                read(&whole[..length]).is_err(),
                "{name}: {length} of {}",
                whole.len()
            );
        }
        let error = decode(&whole, 1, &Limits::default()).unwrap_err();
        assert!(matches!(error, ImageError::NoPage { page: 1, pages: 1 }));
        let limits = Limits {
            free_bytes: 1 << 10,
            ratio: 1,
            ..Limits::default()
        };
        assert!(matches!(decode(&whole, 0, &limits), Err(ImageError::Bomb { .. })));
    }
    // The codestream's size comes eight bytes after its start.
    let mut forged = seed("16.j2k");
    forged[8..16].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    assert!(matches!(
        read(&forged),
        Err(ImageError::Size { width: 65536, .. })
    ));
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        compression in prop::sample::select(vec![1u16, 5, 8, 32773, 50000]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        whole: bool,
    ) {
        let mut bytes = file(compression);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read(&bytes);
        let _ = pages(&bytes, &Limits::default());
    }
}
