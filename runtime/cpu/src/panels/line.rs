//! One direction of a matrix that need not be one in memory: where each row (or each step of depth) lies, as a list. A
//! convolution's image is a matrix of windows by pixels that exists nowhere; element (row, depth) lies at the sum of two
//! listed offsets, and is inside if the sums of two listed coordinates are. So nothing here knows what a window is.

use thalweg_graph::kernel::Affine;

use crate::domain::{Access, Check, Domain};

/// When an element is outside, and then reads as zero. The coordinate is the sum of a row's part, a depth's and a
/// block's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Border {
    /// Outside beyond 0..extent.
    Limit { extent: i32 },
    /// Outside unless `step` divides it and the quotient, which counts `stride` elements each, is in 0..extent.
    Holes { step: i32, extent: i32, stride: i32 },
}

impl Border {
    /// Elements to add to the offset, if `coordinate` is inside.
    #[inline(always)]
    pub(crate) fn shift(self, coordinate: i32) -> Option<i32> {
        match self {
            Border::Limit { extent } => ((coordinate as u32) < extent as u32).then_some(0),
            Border::Holes { step, extent, stride } => {
                let inside = coordinate >= 0 && coordinate % step == 0 && coordinate / step < extent;
                inside.then(|| coordinate / step * stride)
            }
        }
    }
}

/// The borders of an access, with the map that gives each coordinate. `None` where numbers do not fit 32 bits or a
/// coordinate is more than affine.
pub(crate) fn borders(access: &Access, domain: &Domain) -> Option<Vec<(Affine, Border)>> {
    let small = |x: i64| i32::try_from(x).ok();
    let border = |check: &Check| match *check {
        Check::Limit { index, extent } => Some((domain.maps[index].clone(), Border::Limit { extent: small(extent)? })),
        Check::Holes { index, step, extent, stride } => {
            small(extent.checked_mul(stride)?)?;
            let border = Border::Holes { step: small(step)?, extent: small(extent)?, stride: small(stride)? };
            Some((domain.maps[index].clone(), border))
        }
        Check::Digit { .. } | Check::Value { .. } => None,
    };
    access.checks.iter().map(border).collect()
}

/// Elements past the end of every list, so that whole vectors can be read.
const SLACK: usize = 16;

/// The points of some axes, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// How many.
    pub(crate) len: usize,
    /// Where each lies, relative to the block.
    pub(crate) offsets: Vec<i32>,
    /// Per border, each point's part of the coordinate.
    pub(crate) coordinates: Vec<Vec<i32>>,
}

impl Line {
    /// The points of `axes` (with extents, outermost first) as `linear` and the `borders` see them.
    pub(crate) fn new(axes: &[(usize, i64)], linear: &Affine, borders: &[(Affine, Border)]) -> Option<Self> {
        let len = axes.iter().map(|a| a.1).product::<i64>() as usize;
        let list = |map: &Affine| {
            let reach = axes.iter().map(|(a, n)| (map.coefficient(*a as u16) * (n - 1)).abs()).sum::<i64>();
            i32::try_from(reach).ok()?;
            let mut values = Vec::with_capacity(len + SLACK);
            values.push(0);
            // Innermost first: each axis repeats what there is.
            for (axis, count) in axes.iter().rev() {
                let (step, so_far) = (map.coefficient(*axis as u16) as i32, values.len());
                for i in 1..*count as i32 {
                    values.extend_from_within(..so_far);
                    let from = values.len() - so_far;
                    values[from..].iter_mut().for_each(|v| *v += i * step);
                }
            }
            values.resize(len + SLACK, 0);
            Some(values)
        };
        let coordinates = borders.iter().map(|(map, _)| list(map)).collect::<Option<_>>()?;
        Some(Self { len, offsets: list(linear)?, coordinates })
    }
    /// The step between neighbours, if it is the same for all in `range`.
    pub(crate) fn step(&self, range: std::ops::Range<usize>) -> Option<i64> {
        let offsets = &self.offsets[range];
        let step = if offsets.len() > 1 { i64::from(offsets[1]) - i64::from(offsets[0]) } else { 1 };
        offsets.windows(2).all(|w| i64::from(w[1]) - i64::from(w[0]) == step).then_some(step)
    }
}

/// Neighbouring lanes of a group that lie side by side in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// First lane.
    pub(crate) lane: u8,
    /// How many lanes.
    pub(crate) len: u8,
    /// Where the first lies.
    pub(crate) offset: i32,
}

/// A line cut into groups of lanes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    pub(crate) width: usize,
    runs: Vec<Run>,
    /// Where each group's runs end.
    ends: Vec<u32>,
    /// Per group and border, the least and the largest coordinate.
    pub(crate) reach: Vec<Vec<(i32, i32)>>,
}

impl Groups {
    /// More runs than this are gathered lane by lane.
    pub(crate) const MOST_RUNS: usize = 4;

    pub(crate) fn new(line: &Line, width: usize) -> Self {
        let mut groups = Self { width, ..Self::default() };
        for start in (0..line.len).step_by(width) {
            let lanes = start..(start + width).min(line.len);
            let first = groups.runs.len();
            for (lane, offset) in line.offsets[lanes.clone()].iter().enumerate() {
                match groups.runs[first..].last_mut() {
                    Some(run) if run.offset + i32::from(run.len) == *offset => run.len += 1,
                    _ => groups.runs.push(Run { lane: lane as u8, len: 1, offset: *offset }),
                }
            }
            groups.ends.push(groups.runs.len() as u32);
            let reach = |values: &Vec<i32>| {
                let lanes = &values[lanes.clone()];
                (lanes.iter().copied().min().unwrap_or(0), lanes.iter().copied().max().unwrap_or(0))
            };
            groups.reach.push(line.coordinates.iter().map(reach).collect());
        }
        groups
    }
    /// The runs of a group.
    #[inline(always)]
    pub(crate) fn runs(&self, group: usize) -> &[Run] {
        let start = if group == 0 { 0 } else { self.ends[group - 1] };
        &self.runs[start as usize..self.ends[group] as usize]
    }
    /// Runs per group, on average.
    pub(crate) fn raggedness(&self) -> f64 {
        self.runs.len() as f64 / self.ends.len().max(1) as f64
    }
}
