//! Which bytes of what is fed and returned each channel of a plan carries. Several may carry parts of one input, also the
//! same parts; outputs are put together from parts, of which each element comes once.

use std::ops::Range;
use std::sync::Arc;

use thalweg_graph::DType;
use thalweg_graph::ir::Graph;
use thalweg_graph::kernel::BufferType;
use thalweg_graph::plan::{Channel, ChannelId, Endpoint, Plan};

/// What the channels of a plan carry.
pub(super) struct Routes {
    /// By channel: the bytes of the input that it carries; of those that do not come from the caller none.
    pub(super) feeds: Vec<Range<usize>>,
    /// The program's outputs: names, types and what fills them.
    pub(super) outputs: Vec<(Arc<str>, BufferType, Filled)>,
    /// The channels of the program's checks, in their order.
    pub(super) checks: Vec<ChannelId>,
}

/// Channels that fill an array from its first byte to its last, and how many bytes each brings.
pub(super) type Filled = Vec<(usize, ChannelId)>;

/// Something that is filled by channels.
struct Slot {
    name: Arc<str>,
    ty: BufferType,
    /// First element, number of elements, channel.
    parts: Vec<(u64, u64, ChannelId)>,
}

impl Routes {
    /// Of a plan for the one program of `bound`, whose checks leave by channels called `check_names`.
    ///
    /// # Errors
    /// With everything that does not fit: a fault of whoever made the plan.
    pub(super) fn new(plan: &Plan, bound: &Graph, check_names: &[Arc<str>]) -> Result<Self, Vec<String>> {
        let (program, mut faults) = (&bound.programs[0], vec![]);
        let inputs = bound.inputs_of(program);
        let mut slots = Vec::with_capacity(program.outputs.len() + check_names.len());
        for (name, value) in &program.outputs {
            match BufferType::of(bound.ty(*value)) {
                Some(ty) => slots.push(Slot { name: name.clone(), ty, parts: vec![] }),
                None => faults.push(format!("output `{name}` has no fixed extents")),
            }
        }
        let status = || BufferType { dtype: DType::I32, shape: vec![] };
        slots.extend(check_names.iter().map(|name| Slot { name: name.clone(), ty: status(), parts: vec![] }));

        let mut feeds = Vec::with_capacity(plan.channels.len());
        for (id, channel) in plan.channels.iter() {
            let mut feed = 0..0;
            if channel.from == Endpoint::Driver {
                let input = inputs.iter().find(|(_, i)| i.name == channel.label);
                let ty = input.and_then(|(_, i)| BufferType::of(&i.ty));
                match ty.as_ref().and_then(|ty| elements(channel, ty)) {
                    Some(range) => {
                        let size = channel.ty.dtype.size_bytes();
                        feed = range.start as usize * size..range.end as usize * size;
                    }
                    None => faults.push(format!("channel {id} carries what input `{}` has not", channel.label)),
                }
            } else if channel.to == Endpoint::Driver {
                // Two of one name are told apart by what of them is there already.
                let named = slots.iter_mut().filter(|s| s.name == channel.label);
                let mut fitting = named.filter_map(|s| elements(channel, &s.ty).map(|range| (s, range)));
                let free = |(slot, range): &(&mut Slot, Range<u64>)| {
                    !slot.parts.iter().any(|(start, n, _)| *start < range.end && range.start < start + n || *n == 0)
                };
                match fitting.find(free) {
                    Some((slot, range)) => slot.parts.push((range.start, range.end - range.start, id)),
                    None => {
                        faults.push(format!("channel {id} carries what output `{}` has no place for", channel.label))
                    }
                }
            }
            feeds.push(feed);
        }
        let mut whole = Vec::with_capacity(slots.len());
        for Slot { name, ty, mut parts } in slots {
            parts.sort();
            let mut reached = 0;
            parts.iter().for_each(|(start, n, _)| reached = if *start == reached { start + n } else { reached });
            if reached != ty.len() as u64 || parts.is_empty() {
                faults.push(format!("output `{name}`: element {reached} comes from nobody"));
            }
            let size = ty.dtype.size_bytes();
            whole.push((name, ty, parts.iter().map(|(_, n, c)| (*n as usize * size, *c)).collect::<Filled>()));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let checks = whole.split_off(program.outputs.len());
        let checks = checks.iter().flat_map(|(_, _, parts)| parts.iter().map(|(_, c)| *c)).collect();
        Ok(Self { feeds, outputs: whole, checks })
    }
}

/// The elements of an array of type `whole` that a channel carries, if there are such.
fn elements(channel: &Channel, whole: &BufferType) -> Option<Range<u64>> {
    let end = channel.start.checked_add(channel.ty.checked_len()?)?;
    let fits = channel.ty.dtype == whole.dtype && end <= whole.checked_len()?;
    fits.then_some(channel.start..end)
}
