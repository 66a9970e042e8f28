//! One function of bytes per parser: whatever the bytes, it returns. What a parser accepts is held to its laws as well:
//! text prints and parses back to the same, canonical bytes are their own spelling. `tests/bounded.rs` runs them on
//! stable Rust as an ordinary test, `libfuzzer/` under cargo-fuzz; the functions and the corpus are the same.

pub mod mutate;

use thalweg_data::{Csv, Images, Limits, idx, npy, npz};
use thalweg_distributed::fuzzing as distributed;
use thalweg_graph::DType::{Bool, F32, I64};
use thalweg_graph::kernel::Kernel;
use thalweg_graph::plan::Plan;
use thalweg_graph::plan::simulate::{Free, Options, simulate};
use thalweg_graph::{Array, Graph, WireError};
use thalweg_runtime::checkpoint::fuzzing as checkpoints;

/// What files may ask for here: little, so that asking for more shows.
const LIMITS: Limits = Limits { unpacked_bytes: 1 << 20, pixels: 1 << 16 };

/// A parser.
pub struct Target {
    /// The name of its folder in `corpus/`.
    pub name: &'static str,
    /// Runs it; whether it accepted the bytes.
    pub run: fn(&[u8]) -> bool,
    /// Pieces that its files are made of, for mutations.
    pub words: &'static [&'static str],
}

const TEXT: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ",",
    ":",
    "=",
    "->",
    "..=",
    "\"",
    "\\",
    "%0",
    "%99999999999",
    "$0",
    "a0",
    "v1",
    "r0",
    "in9",
    "out0",
    "-",
    "//",
    "\n",
    "0x",
    "18446744073709551616",
    "4294967296",
    "1e999",
    "nan(",
    "é",
    "\u{0}",
    "batch",
    "*",
    "else",
    "from",
    "@",
    "program",
    "return",
    "f32",
    "nest",
    "fold",
];

const MANIFEST: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"shape\": [",
    "\"data_offsets\":[0,",
    "\"pieces\": [",
    "\"start\": [",
    "\"shard\": 1",
    "\"dtype\": \"u8\"",
    "18446744073709551615",
    "4294967296",
    "1099511627776",
    "0",
    "-1",
    "1e9",
    "null",
    "-1of2",
    "U8",
    "BOOL",
];

/// All parsers.
pub const TARGETS: &[Target] = &[
    Target { name: "idx", run: run_idx, words: &["\0\0\x08\x01", "\0\0\x0e\x04", "\x1f\u{8b}"] },
    Target {
        name: "npy",
        run: run_npy,
        words: &["'descr':", "'<f4'", "'|O'", "(", ")", ",", "True", "4294967296", "0"],
    },
    Target { name: "npz", run: run_npz, words: &["PK\x01\x02", "PK\x03\x04", "PK\x05\x06", "PK\x06\x06", ".npy"] },
    Target {
        name: "csv",
        run: run_csv,
        words: &["\"", ",", "\n", "\r\n", "a,b,kind", "cat", "nan", "1e999", "\u{feff}"],
    },
    Target { name: "image", run: run_image, words: &["IHDR", "IDAT", "IEND", "PLTE", "tRNS", "\0\0"] },
    Target { name: "graph_text", run: run_graph_text, words: TEXT },
    Target { name: "kernel_text", run: run_kernel_text, words: TEXT },
    Target { name: "plan_text", run: run_plan_text, words: TEXT },
    Target { name: "graph_bytes", run: run_graph_bytes, words: &["TW.graph"] },
    Target { name: "kernel_bytes", run: run_kernel_bytes, words: &["TW.kernl"] },
    Target { name: "plan_bytes", run: run_plan_bytes, words: &["TW.plans"] },
    Target { name: "order", run: distributed::orders, words: &["f32", "127.0.0.1:80", "\0", "\u{1}", "\u{4}"] },
    Target { name: "report", run: distributed::reports, words: &["127.0.0.1:80", "\0", "\u{1}", "\u{4}"] },
    Target { name: "frames", run: distributed::frames, words: &["TWf1\u{1}\u{1}\u{1}\0", "TWf1\u{2}\u{1}\u{1}\0"] },
    Target { name: "manifest", run: checkpoints::manifest, words: MANIFEST },
    Target { name: "checkpoint", run: run_checkpoint, words: MANIFEST },
    Target { name: "safetensors", run: checkpoints::tensors, words: MANIFEST },
    Target {
        name: "job_file",
        run: distributed::job_file,
        words: &["term", "model", "null", "{", "}", "4294967296", "-1"],
    },
    Target {
        name: "contract",
        run: distributed::contract,
        words: &["\nRANK=", "\nWORLD_SIZE=", "\nTHALWEG_RANK=1", "\nTHALWEG_WORLD=2", "65535", "65536", ":", "=", "\n"],
    },
];

/// The parser called `name`.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

fn within_limits(array: &Array) {
    assert!(array.bytes().len() as u64 <= LIMITS.unpacked_bytes, "{} passed the limit", array.ty());
    let truths = array.dtype() != Bool || array.bytes().iter().all(|b| *b < 2);
    assert!(truths, "kernels rely on it: a truth value is 0 or 1");
}

fn run_idx(bytes: &[u8]) -> bool {
    idx::parse("fuzz", bytes, &LIMITS).inspect(within_limits).is_ok()
}

fn run_npy(bytes: &[u8]) -> bool {
    npy::parse("fuzz", bytes, &LIMITS).inspect(within_limits).is_ok()
}

fn run_npz(bytes: &[u8]) -> bool {
    let arrays = npz::parse("fuzz", bytes, &LIMITS);
    arrays.inspect(|arrays| arrays.iter().for_each(|(_, array)| within_limits(array))).is_ok()
}

fn run_csv(bytes: &[u8]) -> bool {
    let named = Csv::new().numbers("x", F32, ["a", "b"]).classes("y", "kind", ["cat", "dog"]);
    let bare = Csv::new().no_header().delimiter(b';').number("x", I64, 1).number("y", Bool, 0);
    let bare = bare.parse("fuzz", bytes).is_ok();
    named.parse("fuzz", bytes).is_ok() || bare
}

fn run_image(bytes: &[u8]) -> bool {
    let bytes = with_checksums(bytes);
    let grey = Images::grey().u8().limits(LIMITS).crop(5, 3).parse("fuzz", &bytes);
    let colour = Images::rgb().limits(LIMITS).parse("fuzz", &bytes);
    assert_eq!(grey.is_ok(), colour.is_ok());
    colour.is_ok()
}

/// A PNG whose chunks carry the checksums of what they now hold: otherwise no mutation would get past the first.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 8;
    while out.starts_with(b"\x89PNG")
        && let Some(length) = out.get(at..at + 4)
    {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = at + 8 + length;
        let Some(chunk) = out.get(at + 4..end) else { break };
        let sum = crc32fast::hash(chunk).to_be_bytes();
        if let Some(to) = out.get_mut(end..end + 4) {
            to.copy_from_slice(&sum);
        }
        at = end + 4;
    }
    out
}

fn run_graph_text(bytes: &[u8]) -> bool {
    let registry = thalweg_ops::registry();
    let Ok(graph) = Graph::parse(&String::from_utf8_lossy(bytes), &registry) else { return false };
    assert!(Graph::parse(&graph.to_string(), &registry).as_ref() == Ok(&graph), "it prints and parses back:\n{graph}");
    assert!(Graph::from_bytes(&graph.to_bytes(), &registry).as_ref() == Ok(&graph), "it travels:\n{graph}");
    true
}

fn run_kernel_text(bytes: &[u8]) -> bool {
    let Ok(kernel) = Kernel::parse(&String::from_utf8_lossy(bytes)) else { return false };
    assert!(Kernel::parse(&kernel.to_string()).as_ref() == Ok(&kernel), "it prints and parses back:\n{kernel}");
    // Text may spell an unsound kernel or plan, so that one can be looked at; bytes may not.
    match Kernel::from_bytes(&kernel.to_bytes()) {
        Ok(same) => assert!(same == kernel, "it travels:\n{kernel}"),
        Err(error) => assert!(matches!(error, WireError::UnsoundKernel(_)), "{error}:\n{kernel}"),
    }
    true
}

fn run_plan_text(bytes: &[u8]) -> bool {
    let Ok(plan) = Plan::parse(&String::from_utf8_lossy(bytes)) else { return false };
    assert!(Plan::parse(&plan.to_string()).as_ref() == Ok(&plan), "it prints and parses back:\n{plan}");
    let sound = plan.verify().is_empty();
    match Plan::from_bytes(&plan.to_bytes()) {
        Ok(same) => assert!(sound && same == plan, "it travels:\n{plan}"),
        Err(error) => assert!(!sound && matches!(error, WireError::UnsoundPlan(_)), "{error}:\n{plan}"),
    }
    let harm = simulate(&plan, &Free, &Options { steps: 2, seeds: 0..1, replicas: false }).err();
    assert!(!sound || harm.is_none(), "a sound plan comes to no harm: {harm:?}:\n{plan}");
    true
}

fn run_graph_bytes(bytes: &[u8]) -> bool {
    let Ok(graph) = Graph::from_bytes(bytes, &thalweg_ops::registry()) else { return false };
    assert_eq!(graph.to_bytes(), bytes, "one value has one spelling");
    true
}

fn run_kernel_bytes(bytes: &[u8]) -> bool {
    let Ok(kernel) = Kernel::from_bytes(bytes) else { return false };
    assert_eq!(kernel.to_bytes(), bytes, "one value has one spelling");
    true
}

/// One file of several, each after its length.
pub fn packed(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_le_bytes(), &part[..]].concat()).collect()
}

/// Those parts; what a length promises and is not there is left out.
fn unpacked(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = vec![];
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let part;
        (part, bytes) = rest.split_at(rest.len().min(u32::from_le_bytes(*length) as usize));
        parts.push(part);
    }
    parts
}

fn run_checkpoint(bytes: &[u8]) -> bool {
    let parts = unpacked(bytes);
    parts.split_first().is_some_and(|(manifest, files)| checkpoints::checkpoint(manifest, files))
}

fn run_plan_bytes(bytes: &[u8]) -> bool {
    let Ok(plan) = Plan::from_bytes(bytes) else { return false };
    assert_eq!(plan.to_bytes(), bytes, "one value has one spelling");
    assert!(plan.verify().is_empty(), "only sound plans travel");
    true
}
