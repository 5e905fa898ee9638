//! Refuses cards that contradict themselves or ask for what the transformer does not do, before a tensor is read.

use crate::architecture::{Positions, VitShape};
use crate::card::{ChannelPolicy, ModelCard, Padding, Pooling, as_written};
use crate::prepare::{BuildError, differs};

/// Largest sizes a card may ask for: beyond any network here, within what can be multiplied without overflow.
const MOST_WIDTH: usize = 16_384;
const MOST_DEPTH: usize = 256;
const MOST_TOKENS: usize = 65_536;

/// Refuses a card that contradicts itself or asks for what the network does not do.
pub(super) fn check(card: &ModelCard, shape: &VitShape) -> Result<(), BuildError> {
    let refuse = |field, found: String, needs: &'static str| {
        let needs = needs.into();
        Err(BuildError::Card { field, found, needs })
    };
    let sizes = [shape.width, shape.mlp_width];
    if sizes.iter().any(|&n| n == 0 || n > MOST_WIDTH) || shape.depth > MOST_DEPTH {
        let found = format!(
            "width {}, mlp_width {}, depth {}",
            shape.width, shape.mlp_width, shape.depth
        );
        return refuse(
            "architecture",
            found,
            "widths must lie in 1..=16384 and the depth in 0..=256",
        );
    }
    if shape.heads == 0 || !shape.width.is_multiple_of(shape.heads) {
        return refuse(
            "architecture.heads",
            shape.heads.to_string(),
            "they must divide the width",
        );
    }
    if shape.positions == Positions::SinCos && !shape.width.is_multiple_of(4) {
        return refuse(
            "architecture.width",
            shape.width.to_string(),
            "sines need a multiple of 4",
        );
    }
    if !(shape.norm_epsilon > 0.0 && shape.norm_epsilon.is_finite()) {
        return refuse(
            "architecture.norm_epsilon",
            shape.norm_epsilon.to_string(),
            "it must be above 0",
        );
    }
    let input = &card.input;
    let fits = |n: usize| shape.patch > 0 && n >= shape.patch && n.is_multiple_of(shape.patch);
    if !fits(input.height) || !fits(input.width) {
        let found = format!("{} x {}", input.height, input.width);
        return refuse(
            "input.height and input.width",
            found,
            "patches must cover the image side by side",
        );
    }
    if input.padding != Padding::None {
        return refuse("input.padding", as_written(&input.padding), "patches have none");
    }
    let planes = match card.channel_policy {
        ChannelPolicy::ReplicateAndConcatenate => 1,
        ChannelPolicy::FirstConvolution { channels } => channels,
        ChannelPolicy::Fitted { channels } => {
            let found = format!("fitted, {channels}");
            return refuse(
                "channel_policy",
                found,
                "only a head's channels are those it was fitted on",
            );
        }
        ChannelPolicy::ChannelAgnostic { most } => {
            if input.channels != 1 {
                let found = input.channels.to_string();
                return refuse(
                    "input.channels",
                    found,
                    "a channel-agnostic network has a convolution of 1 channel",
                );
            }
            most
        }
    };
    let patches = (input.height / shape.patch).saturating_mul(input.width / shape.patch);
    let tokens = patches.saturating_mul(planes).saturating_add(shape.registers + 1);
    if planes == 0 || tokens > MOST_TOKENS {
        let found = format!("{planes} channels, {tokens} tokens");
        return refuse(
            "channel_policy",
            found,
            "an image must have channels and at most 65536 tokens",
        );
    }
    let class = matches!(
        card.pooling,
        Pooling::ClassToken | Pooling::ClassTokenAndPatchMean
    );
    let agnostic = matches!(card.channel_policy, ChannelPolicy::ChannelAgnostic { .. });
    let pooled = match card.pooling {
        Pooling::GlobalMean | Pooling::Head => false,
        Pooling::PatchMeanPerChannel => agnostic,
        _ => !class || shape.class_token,
    };
    if !pooled {
        return refuse(
            "pooling",
            as_written(&card.pooling),
            "a transformer has no feature map, a class token must be there to be read, and only a channel-agnostic \
             network has patches of each channel",
        );
    }
    let width = match card.pooling {
        Pooling::ClassTokenAndPatchMean => 2 * shape.width,
        _ => shape.width,
    };
    if card.embedding_width != width {
        return differs("embedding_width", card.embedding_width, width);
    }
    Ok(())
}
