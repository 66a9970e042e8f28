//! Takes holes apart. The input gradient of a convolution with stride 2 reads its operand where 2 divides a coordinate:
//! three quarters of its multiplications are by zero. Rows whose coordinates leave the same remainder read the same
//! places, so that the product is one dense product per remainder.

use thalweg_graph::kernel::Affine;

use crate::contract::Draft;
use crate::domain::Check;

/// More products than this are not worth their tables.
const MOST: usize = 64;

/// The dense products that `draft` is made of: itself where it has no holes, or where they cannot be taken apart. Where
/// they leave out a part of the result, that part is zero.
pub(crate) fn split(draft: Draft) -> Vec<Draft> {
    let hole = |d: &Draft| {
        let is = |c: &Check| matches!(c, Check::Holes { .. });
        (0..2).find_map(|s| d.sides[s].checks.iter().position(is).map(|c| (s, c)))
    };
    let mut open = vec![draft.clone()];
    let mut done = Vec::new();
    while let Some(next) = open.pop() {
        match hole(&next) {
            None => done.push(next),
            Some(at) => match take_apart(&next, at) {
                Some(parts) if open.len() + done.len() + parts.len() <= MOST => open.extend(parts),
                _ => return vec![draft],
            },
        }
    }
    done
}

/// One draft per remainder of the parallel axes that matter to the hole at `check` of `side`.
fn take_apart(draft: &Draft, (side, check): (usize, usize)) -> Option<Vec<Draft>> {
    let Check::Holes { index, step, extent, stride } = draft.sides[side].checks[check] else { return None };
    let map = draft.domain.maps[index].clone();
    let cut: Vec<usize> = map.terms.iter().filter(|(_, c)| c % step != 0).map(|(a, _)| *a as usize).collect();
    let (parallel, fold): (Vec<_>, Vec<_>) = cut.iter().partition(|a| **a < draft.domain.parallel);
    let mut parts = Vec::new();
    for outer in remainders(&parallel, step, draft) {
        let value = |rests: &[(usize, i64)]| rests.iter().map(|(a, r)| map.coefficient(*a as u16) * r).sum::<i64>();
        let fits = |inner: &Vec<(usize, i64)>| (map.offset + value(&outer) + value(inner)).rem_euclid(step) == 0;
        let inner: Vec<_> = remainders(&fold, step, draft).into_iter().filter(fits).collect();
        let mut part = match &inner[..] {
            [inner] => draft.at_remainders(&[&outer[..], inner].concat(), step),
            // Nothing is read.
            [] => continue,
            _ => return None,
        };
        // Every coefficient is a multiple of the step now, and so is the offset.
        let access = &mut part.sides[side];
        let map = &part.domain.maps[index];
        let by_step = |x: i64| x.div_euclid(step);
        let divided =
            Affine { terms: map.terms.iter().map(|(a, c)| (*a, by_step(*c))).collect(), offset: by_step(map.offset) };
        let linear = part.domain.maps[access.linear].clone() + divided.clone().scaled(stride);
        part.domain.maps.extend([divided, linear]);
        let last = part.domain.maps.len() - 1;
        access.linear = last;
        access.checks[check] = Check::Limit { index: last - 1, extent };
        parts.push(part);
    }
    Some(parts)
}

/// Every choice of a remainder for each of `axes`.
fn remainders(axes: &[usize], step: i64, draft: &Draft) -> Vec<Vec<(usize, i64)>> {
    axes.iter().fold(vec![vec![]], |choices, axis| {
        let count = step.min(draft.extent(*axis));
        let with = |choice: &Vec<_>| {
            (0..count).map(|r| choice.iter().copied().chain([(*axis, r)]).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        choices.iter().flat_map(with).collect()
    })
}

impl Draft {
    /// Those points whose coordinates along some axes leave these remainders.
    fn at_remainders(&self, rests: &[(usize, i64)], step: i64) -> Self {
        let mut part = self.clone();
        let narrow = |map: &mut Affine| {
            for (axis, rest) in rests {
                map.offset += map.coefficient(*axis as u16) * rest;
                map.terms.iter_mut().filter(|(a, _)| *a as usize == *axis).for_each(|(_, c)| *c *= step);
            }
        };
        part.domain.maps.iter_mut().for_each(narrow);
        narrow(&mut part.result);
        for (axis, rest) in rests {
            let extent = &mut part.domain.extents[*axis];
            *extent = (*extent - rest + step - 1) / step;
        }
        part
    }
}
