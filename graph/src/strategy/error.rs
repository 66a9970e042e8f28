//! Why a strategy does not fit a model or a cluster: what is said, and what there is instead.

use std::sync::Arc;

use crate::ir::Site;

/// Why a strategy does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// Every device hosts a leaf at least.
    #[error("{leaves} leaves cannot be spread over {devices} devices: give as many leaves as devices, or a multiple")]
    Leaves {
        /// How many leaves.
        leaves: u16,
        /// How many devices.
        devices: usize,
    },
    /// Devices come in groups.
    #[error("groups of {width} devices cannot be made of {devices}: give a number of devices that {width} divides")]
    Width {
        /// Devices of a group.
        width: u16,
        /// How many there are.
        devices: usize,
    },
    /// The mesh is no grid.
    #[error("a mesh has an axis at least, each with a name of its own and with devices: {axes}")]
    Mesh {
        /// What was said.
        axes: String,
    },
    /// The mesh is of another number of devices.
    #[error("the mesh {axes} is of {asked} devices, and there are {devices} for it")]
    MeshDevices {
        /// What was said.
        axes: String,
        /// How many it has.
        asked: usize,
        /// How many there are.
        devices: usize,
    },
    /// The model is to be cut along an axis that the mesh has not.
    #[error("`{label}` at {site} is to be spread over `{axis}`; the mesh has {}", known.join(", "))]
    NoMeshAxis {
        /// What is to be spread.
        label: String,
        /// Its line.
        site: Site,
        /// Over what.
        axis: Arc<str>,
        /// What there is.
        known: Vec<String>,
    },
    /// Each group of devices has a share.
    #[error("{shares} shares are said, and leaves are spread over {groups} devices or groups of them")]
    Shares {
        /// How many shares.
        shares: usize,
        /// How many groups.
        groups: usize,
    },
    /// Shares give a device no leaf.
    #[error("{leaves} leaves in proportion {shares:?} leave a device without any: give more leaves")]
    NoLeaf {
        /// How many leaves.
        leaves: u16,
        /// The proportion.
        shares: Vec<u16>,
    },
    /// The model says stages, other ones.
    #[error("the model declares {declared} stages, from 0 on, and the strategy has {asked}")]
    Stages {
        /// In the model.
        declared: u16,
        /// In the strategy.
        asked: u16,
    },
    /// A pipeline is cut between layers.
    #[error("the model has too few layers for {stages} stages")]
    TooFewLayers {
        /// How many stages.
        stages: u16,
    },
    /// There are no servers, or nobody beside them, or one is named twice.
    #[error(
        "{servers} of {devices} devices cannot be parameter servers: there has to be a server and a worker, and nobody is named twice"
    )]
    Servers {
        /// How many servers.
        servers: usize,
        /// How many devices.
        devices: usize,
    },
    /// Every server has leaves whose gradients it adds up.
    #[error("{servers} parameter servers for {leaves} leaves: give at least as many leaves as servers")]
    ServersAndLeaves {
        /// How many servers.
        servers: usize,
        /// How many leaves.
        leaves: usize,
    },
    /// Something else was asked for as well.
    #[error("parameter servers do not go with {what}")]
    BesideServers {
        /// What.
        what: String,
    },
    /// Something is pinned to a device that is not there.
    #[error("`{label}` at {site} is pinned to `{device}`; there are {}", known.join(", "))]
    NoDevice {
        /// What is pinned.
        label: String,
        /// Its line.
        site: Site,
        /// To what.
        device: Arc<str>,
        /// What there is.
        known: Vec<String>,
    },
    /// Everything is to be on a device that is not there.
    #[error("the strategy speaks of a device `{device}`; there are {}", known.join(", "))]
    NotThere {
        /// Which.
        device: Arc<str>,
        /// What there is.
        known: Vec<String>,
    },
    /// It is still to be chosen.
    #[error("a strategy that is to be chosen has to be decided first: `choose` does that, as compiling does")]
    Undecided,
    /// It cuts a parameter that the model has not.
    #[error("the strategy cuts `{name}`, and the model has no such parameter")]
    NoParameter {
        /// Which.
        name: Arc<str>,
    },
    /// It speaks of an input that the model has not.
    #[error("the strategy speaks of an input `{name}`; the model has {}", known.join(", "))]
    NoInput {
        /// Which.
        name: Arc<str>,
        /// What there is.
        known: Vec<String>,
    },
    /// It spreads a tensor along an axis that it has not.
    #[error("the strategy spreads `{name}`, which is {ty}, along axis {axis}")]
    NoAxis {
        /// Which.
        name: Arc<str>,
        /// Its type.
        ty: String,
        /// What was asked for.
        axis: u16,
    },
}
