//! One of each message, for tests and for the fuzzer, which begins with them. Not among the tests, as the fuzzer is another crate.

use thalweg_graph::DType;
use thalweg_graph::kernel::BufferType;
use thalweg_graph::plan::Memory;
use thalweg_runtime::checkpoint::{CheckpointId, Digest, Part, PieceOrder, Place, ShardEntry, ShardOrder, ShardReport};
use thalweg_runtime::source::{Samples, SourceSpec};

use crate::message::{Cause, Drawn, Order, Report};

/// A shard of two pieces.
fn shard() -> ShardOrder {
    let piece = |part, dtype, shape: &[u64]| PieceOrder {
        tensor: "body.w@64".into(),
        part,
        ty: BufferType { dtype, shape: shape.into() },
        offset: 1 << 33,
    };
    let pieces = vec![piece(Part::Weights, DType::F32, &[3, 4]), piece(Part::Training, DType::I64, &[])];
    let (root, directory) = ("runs".into(), "a".into());
    ShardOrder { root, directory, id: CheckpointId { term: 1, step: 3 }, place: Place { index: 1, of: 4 }, pieces }
}

/// One of each order.
pub(crate) fn orders() -> Vec<Order> {
    let workers = ["127.0.0.1:80", "[::1]:65535"].map(|a| a.parse().expect("an address")).into();
    let samples = |seed| Samples { seed, pass: 1 << 40, first: 0, count: 9 };
    let drawn = |seed, next| Drawn { source: 3, samples: samples(seed), fields: vec![0, 2], next };
    let draws = [drawn(None, None), drawn(Some(0), Some(samples(Some(4))))];
    vec![
        Order::Welcome { term: 4, rank: u16::MAX, workers, device: "worker0/cpu:0".into(), threads: 3, null: true },
        Order::Refuse("for a reason".into()),
        Order::ReserveState(1 << 40),
        Order::Load([7; 32]),
        Order::Unload(2),
        Order::Write(Memory::State, 1 << 50),
        Order::Read(Memory::Scratch, 64, 65),
        Order::Reserved(Memory::Staging),
        Order::Time(true),
        Order::Clock,
        Order::Strategy(3, 4),
        Order::Watch(false),
        Order::Crossed,
        Order::Open(7, SourceSpec { root: "data".into(), path: "a/b.npz".into(), how: "{}".into() }),
        Order::Run { step: 1 << 33, loaded: 1, draws: draws.into() },
        Order::Decide { step: 0, commit: true },
        Order::Abort { step: u64::MAX },
        Order::Leave,
        Order::Save(shard()),
    ]
}

/// One of each report, and of each cause.
pub(crate) fn reports() -> Vec<Report> {
    let address = "10.0.0.1:7".parse().expect("an address");
    let entry = ShardEntry { file: "training-0-3-2of4".into(), bytes: 1 << 40, checksum: Digest([9; 32]) };
    let join = |rank| Report::Join { version: "0".into(), address, process: 9, rank };
    let failed = |cause: Cause| Report::Failed { step: 3, cause, in_tail: true };
    vec![
        join(None),
        join(Some(0)),
        Report::Ready,
        Report::Answer(Ok(0)),
        Report::Answer(Err("no".into())),
        Report::Alive { doing: "3: wait #2 \"grad\"".into() },
        Report::Saved(Err("full".into())),
        Report::Saved(Ok(ShardReport { files: vec![entry], digests: vec![Digest([3; 32]), Digest([4; 32])] })),
        Report::Voted { step: 5 },
        Report::Done { step: 6, committed: true, carried: vec![(1, 2, 3, 4), (5, 6, 7, 8)] },
        failed(Cause::Aborted),
        failed(Cause::Unreachable("u".into())),
        failed(Cause::Fault("f".into())),
        failed(Cause::Gone("g".into())),
        failed(Cause::Damage("d".into())),
    ]
}
