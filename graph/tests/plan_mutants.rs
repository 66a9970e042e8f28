//! Plans that were sound before somebody made a mistake in them, every mistake of every sort: the verifier lets no
//! harmful one through. What is harmful another module says, which runs the plans and knows nothing of the verifier.

#![allow(missing_docs)]

#[path = "plan/oracle.rs"]
mod oracle;
mod plan;

use oracle::{Outcome, judge};
use plan::plans;
use thalweg_graph::id::Id;
use thalweg_graph::plan::simulate::{Free, Options, simulate};
use thalweg_graph::plan::{Buffer, BufferId, ChannelId, Instruction, KernelId, Launch, Plan};

/// Every buffer that an instruction names.
fn named(instruction: &mut Instruction) -> Vec<&mut BufferId> {
    match instruction {
        Instruction::Launch(l) => l.reads.iter_mut().chain(&mut l.writes).collect(),
        Instruction::Copy { from, to } => vec![from, to],
        Instruction::Post { buffer, .. } | Instruction::Wait { buffer, .. } => vec![buffer],
        _ => vec![],
    }
}

/// Every plan that differs from `plan` by one mistake, with what was done.
fn mutants(plan: &Plan) -> Vec<(String, Plan)> {
    let mut out = Vec::new();
    let mut add = |what: String, change: &dyn Fn(&mut Plan)| {
        let mut mutant = plan.clone();
        change(&mut mutant);
        if mutant != *plan {
            out.push((what, mutant));
        }
    };
    let device = &plan.devices[0];
    let (count, buffers) = (device.instructions.len(), device.buffers.len());
    for i in 0..count {
        add(format!("drop {i}"), &|p| drop(p.devices[0].instructions.remove(i)));
        for j in 0..count {
            add(format!("move {i} to {j}"), &|p| {
                let instruction = p.devices[0].instructions.remove(i);
                p.devices[0].instructions.insert(j, instruction);
            });
            add(format!("repeat {i} at {j}"), &|p| {
                let instruction = p.devices[0].instructions[i].clone();
                p.devices[0].instructions.insert(j, instruction);
            });
        }
        for slot in 0..named(&mut device.instructions[i].clone()).len() {
            for b in 0..=buffers {
                add(format!("retarget {slot} of {i} to b{b}"), &|p| {
                    *named(&mut p.devices[0].instructions[i])[slot] = BufferId::new(b);
                });
            }
        }
        for other in 0..=plan.channels.len() {
            add(format!("channel of {i} is #{other}"), &|p| match &mut p.devices[0].instructions[i] {
                Instruction::Wait { channel, .. } | Instruction::Post { channel, .. } => {
                    *channel = ChannelId::new(other)
                }
                _ => {}
            });
        }
        let Instruction::Launch(launch) = &device.instructions[i] else { continue };
        let change = |p: &mut Plan, f: &dyn Fn(&mut Launch)| {
            if let Instruction::Launch(l) = &mut p.devices[0].instructions[i] {
                f(l);
            }
        };
        for k in 0..=plan.kernels.len() {
            add(format!("kernel of {i} is k{k}"), &|p| change(p, &|l| l.kernel = KernelId::new(k)));
        }
        for at in (0..=device.scratch_bytes).step_by(16) {
            add(format!("{i} works at {at}"), &|p| change(p, &|l| l.workspace = (at, launch.workspace.1.max(16))));
        }
    }
    for b in device.buffers.ids() {
        let change = |p: &mut Plan, f: &dyn Fn(&mut Buffer)| f(&mut p.devices[0].buffers[b]);
        for by in [-64i64, -16, -8, -4, -1, 1, 4, 8, 12, 16, 32, 64] {
            let to = device.buffers[b].offset.checked_add_signed(by);
            if let Some(to) = to {
                add(format!("{b} moves by {by}"), &|p| change(p, &|b| b.offset = to));
            }
        }
        for axis in 0..device.buffers[b].ty.rank() {
            add(format!("{b} grows"), &|p| change(p, &|b| b.ty.shape[axis] += 1));
            add(format!("{b} shrinks"), &|p| change(p, &|b| b.ty.shape[axis] = b.ty.shape[axis].saturating_sub(1)));
        }
        add(format!("{b} has no pieces"), &|p| change(p, &|b| b.pieces.clear()));
        add(format!("{b} has its pieces turned round"), &|p| change(p, &|b| b.pieces.reverse()));
        add(format!("{b} lacks its last piece"), &|p| {
            change(p, &|b| b.pieces.truncate(b.pieces.len().saturating_sub(1)))
        });
        for (other, of) in device.buffers.iter() {
            add(format!("{b} is also made of {other}"), &|p| change(p, &|b| b.pieces.push(of.whole(other))));
        }
        for k in 0..device.buffers[b].pieces.len() {
            for by in [-1i64, 1] {
                let moved = |x: u64| x.checked_add_signed(by).unwrap_or(x);
                add(format!("piece {k} of {b} starts {by} later"), &|p| {
                    change(p, &|b| b.pieces[k].start = moved(b.pieces[k].start));
                });
                add(format!("piece {k} of {b} ends {by} later"), &|p| {
                    change(p, &|b| b.pieces[k].end = moved(b.pieces[k].end));
                });
            }
        }
    }
    for by in [1, 4, 8, 16, 32, 64, 128] {
        add(format!("{by} bytes less state"), &|p| {
            p.devices[0].state_bytes = p.devices[0].state_bytes.saturating_sub(by)
        });
        add(format!("{by} bytes less scratch"), &|p| {
            p.devices[0].scratch_bytes = p.devices[0].scratch_bytes.saturating_sub(by);
        });
        add(format!("{by} bytes less staging"), &|p| {
            p.devices[0].staging_bytes = p.devices[0].staging_bytes.saturating_sub(by);
        });
    }
    out
}

/// Plans by what became of them: refused and passed, of those that do harm, of those that are sound plans of another
/// program, of those that do what the first one did.
#[derive(Default)]
struct Tally([[usize; 2]; 3]);

impl Tally {
    /// Counts the mutants of `plan`; gives those that pass, and fails where one of them is harmful.
    fn count(&mut self, plan: &Plan, meant: &Outcome) -> Vec<Plan> {
        let mut passed = Vec::new();
        for (what, mutant) in mutants(plan) {
            let (faults, verdict) = (mutant.verify(), judge(&mutant));
            let class = match &verdict {
                Err(_) => 0,
                Ok(outcome) if outcome != meant => 1,
                Ok(_) => 2,
            };
            self.0[class][usize::from(faults.is_empty())] += 1;
            if std::env::var_os("THALWEG_SHOW").is_some() && class > 0 {
                let fate = faults.first().map_or("passes", |f| f);
                println!("{what}: {}: {fate}", ["", "another program", "harmless"][class]);
            }
            // The simulator is no less strict a judge, though it does not look at elements one by one.
            let options = Options { steps: 2, seeds: 0..2, replicas: false };
            let simulated = simulate(&mutant, &Free, &options);
            assert!(class > 0 || simulated.is_err(), "harmful, and not simulated so: {what}: {verdict:?}\n{mutant}");
            assert!(
                !faults.is_empty() || simulated.is_ok(),
                "it passes and comes to harm: {what}: {simulated:?}\n{mutant}"
            );
            if faults.is_empty() {
                assert!(class > 0, "harmful, but it passes: {what}: {verdict:?}\n{mutant}");
                passed.push(mutant);
            }
        }
        passed
    }
}

#[test]
fn no_harmful_mutant_passes_and_not_too_many_harmless_ones_are_refused() {
    const SECOND: usize = 8;
    let mut all = Tally::default();
    for (name, plan) in plans() {
        let meant = judge(&plan).unwrap_or_else(|harm| panic!("{name}: {harm}"));
        let mut tally = Tally::default();
        let passed = tally.count(&plan, &meant);
        // And a second mistake on top of one that did not show.
        for mutant in passed.iter().step_by(passed.len() / SECOND + 1) {
            tally.count(mutant, &meant);
        }
        let [[caught, _], [other, sound], [strict, free]] = tally.0;
        println!(
            "{name}: {caught} harmful, all refused; {} of another program, {other} refused; {} harmless, {strict} refused",
            other + sound,
            strict + free
        );
        tally.0.iter().flatten().zip(all.0.iter_mut().flatten()).for_each(|(n, sum)| *sum += n);
    }
    let [[caught, _], _, [strict, free]] = all.0;
    assert!(caught > 5_000, "too few harmful mutants to learn from: {caught}");
    // What is refused without need wastes a launch or tells a row's pieces wrong: not something that lowering does.
    assert!(strict * 100 < (strict + free) * 75, "{strict} harmless mutants are refused, {free} pass");
}
