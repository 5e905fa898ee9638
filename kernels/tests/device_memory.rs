//! Memory of a device that runs out. A test binary of its own: nothing else takes memory meanwhile.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use wellspring_kernels::{
    Border, Device, DeviceChoice, DeviceKind, GaussianBlur, KernelError, RawImage, Recipe,
};

fn noise(height: usize, width: usize) -> RawImage {
    let pixels = (0..height * width).map(|i| (i * i % 4093) as u16).collect();
    RawImage::new(1, height, width, pixels, 4095).unwrap()
}

fn blur(image: &RawImage, sigma: f64) -> Recipe {
    let border = Border::Reflect;
    Recipe::new(vec![GaussianBlur { sigma, border }.into()], image.shape()).unwrap()
}

/// Set in the process that has little memory.
const LIMITED: &str = "WELLSPRING_TEST_LIMITED";

/// The signal with which lavapipe of Mesa 25 ends: nothing in these crates can cause it. That of Mesa 22 reports what is missing.
const SEGMENTATION_FAULT: i32 = 11;

/// The test starts itself again under a limit of its address space: room for the driver, not for three large images. Only a
/// driver that computes on the processor takes its memory from there.
#[test]
fn memory_that_runs_out_is_an_error_of_its_own_and_passes() {
    let device = Device::open(DeviceChoice::Gpu).unwrap_or_else(|e| panic!("{e}"));
    if device.info().kind != DeviceKind::Software {
        println!(
            "skipped: the memory of {} cannot be limited from here",
            device.info()
        );
        return;
    }
    let small = noise(33, 31);
    let recipe = blur(&small, 1.0);
    let expected = device.run(&recipe, &small).unwrap();
    if std::env::var_os(LIMITED).is_none() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status
            .lines()
            .find_map(|line| line.strip_prefix("VmSize:"))
            .unwrap();
        let size: u64 = size.trim().trim_end_matches(" kB").trim().parse().unwrap();
        let name = "memory_that_runs_out_is_an_error_of_its_own_and_passes";
        let program = std::env::current_exe().unwrap();
        let output = Command::new("sh")
            .args([
                "-c",
                "ulimit -v \"$0\" && exec \"$@\"",
                &(size + 400_000).to_string(),
            ])
            .arg(program)
            .args(["--exact", name, "--nocapture"])
            .env(LIMITED, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.signal() == Some(SEGMENTATION_FAULT) {
            println!(
                "skipped: {} says that it has memory when it got none, and ends",
                device.info()
            );
            return;
        }
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}\n{errors}"
        );
        return;
    }
    let large = noise(5500, 5500);
    let large_recipe = blur(&large, 1.0);
    for _ in 0..2 {
        match device.run_all(&large_recipe, &[&large; 3]) {
            Err(KernelError::OutOfMemory { what, device: name }) => {
                assert_eq!((what.as_str(), &name), ("a recipe", &device.info().name));
            }
            other => panic!("{:?}", other.map(|tensors| tensors.len())),
        }
        // What fits still runs on the same device.
        assert_eq!(device.run(&recipe, &small).unwrap(), expected);
    }
}
