//! The planes by which a plate's images are corrected, looked at before any of its fields is worked on.
//!
//! A plate's fields enter; the hash of its planes leaves, or everything that is wrong with their files. What fails: a store
//! that may recover.

use wellspring_workloads::layout::FieldFiles;
use wellspring_workloads::words::Barcode;

use super::{PlateSource, images};
use crate::decode::plane_size;
use crate::error::{Domain, StageError};
use crate::shading::{PlaneErrors, Shading};

/// Fields of a plate that are tried to find out the size of its images.
const SIZED_FIELDS: usize = 4;

/// Reads the planes by which a plate's images are corrected, and gives their hash, or says everything that is wrong with them.
pub async fn check_planes(
    source: PlateSource<'_>,
    plate: &Barcode,
    fields: &[FieldFiles],
) -> Result<Result<Option<String>, PlaneErrors>, StageError> {
    if !Shading::is_of(source.screen) {
        return Ok(Ok(None));
    }
    let mut size = None;
    // An image that cannot be read gets its dead letter from its own task.
    for field in fields.iter().take(SIZED_FIELDS) {
        size = image_size(source, field).await;
        if size.is_some() {
            break;
        }
    }
    match source.shading.get(source.screen, plate).await {
        Ok(shading) if size.is_none_or(|size| shading.check_size(size).is_ok()) => {
            return Ok(Ok(shading.digest));
        }
        Err(error) if error.domain != Domain::Input => return Err(error),
        // Read again, to say what is wrong with each.
        _ => {}
    }
    let read = Shading::read(source.screen, plate, size).await?;
    Ok(read.map(|shading| shading.digest))
}

/// Height and width of a field's first image.
async fn image_size(source: PlateSource<'_>, field: &FieldFiles) -> Option<[usize; 2]> {
    let first = images(field).into_iter().next()?;
    let plane = first.planes.first()?.clone();
    let encoded = crate::fetch::read_channels_first(source.store, &[first])
        .await
        .ok()?;
    plane_size(encoded.first()?.first()?, &plane)
}
