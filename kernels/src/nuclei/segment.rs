//! Segmentation: one channel of a field in, its nuclei out. Fails on settings outside their range, a channel the image
//! does not have, and planes of more than 2^31 pixels.
//!
//! As CellProfiler's IdentifyPrimaryObjects: subtract the background (the median of the field, since nuclei cover less
//! than half of it), smooth, find one threshold for the field, fill holes, open, part clumps by a watershed, and keep
//! what has the size of a nucleus. Every clump is parted by itself, so that no neighbour hides its centres; clumps run
//! in parallel. The result does not depend on the number of threads.

use rayon::prelude::*;

use crate::histogram::Histogram;
use crate::image::RawImage;
use crate::nuclei::components::{Components, Connectivity, Run, components, fill_holes};
use crate::nuclei::error::ObjectError;
use crate::nuclei::labels::{LabelImage, check_plane};
use crate::nuclei::settings::{DIM_CONTRAST, Declump, NucleiSettings, ThresholdMethod};
use crate::nuclei::{distance, markers, mask, smooth, threshold, watershed};
use crate::quality;

/// Largest 16-bit value, CellProfiler's scale of thresholds.
const SCALE: f64 = 65535.0;

/// CellProfiler ends Li's iteration at half a step of 16 bits.
const LI_TOLERANCE: f64 = 0.5 * SCALE / 65536.0;

/// Standard deviation that distances to the edge are smoothed by before their peaks are taken: CellProfiler's 1 pixel.
const DISTANCE_SMOOTHING: f64 = 1.0;

/// From the least diameter to the standard deviation of the smoothing of [`Declump::Intensity`]: CellProfiler's filter
/// of `2.35 d / 3.5` pixels, whose standard deviation is a 2.35th of it.
const INTENSITY_SMOOTHING: f64 = 1.0 / 3.5;

/// The nuclei of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentation {
    /// Which pixels belong to which nucleus.
    pub labels: LabelImage,
    /// What was subtracted first, in grey levels.
    pub background: f64,
    /// The threshold, 0 to 1 of the 16-bit range above the background; `None` where nothing could be told apart: an
    /// empty field or one of a single value.
    pub threshold: Option<f64>,
    /// How it was found; never [`ThresholdMethod::Auto`].
    pub method: ThresholdMethod,
    /// Contrast of the field, as in [`crate::ChannelQuality::contrast`].
    pub contrast: f64,
}

/// Finds the nuclei in channel `channel` of `image`.
///
/// ```
/// use wellspring_kernels::RawImage;
/// use wellspring_kernels::nuclei::{NucleiSettings, segment};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Two discs of 6 pixels radius.
/// let disc = |y: i32, x: i32, cx: i32| (y - 16).pow(2) + (x - cx).pow(2) <= 36;
/// let pixels = (0..32 * 64).map(|i| {
///     let (y, x) = (i / 64, i % 64);
///     300 + (i as u16 % 7) + if disc(y, x, 16) || disc(y, x, 46) { 2000 } else { 0 }
/// });
/// let image = RawImage::new(1, 32, 64, pixels.collect(), 65535)?;
/// let found = segment(&image, 0, &NucleiSettings::default())?;
/// assert_eq!(found.labels.count(), 2);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A setting outside its range, a channel the image does not have, a plane of more than 2^31 pixels.
pub fn segment(
    image: &RawImage,
    channel: usize,
    settings: &NucleiSettings,
) -> Result<Segmentation, ObjectError> {
    settings.check()?;
    check_plane("nuclei", image.height(), image.width())?;
    if channel >= image.channels() {
        return Err(ObjectError::Channel {
            part: "nuclei",
            channel,
            channels: image.channels(),
        });
    }
    let (plane, size) = (image.plane(channel), (image.height(), image.width()));
    let histogram = Histogram::of(plane);
    let contrast = quality::contrast(&histogram);
    let method = match settings.threshold {
        ThresholdMethod::Auto if contrast < DIM_CONTRAST => ThresholdMethod::RobustBackground,
        ThresholdMethod::Auto => ThresholdMethod::Li,
        method => method,
    };
    let background = match settings.subtract_background {
        true => histogram.percentile(50.0)?,
        false => 0.0,
    };
    let found = (contrast >= settings.min_contrast)
        .then(|| find(plane, size, &histogram, background, method, settings))
        .flatten();
    let (threshold, labels) = match found {
        Some((threshold, labels)) => (Some(threshold), labels),
        None => (None, LabelImage::new(size.0, size.1, vec![0; plane.len()])?),
    };
    Ok(Segmentation {
        labels: if settings.exclude_border {
            labels.without_border()
        } else {
            labels
        },
        background,
        threshold,
        method,
        contrast,
    })
}

/// The threshold and the nuclei, or `None` where the field has a single value.
fn find(
    plane: &[u16],
    size: (usize, usize),
    histogram: &Histogram,
    background: f64,
    method: ThresholdMethod,
    settings: &NucleiSettings,
) -> Option<(f64, LabelImage)> {
    let (height, width) = size;
    let brightest = f64::from(histogram.entries().next_back()?.0) - background;
    if brightest <= 0.0 {
        return None;
    }
    // Values are kept as whole numbers of the finest step of which the brightest still fits 16 bits, so that thresholds
    // come from exact counts in dim fields too.
    let steps = (SCALE / brightest).log2().floor().exp2();
    let (offset, gain) = (background as f32, steps as f32);
    let read = |y: usize, line: &mut [f32]| {
        for (v, &p) in line.iter_mut().zip(&plane[y * width..(y + 1) * width]) {
            *v = (f32::from(p) - offset).max(0.0);
        }
    };
    let quantise = |from: &[f32], to: &mut [u16]| {
        for (to, v) in to.iter_mut().zip(from) {
            // Through a signed integer, whose conversion vectorises; the value lies in 0..=65535 before rounding.
            *to = ((v * gain + 0.5) as i32).min(i32::from(u16::MAX)) as u16;
        }
    };
    let half = match settings.smoothing {
        0.0 => vec![1.0],
        sigma => smooth::half_gaussian(sigma),
    };
    let mut pixels = vec![0u16; plane.len()];
    smooth::gaussian(size, &half, read, quantise, &mut pixels);

    let counts = Histogram::of(&pixels);
    let raw = match method {
        ThresholdMethod::Otsu => threshold::otsu(&counts),
        ThresholdMethod::RobustBackground => threshold::robust_background(&counts),
        ThresholdMethod::Auto | ThresholdMethod::Li => threshold::li(&counts, LI_TOLERANCE * steps),
    }?;
    let limit = (raw / steps / SCALE * settings.correction).clamp(settings.lower_bound, settings.upper_bound);
    let mut foreground = mask::above(&pixels, limit * SCALE * steps);
    if settings.fill_holes {
        fill_holes(&mut foreground, width);
    }
    let foreground = mask::open(&foreground, height, width);
    let clumps = components(&foreground, width, 1, Connectivity::Eight);
    let hills = match settings.declump {
        Declump::Intensity => {
            let half = smooth::half_gaussian(settings.min_diameter * INTENSITY_SMOOTHING);
            let mut hills = vec![0.0f32; plane.len()];
            let copy = |from: &[f32], to: &mut [f32]| to.copy_from_slice(from);
            smooth::gaussian(size, &half, read, copy, &mut hills);
            Some(hills)
        }
        Declump::Shape | Declump::None => None,
    };
    let labels = number(
        part(&clumps, size, hills.as_deref(), settings),
        &clumps,
        size,
        settings,
    );
    Some((limit, labels?))
}

/// A clump and the nuclei in it.
struct Parted {
    /// Numbers of its runs.
    runs: std::ops::Range<usize>,
    /// Nucleus of each pixel, run after run, from 1; empty if the clump is one nucleus.
    nuclei: Vec<u32>,
    /// First pixel and area of each nucleus.
    pieces: Vec<(usize, usize)>,
}

/// The runs of every clump, clump after clump.
struct Clumps {
    order: Vec<u32>,
    parted: Vec<Parted>,
}

/// Parts every clump into nuclei.
fn part(all: &Components, size: (usize, usize), hills: Option<&[f32]>, settings: &NucleiSettings) -> Clumps {
    let (order, offsets) = all.grouped();
    let half = smooth::half_gaussian(DISTANCE_SMOOTHING);
    let least = settings.areas().0;
    let parted = (0..all.count)
        .into_par_iter()
        .with_min_len(8)
        .map_init(Local::default, |local, clump| {
            let range = offsets[clump]..offsets[clump + 1];
            let runs = || order[range.clone()].iter().map(|&r| all.runs[r as usize]);
            let area: usize = runs().map(|r| (r.right - r.left) as usize).sum();
            let first = runs()
                .next()
                .map_or(0, |r| r.row as usize * size.1 + r.left as usize);
            // What is too small for one nucleus is dropped later; two would be smaller still.
            let (nuclei, pieces) = if settings.declump == Declump::None || (area as f64) < least {
                (Vec::new(), vec![(first, area)])
            } else {
                local.part(runs, size, hills, &half, settings.centre_distance())
            };
            let pieces = match pieces.is_empty() {
                true => vec![(first, area)],
                false => pieces,
            };
            Parted {
                runs: range,
                nuclei,
                pieces,
            }
        })
        .collect();
    Clumps { order, parted }
}

/// Keeps nuclei of the right size and numbers them in the order of their first pixels.
fn number(
    clumps: Clumps,
    all: &Components,
    (height, width): (usize, usize),
    settings: &NucleiSettings,
) -> Option<LabelImage> {
    let (least, most) = settings.areas();
    let mut kept: Vec<(usize, usize, usize)> = Vec::new();
    for (clump, parted) in clumps.parted.iter().enumerate() {
        for (piece, &(first, area)) in parted.pieces.iter().enumerate() {
            if (least..=most).contains(&(area as f64)) {
                kept.push((first, clump, piece));
            }
        }
    }
    kept.sort_unstable();
    let mut numbers: Vec<Vec<u32>> = clumps.parted.iter().map(|p| vec![0; p.pieces.len()]).collect();
    for (at, &(_, clump, piece)) in kept.iter().enumerate() {
        numbers[clump][piece] = at as u32 + 1;
    }
    let mut labels = vec![0u32; height * width];
    for (parted, numbers) in clumps.parted.iter().zip(&numbers) {
        let mut nuclei = parted.nuclei.iter();
        for &run in &clumps.order[parted.runs.clone()] {
            let Run { row, left, right } = all.runs[run as usize];
            let start = row as usize * width;
            let line = &mut labels[start + left as usize..start + right as usize];
            if parted.nuclei.is_empty() {
                line.fill(numbers[0]);
            } else {
                for (label, &nucleus) in line.iter_mut().zip(&mut nuclei) {
                    *label = (nucleus as usize).checked_sub(1).map_or(0, |n| numbers[n]);
                }
            }
        }
    }
    LabelImage::new(height, width, labels).ok()
}

/// Room to work on one clump, kept from one to the next.
#[derive(Default)]
struct Local {
    mask: Vec<u8>,
    squares: Vec<u32>,
    field: Vec<f32>,
    scratch: distance::Scratch,
}

impl Local {
    /// The nucleus of each pixel of a clump, run after run, and the first pixel and area of each nucleus; both empty if
    /// the clump is one nucleus.
    fn part<R: Iterator<Item = Run>>(
        &mut self,
        runs: impl Fn() -> R,
        (height, width): (usize, usize),
        hills: Option<&[f32]>,
        half: &[f32],
        centre_distance: f64,
    ) -> (Vec<u32>, Vec<(usize, usize)>) {
        // The box of the clump and as much around it as the smoothing reaches, within the image.
        let margin = half.len().max(2) - 1;
        let (mut top, mut bottom, mut left, mut right) = (usize::MAX, 0, usize::MAX, 0);
        for run in runs() {
            top = top.min(run.row as usize);
            bottom = bottom.max(run.row as usize + 1);
            left = left.min(run.left as usize);
            right = right.max(run.right as usize);
        }
        let (top, left) = (top.saturating_sub(margin), left.saturating_sub(margin));
        let (h, w) = (
            (bottom + margin).min(height) - top,
            (right + margin).min(width) - left,
        );
        self.mask.clear();
        self.mask.resize(h * w, 0);
        for run in runs() {
            let start = (run.row as usize - top) * w;
            self.mask[start + run.left as usize - left..start + run.right as usize - left].fill(1);
        }
        self.field.clear();
        self.field.resize(h * w, 0.0);
        if let Some(hills) = hills {
            for (y, line) in self.field.chunks_exact_mut(w).enumerate() {
                let start = (top + y) * width + left;
                line.copy_from_slice(&hills[start..start + w]);
            }
        } else {
            distance::squared(&self.mask, h, w, &mut self.scratch, &mut self.squares);
            let squares = &self.squares;
            let read = |y: usize, line: &mut [f32]| {
                for (v, &d) in line.iter_mut().zip(&squares[y * w..(y + 1) * w]) {
                    *v = (d as f32).sqrt();
                }
            };
            smooth::gaussian_here((h, w), half, read, &mut self.field);
        }
        let peaks = markers::peaks(&self.field, &self.mask, h, w, centre_distance);
        if peaks.len() < 2 {
            return (Vec::new(), Vec::new());
        }
        let basins = watershed::watershed(&self.field, &self.mask, h, w, &peaks);
        let mut nuclei = Vec::new();
        let mut pieces = vec![(usize::MAX, 0); peaks.len()];
        for run in runs() {
            let (y, x) = (run.row as usize - top, run.left as usize - left);
            let line = &basins[y * w + x..][..(run.right - run.left) as usize];
            let start = run.row as usize * width + run.left as usize;
            for (i, &basin) in line.iter().enumerate() {
                if let Some(at) = (basin as usize).checked_sub(1) {
                    let (first, area) = &mut pieces[at];
                    *first = (*first).min(start + i);
                    *area += 1;
                }
            }
            nuclei.extend_from_slice(line);
        }
        (nuclei, pieces)
    }
}
