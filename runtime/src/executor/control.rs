//! What steering the processes of a job has cost: messages that are no part of any channel. A plan moves its values by
//! itself, so that there are as many as steps begin and end, and not more.

use std::collections::BTreeMap;

/// Messages between the process of the caller and those that host devices, by kind, over all of these.
#[derive(Clone, Default, PartialEq, Eq, Debug, serde::Serialize)]
pub struct ControlMessages {
    /// To who hosts devices: `run` and `decide` in every step; others between steps.
    pub sent: BTreeMap<&'static str, u64>,
    /// From there: `voted` and `done` in every step, `answer` to what is asked between steps; `alive` by the clock.
    pub heard: BTreeMap<&'static str, u64>,
}

impl ControlMessages {
    /// These and others.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        for (into, from) in [(&mut self.sent, &others.sent), (&mut self.heard, &others.heard)] {
            from.iter().for_each(|(kind, count)| *into.entry(kind).or_default() += count);
        }
        self
    }
    /// What has been said since an earlier count of the same processes.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |now: &BTreeMap<&'static str, u64>, then: &BTreeMap<&'static str, u64>| {
            let less = |(kind, count): (&&'static str, &u64)| {
                (*kind, count.saturating_sub(then.get(kind).copied().unwrap_or(0)))
            };
            now.iter().map(less).filter(|(_, count)| *count > 0).collect()
        };
        Self { sent: since(&self.sent, &earlier.sent), heard: since(&self.heard, &earlier.heard) }
    }
}
