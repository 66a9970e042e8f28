//! Every parser on its corpus and on mutations of it: no panic, and no memory that the bytes at hand do not account for.
//! The same cases on every machine; `THALWEG_CASES` says how many per parser. One parser at a time, since memory is
//! counted for the process.

#![allow(missing_docs)]

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;
use thalweg_fuzz::mutate::Die;
use thalweg_fuzz::{Target, target};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Most that a parser may hold at once: what the limits of the targets allow, a few times over for what it is made of.
/// A number of a file that sizes an allocation passes it at the first try.
const BOUND_BYTES: usize = 24 << 20;

fn cases() -> u64 {
    std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the corpus and a file to write")
        .map(|entry| entry.expect("the corpus and a file to write").path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("the corpus and a file to write"))).collect()
}

/// A parser under test, and the file that holds its last input.
struct Trial {
    target: &'static Target,
    kept: PathBuf,
    file: File,
}

impl Trial {
    fn new(name: &str) -> Self {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-last"));
        let file = File::create(&kept).expect("the corpus and a file to write");
        Self { target: target(name).expect("the corpus and a file to write"), kept, file }
    }
    /// Runs one input; on a panic or too much memory, says which and where it is kept. It is written before it is run,
    /// so that it is there too if the process dies; into an open file, since replacing one waits for the disk.
    fn survives(&mut self, case: &str, input: &[u8]) -> bool {
        self.file.rewind().and_then(|()| self.file.write_all(input)).expect("the corpus and a file to write");
        self.file.set_len(input.len() as u64).expect("the corpus and a file to write");
        let (name, run, kept) = (self.target.name, self.target.run, self.kept.display());
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let result = std::panic::catch_unwind(|| run(input));
        let used = MEMORY.peak_usage().saturating_sub(before);
        let accepted = result.unwrap_or_else(|_| panic!("{name}, {case}: panicked; the input is {kept}"));
        assert!(used < BOUND_BYTES, "{name}, {case}: took {used} bytes; the input is {kept}");
        accepted
    }
}

fn withstands(name: &str) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (corpus, mut trial) = (corpus(name), Trial::new(name));
    for (path, input) in &corpus {
        let file = path.file_name().expect("the corpus and a file to write").to_string_lossy();
        let accepted = trial.survives(&file, input);
        // A corpus of files that are refused at once would test nothing.
        let remake = "if its format has changed: cargo run --release -p thalweg-fuzz --example corpus";
        assert_eq!(accepted, !file.starts_with("bad-"), "{name}: {file}; {remake}");
    }
    let seeds: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let words = trial.target.words;
    let accepted = (0..cases()).filter(|case| {
        let input = Die(*case).mutate(&seeds, words);
        trial.survives(&format!("case {case}"), &input)
    });
    let accepted = accepted.count() as u64;
    println!("{name}: {} seeds, {} mutations, {accepted} accepted", seeds.len(), cases());
    assert!(accepted < cases(), "some mutation does harm");
}

macro_rules! withstand {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            withstands(stringify!($name));
        })*
        #[test]
        fn every_target_has_its_test() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(thalweg_fuzz::TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), tested);
        }
    };
}
withstand!(
    idx,
    npy,
    npz,
    csv,
    image,
    graph_text,
    kernel_text,
    plan_text,
    graph_bytes,
    kernel_bytes,
    plan_bytes,
    order,
    report,
    frames,
    manifest,
    checkpoint,
    safetensors,
    job_file,
    contract,
);
