//! The layer graph of convolutions on the device.
//!
//! Enters: the native engine's graph. Leaves: its plan for a number of images.

use super::device::{Failed, Gpu, Vectors};
use super::layers::{Cut, Matrix, Mean, Place, Residual, whole};
use super::plan::{Bound, Plan, groups_of};
use super::shaders;
use crate::native::gemm::Activation;
use crate::native::graph::{Graph, Layer, Value};
use crate::native::layout::{Map, same_padding};
use crate::prepare::Preparation;

/// What a step computes.
enum Kind {
    /// A matrix over the channels of each pixel.
    Pointwise(Matrix),
    /// A matrix over the patch around each output pixel.
    Dense {
        matrix: Matrix,
        kernel: usize,
        stride: usize,
    },
    Depthwise {
        kernel: usize,
        stride: usize,
        activation: Activation,
        weights: Vectors,
        bias: wgpu::Buffer,
    },
    MeanPool,
}

struct Step {
    kind: Kind,
    input: Value,
    residual: Option<Value>,
    output: Value,
}

/// The graph on the device.
pub(super) struct Convolutional {
    preparation: Preparation,
    maps: Vec<Map>,
    buffer_of: Vec<usize>,
    steps: Vec<Step>,
    output: Value,
}

impl Convolutional {
    pub(super) fn upload(gpu: &mut Gpu, graph: &Graph, preparation: &Preparation) -> Result<Self, Failed> {
        let mut steps = Vec::new();
        for step in graph.steps() {
            let kind = match &step.layer {
                Layer::Pointwise(matrix) => Kind::Pointwise(Matrix::upload(gpu, matrix)?),
                Layer::Dense {
                    matrix,
                    kernel,
                    stride,
                } => Kind::Dense {
                    matrix: Matrix::upload(gpu, matrix)?,
                    kernel: *kernel,
                    stride: *stride,
                },
                Layer::Depthwise(layer) => Kind::Depthwise {
                    kernel: layer.kernel(),
                    stride: layer.stride(),
                    activation: layer.activation(),
                    weights: gpu.vectors(layer.weights())?,
                    bias: gpu.constant(layer.bias())?,
                },
                Layer::MeanPool => Kind::MeanPool,
            };
            steps.push(Step {
                kind,
                input: step.input,
                residual: step.residual,
                output: step.output,
            });
        }
        Ok(Self {
            preparation: preparation.clone(),
            maps: graph.maps().to_vec(),
            buffer_of: graph.buffers().to_vec(),
            steps,
            output: graph.output(),
        })
    }

    /// Values of the largest buffer of one image.
    pub(super) fn largest(&self) -> usize {
        let values = |map: &Map| map.pixels() * map.channels;
        // Patches of the first convolution, filled up.
        let patches = self.maps.first().map_or(0, |map| map.pixels() * 12);
        self.maps.iter().map(values).max().unwrap_or(0).max(patches)
    }

    /// The plan for `items` images, and the buffer that takes their pixels.
    pub(super) fn plan(&self, gpu: &mut Gpu, items: usize) -> Result<(Plan, wgpu::Buffer), Failed> {
        let values = |map: &Map| map.pixels() * map.channels;
        let image = self.maps[0];
        let pixels = gpu.buffer(items * image.pixels())?;
        let mut sizes = vec![0; self.buffer_of.iter().max().map_or(0, |n| n + 1)];
        for (map, &buffer) in self.maps.iter().zip(&self.buffer_of).skip(1) {
            sizes[buffer] = values(map).max(sizes[buffer]);
        }
        let buffers: Vec<wgpu::Buffer> = sizes
            .iter()
            .map(|&n| gpu.buffer(n * items))
            .collect::<Result<_, _>>()?;
        let of = |value: Value| (&buffers[self.buffer_of[value.index()]], self.maps[value.index()]);
        let (output, output_map) = of(self.output);
        let mut plan = Plan::new(output.clone(), items * values(&output_map));
        for step in &self.steps {
            let ((input, from), (output, to)) = (of(step.input), of(step.output));
            let place = Place {
                rows: to.pixels(),
                places: to.pixels(),
                first: 0,
            };
            let residual = match step.residual {
                Some(value) => Residual::Same(of(value).0),
                None => Residual::None,
            };
            match &step.kind {
                Kind::Pointwise(matrix) => {
                    matrix.record(&mut plan, gpu, items, place, (input, residual, output))?;
                }
                Kind::Dense {
                    matrix,
                    kernel,
                    stride,
                } => {
                    // A map of several channels would have to be gathered from rows of them; no network here has one.
                    if step.input.index() != 0 || from.channels != 1 {
                        let reason = "a dense convolution after the first is not written for this engine";
                        return Err(Failed::new("build", reason));
                    }
                    let cut = Cut {
                        planes: 1,
                        members: 1,
                        size: (from.height, from.width),
                        grid: (to.height, to.width),
                        kernel: *kernel,
                        stride: *stride,
                        padding: (
                            same_padding(from.height, *kernel, *stride).0,
                            same_padding(from.width, *kernel, *stride).0,
                        ),
                        row: whole(matrix.inputs()),
                    };
                    let patches = gpu.buffer(items * cut.rows() * cut.row)?;
                    cut.record(&mut plan, gpu, items, &self.preparation, (&pixels, &patches))?;
                    matrix.record(&mut plan, gpu, items, place, (&patches, residual, output))?;
                }
                Kind::Depthwise {
                    kernel,
                    stride,
                    activation,
                    weights,
                    bias,
                } => {
                    let count = items * to.pixels() * to.channels / 4;
                    let parameters = [
                        count,
                        from.height,
                        from.width,
                        from.channels / 4,
                        to.height,
                        to.width,
                        *kernel,
                        *stride,
                        same_padding(from.height, *kernel, *stride).0,
                        same_padding(from.width, *kernel, *stride).0,
                    ];
                    plan.dispatch(
                        gpu,
                        shaders::depthwise(*activation, gpu.images()),
                        &parameters.map(|n| n as u32),
                        &[
                            Bound::Map(input, items * values(&from)),
                            Bound::Constant(weights),
                            Bound::Buffer(bias),
                            Bound::Buffer(output),
                        ],
                        groups_of(count),
                    )?;
                }
                Kind::MeanPool => {
                    let mean = Mean {
                        width: from.channels,
                        rows: from.pixels(),
                        first: 0,
                        count: from.pixels(),
                        result: from.channels,
                        at: 0,
                        affine: None,
                    };
                    mean.record(&mut plan, gpu, items, (input, output))?;
                }
            }
        }
        Ok((plan, pixels))
    }
}
