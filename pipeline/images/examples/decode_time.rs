//! Times decoding of files, for `scripts/bench/decode`.
//!
//! ```text
//! cargo run --release -p wellspring-images --example decode_time -- [--threads N] FILE...
//! ```
//!
//! One JSON line for each file: `seconds` is the best time of decoding the bytes in memory to `u16` pixels in a buffer of
//! their own, `cpu_seconds` the mean of all processors together, `sum` that of the pixels, which says whether they are right.

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use wellspring_images::{Limits, decode};

/// Processor time of this process so far, in ticks of a hundredth of a second.
fn ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may hold anything; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn measure(path: &str) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let limits = Limits::default();
    let plane = decode(&bytes, 0, &limits)?;
    let sum: u64 = plane.pixels.iter().map(|level| u64::from(*level)).sum();
    drop(plane);
    let (start, before) = (Instant::now(), ticks());
    let (mut least, mut calls) = (f64::INFINITY, 0);
    // Long enough for ticks.
    while start.elapsed().as_secs_f64() < 0.5 {
        let once = Instant::now();
        black_box(decode(black_box(&bytes), 0, &limits)?);
        least = least.min(once.elapsed().as_secs_f64());
        calls += 1;
    }
    let cpu = before.zip(ticks()).map_or("null".to_owned(), |(before, after)| {
        ((after - before) as f64 / 100.0 / f64::from(calls)).to_string()
    });
    println!("{{\"seconds\":{least},\"cpu_seconds\":{cpu},\"sum\":{sum}}}");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut threads = 1;
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next().ok_or("--threads needs a number")?.parse()?,
            _ => files.push(argument),
        }
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    for file in files {
        pool.install(|| measure(&file).map_err(|error| format!("{file}: {error}")))?;
    }
    Ok(())
}
