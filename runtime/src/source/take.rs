//! What one device takes of a batch: the samples that its channels carry parts of, each read once however many channels
//! want it, and where in what is read each channel's bytes are. It follows from the plan; nobody has to be believed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use thalweg_graph::Array;
use thalweg_graph::plan::{ChannelId, Endpoint, Plan};

use super::{Facts, Reader, Samples, Wanted, Wish};

/// Places within a batch, ascending and apart, and the fields that are read of them.
type Read = (Vec<Range<u64>>, Vec<Wish>);

/// Where a channel's bytes are in what was read.
struct Cut {
    channel: ChannelId,
    /// Which read, and which of its arrays.
    read: usize,
    array: usize,
    bytes: Range<usize>,
}

/// What a device takes of batches of one size.
pub struct Take {
    reads: Vec<Read>,
    cuts: Vec<Cut>,
}

impl Take {
    /// What part `device` of a verified plan takes of a batch of `count` samples, of which some `fields` are read.
    ///
    /// # Errors
    /// If a channel carries what such a batch has not.
    pub fn new(plan: &Plan, device: u16, facts: &Facts, fields: &[u32], count: u64) -> Result<Self, String> {
        // By field: the places that channels take, and the channels with their elements.
        let mut of_fields: BTreeMap<usize, (Vec<Range<u64>>, Vec<(ChannelId, Range<u64>)>)> = BTreeMap::new();
        let mut wishes = BTreeMap::new();
        let to_here = |to: Endpoint| to == Endpoint::Device(device);
        for (id, channel) in plan.channels.iter().filter(|(_, c)| c.from == Endpoint::Driver && to_here(c.to)) {
            let named = |f: &&u32| facts.fields.get(**f as usize).is_some_and(|(name, _)| *name == *channel.label);
            let Some(field) = fields.iter().find(named).map(|f| *f as usize) else { continue };
            let (name, one) = &facts.fields[field];
            let per = one.checked_len().ok_or_else(|| format!("a sample of `{name}` is too large"))?;
            let (carried, start) = (channel.ty.checked_len(), channel.start);
            let end = carried.and_then(|n| start.checked_add(n));
            let all = per.checked_mul(count);
            let Some(end) = end.filter(|end| all.is_some_and(|all| *end <= all)) else {
                let ty = &channel.ty;
                return Err(format!(
                    "channel {id} carries {ty} of `{name}` from {start} on: a batch of {count} has not"
                ));
            };
            if wishes.insert(field, channel.ty.dtype).is_some_and(|before| before != channel.ty.dtype) {
                return Err(format!("channels carry `{name}` as {} and as something else", channel.ty.dtype));
            }
            let (places, channels) = of_fields.entry(field).or_default();
            if let (Some(first), true) = (start.checked_div(per), end > start) {
                places.push(first..end.div_ceil(per));
            }
            channels.push((id, start..end));
        }
        let mut reads: Vec<Read> = vec![];
        let mut cuts = vec![];
        for (field, (places, channels)) in of_fields {
            let (places, dtype) = (joined(places), wishes[&field]);
            let read = reads.iter().position(|(p, _)| *p == places).unwrap_or_else(|| {
                reads.push((places, vec![]));
                reads.len() - 1
            });
            let (places, wished) = &mut reads[read];
            let array = wished.len();
            wished.push((field, dtype));
            let per = facts.fields[field].1.checked_len().unwrap_or(0);
            for (channel, elements) in channels {
                let first = elements.start.checked_div(per).unwrap_or(0);
                // Samples before its first one, of those that are read.
                let before: u64 = places.iter().map(|p| p.end.min(first.max(p.start)) - p.start).sum();
                let start = before * per + elements.start - first * per;
                let size = dtype.size_bytes() as u64;
                let end = start + (elements.end - elements.start);
                let bytes = (start * size) as usize..(end * size) as usize;
                cuts.push(Cut { channel, read, array, bytes });
            }
        }
        Ok(Self { reads, cuts })
    }
    /// Whether it takes nothing.
    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }
    /// What is to be read of these samples.
    pub fn of(&self, reader: &Arc<dyn Reader>, samples: Samples) -> Wanted {
        Wanted::new(reader.clone(), samples, self.reads.clone())
    }
    /// Each channel with its bytes, of what was read.
    pub fn cut<'r>(&'r self, read: &'r [Vec<Array>]) -> impl Iterator<Item = (ChannelId, &'r [u8])> {
        self.cuts.iter().map(|cut| (cut.channel, &read[cut.read][cut.array].bytes()[cut.bytes.clone()]))
    }
}

/// The same places, ascending and apart.
fn joined(mut places: Vec<Range<u64>>) -> Vec<Range<u64>> {
    places.sort_by_key(|p| p.start);
    let mut out: Vec<Range<u64>> = vec![];
    for place in places {
        match out.last_mut().filter(|last| place.start <= last.end) {
            Some(last) => last.end = last.end.max(place.end),
            None => out.push(place),
        }
    }
    out
}
