//! What leaves have in parts, added up. The tree of additions is fixed by the number of leaves alone, so that every way of
//! hosting them gives the same bits: a device adds up the whole subtrees that it hosts, and what crosses are their sums.
//!
//! Of a long row each device adds up one slice for all (every other device sends it its subtrees' share), and sends it back to
//! all. Over n devices that each host one subtree, a device sends 2 · (n − 1) / n of the row, which is the least there is. A
//! short row is sent whole to everybody instead: one crossing instead of two. Where any order will do, a long row goes around a
//! ring.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::buckets::Bucket;
use super::{Cutter, Instances, owns};
use crate::ir::{Node, Value};
use crate::kernel::build::{Axes, read};
use crate::kernel::{BufferType, Kernel, Monoid};
use crate::place::{Placement, Reduction, Spread, shares};
use crate::types::DType;

/// Rows of fewer bytes are sent whole.
const SHORT_BYTES: u64 = 16 << 10;

/// Leaves `begin..end` of a group, as a node of the tree: split at the largest power of two below their number, so that
/// subtrees are aligned.
fn halves(leaves: &Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let n = leaves.len();
    if n < 2 {
        return None;
    }
    let mid = leaves.start + n.next_power_of_two() / 2;
    Some((leaves.start..mid, mid..leaves.end))
}

impl Cutter<'_> {
    /// One value, combined over the leaves.
    pub(super) fn sum_one(
        &mut self,
        value: Value,
        m: usize,
        from: &Placement,
        monoid: Monoid,
        stage: u16,
    ) -> Instances {
        let parts = self.get(value, from, stage);
        self.sum(&[value], &[parts], m, monoid).remove(0)
    }
    /// One value of a stage, combined over the leaves: on each device of another stage, or the same, only the elements that it
    /// owns.
    pub(super) fn scatter_sum(
        &mut self,
        value: Value,
        m: usize,
        from: &Placement,
        monoid: Monoid,
        cuts: &[u64],
        (home, stage): (u16, u16),
    ) -> Instances {
        let (placed, mesh) = (self.placed, self.placed.mesh());
        let (like, parts) = (&placed.graph.nodes[value.node], self.get(value, from, home));
        let group = mesh.groups(m).remove(0);
        let hosts: Vec<u16> = group.iter().map(|leaf| mesh.device(home, *leaf)).collect();
        let rows = group.iter().zip(&hosts).map(|(leaf, host)| self.flat(*host, like, parts.of[*leaf])).collect();
        let dtype = placed.ty(value).dtype;
        let mut tree = Tree { rows, hosts, monoid, dtype, known: HashMap::new() };
        let leaves = 0..group.len();
        let mut sums = HashMap::new();
        for device in mesh.devices_of(stage, group).into_iter().filter(|d| owns(cuts, *d)) {
            let slice = cuts[usize::from(device)]..cuts[usize::from(device) + 1];
            let slice = Some(&slice).filter(|s| s.start > 0 || Some(&s.end) != cuts.last());
            sums.insert(device, self.add_up(&mut tree, &leaves, slice, device, like));
        }
        self.once_per_owner(stage, cuts, |device| sums[&device])
    }
    /// All values of a bucket, and a note of what became of them.
    pub(super) fn sum_bucket(&mut self, bucket: &Bucket, stage: u16) {
        let Bucket { values, axis, from } = bucket;
        let parts: Vec<Instances> = values.iter().map(|v| self.get(*v, from, stage)).collect();
        let sums = self.sum(values, &parts, *axis, Monoid::Sum);
        let mut to = from.clone();
        to[*axis] = Spread::Replicate;
        for (value, sum) in values.iter().zip(sums) {
            self.made.insert((*value, to.clone(), stage), sum);
        }
    }

    /// Values combined over axis `m` of the mesh, all of them as one row.
    fn sum(&mut self, values: &[Value], parts: &[Instances], m: usize, monoid: Monoid) -> Vec<Instances> {
        let placed = self.placed;
        let (mut out, stage, mesh) = (parts.to_vec(), parts[0].stage, placed.mesh());
        for group in mesh.groups(m) {
            let like = &placed.graph.nodes[values[0].node];
            // By leaf of the group, a row of its parts.
            let mut rows: Vec<Value> = Vec::new();
            for leaf in &group {
                let device = mesh.device(stage, *leaf);
                let flat: Vec<Value> = parts.iter().map(|p| self.flat(device, like, p.of[*leaf])).collect();
                rows.push(if flat.len() == 1 { flat[0] } else { self.end_to_end(device, like, flat) });
            }
            let hosts: Vec<u16> = group.iter().map(|leaf| mesh.device(stage, *leaf)).collect();
            let ty = self.ty(hosts[0], rows[0]);
            let devices = mesh.devices_of(stage, group.iter().copied());
            let mut tree = Tree { rows, hosts, monoid, dtype: ty.dtype, known: HashMap::new() };
            let sums = self.everywhere(&mut tree, &devices, ty.len() as u64, like);
            for (device, sum) in devices.iter().zip(sums) {
                let here: Vec<usize> =
                    group.iter().copied().filter(|leaf| mesh.device(stage, *leaf) == *device).collect();
                let mut begin = 0;
                for (k, value) in values.iter().enumerate() {
                    let shape = self.ty(*device, parts[k].of[here[0]]).shape;
                    let n: u64 = if shape.contains(&0) { 0 } else { shape.iter().product() };
                    let like = &placed.graph.nodes[value.node];
                    let one =
                        if values.len() == 1 { sum } else { self.row(*device, like, vec![sum], begin, begin + n) };
                    let one = self.relabel(*device, like, one, &shape);
                    begin += n;
                    here.iter().for_each(|leaf| out[k].of[*leaf] = one);
                }
            }
        }
        out
    }
    /// The sum of a tree's rows of `n` elements, on each of `devices`.
    fn everywhere(&mut self, tree: &mut Tree, devices: &[u16], n: u64, like: &Node) -> Vec<Value> {
        let leaves = 0..tree.rows.len();
        let bytes = n * tree.dtype.size_bytes() as u64;
        // Two devices that host one half each send as much either way, and exchange it at once.
        let hosts = |range: &Range<usize>| tree.hosts[range.clone()].iter().collect::<HashSet<_>>().len();
        let exchange = devices.len() == 2 && halves(&leaves).is_some_and(|(a, b)| hosts(&a) == 1 && hosts(&b) == 1);
        if devices.len() == 1 || exchange || bytes < SHORT_BYTES {
            return devices.iter().map(|d| self.add_up(tree, &leaves, None, *d, like)).collect();
        }
        let slices: Vec<Range<u64>> = shares(n, devices.len()).windows(2).map(|w| w[0]..w[1]).collect();
        if self.placed.request.reduction == Reduction::Fast {
            return self.around(tree, devices, &slices, like);
        }
        let sums: Vec<Value> = devices
            .iter()
            .zip(&slices)
            .map(|(owner, slice)| self.add_up(tree, &leaves, Some(slice), *owner, like))
            .collect();
        let whole = |this: &mut Self, device: u16| {
            let parts = devices.iter().zip(&sums).map(|(owner, sum)| this.bring(*owner, *sum, device, like)).collect();
            this.end_to_end(device, like, parts)
        };
        devices.iter().map(|device| whole(self, *device)).collect()
    }

    /// The same around a ring: every device sends to its neighbour only, first sums so far and then whole ones (Patarasuk and
    /// Yuan, *Bandwidth optimal all-reduce algorithms for clusters of workstations*, JPDC 2009).
    fn around(&mut self, tree: &mut Tree, devices: &[u16], slices: &[Range<u64>], like: &Node) -> Vec<Value> {
        let n = devices.len();
        let own: Vec<Value> = devices.iter().map(|device| self.hosted(tree, *device, like)).collect();
        let part = |this: &Self, at: usize, slice: &Range<u64>| {
            this.row(devices[at], like, vec![own[at]], slice.start, slice.end)
        };
        // By slice: the sum begins behind the device that ends with it, and goes around once more.
        let mut whole: Vec<Vec<Value>> = vec![vec![]; n];
        for (k, slice) in slices.iter().enumerate() {
            let mut sum = part(self, (k + 1) % n, slice);
            for hop in 2..=n {
                let (from, at) = ((k + hop - 1) % n, (k + hop) % n);
                let come = self.bring(devices[from], sum, devices[at], like);
                let mine = part(self, at, slice);
                sum = self.combine(tree, come, mine, devices[at], like);
            }
            let mut here = vec![sum; n];
            for hop in 1..n {
                let (from, at) = ((k + hop - 1) % n, (k + hop) % n);
                here[at] = self.bring(devices[from], here[from], devices[at], like);
            }
            (0..n).for_each(|at| whole[at].push(here[at]));
        }
        devices.iter().zip(whole).map(|(device, slices)| self.end_to_end(*device, like, slices)).collect()
    }
    /// The sum of what a device hosts.
    fn hosted(&mut self, tree: &Tree, device: u16, like: &Node) -> Value {
        let rows = tree.rows.iter().zip(&tree.hosts).filter(|(_, host)| **host == device).map(|(row, _)| *row);
        let rows: Vec<Value> = rows.collect();
        rows.into_iter()
            .reduce(|a, b| self.combine(tree, a, b, device, like))
            .expect("a device of the group hosts a leaf")
    }

    /// A slice of the sum of `leaves`, on `at`: what one device hosts it adds up itself.
    fn add_up(
        &mut self,
        tree: &mut Tree,
        leaves: &Range<usize>,
        slice: Option<&Range<u64>>,
        at: u16,
        like: &Node,
    ) -> Value {
        let host = tree.hosts[leaves.start];
        if tree.hosts[leaves.clone()].iter().all(|h| *h == host) {
            let whole = self.subtree(tree, leaves, host, like);
            let part = match slice {
                None => whole,
                Some(slice) => {
                    let key = (leaves.clone(), Some(slice.clone()));
                    if let Some(known) = tree.known.get(&key) {
                        *known
                    } else {
                        let part = self.row(host, like, vec![whole], slice.start, slice.end);
                        tree.known.insert(key, part);
                        part
                    }
                }
            };
            return self.bring(host, part, at, like);
        }
        let (left, right) = halves(leaves).expect("leaves of several devices");
        let (a, b) = (self.add_up(tree, &left, slice, at, like), self.add_up(tree, &right, slice, at, like));
        self.combine(tree, a, b, at, like)
    }
    /// The sum of `leaves`, all of them hosted by `host`.
    fn subtree(&mut self, tree: &mut Tree, leaves: &Range<usize>, host: u16, like: &Node) -> Value {
        let Some((left, right)) = halves(leaves) else { return tree.rows[leaves.start] };
        if let Some(known) = tree.known.get(&(leaves.clone(), None)) {
            return *known;
        }
        let (a, b) = (self.subtree(tree, &left, host, like), self.subtree(tree, &right, host, like));
        let sum = self.combine(tree, a, b, host, like);
        tree.known.insert((leaves.clone(), None), sum);
        sum
    }
    fn combine(&mut self, tree: &Tree, a: Value, b: Value, at: u16, like: &Node) -> Value {
        let ty = self.ty(at, a);
        let like = Node { origin: Some("sum over leaves".into()), name: None, ..like.clone() };
        self.emit(at, &like, pairwise(tree.monoid, ty), vec![a, b])
    }
}

/// The leaves of a group and what they have.
struct Tree {
    rows: Vec<Value>,
    /// By leaf.
    hosts: Vec<u16>,
    monoid: Monoid,
    dtype: DType,
    /// Sums and slices of them, each on the device that hosts the leaves.
    known: HashMap<(Range<usize>, Option<Range<u64>>), Value>,
}

/// Two vectors combined element by element.
fn pairwise(monoid: Monoid, ty: BufferType) -> Kernel {
    let mut axes = Axes::new();
    let at = axes.par_over(&ty.shape);
    let (a, b) = (read(0, at.iter().copied()), read(1, at.iter().copied()));
    let combined = match monoid {
        Monoid::Sum => a + b,
        Monoid::Prod => a * b,
        Monoid::Max => a.max(b),
        Monoid::Min => a.min(b),
        Monoid::Any => a.or(b),
        Monoid::All => a.and(b),
        other => unreachable!("{} is not combined so", other.name()),
    };
    axes.nest(&[ty.clone(), ty.clone()], &[ty], [combined])
}
