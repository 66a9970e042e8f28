//! Loop nests: a thread for every point of the parallel axes, which folds alone; or, where points are few and folds are
//! long, a workgroup, whose threads share the fold. Which of the two depends on the nest alone.

use thalweg_graph::kernel::{Axis, LoopNest, Reg};

use super::Unsupported;
use super::domain::Domain;
use super::expr::Value;
use super::fold::State;
use super::index::{Frame, affine, countable, decode};
use super::memory;
use super::scalar::program;
use super::shader::{Dispatch, LANES, Place, Shader};

/// Folds shorter than this are one thread's.
const LONG_FOLD: u64 = 256;
/// As many points fill a device with a thread each.
const MANY_POINTS: u64 = 4096;
/// Workgroup memory that every adapter has.
pub(super) const SHARED_BYTES: u32 = 16 << 10;

/// The most points of a dispatch: threads beyond the last are counted too.
pub(crate) const MOST_POINTS: u64 = (1 << 31) - (1 << 24) - 1;

/// Number of points, if it can be counted.
pub(super) fn points(extents: impl Iterator<Item = u64>) -> Result<u64, Unsupported> {
    let points = extents.map(u128::from).product::<u128>();
    let countable = u64::try_from(points).ok().filter(|n| *n <= MOST_POINTS);
    countable.ok_or_else(|| Unsupported::TooLarge(format!("it runs over {points} points")))
}

/// Whether threads of a workgroup share each fold.
pub(super) fn shares_folds(nest: &LoopNest) -> bool {
    let points = |fold: bool| {
        let extents = nest.axes.iter().filter(|a| a.fold == fold).map(|a| a.extent);
        extents.fold(1u64, u64::saturating_mul)
    };
    let shared = nest.folds.iter().map(State::shared_bytes).sum::<u32>();
    !nest.folds.is_empty() && points(true) >= LONG_FOLD && points(false) < MANY_POINTS && shared <= SHARED_BYTES
}

/// A nest as a dispatch; none where there are no points.
pub(super) fn nest(nest: &LoopNest, reads: &[Place], writes: &[Place]) -> Result<Option<Dispatch>, Unsupported> {
    countable(&nest.operands)?;
    countable(&nest.results)?;
    let parallel = nest.parallel_axes();
    let extents = |fold: bool| nest.axes.iter().filter(move |a| a.fold == fold).map(|a| a.extent);
    let (outer, inner) = (points(extents(false))?, points(extents(true))?);
    if outer == 0 {
        return Ok(None);
    }
    let together = shares_folds(nest);
    let mut sh = Shader::default();
    let domain = Domain::of(nest);
    let mut frame = frame_of(nest, &domain, reads);
    let thread = if together { "at".to_string() } else { sh.bind("t", format!("at * {LANES}u + lane")) };
    let count = sh.number(outer as i64);
    sh.line(format!("if ({thread} >= u32({count})) {{ return; }}"));
    decode(&mut sh, &thread, frame.axes, &(0..parallel).collect::<Vec<_>>(), &mut frame.at);

    let writes: Vec<Vec<Place>> = writes.iter().map(|w| vec![*w]).collect();
    at_point(&mut sh, nest, &domain, &mut frame, together.then_some(inner), &writes)?;
    Ok(Some(sh.finish(if together { outer } else { outer.div_ceil(u64::from(LANES)) })))
}

/// The frame of a nest, before any index is known.
pub(super) fn frame_of<'a>(nest: &'a LoopNest, domain: &'a Domain, reads: &'a [Place]) -> Frame<'a> {
    Frame {
        axes: &domain.axes,
        at: vec!["0".into(); nest.axes.len()],
        reads: &nest.reads,
        operands: &nest.operands,
        places: reads,
        plain: &domain.plain,
        found: vec![None; nest.reads.len()],
    }
}

/// What is done at a point of the parallel axes: by one thread, or by all of a workgroup together, which share a fold of
/// so many points. Each result goes to all of its places.
pub(super) fn at_point(
    sh: &mut Shader,
    nest: &LoopNest,
    domain: &Domain,
    frame: &mut Frame<'_>,
    together: Option<u64>,
    writes: &[Vec<Place>],
) -> Result<(), Unsupported> {
    let parallel = nest.parallel_axes();
    let mut states = vec![];
    for fold in &nest.folds {
        states.push(State::declare(sh, fold)?);
    }
    if !states.is_empty() {
        let folded: Vec<usize> = (parallel..nest.axes.len()).collect();
        let open = match together {
            Some(points) => open_shared(sh, frame.axes, &folded, points, &mut frame.at),
            None => open_alone(sh, frame.axes, &folded, &mut frame.at),
        };
        let wanted: Vec<Reg> = nest.folds.iter().flat_map(|f| f.inputs.iter().copied()).collect();
        let values = program(sh, frame, &nest.body, &wanted, &[])?;
        let mut values = &values[..];
        for (state, fold) in states.iter().zip(&nest.folds) {
            let (inputs, rest) = values.split_at(fold.inputs.len());
            state.take(sh, inputs);
            values = rest;
        }
        (0..open).for_each(|_| sh.close());
        // What was read in the loop is not known behind it.
        frame.found = vec![None; nest.reads.len()];
        frame.at[parallel..].iter_mut().for_each(|a| *a = "0".into());
        if together.is_some() {
            State::across(sh, &states);
            sh.open("if (lane == 0u)");
        }
    }
    let folded: Vec<Vec<Value>> = states.into_iter().map(|s| s.parts).collect();
    let wanted: Vec<Reg> = nest.writes.iter().map(|w| w.value).collect();
    let values = program(sh, frame, &nest.epilogue, &wanted, &folded)?;
    // All is read before anything is written: a result may lie where an operand does.
    store_all(sh, nest, domain, &frame.at, writes, &values);
    if together.is_some() {
        sh.close();
    }
    Ok(())
}

/// Writes the values of all writes.
pub(super) fn store_all(
    sh: &mut Shader,
    nest: &LoopNest,
    domain: &Domain,
    at: &[String],
    places: &[Vec<Place>],
    values: &[Value],
) {
    for ((write, map), value) in nest.writes.iter().zip(&domain.writes).zip(values) {
        let result = usize::from(write.result);
        let index = affine(sh, map, &domain.axes, at);
        for place in &places[result] {
            memory::store(sh, *place, nest.results[result].dtype, &index, value);
        }
    }
}

/// Opens a loop per fold axis; says how many blocks are open.
fn open_alone(sh: &mut Shader, axes: &[Axis], folded: &[usize], at: &mut [String]) -> usize {
    let mut open = 0;
    for a in folded.iter().filter(|a| axes[**a].extent != 1) {
        let (name, extent) = (sh.name("i"), sh.number(axes[*a].extent as i64));
        sh.open(format!("for (var {name} = 0; {name} < {extent}; {name}++)"));
        at[*a] = name;
        open += 1;
    }
    open
}

/// Opens one loop in which each thread takes every [`LANES`]th point of the fold.
fn open_shared(sh: &mut Shader, axes: &[Axis], folded: &[usize], points: u64, at: &mut [String]) -> usize {
    let (name, count) = (sh.name("i"), sh.number(points as i64));
    sh.open(format!("for (var {name} = lane; {name} < u32({count}); {name} += {LANES}u)"));
    decode(sh, &name, axes, folded, at);
    1
}
