//! Features that wait for their row group: rows enter, columns leave.
//!
//! A large group makes a small footer, which a writer holds until the file is whole. So that memory does not hold the
//! group in its place, full blocks of rows wait in a file without a name, turned into columns. Fails where the disk does.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::scratch::{ScratchError, unnamed_file};

/// Features held in memory.
const BLOCK_BYTES: usize = 2 << 20;
/// Bytes of columns written at once.
const BUFFER_BYTES: usize = 64 << 10;

/// The features of a row group.
#[derive(Debug)]
pub(super) struct Features {
    width: usize,
    /// Where a file can be made.
    folder: PathBuf,
    /// Row after row, those that are not on disk.
    rows: Vec<f32>,
    /// Block after block, each column after column. Made with the first full block.
    aside: Option<File>,
    /// Where each block begins in the file, and its rows.
    blocks: Vec<(u64, usize)>,
    end: u64,
}

impl Features {
    /// Of rows of `width` features. Blocks wait in folder `folder`.
    pub(super) fn new(width: usize, folder: &Path) -> Self {
        Self {
            width,
            folder: folder.to_owned(),
            rows: Vec::new(),
            aside: None,
            blocks: Vec::new(),
            end: 0,
        }
    }

    /// Features of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Appends a row of that many.
    pub(super) fn push(&mut self, row: &[f32]) -> Result<(), ScratchError> {
        if size_of_val(&*self.rows) + size_of_val(row) > BLOCK_BYTES && !self.rows.is_empty() {
            self.put_aside()?;
        }
        self.rows.extend_from_slice(row);
        Ok(())
    }

    /// All values of a feature, in the order of the rows.
    pub(super) fn column(&self, feature: usize, values: &mut Vec<f32>) -> Result<(), ScratchError> {
        values.clear();
        let mut bytes = Vec::new();
        for (file, &(at, rows)) in self
            .aside
            .iter()
            .flat_map(|file| self.blocks.iter().map(move |block| (file, block)))
        {
            bytes.resize(rows * size_of::<f32>(), 0);
            let at = at + (feature * bytes.len()) as u64;
            file.read_exact_at(&mut bytes, at)
                .map_err(|source| self.failed("read", source))?;
            let (numbers, _) = bytes.as_chunks();
            values.extend(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        values.extend(self.of_block(feature));
        Ok(())
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.blocks.clear();
        self.end = 0;
    }

    fn of_block(&self, feature: usize) -> impl Iterator<Item = f32> {
        self.rows.iter().skip(feature).step_by(self.width.max(1)).copied()
    }

    fn put_aside(&mut self) -> Result<(), ScratchError> {
        let file = match self.aside.take() {
            Some(file) => file,
            None => unnamed_file(&self.folder)?,
        };
        self.write_block(&file)
            .map_err(|source| self.failed("written", source))?;
        self.aside = Some(file);
        self.blocks.push((self.end, self.rows.len() / self.width.max(1)));
        self.end += size_of_val(&*self.rows) as u64;
        self.rows.clear();
        Ok(())
    }

    fn write_block(&self, mut file: &File) -> std::io::Result<()> {
        file.seek(SeekFrom::Start(self.end))?;
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        for feature in 0..self.width {
            for value in self.of_block(feature) {
                writer.write_all(&value.to_le_bytes())?;
            }
        }
        writer.flush()
    }

    fn failed(&self, doing: &'static str, source: std::io::Error) -> ScratchError {
        ScratchError {
            folder: self.folder.clone(),
            doing,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_hold_every_row_in_order_whether_it_waited_on_disk_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let width = 1000;
        let mut features = Features::new(width, folder.path());
        let mut column = Vec::new();
        for rows in [3000, 5, 1100] {
            for row in 0..rows {
                let values: Vec<f32> = (0..width).map(|i| (row * 7 + i) as f32).collect();
                features.push(&values).unwrap();
            }
            for feature in [0, 1, width - 1] {
                features.column(feature, &mut column).unwrap();
                assert_eq!(column.len(), rows);
                assert!((0..rows).all(|row| column[row] == (row * 7 + feature) as f32));
            }
            assert!(size_of_val(&*features.rows) <= BLOCK_BYTES);
            features.clear();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_row_larger_than_a_block_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let width = BLOCK_BYTES / size_of::<f32>() + 1;
        let mut features = Features::new(width, folder.path());
        features.push(&vec![1.0; width]).unwrap();
        features.push(&vec![2.0; width]).unwrap();
        let mut column = Vec::new();
        features.column(width - 1, &mut column).unwrap();
        assert_eq!(column, [1.0, 2.0]);
    }

    #[test]
    fn a_folder_that_takes_no_file_is_named() {
        let mut features = Features::new(1, Path::new("/nowhere"));
        let failed = (0..=BLOCK_BYTES / 4).find_map(|_| features.push(&[1.0]).err());
        assert!(failed.unwrap().to_string().contains("/nowhere"));
    }
}
