//! A compiled model: what `compile` makes of a declared graph. Thin: it opens devices and hands over to the session,
//! which runs nothing but plans.

use thalweg_data::{Batches, Loader};
use thalweg_graph::cluster::{DeviceKind, DeviceSpec};
use thalweg_graph::{Array, Cluster};
use thalweg_runtime::{AbortFlag, Device, Outputs, ReferenceDevice, Session};

use crate::error::{Error, Result};

/// Turns a declared graph into a model that runs.
pub trait Compile {
    /// Checks the whole declaration, reports every mistake at once, and puts the variables on the cluster's device.
    fn compile(&self, cluster: &Cluster) -> Result<Model>;
}

impl Compile for thalweg_ops::Graph {
    fn compile(&self, cluster: &Cluster) -> Result<Model> {
        let [device] = &cluster.devices[..] else {
            let what = format!("a cluster of {} devices: this version runs on one", cluster.devices.len());
            return Err(Error::Cluster(what));
        };
        let mut session = Session::new(self.finish()?, open_device(device)?)?;
        if let Some(wanted) = std::env::var("DUMP").ok().and_then(|d| Some(d.strip_prefix("after:")?.to_string())) {
            session.observe_passes(move |pass, graph| {
                if pass == wanted || wanted == "all" {
                    eprintln!("after {pass}:\n{graph}");
                }
            });
        }
        Ok(Model { session })
    }
}

/// Opens a device of this machine.
pub fn open_device(spec: &DeviceSpec) -> Result<Box<dyn Device>> {
    Ok(match spec.kind {
        DeviceKind::Cpu => Box::new(thalweg_cpu::CpuDevice::new(&spec.name, spec.threads)?),
        DeviceKind::Reference => Box::new(ReferenceDevice::default()),
    })
}

/// A model on a device: variables and programs.
pub struct Model {
    session: Session,
}

impl Model {
    /// Runs one step of a program: `model.run("train", feed! { image: &images, label: &labels })`.
    pub fn run(&mut self, program: &str, feeds: &[(&str, &Array)]) -> Result<Outputs> {
        Ok(self.session.run(program, feeds)?)
    }
    /// Runs one step per batch without returning in between; gives what the last one returned.
    pub fn run_many<'a>(
        &mut self,
        program: &str,
        batches: impl IntoIterator<Item = Vec<(&'a str, &'a Array)>>,
    ) -> Result<Option<Outputs>> {
        Ok(self.session.run_many(program, batches)?)
    }
    /// The batches of `data` that the variables have not learned from yet: from where its cursor stood at the last commit,
    /// to the end of its last pass. A batch counts as consumed once a step that updates variables commits; a loop that
    /// is left and entered again goes on with the next one. The batches do not borrow the model, which runs meanwhile.
    ///
    /// Wrong settings, and a cursor of other data or another order, are the first item's error.
    pub fn batches(&self, data: &Loader) -> Batches {
        data.resume(self.session.cursors())
    }
    /// The value of a variable, by its path: `body.conv1.weight`.
    pub fn get(&mut self, variable: &str) -> Result<Array> {
        Ok(self.session.get(variable)?)
    }
    /// Sets a variable.
    pub fn set(&mut self, variable: &str, value: &Array) -> Result<()> {
        Ok(self.session.set(variable, value)?)
    }
    /// Committed training steps.
    pub fn step(&mut self) -> u64 {
        self.session.step()
    }
    /// The hash of all variables: equal digests mean equal models, bit for bit.
    pub fn digest(&mut self) -> Result<String> {
        Ok(self.session.digest()?)
    }
    /// Raise it, from any thread, to end the step that is running; variables stay as they were before it.
    pub fn abort_flag(&self) -> AbortFlag {
        self.session.abort_flag()
    }
    /// What runs the plans.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}
