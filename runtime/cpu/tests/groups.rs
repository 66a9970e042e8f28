//! Groups by blocks of rows against their members launched one after the other: the same bits, whatever the rows, the
//! blocks and the threads.

mod common;

use std::collections::BTreeMap;
use std::slice::from_ref;

use common::{Random, device, run_bytes, to_bytes, ty};
use thalweg_cpu::CompiledKernel;
use thalweg_graph::DType::{self, BF16, F16, F32, F64};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::interpret::Values;
use thalweg_graph::kernel::{Affine, Binary, BufferType, Group, Kernel, Member, Monoid, Passed};

use Passed::{Local, Operand, Result as Out};

/// What the members give as launches of their own.
fn one_by_one(group: &Group, operands: &[Values]) -> Vec<Vec<u8>> {
    let mut made: BTreeMap<Passed, Vec<u8>> =
        operands.iter().enumerate().map(|(i, o)| (Operand(i as u16), to_bytes(o))).collect();
    for member in &group.members {
        let kernel = Kernel::Nest(member.nest.clone());
        let reads: Vec<Vec<u8>> = member.reads.iter().map(|r| made[r].clone()).collect();
        let results = run_bytes(&CompiledKernel::compile(&kernel).expect("sound"), &kernel, &reads, None);
        made.extend(member.writes.iter().copied().zip(results));
    }
    (0..group.results.len()).map(|r| made[&Out(r as u16)].clone()).collect()
}

/// Runs it in blocks, and members alone; gives the strategy.
#[track_caller]
fn same_bits(group: Group, seed: u64) -> String {
    let kernel = Kernel::from(group.clone());
    assert_eq!(kernel.verify(), Vec::<String>::new(), "{kernel}");
    let operands: Vec<Values> = group.operands.iter().map(|t| Random(seed).values(t)).collect();
    let compiled = CompiledKernel::compile(&kernel).expect("sound");
    let blocks: Vec<Vec<u8>> = device(&compiled, &kernel, &operands).iter().map(to_bytes).collect();
    assert!(blocks == one_by_one(&group, &operands), "{}\n{kernel}", compiled.strategy());
    let alone = CompiledKernel::compile_generic(&kernel).expect("sound");
    let sequence: Vec<Vec<u8>> = device(&alone, &kernel, &operands).iter().map(to_bytes).collect();
    assert!(blocks == sequence, "{}\n{kernel}", alone.strategy());
    compiled.strategy()
}

fn member(kernel: Kernel, reads: &[Passed], writes: &[Passed]) -> Member {
    let Kernel::Nest(nest) = kernel else { panic!("a nest") };
    Member { nest, reads: reads.to_vec(), writes: writes.to_vec() }
}

/// `y = (x − mean) · weight`, and where on the diagonal rows meet columns, 1: rows of `shape` but the last axis.
fn centered(dtype: DType, shape: &[u64], monoid: Monoid) -> Group {
    let (rows, width) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let (x, row, weight) = (ty(dtype, shape), ty(dtype, rows), ty(dtype, &[width]));
    let mut axes = Axes::new();
    let (r, [c]) = (axes.par_over(rows), axes.fold([width]));
    let at: Vec<_> = r.iter().copied().chain([c]).collect();
    let fold = axes.nest(from_ref(&x), from_ref(&row), [fold(monoid, read(0, at.clone()).abs())]);
    let whole = |operands: &[BufferType], value: &dyn Fn(&[AxisVar]) -> Expr| {
        let mut axes = Axes::new();
        let at = axes.par_over(shape);
        axes.nest(operands, from_ref(&x), [value(&at)])
    };
    let sub = whole(&[x.clone(), row.clone()], &|at| {
        read(0, at.to_vec()) - read(1, at[..at.len() - 1].to_vec()) / lit_as(3.0, dtype)
    });
    let last = whole(&[x.clone(), weight.clone()], &|at| {
        let (row, column) = (at[at.len() - 2], at[at.len() - 1]);
        select(
            index(row).binary(Binary::Eq, index(column)),
            lit_as(1.0, dtype),
            read(0, at.to_vec()) * read(1, [column]),
        )
    });
    Group {
        operands: vec![x.clone(), weight],
        results: vec![x.clone()],
        locals: vec![row, x.clone()],
        rows: rows.to_vec(),
        members: vec![
            member(fold, &[Operand(0)], &[Local(0)]),
            member(sub, &[Operand(0), Local(0)], &[Local(1)]),
            member(last, &[Local(1), Operand(1)], &[Out(0)]),
        ],
    }
}

#[test]
fn blocks_of_rows_give_the_bits_of_launches_one_after_the_other() {
    // Rows that blocks divide and that they do not, rows of rows, one row, long and short ones.
    let shapes: [&[u64]; 9] = [
        &[64, 1000],
        &[517, 129],
        &[1, 40],
        &[7, 3],
        &[3, 5, 700],
        &[2, 131, 257],
        &[1031, 16],
        &[40, 5000],
        &[2, 3, 4, 5],
    ];
    for (i, shape) in shapes.iter().enumerate() {
        for monoid in [Monoid::Sum, Monoid::Max] {
            for dtype in [F32, F64, F16, BF16] {
                same_bits(centered(dtype, shape, monoid), i as u64);
            }
        }
    }
    let strategy = same_bits(centered(F32, &[517, 1000], Monoid::Sum), 1);
    assert_eq!(strategy, "3 nests over 517 rows, 16 at a time", "and the last block has 5");
}

#[test]
fn a_member_may_see_rows_under_another_shape_and_rows_may_be_single_elements() {
    let (flat, matrix) = (ty(F32, &[6000]), ty(F32, &[60, 100]));
    let mut axes = Axes::new();
    let at = axes.par_over(&[60, 100]);
    let first = axes.nest(from_ref(&matrix), from_ref(&matrix), [read(0, at).tanh()]);
    let mut axes = Axes::new();
    let [r, c] = axes.par([60, 100]);
    let second = axes.nest_at(from_ref(&flat), from_ref(&flat), [(read(0, [r * 100 + c]) * 2.0, vec![r * 100 + c])]);
    for rows in [vec![60], vec![60, 100]] {
        same_bits(
            Group {
                operands: vec![matrix.clone()],
                results: vec![flat.clone(), matrix.clone()],
                locals: vec![],
                rows,
                members: vec![
                    member(first.clone(), &[Operand(0)], &[Out(1)]),
                    member(second.clone(), &[Out(1)], &[Out(0)]),
                ],
            },
            5,
        );
    }
}

#[test]
fn a_group_whose_folds_are_cut_runs_its_members_alone() {
    let strategy = same_bits(centered(F32, &[2, 400_000], Monoid::Sum), 3);
    assert!(strategy.contains("in 16 parts"), "{strategy}");
}

#[test]
fn values_may_be_fetched_from_within_the_row() {
    // A gather along the row, as a cross entropy does, and a window that is cut at the row's ends.
    let (x, at, row) = (ty(F32, &[300, 77]), ty(DType::I32, &[300]), ty(F32, &[300]));
    let mut axes = Axes::new();
    let [r, c] = axes.par([300, 77]);
    let first = axes.nest(from_ref(&x), from_ref(&x), [read(0, [r, c]) + 1.0]);
    let mut axes = Axes::new();
    let ([r], [k]) = (axes.par([300]), axes.fold([3]));
    let window = read_or(0, [Affine::from(r), k + 75], 0.5);
    let second = axes.nest(from_ref(&x), from_ref(&row), [sum(window)]);
    let mut axes = Axes::new();
    let [r] = axes.par([300]);
    let picked = read_or(0, [r.into(), found(read(1, [r]))], -7.0);
    let third = axes.nest(&[x.clone(), at.clone()], from_ref(&row), [picked]);
    same_bits(
        Group {
            operands: vec![x.clone(), at],
            results: vec![row.clone(), row],
            locals: vec![x],
            rows: vec![300],
            members: vec![
                member(first, &[Operand(0)], &[Local(0)]),
                member(second, &[Local(0)], &[Out(0)]),
                member(third, &[Local(0), Operand(1)], &[Out(1)]),
            ],
        },
        11,
    );
}
