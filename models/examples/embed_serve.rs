//! One side of `scripts/bench/embed`: opens a model and prints `DEVICE|SECONDS TO OPEN|GFLOP PER IMAGE|PEAK GFLOP/S OF A
//! CORE`. Then for each line `BATCH REPEATS` on standard input embeds that many batches of the canary and prints `CPU WALL`,
//! the least of the repeats, seconds per image; for `0 0` it prints the canary's embedding.
//!
//! `embed_serve MODEL WEIGHTS THREADS [DEVICE]`; MODEL is the name of a built-in card or the path of a card. With DEVICE the
//! wgpu engine runs a network on that adapter (`gpu`, `software`, part of a name), and libtorch a module on `cpu` or `cuda`.

#![allow(clippy::print_stdout, reason = "an example for the terminal")]

#[path = "common/peak.rs"]
mod peak;

use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

use wellspring_models::{Architecture, Batch, EngineChoice, ModelCard, TorchDevice, find_card, open};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, weights, threads, device @ ..] = &arguments[..] else {
        return Err("usage: embed_serve MODEL WEIGHTS THREADS [DEVICE]".into());
    };
    let card: ModelCard = match find_card(model) {
        Some(card) => card.clone(),
        None => serde_json::from_slice(&std::fs::read(model)?)?,
    };
    let start = Instant::now();
    let choice = match (&card.architecture, device.first()) {
        (Architecture::Torchscript, device) => EngineChoice::Libtorch {
            device: match device {
                Some(device) => device
                    .parse()
                    .map_err(|()| "devices of libtorch are cpu, cuda and cuda:N")?,
                None => TorchDevice::Cpu,
            },
            half: false,
        },
        (_, Some(adapter)) => EngineChoice::Wgpu {
            adapter: adapter.clone(),
            half: false,
        },
        _ => EngineChoice::Auto,
    };
    let mut engine = open(&card, weights, choice, threads.parse()?)?;
    let opened = start.elapsed().as_secs_f64();
    let work = peak::gigaflop(&card, 1).unwrap_or(f64::NAN);
    let peak = peak::peak_gigaflops();
    println!("{}|{opened}|{work}|{peak}", engine.device());
    let image = card.canary.image.render(card.input.height, card.input.width, 0);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (items, repeats) = line.split_once(' ').ok_or("a line is BATCH REPEATS")?;
        let (items, repeats): (usize, usize) = (items.parse()?, repeats.parse()?);
        if items == 0 {
            let canary = Batch::new(1, 1, card.input.height, card.input.width, image.clone())?;
            println!("{}", serde_json::to_string(&engine.embed(&canary)?.data)?);
            continue;
        }
        let batch = Batch::new(items, 1, card.input.height, card.input.width, image.repeat(items))?;
        let (mut cpu, mut wall) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..repeats {
            let (start, before) = (Instant::now(), cpu_seconds()?);
            engine.embed(&batch)?;
            cpu = cpu.min((cpu_seconds()? - before) / items as f64);
            wall = wall.min(start.elapsed().as_secs_f64() / items as f64);
        }
        println!("{cpu} {wall}");
    }
    Ok(())
}

/// Seconds that the threads of this process were on a processor.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec that may be written.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}
