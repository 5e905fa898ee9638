//! Parses and validates every shader, so that a wrong one fails the build and names its file.

use std::path::Path;

use naga::valid::{Capabilities, ValidationFlags, Validator};

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=src");
    let mut shaders = 0;
    for entry in std::fs::read_dir("src").map_err(|e| format!("src: {e}"))? {
        let path = entry.map_err(|e| format!("src: {e}"))?.path().join("kernel.wgsl");
        if path.is_file() {
            check(&path)?;
            shaders += 1;
        }
    }
    if shaders == 0 {
        return Err("no shader found under src/*/kernel.wgsl".into());
    }
    Ok(())
}

fn check(path: &Path) -> Result<(), String> {
    let name = path.display().to_string();
    let source = std::fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
    let module =
        naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string_with_path(&source, &name))?;
    Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|e| e.emit_to_string_with_path(&source, &name))?;
    // The portable minimum: a kernel must not ask for more than every adapter gives.
    for entry in &module.entry_points {
        let threads: u32 = entry.workgroup_size.iter().product();
        if threads > 256 {
            return Err(format!(
                "{name}: {} uses {threads} threads per workgroup; at most 256",
                entry.name
            ));
        }
    }
    Ok(())
}
