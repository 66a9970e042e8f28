//! Scatters, turned around: a thread for every place of the result looks through the points that may send something there,
//! in order. No two threads write one place, so that the result is the same bits every time. Axes that say where a
//! contribution goes by themselves (features of an embedding) are not looked through: the place gives them.

use thalweg_graph::kernel::interpret::{Number, neutral};
use thalweg_graph::kernel::{Axis, Coord, Fold, Literal, Monoid, Scatter};

use super::Unsupported;
use super::domain::plain;
use super::expr::{Repr, literal};
use super::fold::State;
use super::index::{Frame, coordinates, countable, decode};
use super::memory;
use super::nest::points;
use super::scalar::program;
use super::shader::{Dispatch, LANES, Place, Shader};

/// A scatter as a dispatch; none where the result is empty.
pub(super) fn scatter(scatter: &Scatter, reads: &[Place], write: Place) -> Result<Option<Dispatch>, Unsupported> {
    countable(&scatter.operands)?;
    countable(std::slice::from_ref(&scatter.result))?;
    points(scatter.axes.iter().map(|a| a.extent))?;
    let result = &scatter.result;
    let places = points(result.shape.iter().copied())?;
    if places == 0 {
        return Ok(None);
    }
    let mut sh = Shader::default();
    let thread = sh.bind("t", format!("at * {LANES}u + lane"));
    let count = sh.number(places as i64);
    sh.line(format!("if ({thread} >= u32({count})) {{ return; }}"));
    let domain: Vec<Axis> = result.shape.iter().map(|e| Axis::new(*e, false)).collect();
    let mut place = vec!["0".to_string(); domain.len()];
    decode(&mut sh, &thread, &domain, &(0..domain.len()).collect::<Vec<_>>(), &mut place);

    // It starts from an operand, or from the neutral element; a sum from +0.
    let fold = Fold { monoid: scatter.monoid, inputs: vec![scatter.value], dtype: result.dtype };
    let state = State::declare(&mut sh, &fold)?;
    let flat = format!("i32({thread})");
    let start = match (scatter.init, scatter.monoid) {
        (Some(k), _) => memory::load(&mut sh, reads[usize::from(k)], result.dtype, &flat),
        (None, Monoid::Sum) => literal(&mut sh, Literal::Int(0), result.dtype),
        (None, monoid) => {
            let number = match neutral(monoid, result.dtype)[0] {
                Number::Int(i) => Literal::Int(i),
                Number::Float(x) => Literal::Float(x),
            };
            literal(&mut sh, number, result.dtype)
        }
    };
    let start = if state.parts[0].repr == Repr::Wide { start.wide() } else { start.text };
    sh.line(format!("{} = {start};", state.parts[0].text));

    let plain = plain(&scatter.reads, &scatter.operands, &scatter.axes);
    let mut frame = Frame {
        axes: &scatter.axes,
        at: vec!["0".into(); scatter.axes.len()],
        reads: &scatter.reads,
        operands: &scatter.operands,
        places: reads,
        plain: &plain,
        found: vec![None; scatter.reads.len()],
    };
    let mut open = 0;
    let mut given = vec![false; scatter.axes.len()];
    let mut settled = vec![false; scatter.at.len()];
    for (d, coord) in scatter.at.iter().enumerate() {
        let axis = if let Coord::Affine(map) = coord { map.as_axis().map(usize::from) } else { None };
        if let Some(a) = axis.filter(|a| !given[*a] && scatter.axes[*a].extent != 1) {
            (given[a], settled[d]) = (true, true);
            frame.at[a] = place[d].clone();
            if scatter.axes[a].extent < result.shape[d] {
                let extent = sh.number(scatter.axes[a].extent as i64);
                sh.open(format!("if ({} < {extent})", place[d]));
                open += 1;
            }
        }
    }
    for (a, axis) in scatter.axes.iter().enumerate().filter(|(a, axis)| !given[*a] && axis.extent != 1) {
        let (name, extent) = (sh.name("i"), sh.number(axis.extent as i64));
        sh.open(format!("for (var {name} = 0; {name} < {extent}; {name}++)"));
        frame.at[a] = name;
        open += 1;
    }
    let (at, mut checks) = coordinates(&mut sh, &mut frame, &scatter.at, &result.shape)?;
    let here = at.iter().zip(&place).zip(&settled).filter(|(_, settled)| !**settled);
    checks.extend(here.map(|((c, here), _)| format!("({c} == {here})")));
    if !checks.is_empty() {
        sh.open(format!("if ({})", checks.join(" & ")));
        open += 1;
    }
    let value = program(&mut sh, &mut frame, &scatter.body, &[scatter.value], &[])?;
    state.take(&mut sh, &value);
    (0..open).for_each(|_| sh.close());
    memory::store(&mut sh, write, result.dtype, &flat, &state.parts[0]);
    Ok(Some(sh.finish(places.div_ceil(u64::from(LANES)))))
}
