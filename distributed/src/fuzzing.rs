//! What comes from outside as functions of bytes, for the fuzzer, which is another crate. Each says whether it took them, and
//! panics if something took them that should not have, or if what was taken is another thing once it is written again.

use crate::contract::{Contract, MASTER_VARIABLE, RANK_VARIABLE};
use crate::control;
use crate::frame::{self, CHUNK_BYTES, HEADER_BYTES, Header, Kind, MAGIC};
use crate::job::JobFile;
use crate::striped::whole;

/// What a driver may say to a worker, each message after its length.
pub fn orders(bytes: &[u8]) -> bool {
    control::fuzzing::orders(bytes)
}

/// What a worker may say to a driver.
pub fn reports(bytes: &[u8]) -> bool {
    control::fuzzing::reports(bytes)
}

/// The most bytes of a value that a step has room for here.
const ROOM_BYTES: usize = 2 * CHUNK_BYTES + 100;

/// What comes by a connection of the data plane, checksums mended: otherwise no change of it would get past the first.
pub fn frames(bytes: &[u8]) -> bool {
    let bytes = with_checksums(bytes);
    let (mut rest, mut room) = (&bytes[..], vec![0; ROOM_BYTES]);
    while !rest.is_empty() {
        let Ok(header) = Header::read(&mut rest) else { return false };
        assert!(Header::parse(&header.to_bytes()).is_ok_and(|same| same == header), "{header:?}");
        if header.kind == Kind::Grant {
            continue;
        }
        // As where several connections are told from one.
        if header.chunk != 0 || header.over != 1 {
            return false;
        }
        let Ok(n) = whole(header, &mut rest, &mut room, true) else { return false };
        let mut again = vec![];
        frame::write_all(&mut again, header, &room[..n], true).expect("memory");
        let (mut again, mut same) = (&again[..], vec![0; n]);
        let first = Header::read(&mut again).expect("it was just written");
        let read = whole(first, &mut again, &mut same, true);
        assert!(read.is_ok_and(|m| m == n) && same == room[..n], "{header:?}");
    }
    true
}

fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (bytes.to_vec(), 0);
    while let Some(header) = out.get(at..at + HEADER_BYTES)
        && header.starts_with(&MAGIC)
    {
        let len = u32::from_le_bytes([header[44], header[45], header[46], header[47]]) as usize;
        let payload = at + HEADER_BYTES;
        if let Some(payload) = out.get(payload..payload + len) {
            let crc = crc32fast::hash(payload).to_le_bytes();
            out[at + 48..at + 52].copy_from_slice(&crc);
        }
        let crc = crc32fast::hash(&out[at..at + HEADER_BYTES - 4]).to_le_bytes();
        out[at + HEADER_BYTES - 4..at + HEADER_BYTES].copy_from_slice(&crc);
        at = payload + len;
    }
    out
}

/// The file by which a driver goes on that takes another's place.
pub fn job_file(bytes: &[u8]) -> bool {
    let Ok(file) = JobFile::from_bytes(bytes) else { return false };
    assert!(JobFile::from_bytes(&file.to_bytes()).is_ok_and(|same| same == file), "{file:?}");
    true
}

/// What an engine says of a process, a variable a line.
pub fn contract(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let of = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(n, value)| *n == name && !value.is_empty()).map(|(_, value)| value.to_string())
    };
    let Ok(contract) = Contract::of(&of) else { return false };
    let Some(Contract { rank, world, master, .. }) = contract else { return true };
    assert!(rank < world && world > 1, "{rank} of {world}");
    let ours = [
        (RANK_VARIABLE, rank.to_string()),
        (crate::WORLD_VARIABLE, world.to_string()),
        (MASTER_VARIABLE, master.clone()),
    ];
    let again = Contract::of(&|name| ours.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone()));
    let same = again.expect("it was understood before").expect("several processes");
    assert_eq!((same.rank, same.world, same.master), (rank, world, master));
    true
}

/// What to begin with: the folder, the file's name and its bytes.
pub fn corpus() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = control::fuzzing::corpus();
    let (kind, last, over, chunk, len, crc) = (Kind::Value, true, 1, 0, 0, 0);
    let header =
        Header { kind, last, over, job: 1 << 40, term: 2, plan: 3 << 50, step: 4, channel: 5, chunk, len, crc };
    let written = |header: Header, n: usize| {
        let mut out = vec![];
        frame::write_all(&mut out, header, &vec![3; n], true).expect("memory");
        out
    };
    let grant = written(Header { kind: Kind::Grant, ..header }, 0);
    let parts: Vec<u8> = [(false, 0), (false, 1), (true, 2)]
        .into_iter()
        .flat_map(|(last, chunk)| {
            // As long values are cut, but into less.
            let (len, bytes) = (9, [chunk as u8; 9]);
            let part = Header { last, chunk, len, crc: crc32fast::hash(&bytes), ..header };
            [&part.to_bytes()[..], &bytes].concat()
        })
        .collect();
    all.push(("frames", "small".into(), [&written(header, 16)[..], &grant, &written(header, 0)].concat()));
    all.push(("frames", "parts".into(), parts));
    all.push(("frames", "bad-spread".into(), written(Header { over: 2, ..header }, 16)));
    for (i, file) in JobFile::samples().iter().enumerate() {
        all.push(("job_file", format!("term-{i}"), file.to_bytes()));
    }
    let contracts: [(&str, &str); 6] = [
        ("torchrun", "RANK=2\nWORLD_SIZE=4\nMASTER_ADDR=127.0.0.1\nMASTER_PORT=29500\nTORCHELASTIC_RUN_ID=none\n"),
        ("slurm", "SLURM_PROCID=1\nSLURM_STEP_NUM_TASKS=3\nSLURM_JOB_ID=77\nTHALWEG_MASTER=host7:4000\n"),
        (
            "open-mpi",
            "OMPI_COMM_WORLD_RANK=0\nOMPI_COMM_WORLD_SIZE=2\nPMIX_NAMESPACE=a\nMASTER_ADDR=h\nMASTER_PORT=1\n",
        ),
        ("kubernetes", "JOB_COMPLETION_INDEX=1\nTHALWEG_WORLD=3\nJOB_NAME=j\nTHALWEG_MASTER=[::1]:9\n"),
        ("nobody", "HOME=/root\n"),
        ("bad-two", "RANK=0\nWORLD_SIZE=2\nSLURM_PROCID=1\nSLURM_STEP_NUM_TASKS=2\n"),
    ];
    all.extend(contracts.map(|(name, text)| ("contract", name.to_string(), text.as_bytes().to_vec())));
    all
}
