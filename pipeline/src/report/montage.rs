//! Image crops in columns, coloured by channel: what the numbers look like.
//!
//! Planes of raw pixels enter with their channel names and labels; one PNG leaves. The limits of the grey scale are
//! shared by all tiles of a channel (percentiles over all of them), so that brightness can be compared between
//! tiles. Fails on tiles of differing channels or sizes that do not fit their pixels.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use wellspring_workloads::words::Channel;

/// Percentiles that become black and full colour.
const LIMITS: (f64, f64) = (1.0, 99.7);
/// Pixels between tiles.
const GAP: usize = 6;
/// Longest side of a tile; larger crops are cut to their centre.
const LONGEST: usize = 320;
/// Most bytes of all tiles before compression. As base64 they are a third more, which leaves the page under 2 MB
/// even for images of pure noise.
const BYTES: usize = 800_000;
/// Most tiles of a montage: the page stays under 2 MB.
const MOST: usize = 12;

/// A montage that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MontageError {
    /// There is no tile, or too many.
    #[error("a montage needs 1 to {most} tiles, got {got}")]
    Tiles {
        /// How many were given.
        got: usize,
        /// The most.
        most: usize,
    },
    /// A tile has other channels than the first.
    #[error("tile '{label}' has {got} channels, the montage has {expected}")]
    Channels {
        /// The tile's label.
        label: String,
        /// The montage's channels.
        expected: usize,
        /// The tile's channels.
        got: usize,
    },
    /// A plane does not hold height x width pixels, or is empty.
    #[error("tile '{label}' is {height} x {width} pixels, channel {channel} holds {got}")]
    Pixels {
        /// The tile's label.
        label: String,
        /// The channel.
        channel: Channel,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Pixels given.
        got: usize,
    },
    /// The PNG encoder refused.
    #[error("cannot encode the montage as PNG: {source}")]
    Encode {
        /// The encoder's reason.
        #[from]
        source: image::ImageError,
    },
}

/// One labelled crop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// What it shows, such as `reference` or `drug x 10 µM`.
    pub label: String,
    /// Where it is from, such as `P1 B03 field 2`.
    pub place: String,
    /// Rows in pixels.
    pub height: usize,
    /// Columns in pixels.
    pub width: usize,
    /// One plane per channel of the montage, row-major, `height * width` values each.
    pub planes: Vec<Vec<u16>>,
}

/// Crops to be shown side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Montage {
    /// The channels, in the order of the tiles' planes.
    pub channels: Vec<Channel>,
    /// The crops, in reading order.
    pub tiles: Vec<Tile>,
}

/// What a channel was scaled by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scaling {
    pub(super) channel: Channel,
    pub(super) colour: [u8; 3],
    pub(super) low: u16,
    pub(super) high: u16,
}

/// A tile as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) label: String,
    pub(super) place: String,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) png: Vec<u8>,
}

/// The colour of channel `index` of `count`, by the custom of the field; a single channel is grey.
fn colour(channel: &Channel, index: usize, count: usize) -> [u8; 3] {
    if count == 1 {
        return [255, 255, 255];
    }
    match channel.as_str().to_ascii_lowercase().as_str() {
        "dna" | "dapi" | "hoechst" => [60, 110, 255],
        "er" | "gfp" | "cona" => [40, 220, 90],
        "rna" | "syto" => [240, 220, 60],
        "agp" | "actin" | "golgi" => [255, 120, 40],
        "mito" => [255, 60, 200],
        "brightfield" | "bf" => [150, 150, 150],
        _ => {
            const OTHERS: [[u8; 3]; 6] = [
                [60, 110, 255],
                [40, 220, 90],
                [255, 120, 40],
                [255, 60, 200],
                [240, 220, 60],
                [60, 220, 230],
            ];
            OTHERS[index % OTHERS.len()]
        }
    }
}

/// The values at the percentiles [`LIMITS`] over a channel of all tiles.
fn limits<'a>(planes: impl Iterator<Item = &'a [u16]>) -> (u16, u16) {
    let mut histogram = vec![0u64; 1 << 16];
    let mut total = 0u64;
    for plane in planes {
        for value in plane {
            histogram[usize::from(*value)] += 1;
        }
        total += plane.len() as u64;
    }
    let at = |percentile: f64| {
        let rank = ((total.saturating_sub(1)) as f64 * percentile / 100.0).round() as u64;
        let mut below = 0u64;
        for (value, count) in (0u16..).zip(&histogram) {
            below += count;
            if below > rank {
                return value;
            }
        }
        0
    };
    (at(LIMITS.0), at(LIMITS.1))
}

/// The first pixel and length of the centre cut of a side.
fn centre(side: usize, most: usize) -> (usize, usize) {
    let length = side.min(most);
    ((side - length) / 2, length)
}

impl Montage {
    fn check(&self) -> Result<(), MontageError> {
        if self.tiles.is_empty() || self.tiles.len() > MOST {
            return Err(MontageError::Tiles {
                got: self.tiles.len(),
                most: MOST,
            });
        }
        for tile in &self.tiles {
            if tile.planes.len() != self.channels.len() || tile.planes.is_empty() {
                return Err(MontageError::Channels {
                    label: tile.label.clone(),
                    expected: self.channels.len(),
                    got: tile.planes.len(),
                });
            }
            for (plane, channel) in tile.planes.iter().zip(&self.channels) {
                let expected = tile.height.checked_mul(tile.width).filter(|n| *n > 0);
                if expected != Some(plane.len()) {
                    return Err(MontageError::Pixels {
                        label: tile.label.clone(),
                        channel: channel.clone(),
                        height: tile.height,
                        width: tile.width,
                        got: plane.len(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Longest side of a tile for this number of tiles and channels.
    fn side(&self) -> usize {
        let bytes_per_pixel = if self.channels.len() == 1 { 1 } else { 3 };
        (BYTES / (self.tiles.len().max(1) * bytes_per_pixel))
            .isqrt()
            .min(LONGEST)
    }

    fn scalings(&self) -> Vec<Scaling> {
        self.channels
            .iter()
            .enumerate()
            .map(|(c, channel)| {
                let (low, high) = limits(self.tiles.iter().map(|tile| tile.planes[c].as_slice()));
                Scaling {
                    channel: channel.clone(),
                    colour: colour(channel, c, self.channels.len()),
                    low,
                    high,
                }
            })
            .collect()
    }

    /// The tiles as separate PNG files, and the scaling they share.
    pub(super) fn pictures(&self) -> Result<(Vec<Picture>, Vec<Scaling>), MontageError> {
        self.check()?;
        let scalings = self.scalings();
        let pictures = self
            .tiles
            .iter()
            .map(|tile| {
                let image = paint(tile, &scalings, self.side());
                let (width, height) = (image.width() as usize, image.height() as usize);
                let png = encode(image)?;
                Ok(Picture {
                    label: tile.label.clone(),
                    place: tile.place.clone(),
                    width,
                    height,
                    png,
                })
            })
            .collect::<Result<_, MontageError>>()?;
        Ok((pictures, scalings))
    }

    /// All tiles side by side as one PNG, `columns` in a row (at least 1), without labels.
    ///
    /// # Errors
    /// No tiles or more than twelve, tiles of differing channels, planes that do not fit their size.
    pub fn to_png(&self, columns: usize) -> Result<Vec<u8>, MontageError> {
        self.check()?;
        let scalings = self.scalings();
        let columns = columns.clamp(1, self.tiles.len());
        let images: Vec<RgbImage> = self
            .tiles
            .iter()
            .map(|tile| paint(tile, &scalings, self.side()))
            .collect();
        let cell = |side: fn(&RgbImage) -> u32| images.iter().map(side).max().unwrap_or(1) as usize + GAP;
        let (cell_width, cell_height) = (cell(RgbImage::width), cell(RgbImage::height));
        let rows = images.len().div_ceil(columns);
        let mut sheet = RgbImage::from_pixel(
            (columns * cell_width - GAP) as u32,
            (rows * cell_height - GAP) as u32,
            image::Rgb([255, 255, 255]),
        );
        for (i, image) in images.iter().enumerate() {
            let (x, y) = ((i % columns) * cell_width, (i / columns) * cell_height);
            image::imageops::replace(&mut sheet, image, x as i64, y as i64);
        }
        encode(sheet)
    }
}

/// Adds up the channels of a tile in their colours.
fn paint(tile: &Tile, scalings: &[Scaling], side: usize) -> RgbImage {
    let ((top, height), (left, width)) = (centre(tile.height, side), centre(tile.width, side));
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let at = (top + y as usize) * tile.width + left + x as usize;
        let mut sum = [0f32; 3];
        for (plane, scaling) in tile.planes.iter().zip(scalings) {
            let range = f32::from(scaling.high) - f32::from(scaling.low);
            // A constant channel is black: there is nothing to see in it.
            let level = if range > 0.0 {
                ((f32::from(plane[at]) - f32::from(scaling.low)) / range).clamp(0.0, 1.0)
            } else {
                0.0
            };
            for (sum, colour) in sum.iter_mut().zip(scaling.colour) {
                *sum += level * f32::from(colour);
            }
        }
        image::Rgb(sum.map(|value| value.min(255.0).round() as u8))
    })
}

fn encode(image: RgbImage) -> Result<Vec<u8>, MontageError> {
    let grey = image.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]);
    let mut bytes = Cursor::new(Vec::new());
    if grey {
        image::DynamicImage::ImageRgb8(image)
            .to_luma8()
            .write_to(&mut bytes, ImageFormat::Png)?;
    } else {
        image.write_to(&mut bytes, ImageFormat::Png)?;
    }
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(label: &str, width: usize, planes: &[u16]) -> Tile {
        Tile {
            label: label.to_owned(),
            place: String::new(),
            height: 2,
            width,
            planes: planes
                .iter()
                .map(|v| (0..2 * width).map(|i| v + i as u16).collect())
                .collect(),
        }
    }

    fn channels(names: &[&str]) -> Vec<Channel> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn decode(png: &[u8]) -> RgbImage {
        image::load_from_memory(png).unwrap().to_rgb8()
    }

    #[test]
    fn brightness_can_be_compared_between_tiles() {
        let montage = Montage {
            channels: channels(&["GFP"]),
            tiles: vec![tile("dim", 50, &[0]), tile("bright", 50, &[1000])],
        };
        let (pictures, scalings) = montage.pictures().unwrap();
        assert_eq!(scalings.len(), 1);
        assert!(scalings[0].low < 10 && scalings[0].high > 1000, "{scalings:?}");
        let mean = |png: &[u8]| {
            let image = decode(png);
            image.pixels().map(|p| u64::from(p.0[0])).sum::<u64>() / 100
        };
        assert!(mean(&pictures[0].png) < 30 && mean(&pictures[1].png) > 200);
    }

    #[test]
    fn channels_have_the_colours_of_the_field() {
        let montage = Montage {
            channels: channels(&["DNA", "Mito"]),
            tiles: vec![tile("t", 50, &[0, 0])],
        };
        let (pictures, _) = montage.pictures().unwrap();
        let image = decode(&pictures[0].png);
        let last = image.get_pixel(49, 1).0;
        assert_eq!(image.get_pixel(0, 0).0, [0, 0, 0]);
        // Blue and magenta add up and stay within 8 bits.
        assert_eq!(last, [255, 170, 255]);
    }

    #[test]
    fn a_sheet_holds_all_tiles_with_gaps() {
        let tiles = vec![tile("a", 4, &[0]), tile("b", 4, &[3]), tile("c", 4, &[9])];
        let montage = Montage {
            channels: channels(&["GFP"]),
            tiles,
        };
        let sheet = decode(&montage.to_png(2).unwrap());
        assert_eq!(sheet.dimensions(), (4 + 6 + 4, 2 + 6 + 2));
        assert_eq!(montage.to_png(2).unwrap(), montage.to_png(2).unwrap());
    }

    #[test]
    fn large_crops_are_cut_to_their_centre() {
        let montage = Montage {
            channels: channels(&["GFP"]),
            tiles: vec![tile("wide", 1000, &[0])],
        };
        let (pictures, _) = montage.pictures().unwrap();
        assert_eq!((pictures[0].width, pictures[0].height), (LONGEST, 2));
    }

    #[test]
    fn tiles_that_do_not_fit_are_named() {
        let of = |tiles| {
            Montage {
                channels: channels(&["DNA", "ER"]),
                tiles,
            }
            .to_png(1)
            .unwrap_err()
            .to_string()
        };
        assert!(of(vec![]).contains("1 to 12"));
        assert!(of(vec![tile("one", 3, &[1])]).contains("'one' has 1 channels"));
        let mut short = tile("short", 3, &[1, 2]);
        short.planes[1].pop();
        assert!(of(vec![short]).contains("channel ER holds 5"));
    }

    #[test]
    fn constant_channels_are_black() {
        let mut flat = tile("flat", 2, &[7]);
        flat.planes[0] = vec![7; 4];
        let montage = Montage {
            channels: channels(&["GFP"]),
            tiles: vec![flat],
        };
        assert!(
            decode(&montage.to_png(1).unwrap())
                .pixels()
                .all(|p| p.0 == [0, 0, 0])
        );
    }
}
