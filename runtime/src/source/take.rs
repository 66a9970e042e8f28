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

/// What channels take of a field.
#[derive(Default)]
struct Taken {
    places: Vec<Range<u64>>,
    /// With the elements that they carry.
    channels: Vec<(ChannelId, Range<u64>)>,
}

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
        let mut of_fields: BTreeMap<usize, Taken> = BTreeMap::new();
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
            let Taken { places, channels } = of_fields.entry(field).or_default();
            if let (Some(first), true) = (start.checked_div(per), end > start) {
                places.push(first..end.div_ceil(per));
            }
            channels.push((id, start..end));
        }
        let mut reads: Vec<Read> = vec![];
        let mut cuts = vec![];
        for (field, Taken { places, channels }) in of_fields {
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
                // What carries nothing carries it from nowhere.
                let start = if elements.is_empty() { 0 } else { before * per + elements.start - first * per };
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

#[cfg(test)]
mod tests {
    use thalweg_graph::DType::{self, F32, I32, I64};
    use thalweg_graph::id::Arena;
    use thalweg_graph::kernel::BufferType;
    use thalweg_graph::plan::Channel;

    use super::*;

    /// A data set whose elements are numbered; each sample is asked for once.
    struct Numbers(Facts);
    impl Numbers {
        fn of(len: u64, fields: &[(&str, DType, &[u64])]) -> Arc<Self> {
            let field = |(name, dtype, shape): &(&str, DType, &[u64])| {
                (name.to_string(), BufferType { dtype: *dtype, shape: shape.to_vec() })
            };
            Arc::new(Self(Facts { len, fingerprint: [0; 32], fields: fields.iter().map(field).collect() }))
        }
    }
    impl Reader for Numbers {
        fn facts(&self) -> &Facts {
            &self.0
        }
        fn read(&self, _: Option<u64>, _: u64, places: &[Range<u64>], fields: &[usize]) -> Result<Vec<Array>, String> {
            assert!(places.windows(2).all(|p| p[0].end < p[1].start), "{places:?}");
            let rows: Vec<u64> = places.iter().cloned().flatten().collect();
            let one = |field: &usize| {
                let ty = &self.0.fields[*field].1;
                let per = ty.len() as u64;
                let shape: Vec<u64> = std::iter::once(rows.len() as u64).chain(ty.shape.iter().copied()).collect();
                let all = rows.iter().flat_map(|row| row * per..(row + 1) * per);
                match ty.dtype {
                    F32 => Array::from_slice(&shape, &all.map(|i| i as f32).collect::<Vec<_>>()),
                    _ => Array::from_slice(&shape, &all.map(|i| i as i64).collect::<Vec<_>>()),
                }
            };
            Ok(fields.iter().map(one).collect())
        }
    }

    fn plan(channels: &[(u16, &str, DType, Range<u64>)]) -> Plan {
        let mut all = Arena::default();
        for (device, label, dtype, elements) in channels {
            let ty = BufferType { dtype: *dtype, shape: vec![elements.end - elements.start] };
            let (from, to) = (Endpoint::Driver, Endpoint::Device(*device));
            all.push(Channel { from, to, ty, start: elements.start, label: (*label).into() });
        }
        let (graph, program) = ("g".into(), "p".into());
        Plan { graph, program, bindings: Default::default(), kernels: Arena::default(), channels: all, devices: vec![] }
    }

    fn samples(first: u64, count: u64) -> Samples {
        Samples { seed: None, pass: 0, first, count }
    }

    /// Whatever stretches channels carry, of whole samples or not, the same or apart: the elements that they would be fed.
    #[test]
    fn channels_carry_what_they_would_be_fed() {
        let mut state = 1u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for _ in 0..500 {
            let (count, first) = (1 + random(9), random(5));
            let mut channels = vec![];
            for _ in 0..1 + random(6) {
                let (label, dtype, per) = [("x", F32, 6), ("y", I32, 1)][random(2) as usize];
                let start = random(count * per + 1);
                channels.push((random(2) as u16, label, dtype, start..start + random(count * per - start + 1)));
            }
            let numbers = Numbers::of(20, &[("z", F32, &[]), ("x", F32, &[2, 3]), ("y", I64, &[])]);
            let plan = plan(&channels);
            let take = Take::new(&plan, 1, &numbers.0, &[1, 2], count).expect("a batch has it");
            let read = take.of(&(numbers as Arc<dyn Reader>), samples(first, count)).read().expect("it is there");
            let cuts: BTreeMap<ChannelId, &[u8]> = take.cut(&read).collect();
            let here = channels.iter().enumerate().filter(|(_, (device, ..))| *device == 1);
            let want = here.map(|(id, (_, label, _, elements))| {
                let per = if *label == "x" { 6 } else { 1 };
                let number = |i: u64| first * per + i;
                let bytes: Vec<u8> = match *label {
                    "x" => elements.clone().flat_map(|i| (number(i) as f32).to_ne_bytes()).collect(),
                    _ => elements.clone().flat_map(|i| (number(i) as i32).to_ne_bytes()).collect(),
                };
                (ChannelId(id as u32), bytes)
            });
            let got: BTreeMap<ChannelId, Vec<u8>> = cuts.into_iter().map(|(id, bytes)| (id, bytes.to_vec())).collect();
            assert_eq!(got, want.collect());
        }
    }

    #[test]
    fn what_a_batch_has_not_is_refused() {
        let numbers = Numbers::of(20, &[("x", F32, &[3]), ("none", F32, &[0]), ("huge", F32, &[u64::MAX, 2])]);
        let take = |channels: &[(u16, &str, DType, Range<u64>)], count| {
            Take::new(&plan(channels), 0, &numbers.0, &[0, 1, 2, 9], count)
        };
        assert!(take(&[(0, "x", F32, 0..12)], 4).is_ok_and(|t| !t.is_empty()));
        assert!(take(&[(1, "x", F32, 0..12), (0, "y", F32, 0..1)], 4).is_ok_and(|t| t.is_empty()));
        assert!(take(&[(0, "none", F32, 0..0)], 4).is_ok_and(|t| !t.is_empty()), "nothing is a value too");
        for (channels, count) in [
            (&[(0, "x", F32, 0..13)][..], 4),
            (&[(0, "x", F32, 2..3)], 0),
            (&[(0, "x", F32, 0..1)], u64::MAX),
            (&[(0, "huge", F32, 0..1)], 4),
            (&[(0, "x", F32, 0..3), (0, "x", I32, 3..6)], 4),
        ] {
            assert!(take(channels, count).is_err(), "{channels:?} of {count}");
        }
        // Of another type, or beyond the end: when it is read.
        let reader: Arc<dyn Reader> = numbers.clone();
        let wrong = take(&[(0, "x", I32, 0..3)], 4).expect("its extent fits").of(&reader, samples(0, 4)).read();
        assert!(wrong.is_err_and(|why| why.contains("`x` is f32, and its input i32")));
        let take = take(&[(0, "x", F32, 0..12)], 4).expect("it fits");
        for beyond in [samples(17, 4), samples(u64::MAX, 4)] {
            let why = take.of(&reader, beyond).read().expect_err("there are 20");
            assert!(why.contains("there are 20"), "{why}");
        }
        assert!(take.of(&reader, samples(16, 4)).read().is_ok());
    }
}
