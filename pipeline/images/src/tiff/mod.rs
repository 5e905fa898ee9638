//! TIFF and BigTIFF: the chain of pages, one page's directory, and the pixels of a page or a part of it.
//!
//! Directories are read here and not by the crate `tiff`: that one reads from a stream, decodes whole strips with decoders of
//! its own and tells nobody where their bytes are. A reader that fetches only what a region needs, refuses overlaps, loops
//! and bombs, takes palette indices for grey levels and decodes strips in parallel needs the tables themselves.

mod directory;
mod page;
mod pixels;

use std::collections::BTreeSet;

use crate::error::ImageError;
use crate::limits::Limits;
use crate::source::Source;

use directory::{Directory, Order};
pub use page::{Page, Sample};

/// A TIFF or BigTIFF file whose header has been read.
#[derive(Debug)]
pub struct Tiff<'a, S: Source + ?Sized> {
    source: &'a S,
    limits: Limits,
    order: Order,
    big: bool,
    first: u64,
}

impl<'a, S: Source + ?Sized> Tiff<'a, S> {
    /// Reads the header: byte order, kind, and where the first page's directory is.
    ///
    /// # Errors
    /// [`ImageError::Empty`], [`ImageError::Format`], [`ImageError::Truncated`], [`ImageError::OffsetSize`], and
    /// [`ImageError::NotFetched`] of a source that lacks bytes, as everywhere below.
    pub fn open(source: &'a S, limits: Limits) -> Result<Self, ImageError> {
        if source.length() == 0 {
            return Err(ImageError::Empty);
        }
        let start = source.bytes(0..8, "the TIFF header")?;
        let (order, big) = match start {
            [b'I', b'I', 42, 0, ..] => (Order::Little, false),
            [b'M', b'M', 0, 42, ..] => (Order::Big, false),
            [b'I', b'I', 43, 0, ..] => (Order::Little, true),
            [b'M', b'M', 0, 43, ..] => (Order::Big, true),
            _ => {
                return Err(ImageError::Format {
                    start: start.to_vec(),
                });
            }
        };
        let first = if big {
            let header = source.bytes(0..16, "the BigTIFF header")?;
            let bytes = order.u16(header, 4);
            if bytes != 8 {
                return Err(ImageError::OffsetSize { bytes });
            }
            order.u64(header, 8)
        } else {
            u64::from(order.u32(start, 4))
        };
        Ok(Self {
            source,
            limits,
            order,
            big,
            first,
        })
    }

    /// How many pages the file has, 1 or more; thumbnails and the levels of pyramids in the chain count.
    ///
    /// # Errors
    /// A chain that is a loop, leaves the file, is empty or longer than [`Limits::pages`].
    pub fn pages(&self) -> Result<usize, ImageError> {
        let mut pages = 0;
        self.walk(|_, _| {
            pages += 1;
            false
        })?;
        if pages == 0 {
            return Err(ImageError::NoPage { page: 0, pages });
        }
        Ok(pages)
    }

    /// The description of page `page`, counted from 0. Only the directories up to it are read.
    ///
    /// # Errors
    /// No such page; tags that are absent, contradict one another, exceed the limits or describe pixels that are not grey;
    /// strips or tiles that share bytes or are outside the file.
    pub fn page(&self, page: usize) -> Result<Page, ImageError> {
        let directory = self.directory_of(page)?;
        Page::describe(&directory, self.source.length(), &self.limits)
    }

    /// Text of a page as it is in the file, such as OME-XML: `ImageDescription` (270). Bytes that are not UTF-8 become
    /// U+FFFD. `None` where there is none.
    ///
    /// # Errors
    /// No such page, or text outside the file.
    pub fn description(&self, page: usize) -> Result<Option<String>, ImageError> {
        self.directory_of(page)?.text(directory::DESCRIPTION)
    }

    /// The directory of page `page`; only those up to it are read.
    fn directory_of(&self, page: usize) -> Result<Directory<'a, S>, ImageError> {
        let (mut found, mut pages) = (None, 0);
        self.walk(|index, offset| {
            pages = index + 1;
            if index == page {
                found = Some(offset);
            }
            index == page
        })?;
        let offset = found.ok_or(ImageError::NoPage { page, pages })?;
        self.directory(offset, page)
    }

    fn directory(&self, offset: u64, page: usize) -> Result<Directory<'a, S>, ImageError> {
        Directory::read(self.source, self.order, self.big, offset, page)
    }

    /// Goes along the chain of directories until `done` says so.
    fn walk(&self, mut done: impl FnMut(usize, u64) -> bool) -> Result<(), ImageError> {
        let mut offset = self.first;
        let mut seen = BTreeSet::new();
        for page in 0.. {
            if offset == 0 {
                return Ok(());
            }
            if page >= self.limits.pages {
                return Err(ImageError::Pages {
                    limit: self.limits.pages,
                });
            }
            if !seen.insert(offset) {
                return Err(ImageError::Loop { page, offset });
            }
            if done(page, offset) {
                return Ok(());
            }
            offset = self.directory(offset, page)?.next()?;
        }
        Ok(())
    }
}
