//! Thalweg's data: readers for the usual files, and batches in an order that is a pure function of (seed, pass), so that
//! a run can be repeated, and resumed from a [`Cursor`](thalweg_runtime::Cursor) of a few numbers, however many threads
//! read ahead. Names no op and no device.
//!
//! A [`Source`] has samples by number: a [`Dataset`] in memory ([`csv`], [`npz`], [`npy`], [`idx`], [`mnist`]), or an
//! [`ImageFolder`], decoded as it is read. A [`Loader`] makes batches of it. Trained from a table, with a session:
//!
//! ```
//! use thalweg_cpu::CpuDevice;
//! use thalweg_data::{Csv, Source};
//! use thalweg_graph::{DType::F32, Init, shape};
//! use thalweg_ops::{Graph, optim::Sgd};
//! use thalweg_runtime::Session;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let table = "hours,pages\n1,12\n2,22\n3,32\n4,42\n";                  // .read("pages.csv") for a file
//! let data = Csv::new().number("x", F32, "hours").number("y", F32, "pages").parse("pages.csv", table.as_bytes())?;
//!
//! let g = Graph::new("line");
//! let n = g.dim("n", 1..=64);
//! let (x, y) = (g.input("x", F32, shape![n]), g.input("y", F32, shape![n]));
//! let slope = g.parameter("slope", F32, (), Init::Constant(0.0));
//! let offset = g.parameter("offset", F32, (), Init::Constant(0.0));
//! let error = x * slope + offset - y;
//! let loss = (error * error).mean().named("loss");
//! g.program("train").outputs([loss]).update(Sgd::new(0.05).minimize(loss));
//!
//! let graph = g.finish().map_err(|mistakes| mistakes[0].to_string())?;
//! let mut session = Session::new(graph, Box::new(CpuDevice::new("cpu:0", 1)?))?;
//! let batches = data.shuffle(1).batch(2).epochs(400).prefetch(1);
//! for batch in batches.resume(&session.cursors().clone()) {
//!     session.run("train", &batch?.feeds())?;
//! }
//! assert!((session.get("slope")?.item() - 10.0).abs() < 1e-2);
//! assert_eq!(session.cursors().get("data").map(|c| (c.pass, c.next)), Some((400, 0)));
//! # Ok(())
//! # }
//! ```

pub mod csv;
mod dataset;
mod described;
mod error;
mod file;
mod files;
pub mod idx;
mod images;
mod loader;
mod mnist;
pub mod npy;
pub mod npz;
pub mod order;
mod prefetch;
mod source;
mod turns;
mod walk;
mod zip;

pub use csv::Csv;
pub use dataset::Dataset;
pub use described::{Described, Descriptions};
pub use error::{DataError, Own, Place, Result};
pub use file::Limits;
pub use files::{FileOpener, Files};
pub use images::{ImageFolder, Images};
pub use loader::{At, Batches, Loader};
pub use mnist::mnist;
pub use order::permutation;
pub use source::{Source, Subset};
