//! Ids of records: functions of what a record is about and of what it was made from, never of when, where or how often.
//!
//! `run/plate/well/field/step/content`, as far as a record has them; `content` is a hash of what the step worked on. The
//! same work done twice, by whichever worker, gives the same id, so that a consumer of a topic with at-least-once
//! delivery drops what it has seen.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

use crate::events::{FieldTask, PlateReady, RunId};

/// A hash of `parts`, each with its length: 12 hex digits.
pub fn content<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        add(&mut hash, [part.as_ref()]);
    }
    digits(hash)
}

/// Adds one part, in pieces.
fn add<const PIECES: usize>(hash: &mut Sha256, pieces: [&[u8]; PIECES]) {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    hash.update((length as u64).to_le_bytes());
    for piece in pieces {
        hash.update(piece);
    }
}

/// The first 12 hex digits.
pub(crate) fn digits(hash: Sha256) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    let mut digits = String::with_capacity(12);
    for byte in hash.finalize().iter().take(6) {
        digits.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    digits
}

/// What a field's work is made from: its images as listed, with their versions, its scaling, and its plate's planes.
pub fn content_of_task(task: &FieldTask) -> String {
    let mut hash = Sha256::new();
    for channel in &task.images {
        add(&mut hash, [channel.channel.as_str().as_bytes()]);
        for plane in &channel.planes {
            add(&mut hash, [plane.path.as_bytes()]);
            add(&mut hash, [&plane.bytes.to_le_bytes()]);
            // Images of their own files have the ids that they always had.
            if let Some(page) = plane.page {
                add(&mut hash, [format!("page {page}").as_bytes()]);
            }
            // So do images of which the store does not tell one state from another.
            if let Some(version) = &plane.version {
                add(&mut hash, [b"version ", version.as_bytes()]);
            }
        }
    }
    for (low, high) in task.scaling.iter().flatten() {
        add(&mut hash, [&low.to_le_bytes(), &high.to_le_bytes()]);
    }
    // Tasks of plates without planes have the ids that they always had.
    if let Some(planes) = &task.shading {
        add(&mut hash, [b"planes ", planes.as_bytes()]);
    }
    digits(hash)
}

/// The content in an id: what stands behind its last `/`.
pub fn content_of_id(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}

/// The content of a field's work in an id, as six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content([u8; 6]);

impl Content {
    /// That of a task.
    pub fn of_task(task: &FieldTask) -> Option<Self> {
        Self::parse(&content_of_task(task))
    }

    /// That of a record; `None` where the id is not of this program's form.
    pub fn of_id(id: &str) -> Option<Self> {
        Self::parse(content_of_id(id))
    }

    fn parse(digits: &str) -> Option<Self> {
        if digits.len() != 12
            || !digits
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        {
            return None;
        }
        let number = u64::from_str_radix(digits, 16).ok()?;
        let [_, _, bytes @ ..] = number.to_be_bytes();
        Some(Self(bytes))
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The id of an event about a plate: the same is said under the same id, whoever says it.
pub fn of_event(event: &PlateReady) -> String {
    let (run, plate) = (event.run.as_deref().unwrap_or("any"), &event.plate);
    let (step, said) = match (&event.progress, &event.taken_over) {
        (Some(progress), _) => ("progress", Some(format!("{progress:?}"))),
        (None, Some(taken_over)) => ("ready", Some(format!("{taken_over:?}"))),
        (None, None) => ("ready", None),
    };
    let said = [plate.as_str()].into_iter().chain(said.as_deref());
    of_plate(run, plate, step, &content(said))
}

/// The id of a record about one field.
pub fn of_field(run: &RunId, field: &FieldId, step: &str, content: &str) -> String {
    let FieldId { plate, well, field } = field;
    // Long enough for a field's number and what stands between.
    let mut id = String::with_capacity(run.len() + plate.as_str().len() + step.len() + content.len() + 20);
    // Writing to a text cannot fail.
    let _written = write!(id, "{run}/{plate}/{well}/{field}/{step}/{content}");
    id
}

/// The id of what is asked about a well.
pub fn of_well(run: &str, plate: &Barcode, well: WellPosition, step: &str, content: &str) -> String {
    format!("{run}/{plate}/{well}/{step}/{content}")
}

/// The id of a record about a plate.
pub fn of_plate(run: &str, plate: &Barcode, step: &str, content: &str) -> String {
    format!("{run}/{plate}/{step}/{content}")
}

/// The id of a record about a run.
pub fn of_run(run: &RunId, step: &str, content: &str) -> String {
    format!("{run}/{step}/{content}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{ChannelImages, ImageRef};

    fn task(path: &str, scaling: Option<Vec<(f32, f32)>>) -> FieldTask {
        FieldTask {
            run: "r".to_owned(),
            field: FieldId {
                plate: "P".parse().unwrap(),
                well: "A01".parse().unwrap(),
                field: 2,
            },
            images: vec![ChannelImages {
                channel: "DNA".parse().unwrap(),
                planes: vec![ImageRef {
                    path: path.to_owned(),
                    bytes: 9,
                    page: None,
                    z: None,
                    version: None,
                }],
            }],
            scaling,
            shading: None,
        }
    }

    /// A consumer elsewhere may keep ids for years, so they must not change with the program.
    #[test]
    fn ids_are_the_same_in_every_version() {
        let task = task("P/a.tif", None);
        let id = of_field(&task.run, &task.field, "features", &content_of_task(&task));
        assert_eq!(id, "r/P/A01/2/features/c9a0f6a2e41c");
        let content = Content::of_id(&id).unwrap();
        assert_eq!(Some(content), Content::of_task(&task));
        assert_eq!(content.to_string(), "c9a0f6a2e41c");
        for foreign in ["", "r/P", "c9a0f6a2e41", "r/C9A0F6A2E41C", "+9a0f6a2e41c"] {
            assert_eq!(Content::of_id(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn another_image_or_another_scaling_is_another_content() {
        let one = content_of_task(&task("P/a.tif", None));
        assert_ne!(one, content_of_task(&task("P/b.tif", None)));
        assert_ne!(one, content_of_task(&task("P/a.tif", Some(vec![(0.0, 1.0)]))));
        assert_ne!(content(["ab", "c"]), content(["a", "bc"]));
        let mut other_page = task("P/a.tif", None);
        other_page.images[0].planes[0].page = Some(1);
        assert_ne!(one, content_of_task(&other_page));
        // How a plane is numbered says nothing of its pixels.
        let mut numbered = task("P/a.tif", None);
        numbered.images[0].planes[0].z = Some(4);
        assert_eq!(one, content_of_task(&numbered));
        // Written again, with the same size.
        let version = |version: &str| {
            let mut task = task("P/a.tif", None);
            task.images[0].planes[0].version = Some(version.into());
            content_of_task(&task)
        };
        assert_eq!(version("0a1b"), version("0a1b"));
        assert!(version("0a1b") != one && version("0a1b") != version("0a1c"));
    }
}
