//! What the demo trains on, in either of two ways: batches that are read here and fed, or descriptions of batches that are read
//! where the devices are. The loop is the same.

use thalweg::Model;
use thalweg::data::{Batch, Dataset, Described, Files, Loader};
use thalweg::runtime::Outputs;

/// Where batches come from.
pub(super) enum Feeding {
    Here(Loader),
    /// With the steps of a pass.
    There(Described, u64),
}

/// A batch of either kind.
pub(super) enum Fed {
    Read(Dataset),
    Described(Batch),
}

/// The files that `--source` says.
pub(super) fn digits_files(source: &str) -> anyhow::Result<Files> {
    if source == "digits" {
        return Ok(Files::built_in("digits/train"));
    }
    let Some((root, path)) = source.split_once('/') else {
        anyhow::bail!("--source `{source}`: say `digits`, or ROOT/PATH for files below a root");
    };
    let files = Files::below(root, path);
    let is_archive = path.ends_with(".npz");
    Ok(if is_archive { files } else { files.arrays([("image", "image.npy"), ("label", "label.npy")]) })
}

impl Feeding {
    pub(super) fn here(data: Loader) -> Self {
        Self::Here(data)
    }
    /// Opens the files where the devices of `model` are.
    pub(super) fn there(model: &mut Model, data: Described) -> anyhow::Result<Self> {
        let opened = model.open(data.files())?;
        let steps = data.iter(&opened)?.steps_per_pass();
        Ok(Self::There(data, steps))
    }
    /// Steps of a whole pass.
    pub(super) fn steps_per_pass(&self) -> u64 {
        match self {
            Self::Here(data) => data.steps_per_pass(),
            Self::There(_, steps) => *steps,
        }
    }
    /// The batches that are left of so many passes.
    pub(super) fn batches(
        &self,
        model: &mut Model,
        passes: u64,
    ) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Fed>>>> {
        Ok(match self {
            Self::Here(data) => {
                let batches = model.batches(&data.clone().epochs(passes));
                Box::new(batches.map(|batch| Ok(Fed::Read(batch?))))
            }
            Self::There(data, _) => {
                let batches = model.batches_on_workers(&data.clone().epochs(passes))?;
                Box::new(batches.map(|batch| Ok(Fed::Described(batch))))
            }
        })
    }
}

impl Fed {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Read(batch) => batch.len(),
            Self::Described(batch) => batch.len(),
        }
    }
    /// A step with it.
    pub(super) fn run(&self, model: &mut Model, program: &str) -> thalweg::Result<Outputs> {
        match self {
            Self::Read(batch) => model.run(program, &batch.feeds()),
            Self::Described(batch) => model.run(program, batch),
        }
    }
}
