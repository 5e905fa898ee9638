//! `wellspring illumination`: how evenly each plate is lit, estimated from its own images.
//!
//! A screen file enters; per plate and channel a `.npy` plane leaves, and the keys by which the screen uses them. Exit 1
//! where a field could not be read or a decomposition did not come to rest: the planes are written all the same, from the rest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use rayon::prelude::*;
use wellspring::decode::field_image;
use wellspring::error::chain;
use wellspring::fetch::read_channels;
use wellspring::npy;
use wellspring::plan::{self, list_screen};
use wellspring::results::AtomicFile;
use wellspring::runs::Run;
use wellspring::shading::path;
use wellspring_kernels::{
    BasicSettings, BasicStack, Illumination, IlluminationSettings, InputShape, MeanImage, RawImage, Smoothing,
};
use wellspring_workloads::layout::FieldFiles;
use wellspring_workloads::words::Barcode;

use super::common::{read_screen, runtime};
use super::say;

/// Fields that are read and decoded at once.
const AT_ONCE: usize = 4;

/// Filter sizes that make sense, in pixels.
const SIZES: std::ops::RangeInclusive<f64> = 1.0..=2000.0;

/// File names of what is written.
const FUNCTION: &str = "{plate}_{channel}.npy";
const DARK_FIELD: &str = "{plate}_{channel}_dark.npy";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring illumination rescue-pilot.toml --out illumination\n  \
                  wellspring illumination rescue-pilot.toml --out illumination --method basic --dark-field\n\n\
                  The keys that it prints go into [preprocess] of the screen file. median, gaussian, polynomial and none \
                  smooth the mean image of a plate, as CellProfiler does; with many fields per plate they are the usual choice. \
                  basic (BaSiC, Peng et al. 2017) needs a few dozen fields, and can tell a dark-field from the light."
)]
pub(crate) struct Args {
    /// The screen file.
    screen: PathBuf,
    /// Folder of the planes, PLATE_CHANNEL.npy and PLATE_CHANNEL_dark.npy; made where it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How they are estimated.
    #[arg(long, value_enum, default_value_t = Method::Median)]
    method: Method,
    /// Filter size of median and gaussian, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 200.0)]
    size: f64,
    /// Estimate a dark-field too, which is subtracted first. Only with --method basic.
    #[arg(long)]
    dark_field: bool,
    /// Most fields of a plate, taken evenly over it. Default: all, 256 for basic.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    fields: Option<u32>,
    /// Only these plates.
    #[arg(long = "plate", value_name = "BARCODE")]
    plates: Vec<Barcode>,
    /// Replace planes that are there already, the dark-fields beside them too.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    Median,
    Gaussian,
    Polynomial,
    None,
    Basic,
}

/// What is estimated of one plate.
struct Estimate {
    function: Illumination,
    dark_field: Option<Illumination>,
    unsettled: Vec<usize>,
}

/// Images of a plate as they are added up.
enum Images {
    Mean(MeanImage, IlluminationSettings),
    Basic(BasicStack),
}

impl Images {
    fn new(args: &Args, shape: InputShape) -> anyhow::Result<Self> {
        let smoothing = match args.method {
            Method::Median => Smoothing::Median,
            Method::Gaussian => Smoothing::Gaussian,
            Method::Polynomial => Smoothing::Polynomial,
            Method::None => Smoothing::None,
            Method::Basic => {
                let settings = BasicSettings {
                    dark_field: args.dark_field,
                    ..Default::default()
                };
                return Ok(Self::Basic(BasicStack::new(settings, shape)?));
            }
        };
        let settings = IlluminationSettings {
            smoothing,
            size: args.size,
            ..Default::default()
        };
        settings.check()?;
        Ok(Self::Mean(MeanImage::new(shape), settings))
    }

    fn add(&mut self, image: &RawImage) -> anyhow::Result<()> {
        match self {
            Self::Mean(mean, _) => mean.add(image)?,
            Self::Basic(stack) => stack.add(image)?,
        }
        Ok(())
    }

    fn estimate(&self) -> anyhow::Result<Estimate> {
        Ok(match self {
            Self::Mean(mean, settings) => Estimate {
                function: mean.illumination(settings)?,
                dark_field: None,
                unsettled: Vec::new(),
            },
            Self::Basic(stack) => {
                let shading = stack.shading()?;
                Estimate {
                    function: shading.flat_field,
                    dark_field: shading.dark_field,
                    unsettled: shading.unsettled,
                }
            }
        })
    }
}

pub(crate) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    if args.dark_field && args.method != Method::Basic {
        bail!("--dark-field needs --method basic: a mean image does not tell a dark-field from the light");
    }
    if !SIZES.contains(&args.size) {
        bail!(
            "--size is {}: expected a filter size from {} to {} pixels",
            args.size,
            SIZES.start(),
            SIZES.end()
        );
    }
    let run = Run::open(read_screen(&args.screen)?)?;
    let runtime = runtime()?;
    let found = runtime.block_on(list_screen(&run.store, &run.screen))?;
    for problem in &found.problems {
        say::note(format_args!("problem: {problem}"));
    }
    let wanted = if args.plates.is_empty() {
        &run.screen.images.plates
    } else {
        &args.plates
    };
    if let Some(absent) = wanted.iter().find(|plate| !found.plates.contains_key(*plate)) {
        bail!("no plate {absent} in '{}'", run.store.uri());
    }
    let plates: Vec<_> = found
        .plates
        .iter()
        .filter(|(plate, _)| wanted.is_empty() || wanted.contains(*plate))
        .collect();
    if plates.is_empty() {
        bail!("no plate was found in '{}': {}", run.store.uri(), found.why);
    }
    let out = std::path::absolute(&args.out)
        .with_context(|| format!("'{}' has no absolute path", args.out.display()))?;
    std::fs::create_dir_all(&out).with_context(|| format!("'{}' cannot be made", out.display()))?;
    if !args.force {
        let barcodes = plates.iter().map(|(plate, _)| *plate);
        let there: Vec<PathBuf> = barcodes
            .flat_map(|plate| [FUNCTION, DARK_FIELD].map(|template| targets(&run, &out, plate, template)))
            .flatten()
            .filter(|path| path.exists())
            .collect();
        if let Some(first) = there.first() {
            bail!(
                "'{}' is there already ({} such files in all): give another folder, or --force to replace the planes of \
                 these plates",
                first.display(),
                there.len()
            );
        }
    }
    let mut whole = true;
    for (plate, fields) in plates {
        whole &=
            one_plate(args, &run, &runtime, &out, plate, fields).with_context(|| format!("plate {plate}"))?;
    }
    say::note(format_args!("for [preprocess] of {}:", args.screen.display()));
    say::line(format_args!("illumination = {}", quoted(&out.join(FUNCTION))));
    if args.dark_field {
        say::line(format_args!("dark_field = {}", quoted(&out.join(DARK_FIELD))));
    }
    Ok(ExitCode::from(u8::from(!whole)))
}

/// A path as a TOML string.
fn quoted(path: &Path) -> toml::Value {
    toml::Value::String(path.display().to_string())
}

/// Estimates and writes the planes of one plate; whether all went as it should.
fn one_plate(
    args: &Args,
    run: &Run,
    runtime: &tokio::runtime::Runtime,
    out: &Path,
    plate: &Barcode,
    fields: &[FieldFiles],
) -> anyhow::Result<bool> {
    let most = match (args.fields, args.method) {
        (Some(most), _) => most as usize,
        (None, Method::Basic) => 256,
        (None, _) => fields.len(),
    };
    let taken = evenly(fields, most);
    let mut images: Option<(InputShape, Images)> = None;
    let mut added = 0;
    let mut told = 0;
    for (done, some) in taken.chunks(AT_ONCE).enumerate() {
        let read = some.iter().map(|field| async {
            let images = plan::images(field);
            let bytes = read_channels(&run.store, &images).await?;
            Ok((images, bytes))
        });
        let read: Vec<Result<_, wellspring::error::StageError>> =
            runtime.block_on(futures::future::join_all(read));
        let decoded: Vec<_> = read
            .into_par_iter()
            .map(|read| {
                let (images, bytes) = read?;
                let planes = bytes.iter().zip(images.iter().map(|channel| &channel.planes));
                field_image(planes, &run.screen.images)
            })
            .collect();
        for (field, image) in some.iter().zip(decoded) {
            let place = format!("plate {plate} well {} field {}", field.well, field.field);
            match image {
                Err(error) => say::note(format_args!("left out {place}: {}", chain(&error))),
                Ok(image) => {
                    let other = image.shape();
                    let (first, images) = match &mut images {
                        Some(begun) => begun,
                        none => none.insert((other, Images::new(args, other)?)),
                    };
                    if *first == other {
                        images.add(&image)?;
                        added += 1;
                        continue;
                    }
                    say::note(format_args!(
                        "left out {place}: it has {} x {} pixels (height x width), and the first field has {} x {}",
                        other.height, other.width, first.height, first.width
                    ));
                }
            }
        }
        let done = ((done + 1) * AT_ONCE).min(taken.len());
        if done * 10 / taken.len() > told {
            told = done * 10 / taken.len();
            say::progress(&format!("{plate}: {done} of {} fields", taken.len()));
        }
    }
    let Some((_, images)) = images else {
        bail!("not one field could be read");
    };
    let estimate = images.estimate()?;
    // A dark-field of an earlier estimate does not belong to these functions.
    for path in targets(run, out, plate, DARK_FIELD) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("'{}' cannot be replaced", path.display()));
            }
            _ => {}
        }
    }
    write(run, out, plate, FUNCTION, &estimate.function)?;
    if let Some(dark_field) = &estimate.dark_field {
        write(run, out, plate, DARK_FIELD, dark_field)?;
    }
    for c in &estimate.unsettled {
        if let Some(channel) = run.screen.images.channels.get(*c) {
            let name = &channel.name;
            say::note(format_args!(
                "{plate}, {name}: the decomposition had not come to rest; look at its planes before you use them"
            ));
        }
    }
    say::note(format_args!("{plate}: {added} of {} fields used", fields.len()));
    Ok(added == taken.len() && estimate.unsettled.is_empty())
}

/// The files of one kind that a plate may have.
fn targets(run: &Run, out: &Path, plate: &Barcode, template: &str) -> Vec<PathBuf> {
    let channels = run.screen.images.channels.iter();
    channels
        .map(|channel| out.join(path(template, plate, &channel.name)))
        .collect()
}

/// At most `most` of the fields, at even distances.
fn evenly(fields: &[FieldFiles], most: usize) -> Vec<&FieldFiles> {
    let count = fields.len().min(most);
    (0..count)
        .filter_map(|k| fields.get(k * fields.len() / count))
        .collect()
}

/// Writes the plane of every channel.
fn write(
    run: &Run,
    out: &Path,
    plate: &Barcode,
    template: &str,
    planes: &Illumination,
) -> anyhow::Result<()> {
    let ([_, height, width], values) = planes.parts();
    for (channel, plane) in run
        .screen
        .images
        .channels
        .iter()
        .zip(values.chunks_exact(height * width))
    {
        let target = out.join(path(template, plate, &channel.name));
        AtomicFile::write(&target, &npy::plane([height, width], plane))?;
    }
    Ok(())
}
