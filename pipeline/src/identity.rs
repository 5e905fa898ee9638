//! Identity: a run is made with one screen, one network and one set of planes, from its first field to its last.
//!
//! What a run was submitted with is on the status topic. Whoever goes on with it, today or in a year, here or on another
//! machine, is held to that: a result file names one network, so none of its features may come from another. What fails:
//! another screen under the same name and version, a network or planes that have changed since.

use wellspring_models::ModelCard;
use wellspring_workloads::screen::{Screen, ScreenName};
use wellspring_workloads::words::Barcode;

use crate::events::{ModelIdentity, RunId};

/// Between what is said of one network and of the next.
const BESIDE: &str = " + ";

/// A run that would not be one any more.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another screen has the name and the version.
    #[error(
        "screen '{name}' was submitted before as run '{run}', and {parts} is not the same now: count `version` up under \
         [screen] (it is {version}) or choose another name for a run beside the old one, or put back what was changed"
    )]
    OtherScreen {
        /// The screen's name.
        name: ScreenName,
        /// Its version.
        version: u32,
        /// The run that has them.
        run: RunId,
        /// The tables of the screen file that differ.
        parts: String,
    },
    /// The model of this name is another one here.
    #[error(
        "run '{run}' is made with {was}, but the model of that name is now {is} here: put the earlier one in its place, or \
         make a run beside the old one by another `version` under [screen]"
    )]
    OtherModel {
        /// The run.
        run: RunId,
        /// What the run was submitted with.
        was: String,
        /// What is there.
        is: String,
    },
    /// A plate's planes are not those that it was planned with.
    #[error(
        "plate {plate} of run '{run}' was planned with other illumination functions or dark-fields ({was}) than are there \
         now ({is}): put the earlier files in their place, or make a run beside the old one by another `version` under \
         [screen]"
    )]
    OtherPlanes {
        /// The run.
        run: RunId,
        /// The plate.
        plate: Barcode,
        /// Their hash as planned.
        was: String,
        /// Their hash now.
        is: String,
    },
}

impl ModelIdentity {
    /// That of networks which see a field one after the other.
    pub fn of<'c>(cards: impl Iterator<Item = &'c ModelCard> + Clone) -> Self {
        let all = |of: fn(&ModelCard) -> String| cards.clone().map(of).collect::<Vec<_>>().join(BESIDE);
        Self {
            name: all(|card| card.name.clone()),
            version: all(|card| card.version.clone()),
            weights_sha256: all(|card| card.weights.content_sha256.clone()),
            card_sha256: all(ModelCard::contract_sha256),
        }
    }

    /// In words, as far as it differs from `other`.
    pub(crate) fn told(&self, other: &Self) -> String {
        let mut told = format!("{} {}", self.name, self.version);
        if self.weights_sha256 != other.weights_sha256 {
            told.push_str(&format!(" with weights {}", begun(&self.weights_sha256)));
        }
        if self.card_sha256 != other.card_sha256 {
            told.push_str(&format!(" by card {}", begun(&self.card_sha256)));
        }
        told
    }
}

/// Enough of digests to tell them apart.
fn begun(digests: &str) -> String {
    let each = digests.split(BESIDE).map(|digest| format!("{digest:.16}"));
    each.collect::<Vec<_>>().join(BESIDE)
}

/// Refuses networks that are not the run's. Runs of earlier versions do not know theirs.
pub fn same_model(run: &RunId, was: Option<&ModelIdentity>, is: &ModelIdentity) -> Result<(), IdentityError> {
    match was {
        Some(was) if was != is => Err(IdentityError::OtherModel {
            run: run.clone(),
            was: was.told(is),
            is: is.told(was),
        }),
        _ => Ok(()),
    }
}

/// Refuses planes that are not those the plate was planned with. `was` is absent for plates that have none, and for plates
/// planned by earlier versions.
pub fn same_planes(
    run: &RunId,
    plate: &Barcode,
    was: Option<&str>,
    is: Option<&str>,
) -> Result<(), IdentityError> {
    match was {
        Some(was) if Some(was) != is => Err(IdentityError::OtherPlanes {
            run: run.clone(),
            plate: plate.clone(),
            was: was.to_owned(),
            is: is.unwrap_or("none").to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Refuses a screen that has the name and the version of another one, `before`, which is `run`.
pub fn same_screen(run: &RunId, before: &Screen, screen: &Screen) -> Result<(), IdentityError> {
    let same_name = before.name == screen.name && before.version == screen.version;
    if !same_name || before.hash() == screen.hash() {
        return Ok(());
    }
    Err(IdentityError::OtherScreen {
        name: screen.name.clone(),
        version: screen.version,
        run: run.clone(),
        parts: different_parts(before, screen).join(" and "),
    })
}

/// The parts of two screens that are not the same, as their files have them, in order.
pub fn different_parts(one: &Screen, other: &Screen) -> Vec<String> {
    let tables = |screen: &Screen| serde_json::to_value(screen).unwrap_or_default();
    let (one, other) = (tables(one), tables(other));
    let names = other.as_object().into_iter().chain(one.as_object());
    let mut differ: Vec<&String> = names
        .flat_map(|tables| tables.keys())
        .filter(|name| one.get(name) != other.get(name))
        .collect();
    differ.sort();
    differ.dedup();
    differ.into_iter().map(|name| written(name)).collect()
}

/// A part of a screen as its file has it.
fn written(part: &str) -> String {
    match part {
        "description" => "[screen] description".to_owned(),
        "name" => "[screen] name".to_owned(),
        "version" => "[screen] version".to_owned(),
        "steps" => "[[steps]]".to_owned(),
        table => format!("[{table}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: &str = r#"
[screen]
name = "lit"
[images]
store = "images"
channels = ["DNA"]
[plate_map]
file = "map.csv"
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
"#;

    fn screen(text: &str) -> Screen {
        Screen::parse(text, "lit.toml").unwrap()
    }

    #[test]
    fn a_changed_screen_is_refused_under_its_name_and_taken_under_another_version() {
        let run = "lit-0123".to_owned();
        let before = screen(SCREEN);
        same_screen(&run, &before, &screen(&SCREEN.replace('\n', "\n\n"))).unwrap();
        let changed = format!("{SCREEN}[preprocess]\nbackground = 100\n[comparison]\nseed = 7\n");
        let refused = same_screen(&run, &before, &screen(&changed))
            .unwrap_err()
            .to_string();
        for part in [
            "'lit'",
            "lit-0123",
            "[comparison] and [preprocess] is not",
            "it is 1",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
        let versioned = changed.replace("name = \"lit\"", "name = \"lit\"\nversion = 2");
        same_screen(&run, &before, &screen(&versioned)).unwrap();
        same_screen(&run, &before, &screen(&changed.replace("lit", "lamp"))).unwrap();
    }

    #[test]
    fn a_model_is_the_same_by_weights_and_by_what_its_card_says() {
        let run = "lit-0123".to_owned();
        let card = wellspring_models::find_card("efficientnet-lite0").unwrap();
        let of = |card| ModelIdentity::of(std::iter::once(card));
        let was = of(card);
        same_model(&run, None, &was).unwrap();
        same_model(&run, Some(&was), &of(card)).unwrap();
        let mut other = card.clone();
        other.weights.content_sha256 = "f".repeat(64);
        let refused = same_model(&run, Some(&was), &of(&other)).unwrap_err().to_string();
        assert!(refused.contains(&was.weights_sha256[..16]), "{refused}");
        assert!(
            refused.contains(" with weights ffffffffffffffff here"),
            "{refused}"
        );
        let mut other = card.clone();
        other.input.scale *= 2.0;
        let refused = same_model(&run, Some(&was), &of(&other)).unwrap_err().to_string();
        assert!(
            refused.contains(&was.card_sha256[..16]) && !refused.contains("weights"),
            "{refused}"
        );
        let both = ModelIdentity::of([card, &other].into_iter());
        assert_eq!(both.name, "efficientnet-lite0 + efficientnet-lite0");
        let refused = same_model(&run, Some(&was), &both).unwrap_err().to_string();
        let cards = format!(
            "by card {:.16} + {:.16}",
            was.card_sha256,
            other.contract_sha256()
        );
        assert!(refused.contains(&cards), "{refused}");
    }

    #[test]
    fn planes_are_held_to_where_they_are_known() {
        let (run, plate) = ("lit-0123".to_owned(), "P1".parse().unwrap());
        same_planes(&run, &plate, None, Some("a")).unwrap();
        same_planes(&run, &plate, Some("a"), Some("a")).unwrap();
        for is in [Some("b"), None] {
            let refused = same_planes(&run, &plate, Some("a"), is).unwrap_err().to_string();
            assert!(
                refused.contains("plate P1") && refused.contains("(a)"),
                "{refused}"
            );
        }
    }
}
