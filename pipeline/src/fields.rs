//! The edges between the stages of a worker: one struct per edge.
//!
//! Each carries the field's task, its run, and its share of the limit on image bytes in memory, which is returned
//! when the pixels are gone.

use std::sync::Arc;

use bytes::Bytes;
use wellspring_kernels::{DeviceImage, RawImage};
use wellspring_workloads::words::Channel;

use crate::decode::Stack;
use crate::events::{ChannelMeasures, FieldTask};
use crate::fetch::Share;
use crate::gpu::Tiles;
use crate::pages::PageParts;
use crate::runs::Run;
use crate::shading::Shading;

/// A field on its way: what to do, for whom, and what it holds of the memory limit.
#[derive(Debug)]
pub struct Field {
    /// The task.
    pub task: Arc<FieldTask>,
    /// The run.
    pub run: Arc<Run>,
    /// Share of the limit on image bytes.
    pub memory: Share,
    /// Channels of which an image is not what was listed, and what has changed.
    pub changed: Vec<(Channel, String)>,
}

/// An edge that knows its field.
pub trait OfField {
    /// The field's task.
    fn task(&self) -> &Arc<FieldTask>;
}

impl OfField for Fetched {
    fn task(&self) -> &Arc<FieldTask> {
        &self.field.task
    }
}

impl OfField for Decoded {
    fn task(&self) -> &Arc<FieldTask> {
        &self.field.task
    }
}

impl OfField for Prepared {
    fn task(&self) -> &Arc<FieldTask> {
        &self.field.task
    }
}

/// A plane as it is stored.
#[derive(Debug, Clone)]
pub enum Encoded {
    /// The bytes of an image file.
    File(Bytes),
    /// A page of an image file, and the parts of the file that hold its pixels.
    Page(PageParts),
    /// The chunks of a plane of a Zarr array.
    Plane(wellspring_zarr::Plane),
}

/// After fetch: encoded planes, per channel one or more.
#[derive(Debug)]
pub struct Fetched {
    /// The field.
    pub field: Field,
    /// Encoded images per channel, in the screen's channel order; several are planes of one z stack.
    pub channels: Vec<Vec<Encoded>>,
    /// What the field is corrected by, where the screen has it.
    pub shading: Shading,
}

/// After decode: pixels.
#[derive(Debug)]
pub struct Decoded {
    /// The field.
    pub field: Field,
    /// One plane per channel.
    pub image: RawImage,
    /// What of each channel's z stack it is.
    pub stacks: Vec<Stack>,
    /// As in [`Fetched`].
    pub shading: Shading,
}

/// After preprocess: the network's input beside the pixels, which quality still needs.
#[derive(Debug)]
pub struct Prepared {
    /// The field.
    pub field: Field,
    /// One plane per channel.
    pub image: RawImage,
    /// The same in the memory of the device that measures it, where it is a graphics device.
    pub loaded: Option<DeviceImage>,
    /// What of each channel's z stack it is.
    pub stacks: Vec<Stack>,
    /// One of each size that the run's networks see.
    pub tiles: Vec<Tiles>,
}

/// After quality: the pixels are gone.
#[derive(Debug)]
pub struct Measured {
    /// The field.
    pub field: Field,
    /// One of each size that the run's networks see.
    pub tiles: Vec<Tiles>,
    /// Quality per channel.
    pub quality: Vec<ChannelMeasures>,
    /// Whether every channel passed the gates.
    pub passed: bool,
}

/// After embed, and after external steps, whose columns are then behind the embedding.
#[derive(Debug)]
pub struct Embedded {
    /// The task.
    pub task: Arc<FieldTask>,
    /// The run.
    pub run: Arc<Run>,
    /// Names and versions of the networks.
    pub model: String,
    /// Tiles averaged per channel, of the first network.
    pub tiles: u32,
    /// Quality per channel.
    pub quality: Vec<ChannelMeasures>,
    /// Whether every channel passed the gates.
    pub passed: bool,
    /// Channel embeddings one after the other, network after network, then the columns of external steps in the order of the screen.
    pub embedding: Vec<f32>,
}
