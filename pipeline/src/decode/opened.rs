//! A stored plane, of a file or of a Zarr array, that is opened: its size is known, and its pixels are read next.
//!
//! Bytes or chunks enter, grey levels leave. What fails: what the crates for files and arrays find wrong, and files with
//! several images of which none is meant.

use wellspring_images::{Image, ImageError, Limits, pages_alike};

use super::FieldImageError;
use crate::events::ImageRef;
use crate::fields::Encoded;
use crate::pages::PageParts;

/// A plane whose size is known and whose pixels are not read yet.
pub(super) enum Opened<'a> {
    File(Image<'a>),
    Page(&'a PageParts),
    Plane(&'a wellspring_zarr::Plane),
}

impl<'a> Opened<'a> {
    pub(super) fn of(encoded: &'a Encoded, image: &ImageRef, channel: &str) -> Result<Self, FieldImageError> {
        let bytes = match encoded {
            Encoded::File(bytes) => bytes,
            Encoded::Page(page) => return Ok(Self::Page(page)),
            Encoded::Plane(plane) => return Ok(Self::Plane(plane)),
        };
        let undecodable = |source| undecodable(image, channel, source);
        let limits = Limits::default();
        // Where metadata does not say which image of the file is meant, there must be one.
        if image.page.is_none() {
            let pages = pages_alike(bytes, &limits).map_err(undecodable)?;
            if pages > 1 {
                return Err(FieldImageError::Pages {
                    path: image.path.clone(),
                    channel: channel.to_owned(),
                    pages,
                });
            }
        }
        let page = image.page.map_or(0, |page| page as usize);
        Image::open(bytes, page, &limits)
            .map(Self::File)
            .map_err(undecodable)
    }

    /// Height and width.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            Self::File(file) => (file.height(), file.width()),
            Self::Page(page) => page.size(),
            Self::Plane(plane) => (plane.height(), plane.width()),
        }
    }

    pub(super) fn ceiling(&self) -> u16 {
        match self {
            Self::File(file) => file.ceiling(),
            Self::Page(page) => page.ceiling(),
            Self::Plane(plane) => plane.ceiling(),
        }
    }

    pub(super) fn read(
        self,
        out: &mut [u16],
        image: &ImageRef,
        channel: &str,
    ) -> Result<(), FieldImageError> {
        match self {
            Self::File(file) => file
                .read(out)
                .map_err(|source| undecodable(image, channel, source)),
            Self::Page(page) => page
                .read(out)
                .map_err(|source| undecodable(image, channel, source)),
            Self::Plane(plane) => plane.read(out).map_err(|source| FieldImageError::Chunks {
                path: image.path.clone(),
                page: image.page.unwrap_or(0),
                channel: channel.to_owned(),
                source,
            }),
        }
    }
}

pub(super) fn undecodable(image: &ImageRef, channel: &str, source: ImageError) -> FieldImageError {
    FieldImageError::Undecodable {
        path: image.path.clone(),
        channel: channel.to_owned(),
        source,
    }
}

/// What is read of Zarr arrays at most: as much as of image files.
pub fn zarr_limits() -> wellspring_zarr::Limits {
    let Limits {
        pixels,
        free_bytes,
        ratio,
        ..
    } = Limits::default();
    wellspring_zarr::Limits {
        pixels,
        free_bytes,
        ratio,
    }
}
