//! A thread that reads what steps take, and then, while they run, what the next one will. Which samples come next is known
//! from the description, so that nothing is guessed: an ask for something else costs a read in vain, and no harm.
//!
//! One thread per data set, and not a pool: it waits for a disk, and one batch ahead is all that can be known to be wanted.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use thalweg_graph::Array;

use super::{Reader, Samples, Wish};
use crate::feed::narrowed;

/// What came of a read: the arrays of each of its parts.
pub(super) type Outcome = Result<Vec<Vec<Array>>, String>;

/// Parts of a batch: places in it with the fields that are read of them.
pub struct Wanted {
    reader: Arc<dyn Reader>,
    samples: Samples,
    reads: Vec<(Vec<Range<u64>>, Vec<Wish>)>,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.reader, &other.reader) && (self.samples, &self.reads) == (other.samples, &other.reads)
    }
}

impl Wanted {
    pub(super) fn new(reader: Arc<dyn Reader>, samples: Samples, reads: Vec<(Vec<Range<u64>>, Vec<Wish>)>) -> Self {
        Self { reader, samples, reads }
    }
    /// Reads it. A panic of whoever reads is an error as well: somebody waits for an answer.
    pub(super) fn read(&self) -> Outcome {
        catch_unwind(AssertUnwindSafe(|| self.reads.iter().map(|(places, wishes)| self.part(places, wishes)).collect()))
            .unwrap_or_else(|_| Err("internal error, please report: whoever reads it panicked".into()))
    }
    fn part(&self, places: &[Range<u64>], wishes: &[Wish]) -> Result<Vec<Array>, String> {
        let Samples { seed, pass, first, count } = self.samples;
        let facts = self.reader.facts();
        let inside = first.checked_add(count).is_some_and(|end| end <= facts.len);
        if !inside || places.iter().any(|p| p.end > count) || wishes.iter().any(|(f, _)| *f >= facts.fields.len()) {
            return Err(format!("{count} samples from {first} on: there are {}", facts.len));
        }
        let places: Vec<Range<u64>> = places.iter().map(|p| first + p.start..first + p.end).collect();
        let rows: u64 = places.iter().map(|p| p.end - p.start).sum();
        let fields: Vec<usize> = wishes.iter().map(|(field, _)| *field).collect();
        let arrays = self.reader.read(seed, pass, &places, &fields)?;
        let mut out = Vec::with_capacity(wishes.len());
        for ((field, dtype), array) in wishes.iter().zip(arrays) {
            let (name, one) = &facts.fields[*field];
            if array.dtype() != one.dtype || array.shape().split_first() != Some((&rows, &one.shape[..])) {
                let (found, want) = (array.ty(), one.clone());
                return Err(format!("`{name}` was read as {found}, and {rows} of {want} were asked for"));
            }
            out.push(narrowed(name, *dtype, array).map_err(|e| format!("from place {first} of pass {pass}: {e}"))?);
        }
        if out.len() < wishes.len() {
            return Err(format!("{} fields were read, and {} asked for", out.len(), wishes.len()));
        }
        Ok(out)
    }
}

/// Is called once, on the thread that reads.
type Deliver = Box<dyn FnOnce(Outcome) + Send>;

struct Request {
    now: Wanted,
    next: Option<Wanted>,
    deliver: Deliver,
}

/// The thread. It ends when this is dropped, and whoever drops this does not wait: a disk may not answer.
pub struct ReadAhead(Sender<Request>);

impl ReadAhead {
    /// Starts it, for what errors call `name`.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(name: &str) -> Result<Self, String> {
        let (sender, requests) = mpsc::channel::<Request>();
        let work = move || {
            let mut ahead: Option<(Wanted, Outcome)> = None;
            for Request { now, next, deliver } in requests {
                let read = ahead.take().filter(|(wanted, _)| *wanted == now).map(|(_, read)| read);
                deliver(read.unwrap_or_else(|| now.read()));
                ahead = next.map(|next| {
                    let read = next.read();
                    (next, read)
                });
            }
        };
        let started = std::thread::Builder::new().name("data".into()).spawn(work);
        started.map_err(|e| format!("{name}: cannot start a thread that reads it: {e}"))?;
        Ok(Self(sender))
    }
    /// Reads `now`, unless that has been read ahead; hands it to `deliver`, and then reads `next`.
    pub fn read(&self, now: Wanted, next: Option<Wanted>, deliver: Deliver) {
        // Where the thread is gone, `deliver` is dropped: whoever waits notices.
        let _ = self.0.send(Request { now, next, deliver });
    }
}
