//! `wellspring devices`: where kernels can run, what `auto` takes and why, and how to get a graphics driver.
//! Fails only where the device that `auto` takes cannot be opened.

use std::process::ExitCode;

use serde_json::json;
use wellspring_kernels::{Device, DeviceChoice, DeviceInfo, DeviceKind, list_devices};

use super::say;

/// How to get an adapter on a machine that has none.
pub(crate) const NO_ADAPTER: &str = "\
No graphics adapter was found; kernels run on the CPU. To get one:
  NVIDIA card          install NVIDIA's own driver with its Vulkan part, and libvulkan1
  AMD or Intel card    apt install mesa-vulkan-drivers libvulkan1
  no card              the same packages bring lavapipe, a software adapter for testing shaders; it is slower than
                       the CPU path and runs only when chosen (--device gpu)
In a container, pass the card in as well (docker run --gpus all, or --device /dev/dri).";

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wellspring devices\n  wellspring run SCREEN.toml --device llvmpipe")]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let devices = list_devices();
    let chosen = Device::open(DeviceChoice::Auto)?;
    let (name, why) = (chosen.info().name.clone(), reason(&chosen));
    if args.json {
        let listed: Vec<_> = devices
            .iter()
            .map(|device| as_json(device, device.name == name))
            .collect();
        say::line(json!({"devices": listed, "auto": {"name": name, "why": why}}));
        return Ok(ExitCode::SUCCESS);
    }
    for (index, device) in devices.iter().enumerate() {
        let mark = if device.name == name { "*" } else { " " };
        say::line(format!("{mark} #{index} {device}"));
    }
    say::line(format!("\nauto takes '{name}' ({why})."));
    say::line(
        "Choose another with --device: auto, cpu, gpu, discrete, integrated, virtual, software, #N, or part of a name.",
    );
    if devices.iter().all(|device| device.kind == DeviceKind::Cpu) {
        say::line(format!("\n{NO_ADAPTER}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a device was taken, without its name.
pub(crate) fn reason(device: &Device) -> String {
    let all = device.describe();
    let name = format!("{}: ", device.info());
    all.strip_prefix(&name).unwrap_or(&all).to_owned()
}

/// A device as `devices --json` and `doctor --json` write it.
fn as_json(device: &DeviceInfo, chosen: bool) -> serde_json::Value {
    json!({
        "name": device.name,
        "kind": device.kind.to_string(),
        "backend": device.backend,
        "driver": device.driver,
        "max_binding_bytes": device.max_binding_bytes,
        "chosen_by_auto": chosen,
    })
}
