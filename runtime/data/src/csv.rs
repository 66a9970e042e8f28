//! Tables as text (RFC 4180). Which columns are read, and as what, is said by the caller and never guessed: a column that
//! looks like numbers in one file and not in the next is a mistake to report, not another type.

use std::path::Path;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use thalweg_graph::diagnostic::nearest;
use thalweg_graph::{Array, DType};

use crate::dataset::Dataset;
use crate::error::{DataError, Place, Result};
use crate::file::{name_of, read_file};

/// A column, by its name in the header or by its number from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Column {
    /// By name.
    Name(String),
    /// By number, from 0.
    Number(usize),
}
impl From<&str> for Column {
    fn from(name: &str) -> Self {
        Column::Name(name.into())
    }
}
impl From<String> for Column {
    fn from(name: String) -> Self {
        Column::Name(name)
    }
}
impl From<usize> for Column {
    fn from(number: usize) -> Self {
        Column::Number(number)
    }
}

/// How to read a table: `Csv::new().numbers("x", F32, ["width", "height"]).number("y", I32, "age").read("t.csv")?`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Csv {
    header: bool,
    delimiter: u8,
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Field {
    name: String,
    columns: Vec<Column>,
    /// Whether a sample is a vector, even of one.
    vector: bool,
    cells: Cells,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Cells {
    Numbers(DType),
    Classes(Vec<String>),
}

impl Default for Csv {
    fn default() -> Self {
        Self::new()
    }
}

impl Csv {
    /// A table with a header and commas, of which no column is read yet.
    pub fn new() -> Self {
        Self { header: true, delimiter: b',', fields: vec![] }
    }
    /// The first line is a row; columns go by number.
    pub fn no_header(mut self) -> Self {
        self.header = false;
        self
    }
    /// What stands between cells: `b'\t'`, `b';'`.
    pub fn delimiter(mut self, byte: u8) -> Self {
        self.delimiter = byte;
        self
    }
    /// Reads several columns as the field `name`, `dtype[n, columns]`. Floats may be `nan` and `inf`; truth values are
    /// `0`, `1`, `false`, `true`.
    pub fn numbers<C: Into<Column>>(
        self,
        name: impl Into<String>,
        dtype: DType,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        let columns = columns.into_iter().map(Into::into).collect();
        self.field(Field { name: name.into(), columns, vector: true, cells: Cells::Numbers(dtype) })
    }
    /// Reads one column as the field `name`, `dtype[n]`.
    pub fn number(self, name: impl Into<String>, dtype: DType, column: impl Into<Column>) -> Self {
        self.field(Field {
            name: name.into(),
            columns: vec![column.into()],
            vector: false,
            cells: Cells::Numbers(dtype),
        })
    }
    /// Reads one column of words as the field `name`, `i32[n]`: a word's place in `classes`. They are given rather than
    /// gathered from the file, so that a class that a test set lacks does not renumber the others.
    pub fn classes<S: Into<String>>(
        self,
        name: impl Into<String>,
        column: impl Into<Column>,
        classes: impl IntoIterator<Item = S>,
    ) -> Self {
        let cells = Cells::Classes(classes.into_iter().map(Into::into).collect());
        self.field(Field { name: name.into(), columns: vec![column.into()], vector: false, cells })
    }
    fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// Reads a file, whole, into memory.
    ///
    /// # Errors
    /// A file that cannot be read; a column that is not there; the first cell that is not what its field needs.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Dataset> {
        self.parse(&name_of(path.as_ref()), &read_file(path.as_ref())?)
    }
    /// The same from bytes; `file` is what errors call them.
    pub fn parse(&self, file: &str, text: &[u8]) -> Result<Dataset> {
        if self.fields.is_empty() {
            let what = "say which columns to read as which field";
            return Err(DataError::Settings(what.into()));
        }
        if let Some(field) = self.fields.iter().find(|f| f.columns.is_empty()) {
            return Err(DataError::Settings(format!("field `{}` has no columns: name at least one", field.name)));
        }
        let mut table = csv::ReaderBuilder::new().has_headers(self.header).delimiter(self.delimiter).from_reader(text);
        let names: Option<Vec<String>> = match self.header {
            true => {
                let header = table.headers().map_err(|e| broken(file, text, e))?;
                if header.is_empty() {
                    let what = "is empty: it needs a header, unless it is said to have none";
                    return Err(DataError::malformed(file, Place::Whole, what));
                }
                Some(header.iter().map(|name| name.trim().into()).collect())
            }
            false => None,
        };
        let names = names.as_deref();
        let find = |column| find(file, names, column);
        let places: Vec<Vec<usize>> =
            self.fields.iter().map(|f| f.columns.iter().map(find).collect()).collect::<Result<_>>()?;
        let mut bytes: Vec<Vec<u8>> = vec![vec![]; self.fields.len()];
        let (mut row, mut rows) = (csv::StringRecord::new(), 0);
        while table.read_record(&mut row).map_err(|e| broken(file, text, e))? {
            let line = row.position().map_or(0, |p| line_of(text, p));
            for ((field, places), bytes) in self.fields.iter().zip(&places).zip(&mut bytes) {
                for column in places {
                    let fault = |what: String| {
                        let name = names.and_then(|n| n.get(*column).cloned());
                        DataError::malformed(file, Place::Cell { line, column: column + 1, name }, what)
                    };
                    let cell = row.get(*column);
                    let cell = cell.ok_or_else(|| fault(format!("the line has only {} cells", row.len())))?.trim();
                    field.cells.push(cell, bytes).map_err(fault)?;
                }
            }
            rows += 1;
        }
        Dataset::new(self.fields.iter().zip(bytes).map(|(field, bytes)| {
            let columns = field.columns.len() as u64;
            let shape = if field.vector { vec![rows, columns] } else { vec![rows] };
            let mut array = Array::zeros(field.cells.dtype(), &shape);
            array.bytes_mut().copy_from_slice(&bytes);
            (field.name.clone(), array)
        }))
    }
}

/// The line on which a record begins. The library's count is of where it began to look, before any empty lines.
fn line_of(text: &[u8], position: &csv::Position) -> u64 {
    let rest = &text[text.len().min(position.byte() as usize)..];
    let empty = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n')).filter(|b| **b == b'\n');
    position.line() + empty.count() as u64
}

fn find(file: &str, names: Option<&[String]>, column: &Column) -> Result<usize> {
    match (column, names) {
        // Without a header the first row shows whether there are as many.
        (Column::Number(number), None) => Ok(*number),
        (Column::Number(number), Some(names)) if *number < names.len() => Ok(*number),
        (Column::Number(number), Some(names)) => {
            let what = format!("there is no column {number}: the header has {}, counted from 0", names.len());
            Err(DataError::malformed(file, Place::Line(1), what))
        }
        (Column::Name(name), None) => {
            let what = format!("{file}: column `{name}` has no name without a header: give its number, from 0");
            Err(DataError::Settings(what))
        }
        (Column::Name(name), Some(names)) => {
            let mut found = names.iter().enumerate().filter(|(_, n)| *n == name).map(|(i, _)| i);
            match (found.next(), found.next()) {
                (Some(place), None) => Ok(place),
                (Some(first), Some(second)) => {
                    let what = format!("columns {} and {} are both called `{name}`", first + 1, second + 1);
                    Err(DataError::malformed(file, Place::Line(1), format!("{what}: give a number, from 0")))
                }
                _ => {
                    let near = nearest(name, names.iter().map(|n| &**n));
                    let near = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
                    let all = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                    let what = format!("there is no column `{name}`; the header has {all}{near}");
                    Err(DataError::malformed(file, Place::Line(1), what))
                }
            }
        }
    }
}

/// What the tokenizer found.
fn broken(file: &str, text: &[u8], error: csv::Error) -> DataError {
    let line = error.position().map_or(Place::Whole, |p| Place::Line(line_of(text, p)));
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} cells, the lines before it {expected_len}: is a quote or a delimiter missing?")
        }
        csv::ErrorKind::Utf8 { err, .. } => {
            format!("column {} is not UTF-8: save the file as UTF-8", err.field() + 1)
        }
        csv::ErrorKind::Io(error) => return DataError::Io { path: file.into(), why: error.to_string() },
        _ => error.to_string(),
    };
    DataError::malformed(file, line, what)
}

impl Cells {
    fn dtype(&self) -> DType {
        match self {
            Cells::Numbers(dtype) => *dtype,
            Cells::Classes(_) => DType::I32,
        }
    }
    fn push(&self, cell: &str, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        match self {
            Cells::Numbers(dtype) => number(*dtype, cell, out).ok_or_else(|| match cell {
                "" => format!("expected {dtype}, and the cell is empty: fill it in or leave the line out"),
                _ => format!("expected {dtype}, found `{cell}`"),
            }),
            Cells::Classes(classes) => match classes.iter().position(|c| c == cell) {
                Some(class) => {
                    out.extend((class as i32).to_ne_bytes());
                    Ok(())
                }
                None => {
                    let near = nearest(cell, classes.iter().map(|c| &**c));
                    let near = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
                    let all = classes.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
                    Err(format!("expected one of {all}, found `{cell}`{near}"))
                }
            },
        }
    }
}

/// Appends the bytes of the number that `cell` spells, if it fits.
fn number(dtype: DType, cell: &str, out: &mut Vec<u8>) -> Option<()> {
    match dtype {
        DType::Bool => out.push(match cell {
            "0" | "false" | "False" => 0,
            "1" | "true" | "True" => 1,
            _ => return None,
        }),
        DType::U8 => out.push(cell.parse().ok()?),
        DType::U32 => out.extend(cell.parse::<u32>().ok()?.to_ne_bytes()),
        DType::I32 => out.extend(cell.parse::<i32>().ok()?.to_ne_bytes()),
        DType::I64 => out.extend(cell.parse::<i64>().ok()?.to_ne_bytes()),
        DType::F16 => out.extend(f16::from_f64(cell.parse().ok()?).to_ne_bytes()),
        DType::BF16 => out.extend(bf16::from_f64(cell.parse().ok()?).to_ne_bytes()),
        DType::F32 => out.extend(cell.parse::<f32>().ok()?.to_ne_bytes()),
        DType::F64 => out.extend(cell.parse::<f64>().ok()?.to_ne_bytes()),
    }
    Some(())
}
