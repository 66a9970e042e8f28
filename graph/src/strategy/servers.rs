//! Which devices of a cluster are parameter servers, and which are left for the leaves.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Strategy, StrategyError};
use crate::cluster::Cluster;
use crate::ir::{Graph, Pin};
use crate::place::{Mesh, Request, SERVERS, WORKERS};

/// Which devices are servers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum ServerDevices {
    /// So many, the last of the cluster.
    Last(u16),
    /// These.
    Named(Vec<Arc<str>>),
}

impl Strategy {
    /// The last `count` devices of the cluster are servers: they keep the parameters, spread by bytes, and what the optimizer keeps
    /// of them. The others are workers: data parallel, each pulls the parameters that it reads when a step begins and pushes
    /// its gradients, which servers add up and apply. The same bits as [`data_parallel`](Self::data_parallel) over the same
    /// leaves. See [`Servers`](crate::place::Servers).
    pub fn servers(count: u16) -> Self {
        Self { servers: Some(ServerDevices::Last(count)), ..Self::data_parallel() }
    }
    /// The same with these devices as servers, by their names.
    pub fn servers_on(devices: &[&str]) -> Self {
        let named = devices.iter().map(|d| (*d).into()).collect();
        Self { servers: Some(ServerDevices::Named(named)), ..Self::data_parallel() }
    }
    /// How many servers there are to be.
    pub(super) fn server_count(&self) -> usize {
        match &self.servers {
            None => 0,
            Some(ServerDevices::Last(count)) => (*count).into(),
            Some(ServerDevices::Named(names)) => names.len(),
        }
    }
    /// The servers by their places in the cluster, in ascending order.
    fn server_devices(&self, cluster: &Cluster) -> Result<Vec<u16>, StrategyError> {
        let devices = cluster.devices.len();
        let mut servers: Vec<u16> = match &self.servers {
            None => vec![],
            Some(ServerDevices::Last(count)) => {
                (devices.saturating_sub((*count).into())..devices).map(|d| d as u16).collect()
            }
            Some(ServerDevices::Named(names)) => {
                let place = |name: &Arc<str>| {
                    let at = cluster.devices.iter().position(|d| d.name == *name).map(|at| at as u16);
                    let known = || super::request::names(cluster);
                    at.ok_or_else(|| StrategyError::NotThere { device: name.clone(), known: known() })
                };
                names.iter().map(place).collect::<Result<_, _>>()?
            }
        };
        servers.sort_unstable();
        servers.dedup();
        if self.servers.is_some()
            && (servers.is_empty() || servers.len() >= devices || servers.len() < self.server_count())
        {
            return Err(StrategyError::Servers { servers: self.server_count(), devices });
        }
        Ok(servers)
    }
    /// Makes room for servers in a mesh of the workers alone, whose devices are counted from 0.
    ///
    /// # Errors
    /// If there are no servers or no workers, or fewer leaves than servers.
    pub(super) fn beside_servers(&self, mesh: &mut Mesh, cluster: &Cluster) -> Result<(), StrategyError> {
        let servers = self.server_devices(cluster)?;
        if servers.is_empty() {
            return Ok(());
        }
        let leaves = mesh.leaves();
        if leaves < servers.len() {
            return Err(StrategyError::ServersAndLeaves { servers: servers.len(), leaves });
        }
        let workers: Vec<u16> = (0..cluster.devices.len() as u16).filter(|d| !servers.contains(d)).collect();
        mesh.stages[usize::from(WORKERS)].iter_mut().for_each(|device| *device = workers[usize::from(*device)]);
        mesh.stages.push((0..leaves).map(|leaf| servers[leaf * servers.len() / leaves]).collect());
        Ok(())
    }
    /// Has the servers of a mesh keep the variables of `graph`.
    ///
    /// # Errors
    /// If something else is asked for that does not go with servers.
    pub(super) fn serve(&self, graph: &Graph, devices: usize, request: &mut Request) -> Result<(), StrategyError> {
        let pinned = graph.nodes.values().iter().find(|n| matches!(n.pin, Some(Pin::On(_))));
        let beside = match pinned {
            Some(node) => Some(format!("`{}` at {} being pinned to a device", node.label(), node.site)),
            None if self.shards_state => Some("sharing out what the optimizer keeps: servers do that".into()),
            None if self.width() > 1 => Some("groups of devices that share parameters".into()),
            None => None,
        };
        if let Some(what) = beside {
            return Err(StrategyError::BesideServers { what });
        }
        let servers = request.mesh.hosts(SERVERS);
        request.serve(graph, &servers, devices);
        Ok(())
    }
}
