//! Converts a PyTorch checkpoint to safetensors and prints the digest a model card wants:
//! `cargo run --release --example convert_checkpoint -- model.pth model.safetensors`

#![allow(clippy::print_stdout, reason = "an example for the terminal")]

use std::error::Error;

use wellspring_models::{content_digest, convert_checkpoint};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: convert_checkpoint CHECKPOINT SAFETENSORS".into());
    };
    let converted = convert_checkpoint(&std::fs::read(from)?)?;
    std::fs::write(to, &converted)?;
    println!("content_sha256 {}", content_digest(&converted)?);
    Ok(())
}
