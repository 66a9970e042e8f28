//! A kernel of a plan made ready: its dispatches with their pipelines, what they read as parameters, and which parts of
//! the arenas they are bound to.

use std::ops::Range;
use std::sync::Arc;

use crate::arena::Arenas;
use crate::context::{Context, Pipeline};
use crate::wgsl::{Dispatch, Param, Slot};
use crate::windows::{Span, Windows};

/// A dispatch that can be recorded.
pub(crate) struct Ready {
    pub(crate) pipeline: Arc<Pipeline>,
    /// Workgroups along each dimension.
    pub(crate) groups: [u32; 3],
    slots: Vec<Slot>,
    windows: Arc<Windows>,
    /// Where its parameters lie.
    params: Range<u64>,
    bound: Option<wgpu::BindGroup>,
}

/// What dispatches of a plan read as parameters, in one buffer.
#[derive(Default)]
pub(crate) struct Params {
    bytes: Vec<u8>,
}

impl Params {
    /// Appends a dispatch's; says where they lie.
    fn push(&mut self, context: &Context, dispatch: &Dispatch, spans: &[Span], windows: &Windows) -> Range<u64> {
        self.bytes.resize(self.bytes.len().next_multiple_of(context.uniform_align as usize), 0);
        let start = self.bytes.len();
        for param in &dispatch.params {
            let number = match param {
                Param::Number(n) => *n,
                // Whatever wraps on the way: a place and what is added to it end up in their window.
                Param::Start { place, unit } => {
                    let bytes = windows.offset(place.buffer, spans) + place.within as i64;
                    bytes.div_euclid(i64::from(*unit)) as i32
                }
                Param::Stride => (windows.stride / 4) as i32,
            };
            self.bytes.extend(number.to_le_bytes());
        }
        let vectors = dispatch.params.len().div_ceil(4).max(1);
        self.bytes.resize(start + 16 * vectors, 0);
        start as u64..self.bytes.len() as u64
    }
    /// The buffer that holds them all; none where there are none.
    pub(crate) fn upload(self, context: &Context) -> Result<Option<wgpu::Buffer>, String> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let made = context.checked(|| {
            let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
            let size = self.bytes.len() as u64;
            let described =
                wgpu::BufferDescriptor { label: Some("parameters"), size, usage, mapped_at_creation: false };
            let buffer = context.device.create_buffer(&described);
            context.queue.write_buffer(&buffer, 0, &self.bytes);
            buffer
        });
        made.map(Some).map_err(|e| e.to_string())
    }
}

impl Ready {
    /// A dispatch over `spans`, whose pipeline has been compiled.
    pub(crate) fn new(
        context: &Context,
        dispatch: &Dispatch,
        spans: &[Span],
        windows: &Arc<Windows>,
        params: &mut Params,
    ) -> Result<Self, String> {
        let params = params.push(context, dispatch, spans, windows);
        let pipeline = context.pipeline(&dispatch.text).ok_or("a shader that was not compiled")?;
        let groups = spread(dispatch.groups, context.groups).ok_or("too many workgroups; try a smaller batch")?;
        Ok(Self { pipeline, groups, slots: dispatch.slots.clone(), windows: windows.clone(), params, bound: None })
    }
    /// Binds it to the buffers that there are now.
    pub(crate) fn bind(&mut self, context: &Context, arenas: &Arenas, params: &wgpu::Buffer) -> Result<(), String> {
        let part = |buffer, range: Range<u64>| wgpu::BufferBinding {
            buffer,
            offset: range.start,
            size: std::num::NonZeroU64::new(range.end - range.start),
        };
        let entry = |binding: usize, part| wgpu::BindGroupEntry {
            binding: binding as u32,
            resource: wgpu::BindingResource::Buffer(part),
        };
        let mut entries = vec![entry(0, part(params, self.params.clone()))];
        for (i, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.words || s.parts) {
            let window = self.windows.all[i];
            let buffer = arenas.buffer(window.memory).ok_or("an arena that was not reserved")?;
            // An arena that has grown beyond a binding since: all that this launch names lies before that.
            let end = window.end.unwrap_or(buffer.size()).min(window.start + context.binding_bytes);
            let range = window.start..end.min(buffer.size());
            if slot.words {
                entries.push(entry(1 + 2 * i, part(buffer, range.clone())));
            }
            if slot.parts {
                entries.push(entry(2 + 2 * i, part(buffer, range)));
            }
        }
        let described = wgpu::BindGroupDescriptor { label: None, layout: &self.pipeline.layout, entries: &entries };
        self.bound = Some(context.device.create_bind_group(&described));
        Ok(())
    }
    /// Records it in a pass whose pipeline is `current`.
    pub(crate) fn record(&self, pass: &mut wgpu::ComputePass<'_>, current: &mut Option<*const Pipeline>) {
        if current.replace(Arc::as_ptr(&self.pipeline)) != Some(Arc::as_ptr(&self.pipeline)) {
            pass.set_pipeline(&self.pipeline.pipeline);
        }
        pass.set_bind_group(0, self.bound.as_ref(), &[]);
        let [x, y, z] = self.groups;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// At least `n` workgroups in three dimensions of at most `most` each.
fn spread(n: u64, most: u32) -> Option<[u32; 3]> {
    let most = u64::from(most);
    let x = n.clamp(1, most);
    let y = n.div_ceil(x).clamp(1, most);
    let z = n.div_ceil(x * y).max(1);
    (z <= most).then(|| [x, y, z].map(|d| d as u32))
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn any_number_of_workgroups_fits_three_dimensions() {
        for n in [0, 1, 65535, 65536, 65537, 1 << 25, (1 << 31) - 1] {
            let [x, y, z] = spread(n, 65535).expect("it fits").map(u64::from);
            assert!(x * y * z >= n && x * y * z < n.max(1) + 65535, "{n}: {x} {y} {z}");
        }
        assert_eq!(spread(1000, 9), None);
    }
}
