//! The networks of the native engine behind one face: build, scratch memory, run.

use super::efficientnet::Sizes;
use super::graph::{Graph, Scratch};
use super::isa::Isa;
use super::vit::{Vit, VitScratch};
use crate::architecture::Architecture;
use crate::card::{ChannelPolicy, ModelCard, Normalisation, Padding, Pooling, as_written};
use crate::prepare::{BuildError, Preparation, check_input, differs};
use crate::weights::Tensors;

/// A network ready to run.
#[derive(Debug)]
pub(crate) enum Network {
    /// A layer graph of convolutions, and what is done to grey levels before it.
    Convolutional(Graph, Preparation),
    Transformer(Box<Vit>),
}

/// The memory one thread needs.
#[derive(Debug)]
pub(crate) enum NetworkScratch {
    Convolutional(Scratch),
    Transformer(Box<VitScratch>),
}

impl Network {
    /// Builds the network of `card`.
    pub(crate) fn build(card: &ModelCard, tensors: &Tensors<'_>) -> Result<Self, BuildError> {
        check_input(card)?;
        match &card.architecture {
            lite @ (Architecture::EfficientnetLite0
            | Architecture::EfficientnetLite1
            | Architecture::EfficientnetLite2) => {
                let sizes = match lite {
                    Architecture::EfficientnetLite1 => Sizes::lite(1.0, 1.1),
                    Architecture::EfficientnetLite2 => Sizes::lite(1.1, 1.2),
                    _ => Sizes::lite(1.0, 1.0),
                };
                check_convolutional(card, &sizes)?;
                let graph = sizes.build(tensors, card.input.height, card.input.width)?;
                let preparation = Preparation::new(card.input.scale, &card.input.normalisation, 1);
                Ok(Self::Convolutional(graph, preparation))
            }
            Architecture::Vit(shape) => Ok(Self::Transformer(Box::new(Vit::build(card, shape, tensors)?))),
            Architecture::Onnx(_) | Architecture::Torchscript | Architecture::Head(_) => {
                Err(BuildError::Card {
                    field: "architecture",
                    found: "a file of another framework".to_owned(),
                    needs: "the native engine runs only networks it knows: open this one with the engine of its format".into(),
                })
            }
        }
    }

    /// Memory for one thread.
    pub(crate) fn scratch(&self) -> NetworkScratch {
        match self {
            Self::Convolutional(graph, _) => NetworkScratch::Convolutional(graph.scratch()),
            Self::Transformer(vit) => NetworkScratch::Transformer(Box::new(vit.scratch())),
        }
    }

    /// Embeds one image of `channels` planes of grey levels. `scratch` is one of this network's.
    pub(crate) fn run(
        &self,
        isa: Isa,
        scratch: &mut NetworkScratch,
        image: &[f32],
        channels: usize,
        result: &mut [f32],
    ) {
        match (self, scratch) {
            (Self::Convolutional(graph, preparation), NetworkScratch::Convolutional(scratch)) => {
                let level = preparation.level(image, 0);
                graph.run(isa, scratch, |i| level.of(image[i]), result);
            }
            (Self::Transformer(vit), NetworkScratch::Transformer(scratch)) => {
                vit.run(isa, scratch, image, channels, result);
            }
            _ => unreachable!("a network's scratch memory is its own"),
        }
    }
}

/// Refuses a card that asks for what the convolutional networks do not do.
fn check_convolutional(card: &ModelCard, sizes: &Sizes) -> Result<(), BuildError> {
    let refuse = |field, found: String, needs: &'static str| {
        let needs = needs.into();
        Err(BuildError::Card { field, found, needs })
    };
    let input = &card.input;
    if card.channel_policy != ChannelPolicy::ReplicateAndConcatenate {
        let found = as_written(&card.channel_policy);
        return refuse(
            "channel_policy",
            found,
            "this network takes one channel at a time",
        );
    }
    if card.pooling != Pooling::GlobalMean {
        return refuse(
            "pooling",
            as_written(&card.pooling),
            "this network has no tokens: global-mean",
        );
    }
    if input.padding != Padding::TfSame {
        return refuse(
            "input.padding",
            as_written(&input.padding),
            "this network was trained with tf-same",
        );
    }
    // Padding lies beside normalised levels, so channels that are normalised apart cannot be folded into one.
    if let Normalisation::Fixed { mean, std } = &input.normalisation
        && (mean.len() > 1 || std.len() > 1)
    {
        let found = as_written(&input.normalisation);
        return refuse(
            "input.normalisation",
            found,
            "all channels must have the same in this network",
        );
    }
    if input.channels != sizes.image_channels {
        return differs("input.channels", input.channels, sizes.image_channels);
    }
    if card.embedding_width != sizes.head {
        return differs("embedding_width", card.embedding_width, sizes.head);
    }
    if !(32..=1024).contains(&input.height) || !(32..=1024).contains(&input.width) {
        let found = format!("{} x {}", input.height, input.width);
        return refuse(
            "input.height and input.width",
            found,
            "each must lie in 32..=1024",
        );
    }
    Ok(())
}
