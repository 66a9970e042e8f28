//! Tensors that lie end to end and are looked at as one, and tensors that are a stretch of others. A row costs nothing if its
//! members can be laid side by side: each has at most one neighbour on either side, for good. What cannot is copied.

use std::collections::HashMap;

use super::{Home, Places, Root};
use crate::kernel::BufferType;

/// A run of elements of a place that is no row itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) root: Root,
    /// The first of them.
    pub(super) start: u64,
    /// The first that is not.
    pub(super) end: u64,
}

/// Who lies next to whom.
#[derive(Clone, Default, Debug)]
pub(super) struct Neighbours {
    after: HashMap<Root, Root>,
    before: HashMap<Root, Root>,
}

impl Places {
    /// What a place is made of: its spans, or all of itself.
    pub(super) fn spans(&self, root: Root) -> Vec<Span> {
        match &self.at(root).home {
            Home::Row(spans) => spans.clone(),
            _ => vec![Span { root, start: 0, end: self.at(root).ty.len() as u64 }],
        }
    }
    /// The places that are read or written where this one is.
    pub(super) fn leaves(&self, root: Root) -> Vec<Root> {
        self.spans(root).into_iter().map(|s| s.root).collect()
    }
    /// Every row.
    pub(super) fn rows(&self) -> impl Iterator<Item = Root> + '_ {
        (0..self.places.len()).map(Root).filter(|r| matches!(self.at(*r).home, Home::Row(_)))
    }
    /// Places that are looked at as part of a row.
    pub(super) fn aliased(&self) -> impl Iterator<Item = Root> + '_ {
        let spans = self.places.iter().filter_map(|p| if let Home::Row(spans) = &p.home { Some(spans) } else { None });
        spans.flatten().map(|s| s.root)
    }
    /// Whether `b` begins where `a` ends, or can be made to.
    pub(super) fn can_follow(&self, a: Root, b: Root) -> bool {
        match (self.spans(a).last(), self.spans(b).first()) {
            (Some(a), Some(b)) => self.joins(a, b),
            _ => true,
        }
    }
    fn joins(&self, a: &Span, b: &Span) -> bool {
        if a.root == b.root {
            return a.end == b.start;
        }
        let ends = a.end == self.at(a.root).ty.len() as u64 && b.start == 0;
        let laid = self.neighbours.after.get(&a.root) == Some(&b.root);
        let free = !self.neighbours.after.contains_key(&a.root)
            && !self.neighbours.before.contains_key(&b.root)
            && self.movable(a.root)
            && self.movable(b.root)
            && self.last(b.root) != self.last(a.root);
        ends && (laid || free)
    }
    /// Whether nobody but the arena decides where it lies.
    fn movable(&self, root: Root) -> bool {
        matches!(self.at(root).home, Home::Scratch | Home::Staging)
    }
    /// The end of the chain that a place is in.
    fn last(&self, mut root: Root) -> Root {
        while let Some(next) = self.neighbours.after.get(&root) {
            root = *next;
        }
        root
    }
    /// The members of every chain, in order.
    pub(super) fn chains(&self) -> Vec<Vec<Root>> {
        let mut firsts: Vec<Root> = self.neighbours.after.keys().copied().collect();
        firsts.retain(|r| !self.neighbours.before.contains_key(r));
        firsts.sort_unstable();
        let chain = |first: &Root| {
            std::iter::successors(Some(*first), |r| self.neighbours.after.get(r).copied()).collect::<Vec<_>>()
        };
        firsts.iter().map(chain).collect()
    }

    /// The place that is `members` end to end, from element `start` of them up to `end`. Members that do not lie next to one
    /// another and cannot be made to are replaced by what `copy` makes of them: a fresh place.
    pub(super) fn row(
        &mut self,
        ty: BufferType,
        members: &[Root],
        (start, end): (u64, u64),
        copy: &mut dyn FnMut(&mut Places, Span) -> Root,
    ) -> Root {
        let mut spans: Vec<Span> = Vec::new();
        let mut at = 0;
        for span in members.iter().flat_map(|m| self.spans(*m)) {
            let (first, n) = (at, span.end - span.start);
            at += n;
            let (low, high) = (start.max(first), end.min(at));
            // What has no elements is part of it all the same: somebody made it for this.
            if low < high || (n == 0 && start <= first && first <= end) {
                let at = |x: u64| span.start + x.saturating_sub(first);
                spans.push(Span { start: at(low), end: at(high), ..span });
            }
        }
        let copied = self.to_copy(&spans);
        for (span, copied) in spans.iter_mut().zip(copied) {
            if copied {
                *span = Span { root: copy(self, *span), start: 0, end: span.end - span.start };
            }
        }
        spans.windows(2).for_each(|pair| self.link(pair[0].root, pair[1].root));
        spans.dedup_by(|b, a| {
            let goes_on = a.root == b.root && a.end == b.start;
            if goes_on {
                a.end = b.end;
            }
            goes_on
        });
        self.add(ty, Home::Row(spans))
    }
    /// Which spans have to be copied, for the row to lie end to end: those that nobody can move, that stand in it twice, or
    /// that have another neighbour.
    fn to_copy(&self, spans: &[Span]) -> Vec<bool> {
        let goes_on = |i: usize| i > 0 && spans[i - 1].root == spans[i].root && spans[i - 1].end == spans[i].start;
        let again = |i: usize| spans[..i].iter().any(|s| s.root == spans[i].root) && !goes_on(i);
        let mut copied: Vec<bool> =
            (0..spans.len()).map(|i| spans.len() > 1 && (!self.movable(spans[i].root) || again(i))).collect();
        loop {
            let before = copied.clone();
            for i in 1..spans.len() {
                let (a, b) = (&spans[i - 1], &spans[i]);
                let fits = if copied[i - 1] || copied[i] {
                    a.root != b.root || copied[i - 1] && copied[i]
                } else {
                    self.joins(a, b)
                };
                if !fits {
                    copied[i] = true;
                }
                // A copy is alone: what is next to it must end there, and have no other neighbour.
                if copied[i] && !copied[i - 1] {
                    copied[i - 1] =
                        a.end != self.at(a.root).ty.len() as u64 || self.neighbours.after.contains_key(&a.root);
                }
                if copied[i - 1] && !copied[i] {
                    copied[i] = b.start != 0 || self.neighbours.before.contains_key(&b.root);
                }
            }
            if copied == before {
                return copied;
            }
        }
    }
    fn link(&mut self, a: Root, b: Root) {
        if a != b {
            self.neighbours.after.insert(a, b);
            self.neighbours.before.insert(b, a);
            for root in [a, b] {
                // What arrives lies among what is computed, if it is to lie next to it.
                if self.at(root).home == Home::Staging {
                    self.places[root.0].home = Home::Scratch;
                }
            }
        }
    }
}
