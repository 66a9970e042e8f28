//! Names of files in a run's directory. A name is read only if it is spelled exactly as it would be written, so that
//! nothing of a user's is ever taken for a file of ours, and deleted.

use std::fmt;

use serde::{Deserialize, Serialize};
use thalweg_graph::VarKind;

/// Which checkpoint of a run. The highest is the newest: a save whose step is not above the newest one's begins a new
/// term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CheckpointId {
    /// One unbroken ascent of steps, from 0.
    pub term: u64,
    /// Committed training steps.
    pub step: u64,
}

impl CheckpointId {
    /// What a save at `step` is called where `highest` is the newest there is.
    pub(super) fn after(highest: Option<Self>, step: u64) -> Self {
        match highest {
            None => Self { term: 0, step },
            Some(last) if step > last.step => Self { term: last.term, step },
            Some(last) => Self { term: last.term + 1, step },
        }
    }
    fn parse(text: &str) -> Option<Self> {
        let (term, step) = text.split_once('-')?;
        let id = Self { term: term.parse().ok()?, step: step.parse().ok()? };
        // No leading zeros or signs: one name each. The last term is out of reach, so that there is always a next one.
        (id.to_string() == text && id.term < u64::MAX).then_some(id)
    }
    /// The name of its manifest.
    pub fn manifest(self) -> String {
        format!("manifest-{self}")
    }
}

/// `term-step`.
impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.step)
    }
}

/// What a shard holds. Two files, so that the one with the weights can be handed to any tool as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Part {
    /// Parameters and statistics: what a trained model is.
    Weights,
    /// Slots, counters and caches: what it takes to go on training.
    Training,
}

impl Part {
    pub(super) const ALL: [Part; 2] = [Part::Weights, Part::Training];
    /// Where variables of `kind` go.
    pub fn of(kind: VarKind) -> Self {
        match kind {
            VarKind::Param | VarKind::Stat => Part::Weights,
            VarKind::Slot | VarKind::Counter | VarKind::Cache => Part::Training,
        }
    }
    /// The name of this part's file in a checkpoint, of as many as it has.
    pub fn file(self, id: CheckpointId, place: Place) -> String {
        let name = match self {
            Part::Weights => "weights",
            Part::Training => "training",
        };
        match place {
            Place::ONLY => format!("{name}-{id}.safetensors"),
            Place { index, of } => format!("{name}-{id}-{}of{of}.safetensors", u32::from(index) + 1),
        }
    }
}

/// Which of a checkpoint's shards: as many as there were workers that wrote it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    /// From 0.
    pub index: u16,
    /// How many there are.
    pub of: u16,
}

impl Place {
    /// Where one process writes all.
    pub const ONLY: Self = Self { index: 0, of: 1 };
}

/// What a file's name says that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Manifest(CheckpointId),
    Shard(Part, CheckpointId, Place),
    /// Something unfinished.
    Temporary,
}

/// A file that is being written.
pub(super) fn temporary(name: &str) -> String {
    format!("tmp-{name}")
}

/// The file that a saving process locks. It is never deleted: whoever waits for it has it open.
pub(super) const LOCK: &str = "lock";

/// What a file of this name is; `None` if it is not one of ours.
pub(super) fn classify(name: &str) -> Option<Kind> {
    if let Some(rest) = name.strip_prefix("tmp-") {
        return classify(rest).filter(|k| *k != Kind::Temporary).map(|_| Kind::Temporary);
    }
    if let Some(id) = name.strip_prefix("manifest-") {
        return CheckpointId::parse(id).map(Kind::Manifest);
    }
    let text = name.strip_suffix(".safetensors")?.split_once('-')?.1;
    let (id, place) = match text.rsplit_once('-')? {
        (id, place) if place.contains("of") => {
            let (index, of) = place.split_once("of")?;
            (id, Place { index: index.parse::<u16>().ok()?.checked_sub(1)?, of: of.parse().ok()? })
        }
        _ => (text, Place::ONLY),
    };
    let id = CheckpointId::parse(id)?;
    let part = Part::ALL.into_iter().find(|part| part.file(id, place) == name)?;
    (place.index < place.of).then_some(Kind::Shard(part, id, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_spellings_are_ours() {
        let id = CheckpointId { term: 2, step: 60 };
        assert_eq!(classify("manifest-2-60"), Some(Kind::Manifest(id)));
        for part in Part::ALL {
            for place in [Place::ONLY, Place { index: 0, of: 2 }, Place { index: 299, of: 300 }] {
                assert_eq!(classify(&part.file(id, place)), Some(Kind::Shard(part, id, place)));
                assert_eq!(classify(&temporary(&part.file(id, place))), Some(Kind::Temporary));
            }
        }
        assert_eq!(classify(&temporary(&id.manifest())), Some(Kind::Temporary));
        let strangers = [
            "manifest-02-60",
            "manifest-2-60.json",
            "manifest-2",
            "manifest-2-+60",
            "tmp-notes",
            "tmp-tmp-manifest-2-60",
            "weights.safetensors",
            "mine-2-60.safetensors",
            "weights-2-60.safetensors.bak",
            "weights-2-60-0of4.safetensors",
            "weights-2-60-5of4.safetensors",
            "weights-2-60-1of1.safetensors",
            "weights-2-60-01of4.safetensors",
            "manifest-18446744073709551615-0",
            "manifest-2-18446744073709551616",
        ];
        for name in strangers {
            assert_eq!(classify(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_saved_last_is_the_newest() {
        let at = |term, step| CheckpointId { term, step };
        assert_eq!(CheckpointId::after(None, 0), at(0, 0));
        assert_eq!(CheckpointId::after(Some(at(0, 30)), 40), at(0, 40));
        assert_eq!(CheckpointId::after(Some(at(0, 60)), 40), at(1, 40), "gone back, and on from there");
        assert_eq!(CheckpointId::after(Some(at(1, 40)), 40), at(2, 40));
        assert!(at(1, 40) > at(0, 60));
    }
}
