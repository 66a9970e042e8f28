//! As much of zip as an `.npz` needs (APPNOTE 6.3: stored and deflated members, zip64, checksums), over bytes in memory.
//! Not a library's: so every number of the directory is checked against the bytes that are there before it is used,
//! and an error can say at which byte.

use std::borrow::Cow;

use crate::error::{DataError, Place, Result};
use crate::file::unpack;

/// A file of the archive, as the directory at its end has it.
pub(crate) struct Member {
    pub(crate) name: String,
    /// Where its directory entry is.
    pub(crate) entry: usize,
    method: u16,
    crc: u32,
    packed: u64,
    unpacked: u64,
    /// Where it begins.
    local: u64,
}

/// Numbers, least significant byte first, at fixed places of a record.
struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
}

/// A record of `size` bytes that begins with `signature` at `at`.
fn record<'a>(file: &str, bytes: &'a [u8], at: u64, signature: &[u8; 4], size: usize) -> Result<Record<'a>> {
    let begin = usize::try_from(at).ok();
    let found = begin.and_then(|b| bytes.get(b..b.checked_add(size)?)).filter(|r| r.starts_with(signature));
    found.map(Record).ok_or_else(|| {
        let what = match signature[2..] {
            [1, 2] => "an entry of the directory",
            [3, 4] => "a member",
            _ => "the end of the directory",
        };
        DataError::malformed(
            file,
            Place::Byte(at),
            format!("{what} should be here: the archive is damaged or cut short"),
        )
    })
}

/// Everything the directory lists.
pub(crate) fn members(file: &str, bytes: &[u8]) -> Result<Vec<Member>> {
    const END: usize = 22;
    // The directory's end stands last, behind it at most a comment of 65,535 bytes whose length it states.
    let last = bytes.len().checked_sub(END);
    let is_end = |at: &usize| {
        bytes[*at..].starts_with(b"PK\x05\x06") && usize::from(Record(&bytes[*at..]).u16(20)) == bytes.len() - at - END
    };
    let Some(end) = last.and_then(|last| (last.saturating_sub(0xffff)..=last).rev().find(is_end)) else {
        let what = "has no zip directory at its end: it is no .npz archive, or was cut short";
        return Err(DataError::malformed(file, Place::Whole, what));
    };
    let tail = Record(&bytes[end..end + END]);
    let (mut count, mut at) = (u64::from(tail.u16(10)), u64::from(tail.u32(16)));
    if count == 0xffff || at == 0xffff_ffff {
        let locator = record(file, bytes, (end as u64).saturating_sub(20), b"PK\x06\x07", 20)?;
        let tail = record(file, bytes, locator.u64(8), b"PK\x06\x06", 56)?;
        (count, at) = (tail.u64(32), tail.u64(48));
    }
    let mut members = Vec::new();
    for _ in 0..count {
        let (member, size) = entry(file, bytes, at)?;
        members.push(member);
        at += size;
    }
    Ok(members)
}

/// The directory's entry at `at`, and its length.
fn entry(file: &str, bytes: &[u8], at: u64) -> Result<(Member, u64)> {
    const FIXED: usize = 46;
    let fixed = record(file, bytes, at, b"PK\x01\x02", FIXED)?;
    let fault = |what: &str| DataError::malformed(file, Place::Byte(at), what);
    let (name, extra, comment) = (fixed.u16(28), fixed.u16(30), fixed.u16(32));
    let [name, extra, comment] = [name, extra, comment].map(usize::from);
    let rest = bytes.get(at as usize + FIXED..).and_then(|r| r.get(..name + extra + comment));
    let rest = rest.ok_or_else(|| fault("this entry of the directory is cut short"))?;
    let text = String::from_utf8_lossy(&rest[..name]).into_owned();
    if fixed.u16(8) & 1 != 0 {
        return Err(fault(&format!("member `{text}` is encrypted: save it without a password")));
    }
    let mut member = Member {
        name: text,
        entry: at as usize,
        method: fixed.u16(10),
        crc: fixed.u32(16),
        packed: fixed.u32(20).into(),
        unpacked: fixed.u32(24).into(),
        local: fixed.u32(42).into(),
    };
    // Numbers too large for 32 bits are all ones, and stand in an extra field of id 1, in this order.
    let mut wide = wide_numbers(&rest[name..name + extra]).into_iter();
    for number in [&mut member.unpacked, &mut member.packed, &mut member.local] {
        if *number == 0xffff_ffff {
            *number = wide.next().ok_or_else(|| fault("this entry of the directory lacks its 64-bit sizes"))?;
        }
    }
    Ok((member, (FIXED + name + extra + comment) as u64))
}

fn wide_numbers(mut extra: &[u8]) -> Vec<u64> {
    while extra.len() >= 4 {
        let (id, size) = (Record(extra).u16(0), usize::from(Record(extra).u16(2)));
        let Some(field) = extra.get(4..4 + size) else { break };
        if id == 1 {
            return field.chunks_exact(8).map(|b| Record(b).u64(0)).collect();
        }
        extra = &extra[4 + size..];
    }
    vec![]
}

impl Member {
    /// Its content, if that is at most `limit` bytes.
    pub(crate) fn unpack<'a>(&self, file: &str, bytes: &'a [u8], limit: u64) -> Result<Cow<'a, [u8]>> {
        const FIXED: usize = 30;
        let fixed = record(file, bytes, self.local, b"PK\x03\x04", FIXED)?;
        let fault = |what: String| {
            let at = Place::Member { name: self.name.clone(), byte: 0 };
            Err(DataError::malformed(file, at, what))
        };
        if self.unpacked > limit {
            let what = format!("unpacks to {} bytes, and {limit} are left of the limit", self.unpacked);
            return fault(format!("{what}: if it is meant to, raise the limit `unpacked_bytes`"));
        }
        let begin = self.local as usize + FIXED + usize::from(fixed.u16(26)) + usize::from(fixed.u16(28));
        let packed = usize::try_from(self.packed).ok().and_then(|n| bytes.get(begin..begin.checked_add(n)?));
        let Some(packed) = packed else {
            let has = bytes.len().saturating_sub(begin);
            return fault(format!("takes {} bytes, and the file has {has} more: it was cut short", self.packed));
        };
        let content: Cow<[u8]> = match self.method {
            0 => packed.into(),
            8 => match unpack(flate2::read::DeflateDecoder::new(packed), self.unpacked) {
                Ok(Some(content)) => content.into(),
                Ok(None) => return fault(format!("unpacks to more than the {} bytes it promises", self.unpacked)),
                Err(error) => return fault(format!("its compressed data is damaged: {error}")),
            },
            other => return fault(format!("is compressed by method {other}: save it with np.savez_compressed")),
        };
        if content.len() as u64 != self.unpacked {
            return fault(format!("unpacks to {} bytes, not the {} it promises", content.len(), self.unpacked));
        }
        let crc = crc32fast::hash(&content);
        if crc != self.crc {
            return fault(format!("is damaged: its checksum is {crc:08x}, not {:08x}", self.crc));
        }
        Ok(content)
    }
}
