//! Stores in memory and on disk, read as `wellspring` reads them: what a layout asks for is handed to it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "helpers of tests panic and say what they skip, as tests do; not every test uses all of them"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use wellspring_workloads::layout::{Description, DescriptionReader, ListedFile, Part, PlateFiles, Reading};
use wellspring_workloads::screen::{ImagesSettings, Screen};

/// The settings of a screen with these lines in `[images]`.
pub(crate) fn images(lines: &str) -> ImagesSettings {
    let text = format!(
        "[screen]\nname = \"a\"\n[images]\nstore = \"i\"\n{lines}\n[plate_map]\nfile = \"m.csv\"\n\
         [controls]\nreference = {{ r = 0 }}\nphenotype = {{ r = 1 }}\n"
    );
    Screen::parse(&text, "a.toml")
        .unwrap_or_else(|errors| panic!("{errors}"))
        .images
}

/// Files by path: in memory, or on disk below a folder.
#[derive(Default)]
pub(crate) struct Store {
    memory: BTreeMap<String, Result<Vec<u8>, String>>,
    disk: BTreeMap<String, PathBuf>,
}

impl Store {
    pub(crate) fn add(&mut self, path: &str, bytes: &[u8]) {
        self.memory.insert(path.to_owned(), Ok(bytes.to_vec()));
    }

    pub(crate) fn refuse(&mut self, path: &str, why: &str) {
        self.memory.insert(path.to_owned(), Err(why.to_owned()));
    }

    pub(crate) fn remove(&mut self, path: &str) {
        assert!(self.memory.remove(path).is_some(), "{path}");
    }

    pub(crate) fn listing(&self) -> Vec<ListedFile> {
        let memory = self.memory.iter().map(|(path, bytes)| ListedFile {
            path: path.clone(),
            size: bytes.as_ref().map_or(1, Vec::len) as u64,
            version: None,
        });
        let disk = self.disk.iter().map(|(path, file)| ListedFile {
            path: path.clone(),
            size: file.metadata().unwrap().len(),
            version: None,
        });
        memory.chain(disk).collect()
    }

    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        match self.memory.get(path) {
            Some(bytes) => bytes.clone(),
            None => Ok(std::fs::read(&self.disk[path]).unwrap()),
        }
    }

    /// Every plate of the store.
    pub(crate) fn read(&self, images: &ImagesSettings) -> PlateFiles {
        let mut reading = Reading::new(self.listing(), images, None);
        for _ in 0..100 {
            let wanted = reading.wanted();
            if wanted.is_empty() {
                return reading.assemble().unwrap();
            }
            for file in wanted {
                let bytes = match file.part {
                    Part::Whole => self.bytes(&file.path),
                    Part::Description => self.bytes(&file.path).and_then(|bytes| description(&bytes)),
                };
                reading.answer(&file, bytes);
            }
        }
        panic!("a layout asks without end");
    }
}

fn description(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut reader = DescriptionReader::new(bytes.len() as u64);
    loop {
        match reader.needs() {
            Description::Read(range) => {
                let part = bytes[range.start as usize..range.end as usize].to_vec();
                reader.give(range.start, part);
            }
            Description::Found(bytes) => return Ok(bytes),
            Description::Broken(reason) => return Err(reason),
        }
    }
}

/// The files below `../shared/data/<folder>`; `None`, with a word, where it is absent.
pub(crate) fn shared(folder: &str) -> Option<Store> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(folder);
    if !base.is_dir() {
        println!("skipped: ../shared not present");
        return None;
    }
    let (mut folders, mut store) = (vec![base.clone()], Store::default());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
                store.disk.insert(name, path);
            }
        }
    }
    Some(store)
}

/// Plates, wells, fields.
pub(crate) fn counts(found: &PlateFiles) -> (usize, usize, usize) {
    let fields = || {
        found
            .plates
            .iter()
            .flat_map(|(plate, fields)| fields.iter().map(move |field| (plate, field.well)))
    };
    let wells: BTreeSet<_> = fields().collect();
    (found.plates.len(), wells.len(), fields().count())
}
