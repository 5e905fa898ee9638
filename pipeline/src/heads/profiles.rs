//! What a head is fitted on: the control wells of a run in the stream, and the columns of a table that are a network's
//! embedding.
//!
//! A gathered run, or the names of a table's features, enter; profiles, or places of columns, leave. What fails: a run that
//! is not complete, and features of another model than the base.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wellspring_models::ModelCard;
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::WellProfile;
use wellspring_workloads::screen::Screen;

use super::{Controls, HeadsError};
use crate::collect::Collection;
use crate::results::feature_names;
use crate::wells::{PlateFields, PlateWells, too_few_fields};

/// Channels of an image that are tried to find out how many a table's features are of.
const MOST_CHANNELS: usize = 64;

/// The profiles of a complete run's control wells, as the run makes them: the aggregate of the passing fields, of wells
/// and plates that enough fields of passed. Of a screen's networks, `cards` in their order, they have the embedding of the one at
/// `chosen`. What was left out is told in words besides.
pub fn run_profiles(
    screen: &Screen,
    cards: &[Arc<ModelCard>],
    chosen: usize,
    collection: &mut Collection,
    map: &PlateMap,
    controls: Controls,
) -> Result<(Vec<WellProfile>, Vec<String>), HeadsError> {
    let progress = collection.progress();
    if !collection.complete() {
        return Err(HeadsError::Incomplete {
            run: collection.run().clone(),
            done: progress.done + progress.failed,
            expected: progress.expected,
        });
    }
    let width = |card: &Arc<ModelCard>| card.image_width(screen.images.channels.len()).unwrap_or(0);
    let before: usize = cards.iter().take(chosen).map(width).sum();
    let width = before + cards.get(chosen).map_or(0, width);
    let named = cards.iter().map(|card| format!("{} {}", card.name, card.version));
    let expected = named.collect::<Vec<_>>().join(" + ");
    let (mut profiles, mut left_out) = (Vec::new(), Vec::new());
    for plate in collection.plates().cloned().collect::<Vec<_>>() {
        let treatments = match screen.treatments(map, &plate) {
            Ok(treatments) => treatments,
            // Planning failed it for the same reason.
            Err(errors) => {
                left_out.push(format!("plate {plate} is left out: {errors}"));
                continue;
            }
        };
        let mut fields = PlateFields::new(screen, &plate, treatments, width);
        for features in collection.fields(&plate)? {
            let features = features?;
            if features.model != expected {
                return Err(HeadsError::OtherModel {
                    what: features.field.to_string(),
                    found: features.model,
                    expected,
                });
            }
            fields.push(&features);
        }
        let PlateWells {
            treatments,
            profiles: mut wells,
            mut short,
            held_back,
            ..
        } = fields.finish();
        if let Some(reason) = held_back.filter(|_| !collection.published.released.contains(&plate)) {
            left_out.push(format!("plate {plate} is left out: {reason}"));
            continue;
        }
        for profile in &mut wells {
            profile.values.drain(..before.min(profile.values.len()));
        }
        short.retain(|(well, _)| treatments.get(well).is_some_and(|given| controls.has(given)));
        left_out.extend(too_few_fields(&plate, &short));
        profiles.extend(
            wells
                .into_iter()
                .filter(|profile| controls.has(&profile.treatment)),
        );
    }
    Ok((profiles, left_out))
}

/// Of which model a table's features are, by their names: `NAME_0`, `NAME_1` and so on.
pub fn family(features: &[String]) -> Option<&str> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut families = features.iter().filter_map(|name| name.rsplit_once('_'));
    families.find(|(_, end)| number(end)).map(|(family, _)| family)
}

/// How many channels the features of a table are of, and where the base's embedding is among them, whose names begin with
/// `family`. `known` is what the screen says of the channels, where it says it.
pub fn embedding_columns(
    base: &ModelCard,
    family: &str,
    features: &[String],
    known: Option<usize>,
) -> Result<(usize, Vec<usize>), HeadsError> {
    let at: BTreeMap<&str, usize> = features
        .iter()
        .enumerate()
        .map(|(i, name)| (name.as_str(), i))
        .collect();
    let own = |name: &&String| {
        let number = name.strip_prefix(family).and_then(|rest| rest.strip_prefix('_'));
        number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
    };
    let found = features.iter().filter(own).count();
    let fits = |channels: &usize| base.image_width(*channels) == Some(found);
    let channels = known.or_else(|| (1..=MOST_CHANNELS).find(fits)).unwrap_or(1);
    let names = feature_names(family, base.image_width(channels).unwrap_or(0));
    let missing = |name: &String| HeadsError::Features {
        model: format!("{} of {channels} channels", base.name),
        missing: name.clone(),
    };
    let columns: Vec<usize> = names
        .iter()
        .map(|name| at.get(name.as_str()).copied().ok_or_else(|| missing(name)))
        .collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Err(missing(&format!("{family}_0")));
    }
    Ok((channels, columns))
}

/// What a table that a run wrote says of its features; one made elsewhere says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableKeys<'a> {
    /// Digest of the network's weights; of several networks theirs, with ` + ` between.
    pub model_sha256: Option<&'a str>,
    /// Digest of the screen.
    pub screen_sha256: Option<&'a str>,
}

/// Refuses a table that says it was made with other weights than the base's, or, where `screen` has the path and the digest
/// of the screen file, for another screen. Whether the table says which screen it is of.
pub fn check_table(
    base: &ModelCard,
    table: &Path,
    keys: TableKeys<'_>,
    screen: Option<(&Path, &str)>,
) -> Result<bool, HeadsError> {
    let said = |key: Option<&str>| key.filter(|digest| !digest.is_empty()).map(str::to_owned);
    let own = |digests: &str| {
        digests
            .split(" + ")
            .any(|digest| digest == base.weights.content_sha256)
    };
    if let Some(found) = said(keys.model_sha256).filter(|found| !own(found)) {
        return Err(HeadsError::OtherModel {
            what: format!("'{}'", table.display()),
            found: format!("a model with weights {found}"),
            expected: format!("{} with weights {}", base.name, base.weights.content_sha256),
        });
    }
    let of_screen = said(keys.screen_sha256);
    match (&of_screen, screen) {
        (Some(found), Some((screen, expected))) if found != expected => Err(HeadsError::OtherScreen {
            table: table.to_owned(),
            found: found.clone(),
            screen: screen.to_owned(),
            expected: expected.to_owned(),
        }),
        _ => Ok(of_screen.is_some()),
    }
}
