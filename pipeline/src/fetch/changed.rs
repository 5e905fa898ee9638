//! Images that are not what was listed when their plate was planned.
//!
//! An image as it was listed and as it was read enters; what has changed leaves, in words. It is read as it is now: a file that was
//! put right is read so too, and the field's quality says that it has changed. Cannot fail. Of arrays nothing is told: their chunks
//! are objects of their own.

use wellspring_workloads::words::Channel;

use crate::events::ImageRef;
use crate::fields::Encoded;
use crate::store::{ImageStore, State};

/// Channels of which an image is not what was listed, and what has changed.
pub(super) type Changed = Vec<(Channel, String)>;

/// What has changed of an image that was read in a state, if anything.
pub(super) async fn changed_since(
    store: &ImageStore,
    listed: &ImageRef,
    read: &Encoded,
    state: &State,
) -> Option<String> {
    let bytes = match read {
        Encoded::File(bytes) => bytes.len() as u64,
        Encoded::Page(page) => page.object_bytes(),
        Encoded::Plane(_) => return None,
    };
    let address = || store.address(&listed.path);
    if bytes != listed.bytes {
        return Some(format!(
            "changed: {} has {bytes} bytes, {} when its plate was listed",
            address(),
            listed.bytes
        ));
    }
    let version = listed.version.as_deref()?;
    let again = store.was_written_again(&listed.path, version, state).await;
    again.then(|| {
        format!(
            "changed: {} was written again after its plate was listed",
            address()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt};

    use super::*;
    use crate::events::ChannelImages;

    /// The images of a plate's only field, as they are listed now.
    async fn listed(store: &ImageStore) -> Vec<ChannelImages> {
        let files = store.list(None).await.unwrap().into_iter();
        let image = |file: crate::store::Listed| ChannelImages {
            channel: "DNA".parse().unwrap(),
            planes: vec![ImageRef {
                path: file.path,
                bytes: file.bytes,
                page: None,
                z: None,
                version: file.version,
            }],
        };
        files.map(image).collect()
    }

    async fn changed(store: &ImageStore, images: &[ChannelImages]) -> Vec<String> {
        let read = super::super::read(store, images, false).await.unwrap();
        read.changed.into_iter().map(|(_, text)| text).collect()
    }

    #[tokio::test]
    async fn a_file_that_is_written_again_with_the_same_size_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tif");
        std::fs::write(&path, b"once").unwrap();
        let uri = folder.path().to_str().unwrap();
        let store = ImageStore::open(uri).unwrap();
        let images = listed(&store).await;
        // Of a file the number of its node, which other machines may see differently, says nothing.
        let version = images[0].planes[0].version.as_deref().unwrap();
        assert!(version.starts_with('@'), "{version}");
        assert_eq!(changed(&store, &images).await, [""; 0]);
        std::fs::write(&path, b"more").unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(later).unwrap();
        let again = format!("changed: {uri}/a.tif was written again after its plate was listed");
        assert_eq!(changed(&store, &images).await, [again]);
        assert_eq!(changed(&store, &listed(&store).await).await, [""; 0]);
        std::fs::write(&path, b"longer").unwrap();
        let longer = format!("changed: {uri}/a.tif has 6 bytes, 4 when its plate was listed");
        assert_eq!(changed(&store, &images).await, [longer]);
    }

    #[tokio::test]
    async fn an_object_is_told_apart_by_its_tag() {
        let objects = std::sync::Arc::new(InMemory::new());
        let store = ImageStore::of(objects.clone(), 0);
        let path = Path::from("a.tif");
        objects.put(&path, "once".into()).await.unwrap();
        let mut images = listed(&store).await;
        assert_eq!(changed(&store, &images).await, [""; 0]);
        objects.put(&path, "more".into()).await.unwrap();
        assert_eq!(
            changed(&store, &images).await,
            ["changed: test://store/a.tif was written again after its plate was listed"]
        );
        // Planned by a version that did not say.
        images[0].planes[0].version = None;
        assert_eq!(changed(&store, &images).await, [""; 0]);
        let dynamic: std::sync::Arc<dyn ObjectStore> = objects;
        assert_eq!(changed(&ImageStore::of(dynamic, 0), &images).await, [""; 0]);
    }
}
