//! Data sets at a worker: opened below its roots, read by a thread each, and put into the slots of the channels by which they
//! would have come from the driver. So the executor walks its part as ever; a slot does not tell who has filled it.
//!
//! What cannot be read ends the step that waits for it, and no other: whoever fills a slot looks behind the same lock
//! whether its step still runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use thalweg_runtime::checkpoint::Root;
use thalweg_runtime::executor::Prepared;
use thalweg_runtime::source::{OPEN, Opener, ReadAhead, Reader, SourceSpec, Take, Wanted, open};
use thalweg_runtime::{AbortFlag, crash};

use crate::data::DataPlane;
use crate::lock;
use crate::message::Drawn;

/// How many ways to cut a batch are kept.
const TAKES_KEPT: usize = 32;

/// What a worker has opened: it outlives terms, since whoever begins anew reads the same again.
#[derive(Clone, Default)]
pub(crate) struct Library(Arc<Mutex<Vec<Arc<Book>>>>);

/// An open data set.
pub(crate) struct Book {
    spec: SourceSpec,
    reader: Arc<dyn Reader>,
    ahead: ReadAhead,
}

impl Library {
    fn open(&self, spec: SourceSpec, roots: &[Root], opener: Option<&dyn Opener>) -> Result<Arc<Book>, String> {
        let mut books = lock(&self.0);
        if let Some(book) = books.iter().find(|book| book.spec == spec) {
            return Ok(book.clone());
        }
        if books.len() == OPEN {
            return Err(format!("{spec}: this worker has {OPEN} data sets open, and no room for more"));
        }
        let reader = open(&spec, roots, opener)?;
        let ahead = ReadAhead::start(&spec.to_string())?;
        let book = Arc::new(Book { spec, reader, ahead });
        books.push(book.clone());
        Ok(book)
    }
}

/// The step that runs, for those who read for it.
#[derive(Default)]
struct Current {
    step: Option<u64>,
    /// Why it cannot be read what it waits for.
    unread: Option<String>,
}

/// How a batch of so many samples is cut, in a plan and for some fields of a data set.
struct Known {
    plan: u64,
    source: u32,
    fields: Vec<u32>,
    count: u64,
    take: Arc<Take>,
}

/// What a worker reads in a term.
pub(crate) struct Reading {
    library: Library,
    roots: Vec<Root>,
    opener: Option<Arc<dyn Opener>>,
    /// By the driver's numbers.
    books: HashMap<u32, Arc<Book>>,
    /// The last used last.
    takes: Vec<Known>,
    rank: u16,
    plane: Arc<DataPlane>,
    abort: AbortFlag,
    current: Arc<Mutex<Current>>,
}

/// What a worker reads with.
#[derive(Clone, Default)]
pub(crate) struct Shelves {
    pub(crate) library: Library,
    pub(crate) roots: Vec<Root>,
    pub(crate) opener: Option<Arc<dyn Opener>>,
}

impl Reading {
    /// For steps that `abort` ends.
    pub(crate) fn new(shelves: Shelves, rank: u16, plane: Arc<DataPlane>, abort: AbortFlag) -> Self {
        let Shelves { library, roots, opener } = shelves;
        let (books, takes, current) = (HashMap::new(), vec![], Arc::default());
        Self { library, roots, opener, books, takes, rank, plane, abort, current }
    }
    /// Opens a data set, under the driver's number; gives the facts of it as bytes.
    pub(crate) fn open(&mut self, number: u32, spec: SourceSpec) -> Result<Vec<u8>, String> {
        if self.books.len() == OPEN && !self.books.contains_key(&number) {
            return Err(format!("{spec}: {OPEN} data sets have numbers in this term, and no more can have"));
        }
        let book = self.library.open(spec, &self.roots, self.opener.as_deref())?;
        let facts = postcard::to_stdvec(book.reader.facts()).map_err(|e| e.to_string())?;
        self.books.insert(number, book);
        Ok(facts)
    }
    /// Has everything read that a step takes, and put into its slots; what the next one takes is read after that. The plane
    /// knows of the step already. [`Reading::end`] is to be called whatever comes of this.
    ///
    /// # Errors
    /// If the driver asks for what there is not.
    pub(crate) fn begin(&mut self, step: u64, plan: u64, prepared: &Prepared, draws: &[Drawn]) -> Result<(), String> {
        *lock(&self.current) = Current { step: Some(step), unread: None };
        let mut all = Vec::with_capacity(draws.len());
        for drawn in draws {
            let unknown = || format!("there is no data set {}", drawn.source);
            let book = self.books.get(&drawn.source).cloned().ok_or_else(unknown)?;
            let take = self.take(plan, prepared, &book, drawn).map_err(|why| format!("{}: {why}", book.spec))?;
            if take.is_empty() {
                continue;
            }
            let now = take.of(&book.reader, drawn.samples);
            all.push((book.clone(), now, self.next(&book, drawn), take));
        }
        for (book, now, next, take) in all {
            let (prepared, plane, current) = (prepared.clone(), self.plane.clone(), self.current.clone());
            let (spec, rank, abort) = (book.spec.clone(), self.rank, self.abort.clone());
            let mut filling = Filling { step, spec, rank, prepared, plane, current, abort, is_done: false };
            book.ahead.read(now, next, Box::new(move |read| filling.fill(&take, read)));
        }
        Ok(())
    }
    /// The step has ended. Gives why something could not be read, if that is so.
    pub(crate) fn end(&self) -> Option<String> {
        std::mem::take(&mut *lock(&self.current)).unread
    }
    /// How a batch is cut for this worker.
    fn take(&mut self, plan: u64, prepared: &Prepared, book: &Book, drawn: &Drawn) -> Result<Arc<Take>, String> {
        let count = drawn.samples.count;
        let same = |k: &Known| (k.plan, k.source, k.count) == (plan, drawn.source, count) && k.fields == drawn.fields;
        let known = match self.takes.iter().position(same) {
            Some(at) => self.takes.remove(at),
            None => {
                let take = Take::new(prepared.plan(), self.rank, book.reader.facts(), &drawn.fields, count)?;
                let (source, fields) = (drawn.source, drawn.fields.clone());
                Known { plan, source, fields, count, take: Arc::new(take) }
            }
        };
        let take = known.take.clone();
        self.takes.push(known);
        if self.takes.len() > TAKES_KEPT {
            self.takes.remove(0);
        }
        Ok(take)
    }
    /// What the next step is expected to take: what the last batch of that size took.
    fn next(&self, book: &Book, drawn: &Drawn) -> Option<Wanted> {
        let next = drawn.next?;
        let same = |k: &&Known| (k.source, k.count) == (drawn.source, next.count) && k.fields == drawn.fields;
        let known = self.takes.iter().rev().find(same)?;
        Some(known.take.of(&book.reader, next))
    }
}

/// Fills the slots of a step, or ends it.
struct Filling {
    step: u64,
    spec: SourceSpec,
    rank: u16,
    prepared: Prepared,
    plane: Arc<DataPlane>,
    current: Arc<Mutex<Current>>,
    abort: AbortFlag,
    is_done: bool,
}

impl Filling {
    fn fill(&mut self, take: &Take, read: Result<Vec<Vec<thalweg_graph::Array>>, String>) {
        self.is_done = true;
        let read = match read {
            Ok(read) => read,
            Err(why) => return self.fail(&why),
        };
        crash::point("reading");
        let still = || self.plane.runs(self.step);
        for (channel, bytes) in take.cut(&read) {
            // Nothing, once nobody wants it any more.
            let Some(mut slot) = self.prepared.slot(channel, &still) else { return };
            slot.bytes_mut().copy_from_slice(bytes);
            slot.whole();
        }
    }
    fn fail(&self, why: &str) {
        let mut current = lock(&self.current);
        if current.step == Some(self.step) {
            current.unread.get_or_insert_with(|| format!("rank {}: {}: {why}", self.rank, self.spec));
            // The next step takes the flag back, and begins once this one has ended, behind this lock.
            self.abort.raise();
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if !self.is_done {
            self.fail("the thread that reads it is gone");
        }
    }
}
