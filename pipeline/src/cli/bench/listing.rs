//! `bench listing`: a bucket whose objects all lie in one flat prefix, listed and planned. `scripts/bench/listing` starts a server
//! and fills it. Fails where the bucket does not hold the objects.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore, ObjectStoreExt};
use tiff::encoder::{TiffEncoder, colortype};
use wellspring::store::ImageStore;

use super::process::{Process, this_program};
use super::{Line, Printer, pixels};
use crate::cli::common::runtime;

/// Seconds until the first field is in flight, at most.
const BAR: f64 = 5.0;
/// Wells, fields and channels of a plate.
const PLATE: (usize, usize, usize) = (384, 9, 5);
/// Objects written at once.
const WRITERS: usize = 32;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The bucket, on the server that AWS_ENDPOINT names.
    #[arg(long, default_value = "wellspring-listing")]
    bucket: String,
    /// Plates of 384 wells, 9 fields and 5 channels: 17,280 objects each.
    #[arg(long, default_value_t = 29, value_parser = clap::value_parser!(u16).range(1..=99))]
    plates: u16,
    /// Write the objects first.
    #[arg(long)]
    fill: bool,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let bucket = AmazonS3Builder::from_env()
        .with_bucket_name(&args.bucket)
        .build()?;
    let names: Vec<String> = (1..=args.plates).flat_map(plate).collect();
    if args.fill {
        let begun = Instant::now();
        runtime.block_on(fill(&bucket, &names))?;
        let seconds = begun.elapsed().as_secs_f64();
        printer.push(line(&format!("{} objects written", names.len()), seconds))?;
    }
    let uri = format!("s3://{}", args.bucket);
    let begun = Instant::now();
    let listed = runtime.block_on(ImageStore::open(&uri)?.list(None))?;
    let ours = begun.elapsed().as_secs_f64();
    ensure!(
        listed.len() == names.len(),
        "the bucket holds {} objects instead of {}; empty it and write them with --fill",
        listed.len(),
        names.len()
    );
    drop(listed);
    let begun = Instant::now();
    let one_by_one = runtime.block_on(bucket.list(None).try_collect::<Vec<_>>())?.len();
    let peer = begun.elapsed().as_secs_f64();
    ensure!(
        one_by_one == names.len(),
        "object_store lists {one_by_one} objects"
    );
    printer.push(
        line(&format!("{} objects listed", names.len()), ours).beside("object_store, page after page", peer),
    )?;
    let folder = tempfile::tempdir()?;
    let flat = "^(?<plate>P[0-9]+)_(?<well>[A-P][0-9]+)_s(?<field>[0-9]+)_(?<channel>w[0-9])";
    let planes = "^P(?<plane>[0-9]+)_(?<well>[A-P][0-9]+)_s(?<field>[0-9]+)_(?<channel>w[0-9])";
    // Events name their plate; `run` finds out which there are.
    for (name, pattern, plate) in [
        (format!("{} plates", args.plates), flat, ""),
        (
            format!("1 plate of {} planes", args.plates),
            planes,
            "plate = \"ONE\"\n",
        ),
    ] {
        let folder = folder
            .path()
            .join(if plate.is_empty() { "plates" } else { "planes" });
        let screen = screen(&folder, &uri, pattern, plate)?;
        let seconds = until_in_flight(&screen, &folder.join("out"))?;
        printer.push(
            line(
                &format!("{name}: `wellspring run` to its first field in flight"),
                seconds,
            )
            .beside("the bar", BAR)
            .at_most(1.0),
        )?;
    }
    Ok(())
}

fn line(work: &str, seconds: f64) -> Line {
    Line::new("listing", work, seconds, "s")
}

/// Names of a plate's objects, in order.
fn plate(number: u16) -> Vec<String> {
    let (wells, fields, channels) = PLATE;
    let mut names = Vec::with_capacity(wells * fields * channels);
    for well in 0..wells {
        let (row, column) = (char::from(b'A' + (well / 24) as u8), well % 24 + 1);
        for field in 1..=fields {
            for channel in 1..=channels {
                names.push(format!("P{number:02}_{row}{column:02}_s{field}_w{channel}.tif"));
            }
        }
    }
    names
}

async fn fill(bucket: &AmazonS3, names: &[String]) -> anyhow::Result<()> {
    let mut file = std::io::Cursor::new(Vec::new());
    TiffEncoder::new(&mut file)?.write_image::<colortype::Gray16>(16, 16, &pixels(16, 16, 1))?;
    let image = bytes::Bytes::from(file.into_inner());
    futures::stream::iter(names)
        .map(|name| {
            let image = image.clone();
            async move { bucket.put(&name.as_str().into(), image.into()).await.map(drop) }
        })
        .buffer_unordered(WRITERS)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// A screen of the bucket, whose map holds for every plate.
fn screen(folder: &Path, uri: &str, pattern: &str, plate: &str) -> anyhow::Result<std::path::PathBuf> {
    let mut map = "well,line,compound\n".to_owned();
    for well in 0..PLATE.0 {
        let (row, column) = (char::from(b'A' + (well / 24) as u8), well % 24 + 1);
        let line = if column <= 12 { "WT" } else { "NF1" };
        map += &format!("{row}{column:02},{line},DMSO\n");
    }
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("map.csv"), map)?;
    let channels: Vec<String> = (1..=PLATE.2).map(|channel| format!("\"w{channel}\"")).collect();
    let text = format!(
        "[screen]\nname = \"listing\"\n[images]\nstore = \"{uri}\"\nlayout = \"pattern\"\npattern = '{pattern}'\n{plate}\
         channels = [{}]\n[plate_map]\nfile = \"map.csv\"\ncolumns = {{ disease = \"line\" }}\n\
         [controls]\nreference = {{ line = \"WT\" }}\nphenotype = {{ line = \"NF1\" }}\n",
        channels.join(", ")
    );
    let screen = folder.join("screen.toml");
    std::fs::write(&screen, text)?;
    Ok(screen)
}

/// Seconds from the start of a process that runs the screen until a field's images are asked for.
fn until_in_flight(screen: &Path, out: &Path) -> anyhow::Result<f64> {
    let mut command = this_program()?;
    command.arg("run").arg(screen).arg("--out").arg(out).arg("-vv");
    command
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let mut process = Process(command.spawn()?);
    let told = process.0.stderr.take().context("no standard error")?;
    let mut said = String::new();
    for line in BufReader::new(told).lines() {
        let line = line?;
        if line.contains("in flight") {
            return Ok(begun.elapsed().as_secs_f64());
        }
        said = line;
    }
    anyhow::bail!("the run ended without a field: {said}")
}
