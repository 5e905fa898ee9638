//! Files in memory, read as the pipeline reads an object store.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "no test program uses all of it")]

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;

use wellspring_zarr::{Chunk, IndexPlace, Limits, Plane, ZarrArray, ZarrError};

/// Grey level of a pixel, as `made/make.py` has it.
pub(crate) fn level(page: u32, y: usize, x: usize, seed: usize) -> u16 {
    (seed * 4001 + page as usize * 2003 + y * 64 + x) as u16
}

/// Files by path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folder(BTreeMap<String, Vec<u8>>);

impl Folder {
    pub(crate) fn unpacked(archive: &[u8]) -> Self {
        let mut archive = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
        let mut folder = Self::default();
        for index in 0..archive.len() {
            let mut file = archive.by_index(index).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            folder.0.insert(file.name().to_owned(), bytes);
        }
        folder
    }

    pub(crate) fn add(&mut self, path: &str, bytes: Vec<u8>) {
        self.0.insert(path.to_owned(), bytes);
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn bytes(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }

    pub(crate) fn array(&self, name: &str) -> Result<Arc<ZarrArray>, ZarrError> {
        let v2 = self.bytes(&format!("{name}/.zarray"));
        let document = v2.or_else(|| self.bytes(&format!("{name}/zarr.json"))).unwrap();
        ZarrArray::parse(document, Limits::default()).map(Arc::new)
    }

    /// The pixels of a plane, from the chunks that it needs and no others.
    pub(crate) fn plane(&self, array: &Arc<ZarrArray>, name: &str, page: u32) -> Result<Vec<u16>, ZarrError> {
        let mut tiles = Vec::new();
        for tile in array.tiles(page)? {
            let object = self.bytes(&format!("{name}/{}", tile.object));
            let bytes = match (object, array.index_place(), tile.inner) {
                (Some(object), Some(place), Some(inner)) => {
                    let index = match place {
                        IndexPlace::Start(bytes) => object.get(..bytes as usize),
                        IndexPlace::End(bytes) => {
                            object.len().checked_sub(bytes as usize).map(|at| &object[at..])
                        }
                    };
                    let index = array.shard_index(index.unwrap_or_default(), object.len() as u64)?;
                    let range = index.range(inner)?;
                    range.map(|range| &object[range.start as usize..range.end as usize])
                }
                (object, ..) => object,
            };
            let chunk = bytes.map(|bytes| Arc::new(Chunk::new(bytes.to_vec().into(), false)));
            tiles.push((tile, chunk));
        }
        let mut pixels = vec![1; array.height() * array.width()];
        Plane::new(array.clone(), tiles).read(&mut pixels)?;
        Ok(pixels)
    }
}
