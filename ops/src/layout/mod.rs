//! Ops that make or move elements and compute nothing.

pub mod broadcast_to;
pub mod concat;
pub mod extent;
pub mod full;
pub mod iota;
pub mod pad;
pub mod reshape;
pub mod slice;
pub mod transpose;

pub use concat::concat;

/// Axes of a tensor of `rank` as positions, negative ones from the end; `None` where one is out of range or named twice.
pub(crate) fn axes_once(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let mut out: Vec<usize> = Vec::new();
    for axis in axes {
        let i = usize::try_from(if *axis < 0 { axis + rank as i64 } else { *axis }).ok()?;
        if i >= rank || out.contains(&i) {
            return None;
        }
        out.push(i);
    }
    Some(out)
}
