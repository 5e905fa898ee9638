//! A small writer of TIFF files of every kind that is read, which shares no code with the reader.

use weezl::BitOrder;
use weezl::encode::Encoder;

/// What to write.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) big_endian: bool,
    pub(crate) big_tiff: bool,
    /// Width and height of tiles, or none and rows of a strip.
    pub(crate) tile: Option<(usize, usize)>,
    pub(crate) rows_per_strip: usize,
    pub(crate) compression: u16,
    pub(crate) predictor: u16,
    pub(crate) bits: usize,
    pub(crate) float: bool,
    pub(crate) photometric: u16,
    /// Whether the last strip is filled up with rows that are not of the image.
    pub(crate) fill_last_strip: bool,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            big_endian: false,
            big_tiff: false,
            tile: None,
            rows_per_strip: 16,
            compression: 1,
            predictor: 1,
            bits: 16,
            float: false,
            photometric: 1,
            fill_last_strip: false,
        }
    }
}

/// A page: width, height, and the bits of its pixels.
pub(crate) type Image = (usize, usize, Vec<u32>);

impl Writer {
    /// The bytes of a file with these pages.
    pub(crate) fn file(&self, pages: &[Image]) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend_from_slice(if self.big_endian { b"MM" } else { b"II" });
        self.word(&mut file, if self.big_tiff { 43 } else { 42 }, 2);
        if self.big_tiff {
            self.word(&mut file, 8, 2);
            self.word(&mut file, 0, 2);
        }
        let mut link = file.len();
        self.offset(&mut file, 0);
        for page in pages {
            let (offsets, lengths) = self.chunks(&mut file, page);
            link = self.directory(&mut file, link, page, &offsets, &lengths);
        }
        file
    }

    fn word(&self, file: &mut Vec<u8>, value: u64, bytes: usize) {
        if self.big_endian {
            file.extend_from_slice(&value.to_be_bytes()[8 - bytes..]);
        } else {
            file.extend_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }

    fn offset(&self, file: &mut Vec<u8>, value: u64) {
        self.word(file, value, if self.big_tiff { 8 } else { 4 });
    }

    fn patch(&self, file: &mut [u8], at: usize, value: u64) {
        let mut bytes = Vec::new();
        self.offset(&mut bytes, value);
        file[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    fn chunks(&self, file: &mut Vec<u8>, (width, height, pixels): &Image) -> (Vec<u64>, Vec<u64>) {
        let (chunk_width, chunk_height) = self.tile.unwrap_or((*width, self.rows_per_strip));
        let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
        for top in (0..*height).step_by(chunk_height) {
            for left in (0..*width).step_by(chunk_width) {
                let whole = self.tile.is_some() || self.fill_last_strip;
                let rows = if whole {
                    chunk_height
                } else {
                    chunk_height.min(height - top)
                };
                let mut bytes = Vec::new();
                for y in top..top + rows {
                    // What is outside the image is anything.
                    let row: Vec<u32> = (left..left + chunk_width)
                        .map(|x| {
                            if x < *width && y < *height {
                                pixels[y * width + x]
                            } else {
                                7
                            }
                        })
                        .collect();
                    bytes.extend(self.row(&row));
                }
                let bytes = compress(self.compression, &bytes);
                offsets.push(file.len() as u64);
                lengths.push(bytes.len() as u64);
                file.extend(bytes);
            }
        }
        (offsets, lengths)
    }

    fn row(&self, row: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.bits == 12 {
            for pair in row.chunks(2) {
                let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
                bytes.extend([(a >> 4) as u8, ((a & 0xf) << 4 | b >> 8) as u8, b as u8]);
            }
            bytes.truncate((12 * row.len()).div_ceil(8));
            return bytes;
        }
        if self.predictor == 3 {
            for plane in 0..4 {
                bytes.extend(row.iter().map(|bits| bits.to_be_bytes()[plane]));
            }
            for at in (1..bytes.len()).rev() {
                bytes[at] = bytes[at].wrapping_sub(bytes[at - 1]);
            }
            return bytes;
        }
        let mut before = 0;
        for value in row {
            let stored = if self.predictor == 2 {
                value.wrapping_sub(before)
            } else {
                *value
            };
            before = *value;
            self.word(
                &mut bytes,
                u64::from(stored) & ((1 << self.bits) - 1),
                self.bits / 8,
            );
        }
        bytes
    }

    /// Writes a directory and the link to it; returns where the link to the next one is.
    fn directory(
        &self,
        file: &mut Vec<u8>,
        link: usize,
        (width, height, _): &Image,
        offsets: &[u64],
        lengths: &[u64],
    ) -> usize {
        let mut tags: Vec<(u16, u16, Vec<u64>)> = vec![
            (256, 4, vec![*width as u64]),
            (257, 3, vec![*height as u64]),
            (258, 3, vec![self.bits as u64]),
            (259, 3, vec![u64::from(self.compression)]),
            (262, 3, vec![u64::from(self.photometric)]),
            (
                270,
                2,
                b"not UTF-8: \xb5m\0"
                    .iter()
                    .map(|byte| u64::from(*byte))
                    .collect(),
            ),
            (277, 3, vec![1]),
            (317, 3, vec![u64::from(self.predictor)]),
            (339, 3, vec![if self.float { 3 } else { 1 }]),
        ];
        let wide = if self.big_tiff { 16 } else { 4 };
        match self.tile {
            None => tags.extend([
                (273, wide, offsets.to_vec()),
                (278, 3, vec![self.rows_per_strip as u64]),
                (279, 4, lengths.to_vec()),
            ]),
            Some((tile_width, tile_height)) => tags.extend([
                (322, 3, vec![tile_width as u64]),
                (323, 3, vec![tile_height as u64]),
                (324, wide, offsets.to_vec()),
                (325, 4, lengths.to_vec()),
            ]),
        }
        tags.sort();
        let (room, count_bytes) = if self.big_tiff { (8, 8) } else { (4, 2) };
        let mut entries = Vec::new();
        self.word(&mut entries, tags.len() as u64, count_bytes);
        for (tag, kind, values) in &tags {
            let size = match kind {
                2 => 1,
                3 => 2,
                4 => 4,
                _ => 8,
            };
            self.word(&mut entries, u64::from(*tag), 2);
            self.word(&mut entries, u64::from(*kind), 2);
            self.offset(&mut entries, values.len() as u64);
            let mut bytes = Vec::new();
            for value in values {
                self.word(&mut bytes, *value, size);
            }
            if bytes.len() <= room {
                bytes.resize(room, 0);
                entries.extend(bytes);
            } else {
                self.offset(&mut entries, file.len() as u64);
                file.extend(bytes);
            }
        }
        let at = file.len() as u64;
        self.patch(file, link, at);
        file.extend(entries);
        let next = file.len();
        self.offset(file, 0);
        next
    }
}

/// One strip or tile, compressed as TIFF's number says.
pub(crate) fn compress(compression: u16, bytes: &[u8]) -> Vec<u8> {
    match compression {
        1 => bytes.to_vec(),
        5 => Encoder::with_tiff_size_switch(BitOrder::Msb, 8)
            .encode(bytes)
            .unwrap(),
        8 | 32946 => {
            let mut encoder = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
            let mut out = vec![0; encoder.zlib_compress_bound(bytes.len())];
            let length = encoder.zlib_compress(bytes, &mut out).unwrap();
            out.truncate(length);
            out
        }
        32773 => pack(bytes),
        50000 | 34926 => zstd::bulk::compress(bytes, 1).unwrap(),
        other => panic!("{other} is not written"),
    }
}

fn pack(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(first) = bytes.first() {
        let run = bytes.iter().take(128).take_while(|byte| *byte == first).count();
        if run > 1 {
            out.extend([(1 - run as i32) as u8, *first]);
            bytes = &bytes[run..];
        } else {
            let literal = bytes
                .windows(2)
                .take(127)
                .take_while(|pair| pair[0] != pair[1])
                .count()
                .max(1);
            out.push(literal as u8 - 1);
            out.extend(&bytes[..literal]);
            bytes = &bytes[literal..];
        }
    }
    out
}
