//! Why bytes are not an image.

use std::fmt;
use std::ops::Range;

/// What a TIFF page is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// Whole rows.
    Strip,
    /// Rectangles.
    Tile,
}

impl fmt::Display for ChunkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Strip => "strip",
            Self::Tile => "tile",
        })
    }
}

/// Why bytes are not an image, or not one that is read. Pages, strips and tiles count from 0.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing in the file.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// None of the formats that are read.
    #[error(
        "the file is neither TIFF nor PNG nor JPEG 2000: it starts with {} (hexadecimal)",
        start.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    )]
    Format {
        /// The first bytes.
        start: Vec<u8>,
    },
    /// The file ends before something it announces.
    #[error(
        "{what} should be in bytes {start} to {end}, but the file has {length} bytes; it may be truncated"
    )]
    Truncated {
        /// What should be there.
        what: &'static str,
        /// Its first byte.
        start: u64,
        /// One past its last byte.
        end: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// A [`crate::Sparse`] file lacks these bytes: fetch them and try again.
    #[error("bytes {start} to {end} of the file have not been fetched")]
    NotFetched {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// The BigTIFF header has offsets of another size than 8 bytes.
    #[error("the BigTIFF header announces offsets of {bytes} bytes; they must have 8")]
    OffsetSize {
        /// Bytes of an offset.
        bytes: u16,
    },
    /// The chain of directories comes back to itself.
    #[error(
        "the directory of page {page}, at byte {offset}, is that of an earlier page: the pages form a loop"
    )]
    Loop {
        /// The page.
        page: usize,
        /// Where its directory would be.
        offset: u64,
    },
    /// More pages than are read.
    #[error("the file has more than {limit} pages")]
    Pages {
        /// Pages read at most.
        limit: usize,
    },
    /// There is no such page.
    #[error("page {page} is asked for, but the file has {pages}")]
    NoPage {
        /// The page asked for.
        page: usize,
        /// Pages of the file.
        pages: usize,
    },
    /// A directory lacks a tag.
    #[error("page {page} has no tag {tag}")]
    NoTag {
        /// The page.
        page: usize,
        /// The tag's name.
        tag: &'static str,
    },
    /// A tag has another type than the numbers it should hold.
    #[error("tag {tag} of page {page} has type {found}, which holds no whole numbers")]
    TagType {
        /// The page.
        page: usize,
        /// The tag's name.
        tag: &'static str,
        /// The type found.
        found: u16,
    },
    /// A tag has another number of values than it should.
    #[error("tag {tag} of page {page} has {found} values, but {expected} are needed")]
    TagCount {
        /// The page.
        page: usize,
        /// The tag's name.
        tag: &'static str,
        /// Values found.
        found: u64,
        /// Values needed.
        expected: u64,
    },
    /// A tag's value is of no use.
    #[error("tag {tag} of page {page} is {found}; read are: {expected}")]
    TagValue {
        /// The page.
        page: usize,
        /// The tag's name.
        tag: &'static str,
        /// The value found.
        found: u64,
        /// What is read.
        expected: &'static str,
    },
    /// Colour, signed or other pixels.
    #[error(
        "pixels of page {page} are {found}, but greyscale of 8, 12 or 16 bit or 32-bit float is needed; export the raw channel"
    )]
    Pixels {
        /// The page.
        page: usize,
        /// What the file holds.
        found: String,
    },
    /// Too large or without extent.
    #[error(
        "page {page} is {width} x {height} pixels, in {kind}s of {chunk_width} x {chunk_height}; between 1 and {limit} pixels are read"
    )]
    Size {
        /// The page.
        page: usize,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// What the page is cut into.
        kind: ChunkKind,
        /// Width of a strip or tile.
        chunk_width: u32,
        /// Height of a strip or tile.
        chunk_height: u32,
        /// Pixels read at most.
        limit: u64,
    },
    /// The file announces far more pixels than its bytes could reasonably hold.
    #[error(
        "page {page} would become {decoded} bytes from {encoded}; at most {limit} are read from so few (a decompression bomb?)"
    )]
    Bomb {
        /// The page.
        page: usize,
        /// Bytes of the file it is made from.
        encoded: u64,
        /// Bytes it would become.
        decoded: u64,
        /// The most it may become.
        limit: u64,
    },
    /// Two strips or tiles share bytes of the file.
    #[error("{kind}s {first} and {second} of page {page} share bytes of the file from byte {offset} on")]
    Overlap {
        /// The page.
        page: usize,
        /// What the page is cut into.
        kind: ChunkKind,
        /// The one that begins earlier.
        first: usize,
        /// The other one.
        second: usize,
        /// Where the other one begins.
        offset: u64,
    },
    /// A strip or tile is outside the file.
    #[error(
        "{kind} {index} of page {page} should be in bytes {start} to {end}, but the file has {length} bytes; it may be truncated"
    )]
    Outside {
        /// The page.
        page: usize,
        /// What the page is cut into.
        kind: ChunkKind,
        /// Which one.
        index: usize,
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// A strip or tile is announced without bytes.
    #[error("{kind} {index} of page {page} has no bytes in the file")]
    Blank {
        /// The page.
        page: usize,
        /// What the page is cut into.
        kind: ChunkKind,
        /// Which one.
        index: usize,
    },
    /// A strip or tile is damaged.
    #[error("{kind} {index} of page {page}, from byte {offset} on, cannot be decoded")]
    Chunk {
        /// The page.
        page: usize,
        /// What the page is cut into.
        kind: ChunkKind,
        /// Which one.
        index: usize,
        /// Its first byte in the file.
        offset: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The region is not in the page.
    #[error(
        "rows {rows:?} and columns {columns:?} are asked for, but page {page} has {height} rows and {width} columns"
    )]
    Region {
        /// The page.
        page: usize,
        /// Rows asked for.
        rows: Range<u32>,
        /// Columns asked for.
        columns: Range<u32>,
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
    },
    /// The buffer for the pixels has another size than the region.
    #[error("the buffer has room for {found} pixels, but the region has {expected}")]
    Buffer {
        /// Pixels that fit.
        found: usize,
        /// Pixels of the region.
        expected: usize,
    },
    /// Pixels were asked for as another type than they can be read as.
    #[error("page {page} holds {found} and cannot be read as {wanted}")]
    SampleType {
        /// The page.
        page: usize,
        /// The pixel type of the page.
        found: &'static str,
        /// The pixel type asked for.
        wanted: &'static str,
    },
    /// Float pixels that are not grey levels.
    #[error(
        "page {page} has float pixels from {low} to {high}, which are not all whole numbers from 0 to 65535 (the first \
         that is not: {value}, in row {row}, column {column}); rounding them would lose what they say: export raw counts as 16 bit"
    )]
    Float {
        /// The page.
        page: usize,
        /// The lowest value; NaN only if there is no number.
        low: f32,
        /// The highest value.
        high: f32,
        /// The first value that is no grey level.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// The PNG is damaged or of a kind not read.
    #[error("the PNG cannot be decoded; it may be truncated")]
    Png {
        /// What is wrong with it.
        #[from]
        source: png::DecodingError,
    },
    /// The JPEG 2000 file is damaged or of a kind not read.
    #[error("the JPEG 2000 file cannot be decoded; it may be truncated")]
    Jpeg2000 {
        /// What is wrong with it.
        #[from]
        source: hayro_jpeg2000::DecodeError,
    },
}

/// Why a strip or tile cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It holds fewer bytes than its pixels need.
    #[error("its bytes end after {written} of {expected} bytes of pixels")]
    Short {
        /// Bytes of pixels found.
        written: usize,
        /// Bytes of pixels needed.
        expected: usize,
    },
    /// It holds more bytes than its pixels need.
    #[error("it holds more than the {expected} bytes of its pixels")]
    Long {
        /// Bytes of pixels needed.
        expected: usize,
    },
    /// An LZW code that has no meaning yet.
    #[error("LZW code {code} comes before it has a meaning (after {written} bytes of pixels)")]
    LzwCode {
        /// The code.
        code: usize,
        /// Bytes of pixels before it.
        written: usize,
    },
    /// LZW with the bits the other way round, as some programs wrote it before 1992.
    #[error(
        "it is LZW of the kind before TIFF 5.0, with reversed bits, which is not read; save the file anew"
    )]
    LzwReversed,
    /// Deflate data that are damaged.
    #[error("its Deflate data are damaged")]
    Deflate,
    /// ZSTD data that are damaged.
    #[error("its ZSTD data are damaged: {reason}")]
    Zstd {
        /// The library's word.
        reason: &'static str,
    },
}
