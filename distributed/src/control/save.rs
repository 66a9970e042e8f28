//! What is said of checkpoints, as the proto has it: which pieces of its state a worker is to write where, and what it has
//! written. Whether that is there, and within a root, is for who [writes](thalweg_runtime::checkpoint::Shard::copy) to say.

use bytes::Bytes;
use thalweg_graph::DType;
use thalweg_graph::kernel::BufferType;
use thalweg_runtime::checkpoint::{CheckpointId, Digest, Part, PieceOrder, Place, ShardEntry, ShardOrder, ShardReport};

use super::pieces::MessageError as Refused;
use super::proto;

fn to_part(part: Part) -> i32 {
    match part {
        Part::Weights => proto::Part::Weights,
        Part::Training => proto::Part::Training,
    }
    .into()
}

fn from_part(number: i32) -> Result<Part, Refused> {
    match proto::Part::try_from(number) {
        Ok(proto::Part::Weights) => Ok(Part::Weights),
        Ok(proto::Part::Training) => Ok(Part::Training),
        _ => Err(Refused::Malformed("there is no such part of a checkpoint")),
    }
}

fn to_piece(PieceOrder { tensor, part, ty, offset }: PieceOrder) -> proto::PieceOrder {
    let BufferType { dtype, shape } = ty;
    proto::PieceOrder { tensor, part: to_part(part), dtype: dtype.name().into(), shape, offset }
}

fn from_piece(piece: proto::PieceOrder) -> Result<PieceOrder, Refused> {
    let proto::PieceOrder { tensor, part, dtype, shape, offset } = piece;
    let dtype = DType::from_name(&dtype).ok_or(Refused::Malformed("there is no such type of elements"))?;
    Ok(PieceOrder { tensor, part: from_part(part)?, ty: BufferType { dtype, shape }, offset })
}

pub(super) fn to_order(order: ShardOrder) -> proto::ShardOrder {
    let ShardOrder { root, directory, id: CheckpointId { term, step }, place: Place { index, of }, pieces } = order;
    let (index, of, pieces) = (index.into(), of.into(), pieces.into_iter().map(to_piece).collect());
    proto::ShardOrder { root, directory, term, step, index, of, pieces }
}

pub(super) fn from_order(order: proto::ShardOrder) -> Result<ShardOrder, Refused> {
    let proto::ShardOrder { root, directory, term, step, index, of, pieces } = order;
    let small = |number: u32| number.try_into().map_err(|_| Refused::Malformed("a shard's number is none"));
    let place = Place { index: small(index)?, of: small(of)? };
    let pieces = pieces.into_iter().map(from_piece).collect::<Result<_, _>>()?;
    Ok(ShardOrder { root, directory, id: CheckpointId { term, step }, place, pieces })
}

fn to_digest(digest: Digest) -> Bytes {
    Bytes::copy_from_slice(&digest.0)
}

fn from_digest(bytes: &Bytes) -> Result<Digest, Refused> {
    bytes.as_ref().try_into().map(Digest).map_err(|_| Refused::Malformed("a digest is none"))
}

pub(super) fn to_report(ShardReport { files, digests }: ShardReport) -> proto::ShardReport {
    let file = |ShardEntry { file, bytes, checksum }| proto::ShardEntry { file, bytes, checksum: to_digest(checksum) };
    let (files, digests) = (files.into_iter().map(file), digests.into_iter().map(to_digest));
    proto::ShardReport { files: files.collect(), digests: digests.collect() }
}

pub(super) fn from_report(report: proto::ShardReport) -> Result<ShardReport, Refused> {
    let file = |entry: proto::ShardEntry| {
        let proto::ShardEntry { file, bytes, checksum } = entry;
        Ok(ShardEntry { file, bytes, checksum: from_digest(&checksum)? })
    };
    let files = report.files.into_iter().map(file).collect::<Result<_, Refused>>()?;
    let digests = report.digests.iter().map(from_digest).collect::<Result<_, _>>()?;
    Ok(ShardReport { files, digests })
}
