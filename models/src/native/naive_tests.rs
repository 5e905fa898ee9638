//! Every layer, and a whole small network, against sums written the plain way in f64.

use super::depthwise::Depthwise;
use super::efficientnet::{Block, Sizes};
use super::gemm::{Activation, PackedMatrix};
use super::graph::GraphBuilder;
use super::isa::Isa;
use super::layout::{Border, Map};
use crate::weights::Tensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
