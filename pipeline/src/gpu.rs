//! One graphics device for kernels and networks: the device that prepares images is handed to the engine, and the tiles that
//! a network on it will see stay in its memory.
//!
//! The crates of kernels and models do not know each other; handles of the same device pass through here. Enters: the kernels'
//! device. Leaves: the same as the engines know it. Fails where the adapter is gone.

use wellspring_kernels::{Device, DeviceTensor, KernelError, Tensor};
use wellspring_models::SharedGpu;

/// The device of the kernels for an engine on the same adapter; `None` where kernels run on the processor.
///
/// # Errors
/// The adapter was lost and is not there any more.
pub fn share(device: &Device) -> Result<Option<SharedGpu>, KernelError> {
    Ok(device.share()?.map(|shared| SharedGpu {
        device: shared.device,
        queue: shared.queue,
        name: shared.name,
        fault: shared.fault,
        pipelines: shared.pipelines,
        up: shared.bus.up,
        parameters: shared.bus.parameters,
        down: shared.bus.down,
    }))
}

/// What the networks of one size see of a field: tiles x channels x height x width, grey levels 0 to 255.
#[derive(Debug)]
pub enum Tiles {
    /// In the processor's memory.
    Here(Tensor),
    /// In the memory of the device that made them, which their networks share.
    OnDevice(DeviceTensor),
}

impl Tiles {
    /// Tiles, channels, height, width.
    pub fn shape(&self) -> [usize; 4] {
        match self {
            Self::Here(tensor) => tensor.shape(),
            Self::OnDevice(tensor) => tensor.shape(),
        }
    }

    /// Whether they went with a device that was lost.
    pub fn are_lost(&self) -> bool {
        match self {
            Self::Here(_) => false,
            Self::OnDevice(tensor) => tensor.is_lost(),
        }
    }
}
