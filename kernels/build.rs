//! Parses and validates every shader, so that a wrong one fails the build and names its file.

use std::path::{Path, PathBuf};

use naga::valid::{Capabilities, ValidationFlags, Validator};

/// What the planner puts before a kernel's shader, besides the shared functions; here it reads nothing.
const READERS: &str = "fn open_plane(plane: u32) {}
fn pixel(plane: u32, at: u32) -> f32 { return f32(plane + at); }
fn pair(plane: u32, at: u32) -> vec2<f32> { return vec2<f32>(f32(plane), f32(at)); }
fn later(v: f32, plane: u32) -> f32 { return v; }
";

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=src");
    let prelude = read(Path::new("src/pixels/prelude.wgsl"))?;
    let mut shaders = 0;
    for entry in std::fs::read_dir("src").map_err(|e| format!("src: {e}"))? {
        let folder = entry.map_err(|e| format!("src: {e}"))?.path();
        if !folder.is_dir() || folder.ends_with("pixels") {
            continue;
        }
        for file in std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
            let path: PathBuf = file.map_err(|e| format!("{}: {e}", folder.display()))?.path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                check(&path, &prelude)?;
                shaders += 1;
            }
        }
    }
    if shaders == 0 {
        return Err("no shader found under src/*/*.wgsl".into());
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn check(path: &Path, prelude: &str) -> Result<(), String> {
    let name = path.display().to_string();
    // The kernel comes first, so that lines in messages are its own; order does not matter to WGSL.
    let source = [&read(path)?, prelude, READERS].concat();
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
