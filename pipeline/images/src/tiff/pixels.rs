//! The pixels of a region: strips and tiles are decoded in parallel, straight to where they belong.
//!
//! A strip that is wholly inside the region is decoded into the caller's buffer and turned into pixels there. What is cut, or
//! of another width than the buffer's pixels, goes through a buffer of one strip or tile.

use rayon::prelude::*;

use crate::codec::{Compression, Decoders};
use crate::error::{ChunkKind, CodecError, ImageError};
use crate::predictor::{self, Predictor};
use crate::region::Region;
use crate::source::Source;

use super::page::{Needed, Page, Sample};

/// Decoded bytes that are worth handing to another thread.
const TASK_BYTES: u64 = 256 << 10;

/// Where the pixels of one strip or tile go.
enum Target<'a, T> {
    /// All of it, rows one after the other.
    Whole(&'a mut [T]),
    /// The part of the rows from `top` on that begins at column `left`.
    Part {
        top: usize,
        left: usize,
        rows: Vec<&'a mut [T]>,
    },
}

struct Job<'a, T> {
    chunk: Needed,
    target: Target<'a, T>,
}

/// A pixel in memory that some pixels of files already are.
trait Pixel: bytemuck::Pod + Send + Sync {
    /// The other byte order becomes this machine's.
    fn swap(row: &mut [Self]);
    /// Differences become pixels.
    fn undo(predictor: Predictor, row: &mut [Self], planes: &mut Vec<u8>);
    /// White that is 0 becomes the largest level.
    fn invert(pixels: &mut [Self]);
}

impl Pixel for u16 {
    fn swap(row: &mut [Self]) {
        for pixel in row {
            *pixel = pixel.swap_bytes();
        }
    }

    fn undo(predictor: Predictor, row: &mut [Self], _planes: &mut Vec<u8>) {
        if predictor == Predictor::Horizontal {
            predictor::sum_u16(row);
        }
    }

    fn invert(pixels: &mut [Self]) {
        for pixel in pixels {
            *pixel = !*pixel;
        }
    }
}

impl Pixel for f32 {
    fn swap(row: &mut [Self]) {
        for bits in bytemuck::cast_slice_mut::<_, u32>(row) {
            *bits = bits.swap_bytes();
        }
    }

    fn undo(predictor: Predictor, row: &mut [Self], planes: &mut Vec<u8>) {
        match predictor {
            Predictor::None => {}
            Predictor::Horizontal => predictor::sum_u32(bytemuck::cast_slice_mut(row)),
            Predictor::Float => predictor::float_row(bytemuck::cast_slice_mut(row), planes),
        }
    }

    fn invert(_pixels: &mut [Self]) {}
}

/// What one thread uses again for every strip.
struct Workspace<T> {
    decoders: Decoders,
    pixels: Vec<T>,
    bytes: Vec<u8>,
    planes: Vec<u8>,
}

impl<T> Default for Workspace<T> {
    fn default() -> Self {
        Self {
            decoders: Decoders::default(),
            pixels: Vec::new(),
            bytes: Vec::new(),
            planes: Vec::new(),
        }
    }
}

impl Page {
    /// Fills `out` with the grey levels of a region, row by row.
    ///
    /// # Errors
    /// A region that is not in the page, a buffer of another size, damaged strips or tiles (the first of them), float pixels
    /// that are not all whole numbers from 0 to 65535.
    pub fn read_levels<S: Source + ?Sized>(
        &self,
        source: &S,
        region: &Region,
        out: &mut [u16],
    ) -> Result<(), ImageError> {
        match self.sample {
            Sample::U16 => self.read(source, region, out, |page, workspace, input, chunk, target| {
                page.same_width(workspace, input, chunk, target)
            }),
            Sample::U8 | Sample::U12 => {
                self.read(source, region, out, |page, workspace, input, chunk, target| {
                    page.widened(workspace, input, chunk, target)
                })
            }
            Sample::F32 => {
                let mut floats = vec![0.0; out.len()];
                self.read_floats(source, region, &mut floats)?;
                levels(self.index(), region, &floats, out)
            }
        }
    }

    /// Fills `out` with the float pixels of a region, row by row.
    ///
    /// # Errors
    /// A page of whole numbers; else as [`Page::read_levels`].
    pub fn read_floats<S: Source + ?Sized>(
        &self,
        source: &S,
        region: &Region,
        out: &mut [f32],
    ) -> Result<(), ImageError> {
        if self.sample != Sample::F32 {
            return Err(ImageError::SampleType {
                page: self.index(),
                found: self.sample.word(),
                wanted: Sample::F32.word(),
            });
        }
        self.read(source, region, out, |page, workspace, input, chunk, target| {
            page.same_width(workspace, input, chunk, target)
        })
    }

    /// Decodes what the region needs, with `decode` for each strip or tile.
    fn read<S: Source + ?Sized, T: Pixel>(
        &self,
        source: &S,
        region: &Region,
        out: &mut [T],
        decode: impl Fn(&Self, &mut Workspace<T>, &[u8], Needed, Target<'_, T>) -> Result<(), CodecError> + Sync,
    ) -> Result<(), ImageError> {
        let needed = self.needed(region)?;
        if out.len() != region.pixels() {
            return Err(ImageError::Buffer {
                found: out.len(),
                expected: region.pixels(),
            });
        }
        let one = |workspace: &mut Workspace<T>, job: Job<'_, T>| {
            let index = job.chunk.index;
            let range = self.chunks.get(index).cloned().unwrap_or_default();
            let input = source.bytes(range.clone(), "a strip or tile")?;
            decode(self, workspace, input, job.chunk, job.target).map_err(|source| ImageError::Chunk {
                page: self.index(),
                kind: self.kind,
                index,
                offset: range.start,
                source,
            })
        };
        let jobs = self.jobs(&needed, region, out);
        let size = self.chunk_bytes(self.chunk_height).max(1);
        let (together, all) = (TASK_BYTES.div_ceil(size) as usize, jobs.len());
        if all <= together {
            let mut workspace = Workspace::default();
            return jobs.into_iter().try_for_each(|job| one(&mut workspace, job));
        }
        // All are decoded whatever fails, so that the error is always that of the first.
        let done: Vec<Result<(), ImageError>> = jobs
            .into_par_iter()
            .with_min_len(together)
            .map_init(Workspace::default, one)
            .collect();
        done.into_iter().collect()
    }

    /// Cuts the buffer into what each strip or tile fills.
    fn jobs<'a, T>(&self, needed: &[Needed], region: &Region, out: &'a mut [T]) -> Vec<Job<'a, T>> {
        let (width, left) = (region.width(), region.columns.start);
        let full_width = self.kind == ChunkKind::Strip && width == self.width as usize;
        let mut jobs = Vec::with_capacity(needed.len());
        let mut rest = out;
        // The strips or tiles beside one another share rows of the buffer.
        for row in needed.chunk_by(|a, b| a.top == b.top) {
            let Some(first) = row.first() else { continue };
            let stored = self.chunk_rows(first.top / self.chunk_height);
            let top = region.rows.start.max(first.top);
            let bottom = region.rows.end.min(first.top.saturating_add(stored));
            let rows = bottom.saturating_sub(top) as usize;
            let (band, after) = std::mem::take(&mut rest).split_at_mut(rows * width);
            rest = after;
            if full_width && rows == stored as usize {
                jobs.push(Job {
                    chunk: *first,
                    target: Target::Whole(band),
                });
                continue;
            }
            let skipped = (top - first.top) as usize;
            let mut parts: Vec<Vec<&'a mut [T]>> = row.iter().map(|_| Vec::with_capacity(rows)).collect();
            for mut line in band.chunks_exact_mut(width) {
                for (part, chunk) in parts.iter_mut().zip(row) {
                    let from = left.max(chunk.left);
                    let to = region
                        .columns
                        .end
                        .min(chunk.left.saturating_add(self.chunk_width));
                    let (piece, after) = line.split_at_mut(to.saturating_sub(from) as usize);
                    part.push(piece);
                    line = after;
                }
            }
            jobs.extend(row.iter().zip(parts).map(|(chunk, rows)| Job {
                chunk: *chunk,
                target: Target::Part {
                    top: skipped,
                    left: left.saturating_sub(chunk.left) as usize,
                    rows,
                },
            }));
        }
        jobs
    }

    /// A strip or tile whose pixels are as wide in the file as in memory.
    fn same_width<T: Pixel>(
        &self,
        workspace: &mut Workspace<T>,
        input: &[u8],
        chunk: Needed,
        target: Target<'_, T>,
    ) -> Result<(), CodecError> {
        let stored = self.chunk_rows(chunk.top / self.chunk_height) as usize;
        let width = self.chunk_width as usize;
        match target {
            Target::Whole(out) => self.pixels_in_place(workspace, input, out),
            Target::Part { top, left, rows } => {
                let mut pixels = std::mem::take(&mut workspace.pixels);
                pixels.resize(stored * width, T::zeroed());
                let done = self.pixels_in_place(workspace, input, &mut pixels);
                for (row, pixels) in rows.into_iter().zip(pixels.chunks_exact(width).skip(top)) {
                    if let Some(part) = pixels.get(left..left + row.len()) {
                        row.copy_from_slice(part);
                    }
                }
                workspace.pixels = pixels;
                done
            }
        }
    }

    /// Decodes a whole strip or tile into `out`.
    fn pixels_in_place<T: Pixel>(
        &self,
        workspace: &mut Workspace<T>,
        input: &[u8],
        out: &mut [T],
    ) -> Result<(), CodecError> {
        let padded = self.chunk_bytes(self.chunk_height) as usize;
        let bytes = bytemuck::cast_slice_mut(out);
        workspace
            .decoders
            .decode(self.compression, input, bytes, padded)?;
        // Bytes of floats in planes have no order of the file's.
        if self.order.is_foreign() && self.predictor != Predictor::Float {
            T::swap(out);
        }
        if self.predictor != Predictor::None {
            for row in out.chunks_exact_mut(self.chunk_width as usize) {
                T::undo(self.predictor, row, &mut workspace.planes);
            }
        }
        if self.white_is_zero {
            T::invert(out);
        }
        Ok(())
    }

    /// A strip or tile of 8-bit or 12-bit pixels.
    fn widened(
        &self,
        workspace: &mut Workspace<u16>,
        input: &[u8],
        chunk: Needed,
        target: Target<'_, u16>,
    ) -> Result<(), CodecError> {
        let stored = self.chunk_rows(chunk.top / self.chunk_height);
        let padded = self.chunk_bytes(self.chunk_height) as usize;
        let (row_bytes, size) = (self.row_bytes() as usize, self.chunk_bytes(stored) as usize);
        let Workspace { decoders, bytes, .. } = workspace;
        let decoded = if self.compression == Compression::None {
            let short = CodecError::Short {
                written: input.len(),
                expected: size,
            };
            input.get(..size).ok_or(short)?
        } else {
            bytes.resize(size, 0);
            decoders.decode(self.compression, input, bytes, padded)?;
            if self.predictor == Predictor::Horizontal {
                bytes.chunks_exact_mut(row_bytes).for_each(predictor::sum_u8);
            }
            bytes.as_slice()
        };
        let lines = decoded.chunks_exact(row_bytes);
        match target {
            Target::Whole(out) => {
                for (row, line) in out.chunks_exact_mut(self.chunk_width as usize).zip(lines) {
                    self.widen(line, 0, row);
                }
            }
            Target::Part { top, left, rows } => {
                for (row, line) in rows.into_iter().zip(lines.skip(top)) {
                    self.widen(line, left, row);
                }
            }
        }
        Ok(())
    }

    /// Pixels `left` and those after it of a row of bytes.
    fn widen(&self, line: &[u8], left: usize, row: &mut [u16]) {
        if self.sample == Sample::U8 {
            let flip = if self.white_is_zero { 0xff } else { 0 };
            for (level, byte) in row.iter_mut().zip(line.iter().skip(left)) {
                *level = u16::from(byte ^ flip);
            }
            return;
        }
        let flip = if self.white_is_zero { 0xfff } else { 0 };
        let byte = |at: usize| u16::from(line.get(at).copied().unwrap_or(0));
        for (level, pixel) in row.iter_mut().zip(left..) {
            let at = pixel / 2 * 3;
            *level = flip
                ^ if pixel % 2 == 0 {
                    byte(at) << 4 | byte(at + 1) >> 4
                } else {
                    (byte(at + 1) & 0xf) << 8 | byte(at + 2)
                };
        }
    }
}

/// Floats that are grey levels become them; any other is an error that says what there is.
fn levels(page: usize, region: &Region, floats: &[f32], out: &mut [u16]) -> Result<(), ImageError> {
    let mut lossless = true;
    for (level, float) in out.iter_mut().zip(floats) {
        // Saturates, and makes NaN 0.
        *level = *float as u16;
        lossless &= f32::from(*level) == *float;
    }
    if lossless {
        return Ok(());
    }
    let first = out
        .iter()
        .zip(floats)
        .position(|(level, float)| f32::from(*level) != *float);
    let first = first.unwrap_or(0);
    Err(ImageError::Float {
        page,
        low: floats.iter().copied().fold(f32::NAN, f32::min),
        high: floats.iter().copied().fold(f32::NAN, f32::max),
        value: floats.get(first).copied().unwrap_or(f32::NAN),
        row: region.rows.start as usize + first / region.width().max(1),
        column: region.columns.start as usize + first % region.width().max(1),
    })
}
