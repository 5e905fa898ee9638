//! `bench plan`: plates planned, from the names of their files to the bytes of their tasks' records.
//!
//! Everything that the planner does for a plate but listing its store and publishing: names are parsed, fields held against the
//! plate map and the controls, tasks made and encoded. As many plates side by side as the machine has cores. Fails where a
//! temporary folder cannot be written.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use wellspring::kafka::topics::Urgency;
use wellspring::memory::peak_rss_bytes;
use wellspring::plan::{MapCache, PlateSource, plan_listed, task_records};
use wellspring::shading::ShadingCache;
use wellspring::store::{ImageStore, Listed};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use super::wells::{position, role};
use super::{Line, Printer};
use crate::cli::common;

/// Seconds that the plates may take (issue 6).
const SECONDS: f64 = 30.0;
/// Bytes that the process may hold.
const BYTES: f64 = 500e6;
/// Columns of a plate of 384 wells.
const COLUMNS: u32 = 24;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Plates of 384 wells.
    #[arg(long, default_value_t = 10_000)]
    plates: u32,
    /// Fields of each well.
    #[arg(long, default_value_t = 9)]
    fields: u32,
    /// Channels of each field.
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// Plates in the plate map. One of 1 has no plate's name and is every plate's.
    #[arg(long, default_value_t = 1)]
    map_plates: u32,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let screen = screen(folder.path(), args)?;
    let store = ImageStore::open(&screen.images.store)?;
    let plate: Barcode = "P00001".parse()?;
    let listed = listed(&plate, args)?;
    let (shading, map) = (ShadingCache::default(), MapCache::default());
    let planned = AtomicU32::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let work = || -> anyhow::Result<(u64, u64)> {
        let runtime = common::runtime()?;
        let (mut tasks, mut bytes) = (0, 0);
        while planned.fetch_add(1, Ordering::Relaxed) < args.plates {
            let source = PlateSource {
                screen: &screen,
                store: &store,
                shading: &shading,
                map: &map,
            };
            let plan = runtime.block_on(plan_listed(source, &plate, listed.clone()))?;
            ensure!(plan.failures.is_empty(), "{}", plan.failures[0].message);
            let records = task_records(Urgency::Batch, &plan.tasks)?;
            tasks += records.len() as u64;
            bytes += records
                .iter()
                .map(|record| record.value.len() as u64)
                .sum::<u64>();
        }
        Ok((tasks, bytes))
    };
    let (mut tasks, mut bytes) = (0, 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (of_thread, bytes_of_thread) = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread that plans panicked"))??;
            tasks += of_thread;
            bytes += bytes_of_thread;
        }
        anyhow::Ok(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let work = format!(
        "{} plates x 384 wells x {} fields, {} channels, {} plates in the map, {threads} threads",
        args.plates, args.fields, args.channels, args.map_plates
    );
    let line = |what: &str, ours, unit| Line::new("plan", format!("{work}: {what}"), ours, unit);
    printer.push(
        line("time", seconds, "s")
            .beside("the most it may take", SECONDS)
            .at_most(1.0),
    )?;
    let memory = line("memory", peak_rss_bytes() as f64, "bytes");
    printer.push(memory.beside("the most it may hold", BYTES).at_most(1.0))?;
    printer.push(line("tasks", tasks as f64 / seconds, "1/s"))?;
    printer.push(line("bytes of a task", bytes as f64 / tasks as f64, "bytes"))
}

/// The files of a plate as a bucket lists them.
fn listed(plate: &Barcode, args: &Args) -> anyhow::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for well in 0..384 {
        let well = position(well, COLUMNS)?;
        for field in 1..=args.fields {
            for channel in 1..=args.channels {
                listed.push(Listed {
                    path: format!("{plate}/{plate}_{well}_s{field}_w{channel}.tif"),
                    bytes: 2_332_800,
                    modified_ms: 1_764_000_000_000,
                    version: Some("d41d8cd98f00b204e9800998ecf8427e".into()),
                });
            }
        }
    }
    Ok(listed)
}

fn screen(folder: &std::path::Path, args: &Args) -> anyhow::Result<Screen> {
    let named = args.map_plates > 1;
    let mut map = if named { "plate," } else { "" }.to_owned() + "well,compound,dose,role\n";
    for plate in 1..=args.map_plates {
        for well in 0..384 {
            let role = role(well, COLUMNS);
            if named {
                write!(map, "P{plate:05},")?;
            }
            writeln!(map, "{},c{well},1,{role}", position(well, COLUMNS)?)?;
        }
    }
    let file = folder.join("platemap.csv");
    std::fs::write(&file, map)?;
    let channels: Vec<String> = (1..=args.channels)
        .map(|channel| format!("{{ name = \"C{channel}\", match = \"w{channel}\" }}"))
        .collect();
    let text = format!(
        "[screen]\nname = \"plan\"\n[images]\nstore = \"{}\"\nlayout = \"imagexpress\"\nchannels = [{}]\n\
         [plate_map]\nfile = \"{}\"\n[controls]\nreference = {{ role = \"healthy\" }}\n\
         phenotype = {{ role = \"disease\" }}\n",
        folder.display(),
        channels.join(", "),
        file.display()
    );
    Screen::parse(&text, "plan.toml").map_err(|errors| anyhow::anyhow!("{errors}"))
}
