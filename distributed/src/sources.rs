//! Data sets at the driver: what the workers have opened for it. The driver opens none itself. It knows what they say of them,
//! and has whoever takes part in a batch say the same: two that read different data would train a model of neither.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use thalweg_graph::plan::{Endpoint, Plan};
use thalweg_runtime::DeviceError;
use thalweg_runtime::source::{Draw, FIELDS, Facts, SourceSpec};

use crate::message::{Drawn, Order};
use crate::remote::Remote;

/// What workers have opened in this term. The place of a spec is its number.
#[derive(Default)]
pub(crate) struct Sources(Vec<Known>);

struct Known {
    spec: SourceSpec,
    /// What the first who opened it said.
    facts: Facts,
    /// Who has opened it.
    at: BTreeSet<u16>,
}

impl Sources {
    /// Opens a data set at the first worker that can: others do once a step takes them to, so that nobody needs what it
    /// does not read.
    ///
    /// # Errors
    /// If somebody is gone, or nobody can; with what was said.
    pub(crate) fn open(&mut self, spec: &SourceSpec, remotes: &[Arc<Remote>]) -> Result<Facts, DeviceError> {
        if let Some(known) = self.0.iter().find(|known| known.spec == *spec) {
            return Ok(known.facts.clone());
        }
        let mut first = None;
        for (rank, remote) in (0..).zip(remotes) {
            match ask(remote, self.0.len() as u32, spec) {
                Ok(facts) => {
                    self.0.push(Known { spec: spec.clone(), facts: facts.clone(), at: [rank].into() });
                    return Ok(facts);
                }
                Err(error) if error.is_loss() => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        let first = first.map_or("there are no workers".into(), |e| e.to_string());
        let others = match remotes.len() {
            0 | 1 => String::new(),
            2 => "; nor can the other worker".into(),
            n => format!("; nor can the other {} workers", n - 1),
        };
        Err(DeviceError::Elsewhere { place: "no worker can open the data".into(), cause: format!("{first}{others}") })
    }
    /// By rank, what is said of the samples that a step of `plan` takes. Whoever takes any has their data set open then.
    ///
    /// # Errors
    /// If somebody is gone, cannot open it, or has other data.
    pub(crate) fn draw(
        &mut self,
        plan: &Plan,
        draws: &[Draw],
        remotes: &[Arc<Remote>],
    ) -> Result<Vec<Arc<[Drawn]>>, DeviceError> {
        let mut by_rank = vec![vec![]; remotes.len()];
        for draw in draws {
            let (takers, drawn) = self.drawn(plan, draw, remotes)?;
            let takers = takers.into_iter().map(usize::from);
            takers.for_each(|rank| by_rank.get_mut(rank).into_iter().for_each(|all| all.push(drawn.clone())));
        }
        Ok(by_rank.into_iter().map(Arc::from).collect())
    }
    /// The same of one data set, and who takes any of it.
    fn drawn(
        &mut self,
        plan: &Plan,
        draw: &Draw,
        remotes: &[Arc<Remote>],
    ) -> Result<(BTreeSet<u16>, Drawn), DeviceError> {
        let opened = draw.batch.source();
        let number = self.0.iter().position(|known| known.spec == *opened.spec()).unwrap_or_else(|| {
            // Opened in an earlier term, by workers that may be gone.
            let (spec, facts) = (opened.spec().clone(), opened.facts().clone());
            self.0.push(Known { spec, facts, at: BTreeSet::new() });
            self.0.len() - 1
        });
        let Known { spec, facts, at } = &mut self.0[number];
        let number = number as u32;
        let refused = |remote: &Remote, what: String| {
            let cause = format!("{spec}: {what}; all workers of a job need the same data under this name");
            Err(DeviceError::Elsewhere { place: remote.name.clone(), cause })
        };
        // A batch that was described by what others have opened.
        let first = at.first().and_then(|rank| remotes.get(usize::from(*rank)));
        if let Some((remote, what)) = first.zip(facts.differs_from(opened.facts())) {
            return refused(remote, what);
        }
        let takers = plan.channels.values().iter().filter_map(|channel| match channel.to {
            Endpoint::Device(rank) => (channel.from == Endpoint::Driver && draw.has(&channel.label)).then_some(rank),
            Endpoint::Driver => None,
        });
        let takers: BTreeSet<u16> = takers.collect();
        // All at once: whoever has much to read keeps nobody waiting.
        let answers: Vec<(u16, Result<Facts, DeviceError>)> = thread::scope(|scope| {
            let asked = takers.difference(at).filter_map(|rank| Some((*rank, remotes.get(usize::from(*rank))?)));
            let asked: Vec<_> = asked.map(|(rank, r)| (rank, scope.spawn(|| ask(r, number, spec)))).collect();
            let gone = |_| Err(DeviceError::Open { device: "workers".into(), cause: "nobody waits any more".into() });
            asked.into_iter().map(|(rank, asked)| (rank, asked.join().unwrap_or_else(gone))).collect()
        });
        // Whoever is gone first: the others are asked again then.
        if let Some((_, Err(error))) = answers.iter().find(|(_, a)| a.as_ref().is_err_and(DeviceError::is_loss)) {
            return Err(error.clone());
        }
        for (rank, answer) in answers {
            let here = answer?;
            if let Some(what) = here.differs_from(opened.facts()) {
                return refused(&remotes[usize::from(rank)], what);
            }
            at.insert(rank);
        }
        let (samples, next) = (draw.batch.samples(), draw.batch.next());
        Ok((takers, Drawn { source: number, samples, fields: draw.fields.clone(), next }))
    }
}

/// Has a worker open something, and say what it is.
fn ask(remote: &Remote, number: u32, spec: &SourceSpec) -> Result<Facts, DeviceError> {
    let (_, bytes) = remote.ask(&Order::Open(number, spec.clone()), &[])?;
    let facts: Option<Facts> = postcard::from_bytes(&bytes).ok();
    let sound = |f: &Facts| f.fields.len() <= FIELDS && f.fields.iter().all(|(_, ty)| ty.checked_len().is_some());
    facts.filter(sound).ok_or_else(|| {
        let cause = format!("{spec}: what it says of this makes no sense");
        DeviceError::Elsewhere { place: remote.name.clone(), cause }
    })
}
