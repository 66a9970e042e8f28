//! Pictures of graphs as files. What is drawn is the graph crate's; here it is written, as the file's name asks for.

use std::path::{Path, PathBuf};

use thalweg_graph::Graph;
use thalweg_graph::draw::drawn_as;

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DrawError {
    /// Nothing is drawn for files that are called so.
    #[error("nothing is drawn as {}: call it .html (to look into), .dot (for Graphviz) or .mmd (for Mermaid)", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {kind}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
}

/// Writes a picture of `graph`, or of what `program` needs of it: `.html` to look into, `.dot` for Graphviz, `.mmd` for Mermaid.
/// The graph must have passed [`Graph::verify`], as every finished one has.
///
/// # Errors
/// If the file is called otherwise, or cannot be written.
pub fn draw(graph: &Graph, program: Option<&str>, path: impl AsRef<Path>) -> Result<(), DrawError> {
    let path = path.as_ref();
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let drawn = drawn_as(extension, graph, program).ok_or_else(|| DrawError::Kind { path: path.into() })?;
    std::fs::write(path, drawn).map_err(|error| DrawError::Write { path: path.into(), kind: error.kind() })
}
