//! What can be wrong with data, and where. A reader's error names the file and the place in it, says what was expected
//! and what was found, and what to do: whoever sees it has the file, and rarely wrote it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use thalweg_runtime::Cursor;

/// What fallible functions here return.
pub type Result<T> = std::result::Result<T, DataError>;

/// Why there is no data.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be opened or read.
    #[error("{path}: {why}")]
    Io {
        /// Which.
        path: String,
        /// What the system says, and what to do.
        why: String,
    },
    /// A file is not what it should be.
    #[error("{file}: {at}{what}")]
    Malformed {
        /// Which file.
        file: String,
        /// Where in it.
        at: Place,
        /// What was expected, what was found, what to do.
        what: String,
    },
    /// Arrays that do not make a data set, or a field that it does not have.
    #[error("{0}")]
    Fields(String),
    /// A sample that is not there.
    #[error("there is no sample {row}: the source has {len}, counted from 0")]
    NoSample {
        /// What was asked for.
        row: usize,
        /// How many there are.
        len: usize,
    },
    /// Settings of a loader or a reader that make no sense together.
    #[error("{0}")]
    Settings(String),
    /// A cursor that does not belong to this source, so that going on from it would silently train on something else.
    #[error("source `{source_name}` cannot go on from where it stood ({}): {why}", at(.cursor))]
    Cursor {
        /// The loader's name.
        source_name: String,
        /// Where the checkpoint says it stood.
        cursor: Cursor,
        /// What differs, and what to do.
        why: String,
    },
    /// A thread that reads ahead could not be started.
    #[error("cannot start thread {thread} of {threads} that read ahead: {why}; ask for fewer")]
    Thread {
        /// Which, from 1.
        thread: usize,
        /// How many were asked for.
        threads: usize,
        /// What the system says.
        why: String,
    },
    /// What a function given to a loader, or a source of one's own, says is wrong.
    #[error("{0}")]
    Other(String),
    /// The same as an error of its own type, which whoever asks for the batch gets back.
    #[error("{0}")]
    Own(Own),
}

/// An error of a type of the user's own, equal to itself alone.
#[derive(Clone, Debug)]
pub struct Own(pub Arc<dyn std::error::Error + Send + Sync>);

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn at(cursor: &Cursor) -> String {
    format!("pass {}, sample {}", cursor.pass, cursor.next)
}

/// Where in a file. Printed, it ends in a colon, so that nothing is printed for [`Place::Whole`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as such.
    Whole,
    /// An offset, from 0.
    Byte(u64),
    /// A line, from 1.
    Line(u64),
    /// A cell of a table: line and column, from 1, and the column's name if it has one.
    Cell {
        /// Line.
        line: u64,
        /// Column.
        column: usize,
        /// Its name.
        name: Option<String>,
    },
    /// A byte of a member of an archive.
    Member {
        /// The member's name.
        name: String,
        /// Offset in the unpacked member, from 0.
        byte: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Whole => Ok(()),
            Place::Byte(byte) => write!(f, "byte {byte}: "),
            Place::Line(line) => write!(f, "line {line}: "),
            Place::Cell { line, column, name: None } => write!(f, "line {line}, column {column}: "),
            Place::Cell { line, column, name: Some(name) } => write!(f, "line {line}, column {column} (`{name}`): "),
            Place::Member { name, byte } => write!(f, "member `{name}`, byte {byte}: "),
        }
    }
}

impl DataError {
    pub(crate) fn malformed(file: &str, at: Place, what: impl Into<String>) -> Self {
        DataError::Malformed { file: file.into(), at, what: what.into() }
    }
    /// An error of one's own, for a function given to a loader: [`DataError::Own`].
    pub fn own(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        DataError::Own(Own(Arc::new(error)))
    }
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        DataError::Io { path: path.display().to_string(), why: error.to_string() }
    }
}
