//! Scatters: contributions are computed by tiles and added one by one in the order of their points, on one thread,
//! because the order of sums into one place is part of the meaning.

use thalweg_graph::DType;
use thalweg_graph::kernel::interpret::{Number, neutral};
use thalweg_graph::kernel::{Monoid, Scatter};

use crate::access::{self, Reader, Tiles};
use crate::ahead::Ahead;
use crate::domain::Domain;
use crate::isa::Isa;
use crate::kind::{Lane, Stored, encode, with_stored};
use crate::lanes::math::Float;
use crate::program::{Layout, Machine, Program, Slot, Slots, Source};
use crate::scratch;
use crate::tile::{LANES, Origin, Tile, Walk};

/// A scatter made ready.
#[derive(Debug)]
pub(crate) struct TileScatter {
    isa: Isa,
    dtype: DType,
    monoid: Monoid,
    init: Option<usize>,
    /// Register bits from which untouched places start.
    start: u64,
    elements: usize,
    is_empty: bool,
    walk: Walk,
    program: Program,
    value: Slot,
    /// Where contributions go, as if it were a read.
    place: Reader,
    layout: Layout,
}

impl TileScatter {
    pub(crate) fn compile(scatter: &Scatter) -> Self {
        let Scatter { axes, operands, result, .. } = scatter;
        let mut domain = Domain::new(axes);
        let accesses = domain.accesses(&scatter.reads, operands, axes);
        let place = domain.access(0, &scatter.at, None, result, axes);
        let code = domain.program(&scatter.body, axes);
        domain.collapse();
        let tile = Tile::new(&domain, 1, LANES);
        let mut slots = Slots::default();
        let source = Source {
            code: &code,
            accesses: &accesses,
            domain: &domain,
            outputs: &[scatter.value],
            folded: &[],
            folds: false,
        };
        let program = Program::compile(&source, &tile, &mut slots);
        let place = Reader::new(&place, &domain, &tile, &program.readers);
        let start =
            if scatter.monoid == Monoid::Sum { Number::Int(0) } else { neutral(scatter.monoid, result.dtype)[0] };
        Self {
            isa: Isa::detect(),
            dtype: result.dtype,
            monoid: scatter.monoid,
            init: scatter.init.map(usize::from),
            start: encode(start, result.dtype),
            elements: result.len(),
            is_empty: domain.is_empty || result.is_empty(),
            walk: Walk::new(&domain, &tile, 0..domain.parallel),
            value: program.slot(scatter.value),
            layout: Layout::new(&slots, program.depth.max(place.depth())),
            program,
            place,
        }
    }

    pub(crate) fn thread_bytes(&self) -> usize {
        self.layout.bytes
    }
    /// # Safety
    /// See `CompiledKernel::run`.
    pub(crate) unsafe fn run(&self, operands: &[*const u8], result: *mut u8) {
        with_stored!(self.dtype, S => {
            // SAFETY: the caller's promise; the result may be the operand that it starts from.
            unsafe {
                match self.init {
                    Some(k) => std::ptr::copy(operands[k].cast::<S>(), result.cast::<S>(), self.elements),
                    None => std::slice::from_raw_parts_mut(result.cast::<S>(), self.elements)
                        .fill(S::store(<S as Stored>::Reg::decode(self.start))),
                }
            }
        });
        if self.is_empty {
            return;
        }
        scratch::with(self.layout.bytes, |memory| {
            // SAFETY: the block has the layout's size; the rest is the caller's promise.
            unsafe {
                let machine = Machine::new(self.isa, operands, &self.layout, memory);
                machine.constants(&self.program);
                for index in 0..self.walk.tiles {
                    let mut origin: Origin = [0; _];
                    let n = self.walk.seek(index, &mut origin);
                    machine.tile(&self.program, &origin, n, &mut Ahead::new(None));
                    let cx =
                        Tiles { readers: &self.program.readers, operands, origin: &origin, offsets: machine.offsets() };
                    access::locate(self.isa, &self.place, &cx, n);
                    self.combine(&*machine.offsets(), machine.register(self.value), n, result);
                }
            }
        });
    }

    /// Combines a tile of contributions into their places, lane by lane.
    unsafe fn combine(&self, offsets: &access::Offsets, values: *const u8, n: usize, result: *mut u8) {
        let places = offsets.at[..n].iter().zip(&offsets.inside[..n]).map(|(at, inside)| (*inside != 0).then_some(*at));
        // SAFETY: places that are inside lie in the result; the register has `n` lanes of the result's type.
        unsafe {
            match self.dtype {
                DType::Bool => each::<u8>(places, values, result, self.bools()),
                DType::U8 => each::<u8>(places, values, result, ints(self.monoid, u8::wrapping_add, u8::wrapping_mul)),
                DType::U32 => {
                    each::<u32>(places, values, result, ints(self.monoid, u32::wrapping_add, u32::wrapping_mul))
                }
                DType::I32 => {
                    each::<i32>(places, values, result, ints(self.monoid, i32::wrapping_add, i32::wrapping_mul))
                }
                DType::I64 => {
                    each::<i64>(places, values, result, ints(self.monoid, i64::wrapping_add, i64::wrapping_mul))
                }
                DType::F16 => each::<half::f16>(places, values, result, floats(self.monoid)),
                DType::BF16 => each::<half::bf16>(places, values, result, floats(self.monoid)),
                DType::F32 => each::<f32>(places, values, result, floats(self.monoid)),
                DType::F64 => each::<f64>(places, values, result, floats(self.monoid)),
            }
        }
    }
    fn bools(&self) -> fn(u8, u8) -> u8 {
        match self.monoid {
            Monoid::Prod | Monoid::Min | Monoid::All => |a, b| a & b,
            _ => |a, b| a | b,
        }
    }
}

fn ints<T: Lane + Ord>(monoid: Monoid, add: fn(T, T) -> T, mul: fn(T, T) -> T) -> fn(T, T) -> T {
    match monoid {
        Monoid::Prod => mul,
        Monoid::Max => |a, b| a.max(b),
        Monoid::Min => |a, b| a.min(b),
        _ => add,
    }
}
fn floats<T: Float>(monoid: Monoid) -> fn(T, T) -> T {
    match monoid {
        Monoid::Prod => |a, b| a.mul(b),
        Monoid::Max => |a, b| a.max_nan(b),
        Monoid::Min => |a, b| a.min_nan(b),
        _ => |a, b| a.add(b),
    }
}

unsafe fn each<S: Stored>(
    places: impl Iterator<Item = Option<i64>>,
    values: *const u8,
    result: *mut u8,
    op: fn(S::Reg, S::Reg) -> S::Reg,
) {
    for (lane, at) in places.enumerate().filter_map(|(l, at)| Some((l, at?))) {
        // SAFETY: see `combine`.
        unsafe {
            let place = result.cast::<S>().offset(at as isize);
            *place = S::store(op((*place).load(), *values.cast::<S::Reg>().add(lane)));
        }
    }
}
