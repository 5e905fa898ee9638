//! What can go wrong in this crate: a parameter, a shape, or a device. Every message names the kernel, the
//! parameter and the value, and says what to do.

use crate::image::InputShape;

/// Errors of kernels, recipes and devices.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// An image or tensor without a single pixel.
    #[error("{what} has no pixels: shape {shape:?}; every dimension must be at least 1")]
    Empty {
        /// Which object: "image", "tensor".
        what: &'static str,
        /// The shape given.
        shape: Vec<usize>,
    },
    /// The number of values does not fit the shape.
    #[error("{what} of shape {shape:?} needs {expected} values but got {got}")]
    Length {
        /// Which object.
        what: &'static str,
        /// The shape given.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The shape is larger than this machine can address.
    #[error("{what} of shape {shape:?} is too large to address")]
    Overflow {
        /// Which object.
        what: &'static str,
        /// The shape given.
        shape: Vec<usize>,
    },
    /// A detector ceiling of zero.
    #[error("the detector ceiling is 0; give the largest value the camera can write (255, 4095, 65535)")]
    Ceiling,
    /// A parameter outside its range.
    #[error("kernel {kernel}: parameter `{parameter}` is {value}; {expected}")]
    Parameter {
        /// Kernel name as in the registry.
        kernel: &'static str,
        /// Parameter name.
        parameter: &'static str,
        /// The value given.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A per-channel parameter whose length is neither 1 nor the number of channels.
    #[error(
        "kernel {kernel}: parameter `{parameter}` has {got} values for {channels} channels; give one value for all channels or one per channel"
    )]
    Channels {
        /// Kernel name.
        kernel: &'static str,
        /// Parameter name.
        parameter: &'static str,
        /// Values given.
        got: usize,
        /// Channels of the image.
        channels: usize,
    },
    /// The shape entering a step does not suit it.
    #[error(
        "kernel {kernel}: input of shape {input:?} (items, channels, height, width) does not fit: {parameter} needs {needed:?}"
    )]
    Shape {
        /// Kernel name.
        kernel: &'static str,
        /// What sets the requirement.
        parameter: &'static str,
        /// Shape entering the step.
        input: [usize; 4],
        /// Shape required by the parameter.
        needed: Vec<usize>,
    },
    /// The image is not the one the recipe was made for.
    #[error("the recipe was made for {expected} but the image is {got}; make one recipe per image shape")]
    Input {
        /// Shape in the recipe.
        expected: InputShape,
        /// Shape of the image.
        got: InputShape,
    },
    /// A percentile outside 0 to 100, or of an empty histogram.
    #[error("percentile {q} of {count} values; q must lie in 0..=100 and there must be at least one value")]
    Percentile {
        /// The percentile asked for.
        q: f64,
        /// Values counted.
        count: u64,
    },
    /// The device name is not one of ours.
    #[error(
        "`{0}` is no device; use auto, cpu, gpu, a kind (discrete, integrated, virtual, software), or a number (#1) or part of a \
         name as `wellspring devices` prints them"
    )]
    DeviceChoice(String),
    /// No adapter suits the choice.
    #[error(
        "no graphics adapter for device `{asked}`{}", match found.as_slice() {
            [] => " (found: none); install a Vulkan driver (for a machine without a GPU: `apt-get install mesa-vulkan-drivers`), \
                   set XDG_RUNTIME_DIR to a writable folder, or use device `cpu`".to_owned(),
            found => format!(": found are {}; name one of them by its number or part of its name, or use device `cpu`",
                             found.join("; ")),
        }
    )]
    NoAdapter {
        /// The choice as given.
        asked: String,
        /// Adapters that exist, each with its number.
        found: Vec<String>,
    },
    /// The driver refused to open the adapter.
    #[error("adapter `{adapter}` could not be opened: {reason}; update its driver or use device `cpu`")]
    DeviceOpen {
        /// Adapter name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// A buffer larger than the device can bind.
    #[error(
        "kernel {kernel}: needs one buffer of {bytes} bytes but `{device}` binds at most {limit}; tile the image first or use device `cpu`"
    )]
    TooLarge {
        /// Kernel that needs the buffer.
        kernel: &'static str,
        /// Bytes needed.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
        /// Adapter name.
        device: String,
    },
    /// The device ran out of memory.
    #[error("`{device}` is out of memory while running {what}; send fewer or smaller images at a time")]
    OutOfMemory {
        /// Adapter name.
        device: String,
        /// Recipe or measure that ran.
        what: String,
    },
    /// The device was lost, opened anew, and lost again over the same work.
    #[error(
        "`{device}` was lost twice while running {what}; its driver says why, and the work can be repeated"
    )]
    DeviceLost {
        /// Adapter name.
        device: String,
        /// Recipe or measure that ran.
        what: String,
    },
    /// The device refused or lost a command.
    #[error("`{device}` failed while running {what}: {reason}; open the device again and repeat the image")]
    DeviceFailed {
        /// Adapter name.
        device: String,
        /// Recipe or measure that ran.
        what: String,
        /// The driver's words.
        reason: String,
    },
}

impl KernelError {
    /// Refuses a plane that is empty or has another number of pixels than its size says.
    pub(crate) fn check_plane(plane: &[u16], [height, width]: [usize; 2]) -> Result<(), Self> {
        let expected = height * width;
        if plane.len() == expected && expected > 0 {
            return Ok(());
        }
        Err(Self::Length {
            what: "plane",
            shape: vec![height, width],
            expected,
            got: plane.len(),
        })
    }
}
