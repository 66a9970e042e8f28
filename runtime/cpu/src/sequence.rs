//! A group whose members run as launches of their own, one after the other, each as if it were alone: where blocks of
//! rows would give up more than they save (a fold cut into parts, a product), and what blocks are tested against.

use thalweg_graph::kernel::{Group, Kernel, Passed};

use crate::kernel::{CompileError, CompiledKernel};

#[derive(Debug)]
pub(crate) struct Sequence {
    members: Vec<(CompiledKernel, Vec<Passed>, Vec<Passed>)>,
    /// Where each local lies in the workspace.
    locals: Vec<usize>,
    /// Where the members' own workspace begins, and how much there is in all.
    own: usize,
    bytes: usize,
}

impl Sequence {
    pub(crate) fn compile(group: &Group, recognize: bool) -> Result<Self, CompileError> {
        let mut members = Vec::with_capacity(group.members.len());
        for member in &group.members {
            let kernel = Kernel::Nest(member.nest.clone());
            let compiled =
                if recognize { CompiledKernel::compile(&kernel) } else { CompiledKernel::compile_generic(&kernel) };
            members.push((compiled?, member.reads.clone(), member.writes.clone()));
        }
        let mut own = 0;
        let mut locals = Vec::with_capacity(group.locals.len());
        for local in &group.locals {
            locals.push(own);
            own += (local.size_bytes() as usize).next_multiple_of(64);
        }
        let most = members.iter().map(|(kernel, ..)| kernel.workspace_bytes()).max().unwrap_or(0);
        Ok(Self { members, locals, own, bytes: own + most })
    }
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.bytes
    }
    pub(crate) fn thread_bytes(&self) -> usize {
        self.members.iter().map(|(kernel, ..)| kernel.thread_bytes()).max().unwrap_or(0)
    }
    pub(crate) fn strategy(&self) -> String {
        let list: Vec<String> = self.members.iter().map(|(kernel, ..)| kernel.strategy()).collect();
        list.join("; ")
    }
    /// # Safety
    /// See `CompiledKernel::run`.
    pub(crate) unsafe fn run(
        &self,
        operands: &[*const u8],
        results: &[*mut u8],
        workspace: *mut u8,
        pool: Option<&rayon::ThreadPool>,
    ) {
        let place = |value: &Passed| match value {
            Passed::Operand(i) => operands[usize::from(*i)].cast_mut(),
            Passed::Result(i) => results[usize::from(*i)],
            Passed::Local(i) => workspace.wrapping_add(self.locals[usize::from(*i)]),
        };
        for (kernel, reads, writes) in &self.members {
            let from: Vec<*const u8> = reads.iter().map(|r| place(r).cast_const()).collect();
            let to: Vec<*mut u8> = writes.iter().map(place).collect();
            // SAFETY: the caller's promise, and locals lie in the workspace apart from each other and from the members' own.
            unsafe { kernel.run(&from, &to, workspace.wrapping_add(self.own), pool) };
        }
    }
}
