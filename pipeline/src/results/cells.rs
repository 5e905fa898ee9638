//! The cells of a table's columns, between a row and its row group.
//!
//! Typed cells enter, one by one or a column's at once; they wait in as little memory as their letters and numbers take,
//! and leave as a column of a Parquet row group. Fails where the disk refuses.

use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;

use bytes::Bytes;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::writer::{SerializedColumnWriter, SerializedRowGroupWriter};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8 text.
    Text,
    /// 64-bit signed integers.
    Int64,
    /// 64-bit floats.
    Float64,
    /// 32-bit floats.
    Float32,
}

impl ColumnKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int64 => "an integer",
            Self::Float64 | Self::Float32 => "a number",
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float64)
    }
}

/// One named column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, unique in the table.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// Whether a cell may be missing.
    pub optional: bool,
}

impl Column {
    /// A column every row fills.
    pub fn required(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self {
            name: name.into(),
            kind,
            optional: false,
        }
    }

    /// A column whose cells may be missing.
    pub fn optional(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self {
            name: name.into(),
            kind,
            optional: true,
        }
    }
}

/// One cell of a row. In an optional float column NaN is written as missing: readers agree on what missing means,
/// and do not on NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// Text.
    Text(&'a str),
    /// An integer.
    Int(i64),
    /// A number; rounded to 32 bits in a [`ColumnKind::Float32`] column.
    Number(f64),
    /// Missing.
    Missing,
}

impl<'a> Cell<'a> {
    /// Text, or missing.
    pub fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Missing, Self::Text)
    }

    /// A number, or missing.
    pub fn number(number: Option<f64>) -> Self {
        number.map_or(Self::Missing, Self::Number)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Int(_) => "an integer",
            Self::Number(number) if number.is_nan() => "NaN",
            Self::Number(_) => "a number",
            Self::Missing => "nothing",
        }
    }
}

impl From<f64> for Cell<'_> {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<f64>> for Cell<'_> {
    fn from(number: Option<f64>) -> Self {
        Self::number(number)
    }
}

/// Text that many rows share: kept once, however often it is written.
#[derive(Debug, Clone)]
pub struct SharedText(ByteArray);

impl From<&str> for SharedText {
    fn from(text: &str) -> Self {
        Self(ByteArray::from(text.as_bytes().to_vec()))
    }
}

/// Cells of one column, one for each of many rows.
#[derive(Debug, Clone, Copy)]
pub enum Cells<'a> {
    /// Of a few texts the one with each row's number.
    OneOf {
        /// Texts, or missing.
        texts: &'a [Option<SharedText>],
        /// The number of each row's text; missing where there is none of that number.
        which: &'a [u32],
    },
    /// The same in every row.
    Same(Option<&'a SharedText>),
    /// Integers.
    Ints(&'a [i64]),
    /// Numbers; NaN is missing.
    Numbers(&'a [f64]),
}

impl Cells<'_> {
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::OneOf { which, .. } => Some(which.len()),
            Self::Same(_) => None,
            Self::Ints(cells) => Some(cells.len()),
            Self::Numbers(cells) => Some(cells.len()),
        }
    }
}

fn text(texts: &[Option<SharedText>], which: u32) -> Option<&SharedText> {
    texts.get(which as usize)?.as_ref()
}

/// The cells of one column waiting for their row group. `present` is empty for required columns.
#[derive(Debug)]
enum Waiting {
    Text(Texts),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Float32(Vec<f32>),
}

/// Texts one after the other, those that follow each other and are the same kept once: a cell of its own would take ten
/// times its letters.
#[derive(Debug, Default)]
struct Texts {
    letters: Vec<u8>,
    /// Where each run of equal texts begins in the letters, and the cells before its end.
    runs: Vec<(usize, u32)>,
}

impl Texts {
    fn push(&mut self, text: &[u8]) {
        match self.runs.last_mut() {
            Some((start, end)) if &self.letters[*start..] == text => *end += 1,
            last => {
                let cells = last.map_or(0, |(_, end)| *end);
                self.runs.push((self.letters.len(), cells + 1));
                self.letters.extend_from_slice(text);
            }
        }
    }

    /// Gives all of them, and is empty.
    fn take(&mut self) -> impl Iterator<Item = ByteArray> + use<> {
        let letters = Bytes::from(std::mem::take(&mut self.letters));
        let runs = std::mem::take(&mut self.runs);
        let mut before = 0;
        (0..runs.len()).flat_map(move |run| {
            let (start, end) = runs[run];
            let stop = runs.get(run + 1).map_or(letters.len(), |(next, _)| *next);
            let cells = end - std::mem::replace(&mut before, end);
            std::iter::repeat_n(ByteArray::from(letters.slice(start..stop)), cells as usize)
        })
    }
}

/// Texts that are written at once.
const TEXTS_AT_ONCE: usize = 4096;

/// The cells of one column, waiting for their row group.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) column: Column,
    values: Waiting,
    /// Parquet definition levels: 1 where the cell is filled.
    present: Vec<i16>,
}

impl Buffer {
    pub(super) fn new(column: Column) -> Self {
        let values = match column.kind {
            ColumnKind::Text => Waiting::Text(Texts::default()),
            ColumnKind::Int64 => Waiting::Int64(Vec::new()),
            ColumnKind::Float64 => Waiting::Float64(Vec::new()),
            ColumnKind::Float32 => Waiting::Float32(Vec::new()),
        };
        Self {
            column,
            values,
            present: Vec::new(),
        }
    }

    /// Whether `cell` may stand in this column.
    pub(super) fn takes(&self, cell: Cell<'_>) -> bool {
        match (cell, self.column.kind) {
            (Cell::Missing, _) => self.column.optional,
            (Cell::Number(number), kind) if kind.is_float() => self.column.optional || !number.is_nan(),
            (Cell::Text(_), ColumnKind::Text) | (Cell::Int(_), ColumnKind::Int64) => true,
            _ => false,
        }
    }

    /// Appends a cell that [`takes`](Self::takes) accepted.
    pub(super) fn push(&mut self, cell: Cell<'_>) {
        let filled = match (cell, &mut self.values) {
            (Cell::Text(text), Waiting::Text(values)) => {
                values.push(text.as_bytes());
                true
            }
            (Cell::Int(int), Waiting::Int64(values)) => {
                values.push(int);
                true
            }
            (Cell::Number(number), Waiting::Float64(values)) if !number.is_nan() => {
                values.push(number);
                true
            }
            (Cell::Number(number), Waiting::Float32(values)) if !number.is_nan() => {
                values.push(number as f32);
                true
            }
            _ => false,
        };
        if self.column.optional {
            self.present.push(i16::from(filled));
        }
    }

    /// The first cell of `rows` that may not stand in this column, as its row and what it is.
    pub(super) fn refuses(&self, cells: Cells<'_>) -> Option<(usize, &'static str)> {
        let column = &self.column;
        let missing = |at: Option<usize>| at.filter(|_| !column.optional).map(|at| (at, "nothing"));
        match (cells, column.kind) {
            (Cells::OneOf { texts, which }, ColumnKind::Text) => {
                missing(which.iter().position(|&which| text(texts, which).is_none()))
            }
            (Cells::Same(cell), ColumnKind::Text) => missing(cell.is_none().then_some(0)),
            (Cells::Ints(_), ColumnKind::Int64) => None,
            (Cells::Numbers(cells), kind) if kind.is_float() => {
                missing(cells.iter().position(|cell| cell.is_nan())).map(|(at, _)| (at, "NaN"))
            }
            (Cells::OneOf { .. } | Cells::Same(_), _) => Some((0, "text")),
            (Cells::Ints(_), _) => Some((0, "an integer")),
            (Cells::Numbers(_), _) => Some((0, "a number")),
        }
    }

    /// Appends the cells of rows `rows`, which [`refuses`](Self::refuses) did not refuse.
    pub(super) fn extend(&mut self, cells: Cells<'_>, rows: Range<usize>) {
        let n = rows.len();
        if self.column.optional {
            match cells {
                Cells::OneOf { texts, which } => {
                    let there = |&which: &u32| i16::from(text(texts, which).is_some());
                    self.present.extend(which[rows.clone()].iter().map(there));
                }
                Cells::Same(cell) => self
                    .present
                    .extend(std::iter::repeat_n(i16::from(cell.is_some()), n)),
                Cells::Ints(_) => self.present.extend(std::iter::repeat_n(1, n)),
                Cells::Numbers(cells) => self
                    .present
                    .extend(cells[rows.clone()].iter().map(|cell| i16::from(!cell.is_nan()))),
            }
        }
        let there = |cell: &&f64| !cell.is_nan();
        match (cells, &mut self.values) {
            (Cells::OneOf { texts, which }, Waiting::Text(values)) => {
                let there = which[rows].iter().filter_map(|&which| text(texts, which));
                there.for_each(|text| values.push(text.0.data()));
            }
            (Cells::Same(Some(text)), Waiting::Text(values)) => {
                (0..n).for_each(|_| values.push(text.0.data()));
            }
            (Cells::Ints(cells), Waiting::Int64(values)) => values.extend_from_slice(&cells[rows]),
            (Cells::Numbers(cells), Waiting::Float64(values)) => {
                values.extend(cells[rows].iter().filter(there));
            }
            (Cells::Numbers(cells), Waiting::Float32(values)) => {
                values.extend(cells[rows].iter().filter(there).map(|&cell| cell as f32));
            }
            _ => {}
        }
    }

    /// Writes the cells as the next column of `group` and forgets them.
    pub(super) fn write(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, BufWriter<File>>,
    ) -> Result<(), ParquetError> {
        let Some(mut writer) = group.next_column()? else {
            return Err(ParquetError::General(format!(
                "no room for column {}",
                self.column.name
            )));
        };
        let levels = self.column.optional.then_some(self.present.as_slice());
        match &mut self.values {
            Waiting::Text(values) => write_texts(&mut writer, values.take(), levels)?,
            Waiting::Int64(values) => {
                writer.typed::<Int64Type>().write_batch(values, levels, None)?;
                values.clear();
            }
            Waiting::Float64(values) => {
                writer.typed::<DoubleType>().write_batch(values, levels, None)?;
                values.clear();
            }
            Waiting::Float32(values) => {
                writer.typed::<FloatType>().write_batch(values, levels, None)?;
                values.clear();
            }
        }
        self.present.clear();
        writer.close()
    }
}

fn write_texts(
    writer: &mut SerializedColumnWriter<'_>,
    mut texts: impl Iterator<Item = ByteArray>,
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let writer = writer.typed::<ByteArrayType>();
    let Some(levels) = levels else {
        loop {
            let some: Vec<ByteArray> = texts.by_ref().take(TEXTS_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            writer.write_batch(&some, None, None)?;
        }
    };
    for levels in levels.chunks(TEXTS_AT_ONCE) {
        let filled = levels.iter().filter(|&&level| level > 0).count();
        let some: Vec<ByteArray> = texts.by_ref().take(filled).collect();
        writer.write_batch(&some, Some(levels), None)?;
    }
    Ok(())
}
