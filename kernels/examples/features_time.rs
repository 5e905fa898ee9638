//! Times the slope, nuclei segmentation and object features of one field, on images from files or of its own, and
//! prints a line of JSON per work: `scripts/bench/features` runs it beside scikit-image and cp_measure.
//!
//! ```text
//! features_time --write-input DIR                a field of 1080 x 1080, its second channel and its labels, as .npy
//! features_time [--input DIR] [--repeats N] [WORK...]     slope segment shape intensity texture granularity radial
//!                                                         zernike colocalisation all
//! ```
//!
//! Times are the best of the repeats, with all threads of the pool (`RAYON_NUM_THREADS`).

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use wellspring_kernels::features::{Families, FeatureSettings, measure};
use wellspring_kernels::nuclei::{LabelImage, NucleiSettings, ThresholdMethod, segment};
use wellspring_kernels::{RawImage, power_log_log_slope};

const SIDE: usize = 1080;
const NUCLEI: usize = 400;

/// A generator of numbers from 0 to 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Roughly normal: the sum of twelve.
    fn noise(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

/// Nuclei as blurred ellipses with a texture, some of them touching, with shot and read noise; and a second channel of
/// wider, dimmer cells.
fn scene() -> Result<RawImage, Box<dyn Error>> {
    let mut random = Random(20_240_611);
    let mut light = vec![0.0f64; 2 * SIDE * SIDE];
    for _ in 0..NUCLEI {
        let (cy, cx) = (random.next() * SIDE as f64, random.next() * SIDE as f64);
        let (a, b, turn) = (
            7.0 + 5.0 * random.next(),
            6.0 + 4.0 * random.next(),
            3.2 * random.next(),
        );
        let (bright, phase) = (1500.0 + 3000.0 * random.next(), 6.3 * random.next());
        let reach = 30.0;
        for y in (cy - reach).max(0.0) as usize..((cy + reach) as usize).min(SIDE) {
            for x in (cx - reach).max(0.0) as usize..((cx + reach) as usize).min(SIDE) {
                let (dy, dx) = (y as f64 - cy, x as f64 - cx);
                let u = (dy * turn.cos() + dx * turn.sin()) / a;
                let v = (dx * turn.cos() - dy * turn.sin()) / b;
                let r = u.hypot(v);
                let texture = 1.0 + 0.25 * (0.9 * dy + phase).sin() * (0.8 * dx).sin();
                let at = y * SIDE + x;
                light[at] = light[at].max(bright * texture / (1.0 + ((r - 1.0) * 12.0).exp()));
                let cell = 0.4 * bright * (-0.5 * (r / 1.8).powi(2)).exp() * texture;
                light[SIDE * SIDE + at] = light[SIDE * SIDE + at].max(cell);
            }
        }
    }
    let pixels = light
        .iter()
        .map(|&l| (300.0 + l + random.noise() * (25.0 + 0.5 * l).sqrt() * 2.0).clamp(0.0, 65535.0));
    Ok(RawImage::new(
        2,
        SIDE,
        SIDE,
        pixels.map(|v| v as u16).collect(),
        65535,
    )?)
}

/// Writes a NumPy file of two dimensions.
fn write_npy(path: &Path, descr: &str, height: usize, width: usize, bytes: &[u8]) -> std::io::Result<()> {
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({height}, {width}), }}")
            .into_bytes();
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(b' ');
    }
    header.push(b'\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header);
    out.extend(bytes);
    std::fs::write(path, out)
}

/// The values of a NumPy file of the size that [`write_npy`] wrote.
fn read_npy(path: &Path, width: usize) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let length = SIDE * SIDE * width;
    let at = bytes
        .len()
        .checked_sub(length)
        .ok_or_else(|| format!("{} is not of this bench", path.display()))?;
    Ok(bytes[at..].chunks_exact(width).map(<[u8]>::to_vec).collect())
}

fn settings() -> NucleiSettings {
    NucleiSettings {
        min_diameter: 10.0,
        max_diameter: 60.0,
        threshold: ThresholdMethod::Li,
        ..NucleiSettings::default()
    }
}

fn load(folder: Option<&str>) -> Result<(RawImage, LabelImage), Box<dyn Error>> {
    let Some(folder) = folder.map(Path::new) else {
        let image = scene()?;
        let labels = segment(&image, 0, &settings())?.labels;
        return Ok((image, labels));
    };
    let plane = |name: &str| -> Result<Vec<u16>, Box<dyn Error>> {
        let values = read_npy(&folder.join(name), 2)?;
        Ok(values
            .iter()
            .filter_map(|v| Some(u16::from_le_bytes(v.as_slice().try_into().ok()?)))
            .collect())
    };
    let image = RawImage::from_planes(&[plane("dna.npy")?, plane("er.npy")?], SIDE, SIDE, 65535)?;
    let labels = read_npy(&folder.join("labels.npy"), 4)?;
    let labels = labels
        .iter()
        .filter_map(|v| Some(u32::from_le_bytes(v.as_slice().try_into().ok()?)));
    Ok((image, LabelImage::new(SIDE, SIDE, labels.collect())?))
}

fn write_input(folder: &str) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder)?;
    let image = scene()?;
    let bytes = |c: usize| {
        image
            .plane(c)
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    write_npy(&folder.join("dna.npy"), "<u2", SIDE, SIDE, &bytes(0))?;
    write_npy(&folder.join("er.npy"), "<u2", SIDE, SIDE, &bytes(1))?;
    let labels = segment(&image, 0, &settings())?.labels;
    let bytes: Vec<u8> = labels.labels().iter().flat_map(|v| v.to_le_bytes()).collect();
    write_npy(&folder.join("labels.npy"), "<u4", SIDE, SIDE, &bytes)?;
    println!("{} nuclei", labels.count());
    Ok(())
}

/// Families of features by the name of the work.
fn families(work: &str) -> Option<Families> {
    let none = Families::NONE;
    Some(match work {
        "shape" => Families {
            shape: true,
            moments: true,
            ..none
        },
        "intensity" => Families {
            intensity: true,
            ..none
        },
        "texture" => Families {
            texture: true,
            ..none
        },
        "granularity" => Families {
            granularity: true,
            ..none
        },
        "radial" => Families { radial: true, ..none },
        "zernike" => Families {
            zernike: true,
            ..none
        },
        "colocalisation" => Families {
            colocalisation: true,
            ..none
        },
        "all" => Families::ALL,
        _ => return None,
    })
}

/// Bytes per second that all threads together copy: what no work on pixels can beat.
fn copy_bandwidth() -> f64 {
    use rayon::prelude::*;
    let from = vec![1u64; 8 << 20];
    let mut to = vec![0u64; 8 << 20];
    let mut least = f64::INFINITY;
    for _ in 0..7 {
        let start = Instant::now();
        to.par_chunks_mut(1 << 18)
            .zip(from.par_chunks(1 << 18))
            .for_each(|(t, f)| t.copy_from_slice(f));
        least = least.min(start.elapsed().as_secs_f64());
    }
    2.0 * 8.0 * from.len() as f64 / least
}

const WORK: [&str; 10] = [
    "slope",
    "segment",
    "shape",
    "intensity",
    "texture",
    "granularity",
    "radial",
    "zernike",
    "colocalisation",
    "all",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut input, mut repeats, mut works) = (None, 7usize, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--write-input" => return write_input(&arguments.next().ok_or("--write-input needs a folder")?),
            "--input" => input = Some(arguments.next().ok_or("--input needs a folder")?),
            "--repeats" => repeats = arguments.next().ok_or("--repeats needs a number")?.parse()?,
            work if WORK.contains(&work) => works.push(work.to_owned()),
            other => return Err(format!("unknown argument {other}; works are {}", WORK.join(" ")).into()),
        }
    }
    let (image, labels) = load(input.as_deref())?;
    let plane = RawImage::new(1, SIDE, SIDE, image.plane(0).to_vec(), 65535)?;
    if works.is_empty() {
        works = WORK.map(str::to_owned).to_vec();
    }
    let bandwidth = copy_bandwidth();
    for work in works {
        let mut least = f64::INFINITY;
        for _ in 0..repeats.max(1) {
            let start = Instant::now();
            match (work.as_str(), families(&work)) {
                ("slope", _) => drop(std::hint::black_box(power_log_log_slope(&plane, 0)?)),
                ("segment", _) => drop(segment(&plane, 0, &settings())?),
                (_, Some(families)) => {
                    let settings = FeatureSettings {
                        families,
                        ..FeatureSettings::default()
                    };
                    // Shape needs no pixels, colocalisation and all two channels; the others are timed on one.
                    let table = match work.as_str() {
                        "colocalisation" | "all" => measure(&image, &labels, &["DNA", "ER"], &settings)?,
                        _ => measure(&plane, &labels, &["DNA"], &settings)?,
                    };
                    drop(std::hint::black_box(table));
                }
                (_, None) => return Err(format!("unknown work {work}").into()),
            }
            least = least.min(start.elapsed().as_secs_f64());
        }
        // Every pixel and every label that is used is read once; less cannot be moved.
        let pixels = if matches!(work.as_str(), "colocalisation" | "all") {
            4
        } else {
            2
        };
        let bytes = SIDE
            * SIDE
            * if matches!(work.as_str(), "slope") {
                2
            } else {
                pixels + 4
            };
        println!(
            "{{\"work\":\"{work}\",\"seconds\":{least:.6},\"threads\":{},\"nuclei\":{},\"limit_seconds\":{:.6}}}",
            rayon::current_num_threads(),
            labels.count(),
            bytes as f64 / bandwidth,
        );
    }
    Ok(())
}
