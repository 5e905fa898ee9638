//! Decode: bytes become pixels.
//!
//! [`Fetched`] bytes enter, a [`Decoded`] image with one plane per channel leaves. The crate `wellspring-images` reads the
//! files, and `wellspring-zarr` the chunks of arrays, straight into the field's pixels; here z stacks become planes, and the images of a field are held to one size. What
//! fails: an unknown, damaged or forged file, colour, floats that are no grey levels, several pages of one size, images of
//! different sizes, levels above the screen's bit depth.

mod opened;

use wellspring_images::{ImageError, Limits};
use wellspring_kernels::{RawImage, sharpness};
use wellspring_workloads::screen::{ImagesSettings, ZStack};
use wellspring_zarr::ZarrError;

use self::opened::Opened;

pub use self::opened::zarr_limits;
pub use wellspring_images::Plane;

use crate::error::{FailureClass, Stage, StageError};
use crate::events::ImageRef;
use crate::fields::{Decoded, Encoded, Fetched};

/// An image of a field that cannot be used.
#[derive(Debug, thiserror::Error)]
enum FieldImageError {
    #[error("{path} (channel {channel})")]
    Undecodable {
        path: String,
        channel: String,
        source: ImageError,
    },
    #[error("plane {page} of {path} (channel {channel})")]
    Chunks {
        path: String,
        page: u32,
        channel: String,
        source: ZarrError,
    },
    #[error(
        "{path} (channel {channel}) has {pages} pages of one size, and nothing says which of them is meant; \
         export one image per file"
    )]
    Pages {
        path: String,
        channel: String,
        pages: usize,
    },
    #[error(
        "{path} (channel {channel}) is {width} x {height} pixels but the field's first image is {first_width} x \
         {first_height}; all images of a field must have one size"
    )]
    Size {
        path: String,
        channel: String,
        width: usize,
        height: usize,
        first_width: usize,
        first_height: usize,
    },
    #[error(
        "{path} (channel {channel}) holds grey level {level}, above the ceiling {ceiling} of images.bit_depth = {bits}"
    )]
    BitDepth {
        path: String,
        channel: String,
        level: u16,
        ceiling: u16,
        bits: u8,
    },
    #[error("{channels} channels of {width} x {height} pixels do not fit into memory")]
    Memory {
        channels: usize,
        width: usize,
        height: usize,
    },
}

/// A file that is found not to be readable before its pixels are asked for.
pub(crate) fn unreadable(image: &ImageRef, channel: &str, error: ImageError) -> StageError {
    let error = opened::undecodable(image, channel, error);
    StageError::input(Stage::Decode, FailureClass::BadImage, error)
}

/// The stage: every image of a field.
pub fn decode_field(fetched: Fetched) -> Result<Decoded, StageError> {
    let Fetched {
        field,
        channels,
        shading,
    } = fetched;
    let (image, stacks) = field_stacks(
        channels
            .iter()
            .zip(&field.task.images)
            .map(|(bytes, images)| (bytes, &images.planes)),
        &field.run.screen.images,
    )
    .map_err(|error| error.of(format!("an image of {}", field.run.store.uri())))?;
    Ok(Decoded {
        field,
        image,
        stacks,
        shading,
    })
}

/// One image from the encoded planes of every channel, in the screen's order.
pub fn field_image<'a>(
    channels: impl Iterator<Item = (&'a Vec<Encoded>, &'a Vec<ImageRef>)>,
    settings: &ImagesSettings,
) -> Result<RawImage, StageError> {
    Ok(field_stacks(channels, settings)?.0)
}

/// As [`field_image`], with what was taken of the z stack of each channel.
pub fn field_stacks<'a>(
    channels: impl Iterator<Item = (&'a Vec<Encoded>, &'a Vec<ImageRef>)>,
    settings: &ImagesSettings,
) -> Result<(RawImage, Vec<Stack>), StageError> {
    let channels: Vec<_> = channels.collect();
    let mut pixels = FieldPixels {
        channels: channels.len(),
        settings,
        size: None,
        ceiling: 0,
        levels: Vec::new(),
        slice: Vec::new(),
        stacks: Vec::with_capacity(channels.len()),
    };
    for (index, (bytes, images)) in channels.iter().enumerate() {
        let name = settings
            .channels
            .get(index)
            .map_or_else(|| index.to_string(), |channel| channel.name.to_string());
        pixels
            .add_channel(&name, bytes, images)
            .map_err(|error| StageError::input(Stage::Decode, FailureClass::BadImage, error))?;
    }
    let (height, width) = pixels.size.unwrap_or_default();
    let stacks = pixels.stacks;
    RawImage::new(channels.len(), height, width, pixels.levels, pixels.ceiling)
        .map(|image| (image, stacks))
        .map_err(|error| StageError::input(Stage::Decode, FailureClass::BadImage, error))
}

/// What became the plane of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Planes of its z stack; 1 where it has none.
    pub planes: u32,
    /// The number of the plane that was taken alone, as name or metadata give it, else counted from 1; `None` where there is
    /// no stack, or all of its planes were taken.
    pub taken: Option<u32>,
    /// Which of its images that is, from 0; the first where none was taken alone.
    pub index: usize,
}

impl Stack {
    fn of(images: &[ImageRef], z: ZStack, taken: usize) -> Self {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let one = z == ZStack::BestFocus && images.len() > 1;
        Self {
            planes: number(images.len()),
            taken: one.then(|| {
                let numbered = images.get(taken).and_then(|image| image.z);
                numbered.unwrap_or_else(|| number(taken + 1))
            }),
            index: if one { taken } else { 0 },
        }
    }
}

/// The pixels of a field as they come together.
struct FieldPixels<'a> {
    channels: usize,
    settings: &'a ImagesSettings,
    /// Height and width of the first image.
    size: Option<(usize, usize)>,
    ceiling: u16,
    /// Planes of the channels so far.
    levels: Vec<u16>,
    /// A slice of a z stack.
    slice: Vec<u16>,
    /// Of the channels so far.
    stacks: Vec<Stack>,
}

impl FieldPixels<'_> {
    /// Adds the plane of one channel from its slices.
    fn add_channel(
        &mut self,
        channel: &str,
        encoded: &[Encoded],
        images: &[ImageRef],
    ) -> Result<(), FieldImageError> {
        let start = self.levels.len();
        let (mut sharpest, mut taken) = (None, 0);
        for (index, (encoded, image)) in encoded.iter().zip(images).enumerate() {
            let file = Opened::of(encoded, image, channel)?;
            let (height, width) = file.size();
            self.check_size(&image.path, channel, height, width)?;
            self.set_ceiling(file.ceiling());
            if index == 0 {
                self.make_room(height, width)?;
                self.levels.resize(start + height * width, 0);
                let levels = self.levels.get_mut(start..).unwrap_or_default();
                file.read(levels, image, channel)?;
                let levels = self.levels.get(start..).unwrap_or_default();
                self.check_depth(&image.path, channel, levels)?;
                continue;
            }
            let mut slice = std::mem::take(&mut self.slice);
            slice.resize(height * width, 0);
            file.read(&mut slice, image, channel)?;
            self.check_depth(&image.path, channel, &slice)?;
            let levels = self.levels.get_mut(start..).unwrap_or_default();
            match self.settings.z {
                ZStack::Max => {
                    for (highest, level) in levels.iter_mut().zip(&slice) {
                        *highest = (*level).max(*highest);
                    }
                }
                ZStack::BestFocus => {
                    let best = *sharpest.get_or_insert_with(|| sharpness(levels, height, width));
                    let this = sharpness(&slice, height, width);
                    if this > best {
                        (sharpest, taken) = (Some(this), index);
                        levels.copy_from_slice(&slice);
                    }
                }
            }
            self.slice = slice;
        }
        self.stacks.push(Stack::of(images, self.settings.z, taken));
        Ok(())
    }

    fn check_size(
        &mut self,
        path: &str,
        channel: &str,
        height: usize,
        width: usize,
    ) -> Result<(), FieldImageError> {
        let (first_height, first_width) = *self.size.get_or_insert((height, width));
        if (height, width) == (first_height, first_width) {
            return Ok(());
        }
        Err(FieldImageError::Size {
            path: path.to_owned(),
            channel: channel.to_owned(),
            width,
            height,
            first_width,
            first_height,
        })
    }

    /// Room for all channels at once, so that none is moved.
    fn make_room(&mut self, height: usize, width: usize) -> Result<(), FieldImageError> {
        if self.levels.capacity() > 0 {
            return Ok(());
        }
        let channels = self.channels;
        let memory = |_| FieldImageError::Memory {
            channels,
            width,
            height,
        };
        let levels = channels.saturating_mul(height * width);
        self.levels.try_reserve_exact(levels).map_err(memory)
    }

    fn set_ceiling(&mut self, of_file: u16) {
        self.ceiling = self
            .settings
            .bit_depth
            .map_or(self.ceiling.max(of_file), depth_ceiling);
    }

    fn check_depth(&self, path: &str, channel: &str, levels: &[u16]) -> Result<(), FieldImageError> {
        let Some(bits) = self.settings.bit_depth else {
            return Ok(());
        };
        let ceiling = depth_ceiling(bits);
        match levels.iter().copied().max() {
            Some(level) if level > ceiling => Err(FieldImageError::BitDepth {
                path: path.to_owned(),
                channel: channel.to_owned(),
                level,
                ceiling,
                bits,
            }),
            _ => Ok(()),
        }
    }
}

/// The largest level of a detector of so many bits, 1 to 16.
fn depth_ceiling(bits: u8) -> u16 {
    u16::MAX >> 16u8.saturating_sub(bits).min(15)
}

/// Height and width of a stored plane; `None` where it cannot be read.
pub fn plane_size(encoded: &Encoded, image: &ImageRef) -> Option<[usize; 2]> {
    let (height, width) = Opened::of(encoded, image, "").ok()?.size();
    Some([height, width])
}

/// Decodes the first page of a file.
pub fn decode(bytes: &[u8]) -> Result<Plane, ImageError> {
    wellspring_images::decode(bytes, 0, &Limits::default())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tiff::encoder::{TiffEncoder, colortype};

    use super::*;

    const SIZE: usize = 16;

    /// A TIFF of these pages.
    fn tiff(pages: &[&[u16]]) -> Encoded {
        let mut file = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut file).unwrap();
        for pixels in pages {
            let height = (pixels.len() / SIZE) as u32;
            encoder
                .write_image::<colortype::Gray16>(SIZE as u32, height, pixels)
                .unwrap();
        }
        Encoded::File(file.into_inner().into())
    }

    fn stacks(
        channels: &[Vec<Encoded>],
        settings: &ImagesSettings,
    ) -> Result<(RawImage, Vec<Stack>), StageError> {
        let names = |channel: &Vec<Encoded>| {
            let names = (0..channel.len()).map(|plane| ImageRef {
                path: format!("z{plane}.tif"),
                bytes: 1,
                page: None,
                z: Some(10 + plane as u32),
                version: None,
            });
            names.collect::<Vec<_>>()
        };
        let names: Vec<_> = channels.iter().map(names).collect();
        field_stacks(channels.iter().zip(&names), settings)
    }

    fn image(channels: &[Vec<Encoded>], settings: &ImagesSettings) -> Result<RawImage, StageError> {
        Ok(stacks(channels, settings)?.0)
    }

    fn error(channels: &[Vec<Encoded>], settings: &ImagesSettings) -> String {
        let error = anyhow::Error::new(image(channels, settings).unwrap_err());
        format!("{error:#}")
    }

    fn flat(level: u16) -> Vec<u16> {
        vec![level; SIZE * SIZE]
    }

    /// A chessboard of contrast `contrast`, which is sharp.
    fn chequered(contrast: u16) -> Vec<u16> {
        (0..SIZE * SIZE)
            .map(|i| {
                if (i + i / SIZE).is_multiple_of(2) {
                    100
                } else {
                    100 + contrast
                }
            })
            .collect()
    }

    #[test]
    fn a_stack_becomes_its_brightest_pixels_or_its_sharpest_slice() {
        let stack = || {
            vec![
                tiff(&[&flat(150)]),
                tiff(&[&chequered(80)]),
                tiff(&[&chequered(20)]),
            ]
        };
        let channels = [stack(), vec![tiff(&[&flat(7)])]];
        let mut settings = ImagesSettings::default();
        let highest = image(&channels, &settings).unwrap();
        let expected: Vec<u16> = chequered(80).into_iter().map(|level| level.max(150)).collect();
        assert_eq!(highest.plane(0), expected);
        assert_eq!(highest.plane(1), flat(7));
        let (_, taken) = stacks(&channels, &settings).unwrap();
        let stack = |planes, taken: Option<u32>| Stack {
            planes,
            taken,
            index: taken.map_or(0, |number| number as usize - 10),
        };
        assert_eq!(taken, [stack(3, None), stack(1, None)]);

        settings.z = ZStack::BestFocus;
        let sharpest = image(&channels, &settings).unwrap();
        assert_eq!(sharpest.plane(0), chequered(80));
        assert_eq!(sharpest.plane(1), flat(7));
        // By the number that its name has.
        let (_, taken) = stacks(&channels, &settings).unwrap();
        assert_eq!(taken, [stack(3, Some(11)), stack(1, None)]);
        // Of equals the first.
        let equals = [vec![tiff(&[&flat(3)]), tiff(&[&flat(9)])]];
        assert_eq!(image(&equals, &settings).unwrap().plane(0), flat(3));
    }

    #[test]
    fn the_ceiling_is_that_of_the_files_or_of_the_screen() {
        let mut settings = ImagesSettings::default();
        let mut png = Cursor::new(Vec::new());
        image::GrayImage::from_raw(16, 16, vec![9; 256])
            .unwrap()
            .write_to(&mut png, image::ImageFormat::Png)
            .unwrap();
        let png = Encoded::File(png.into_inner().into());
        assert_eq!(image(&[vec![png.clone()]], &settings).unwrap().ceiling(), 255);
        let both = [vec![png], vec![tiff(&[&flat(5000)])]];
        assert_eq!(image(&both, &settings).unwrap().ceiling(), 65535);
        settings.bit_depth = Some(14);
        assert_eq!(image(&both, &settings).unwrap().ceiling(), 16383);
        settings.bit_depth = Some(12);
        assert!(error(&both, &settings).contains("grey level 5000, above the ceiling 4095"));
    }

    #[test]
    fn what_cannot_be_used_names_file_and_channel() {
        let settings = ImagesSettings::default();
        let Encoded::File(whole) = tiff(&[&flat(1)]) else {
            panic!("a TIFF is a file");
        };
        let cut = Encoded::File(whole.slice(..100));
        let text = error(
            &[vec![tiff(&[&flat(1)])], vec![tiff(&[&flat(1)]), cut]],
            &settings,
        );
        assert!(
            text.contains("z1.tif (channel 1)") && text.contains("truncated"),
            "{text}"
        );
        let text = error(
            &[vec![tiff(&[&flat(1)])], vec![tiff(&[&flat(1)[..SIZE]])]],
            &settings,
        );
        assert!(
            text.contains("16 x 1 pixels but the field's first image is 16 x 16"),
            "{text}"
        );
    }

    #[test]
    fn of_several_pages_none_is_taken_in_silence_but_thumbnails_do_not_count() {
        let settings = ImagesSettings::default();
        let text = error(&[vec![tiff(&[&flat(1), &flat(2), &flat(3)])]], &settings);
        assert!(
            text.contains("z0.tif (channel 0) has 3 pages of one size"),
            "{text}"
        );
        let with_thumbnail = tiff(&[&flat(1), &flat(2)[..SIZE]]);
        assert_eq!(
            image(&[vec![with_thumbnail]], &settings).unwrap().plane(0),
            flat(1)
        );
    }
}
