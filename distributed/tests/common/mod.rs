//! Workers as threads of a test, over the sockets that processes have, and a small model to spread over them.

#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thalweg_cpu::CpuDevice;
use thalweg_distributed::{Call, Door, Encryption, Gathering, HostError, JobKey, Reach, Tell, Worker, Workers, serve};
use thalweg_graph::DType::{F32, I32};
use thalweg_graph::{Array, Cluster, Strategy};
use thalweg_ops::nn::*;
use thalweg_ops::optim::AdamW;
use thalweg_runtime::planner::Placing;
use thalweg_runtime::source::Opener;
use thalweg_runtime::{Device, DeviceError, RunError, Session};

/// Two layers with dropout; batches of eight.
pub(crate) fn graph() -> thalweg_graph::Graph {
    let g = thalweg_ops::Graph::new("small").seed(3);
    let x = g.input("x", F32, [8, 40]);
    let label = g.input("label", I32, [8]);
    let hidden = g.scope("hidden", || Linear::new(64).call(x)).relu();
    let logits = g.scope("head", || Linear::new(10).call(hidden));
    let loss = cross_entropy(logits, label).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(1e-2).minimize(loss));
    g.program("look").outputs([hidden.named("hidden")]);
    g.finish().expect("no mistakes")
}

pub(crate) fn batch(k: u64) -> [Array; 2] {
    let x: Vec<f32> = (0..320).map(|i| ((i * 37 + k * 11) % 101) as f32 / 50.0 - 1.0).collect();
    let label: Vec<i32> = (0..8).map(|i| ((i * 3 + k) % 10) as i32).collect();
    [Array::from_slice(&[8, 40], &x), Array::from_slice(&[8], &label)]
}

pub(crate) fn open(name: &str, threads: usize) -> Result<Box<dyn Device>, DeviceError> {
    Ok(Box::new(CpuDevice::new(name, threads)?))
}

pub(crate) fn names(world: usize) -> Vec<(String, usize)> {
    (0..world).map(|rank| (format!("cpu:{rank}"), 1)).collect()
}

pub(crate) type Opens = Arc<dyn Fn(&str, usize) -> Result<Box<dyn Device>, DeviceError> + Send + Sync>;

pub(crate) fn gather(gathering: &mut Gathering, world: usize, patience: Duration) -> Result<Workers, HostError> {
    let term = AtomicU32::new(0);
    gathering.workers(&Call {
        expected: &|| world,
        least: world,
        patience,
        device: &|rank| names(world)[usize::from(rank)].clone(),
        begin: &|| Ok(term.fetch_add(1, Ordering::Relaxed) + 1),
        before: &Vec::new,
        note: &|_| Ok(()),
        fence: &|_| (),
        give_up: &|| false,
    })
}

/// So many workers, each a thread, and a session over them.
pub(crate) fn session(
    world: usize,
    strategy: &Strategy,
    opens: Opens,
) -> (Session, Vec<JoinHandle<Result<(), HostError>>>) {
    session_telling(world, strategy, opens, Box::new(|text| panic!("{text}")))
}

/// The same; who is told of steps that take long.
pub(crate) fn session_telling(
    world: usize,
    strategy: &Strategy,
    opens: Opens,
    tell: Tell,
) -> (Session, Vec<JoinHandle<Result<(), HostError>>>) {
    session_reading(world, strategy, opens, tell, &|_| None)
}

/// The same; what opens data sets at each of them.
pub(crate) fn session_reading(
    world: usize,
    strategy: &Strategy,
    opens: Opens,
    tell: Tell,
    openers: &dyn Fn(usize) -> Option<Arc<dyn Opener>>,
) -> (Session, Vec<JoinHandle<Result<(), HostError>>>) {
    let key = JobKey::random().expect("numbers");
    let mut gathering = Gathering::open(&key, Reach::default()).expect("a port");
    let join = Door::At(gathering.address(), key, Encryption::default());
    let worker = Worker { join, rank: None, patience: Duration::ZERO, listen: None, roots: vec![], opener: None };
    let start = |rank: usize| {
        let (opener, opens) = (openers(rank), opens.clone());
        let worker = Worker { rank: Some(rank as u16), opener, ..worker.clone() };
        thread::spawn(move || serve(&worker, &*opens))
    };
    let threads = (0..world).map(start).collect();
    let workers = gather(&mut gathering, world, Duration::from_secs(20)).expect("all join");
    let twins = names(world).iter().map(|(name, n)| open(name, *n).expect("a device")).collect();
    let executor = workers.tell(tell).executor(twins).expect("there is a twin for each");
    let graph = graph();
    let planner = placing(&graph, world, strategy);
    (Session::with(graph, executor, planner).expect("it fits"), threads)
}

pub(crate) fn placing(graph: &thalweg_graph::Graph, world: usize, strategy: &Strategy) -> Box<Placing> {
    let request = strategy.request(graph, &Cluster::cpus(world)).expect("it fits");
    Box::new(Placing::new(graph, request, world))
}

pub(crate) fn here(world: usize, strategy: &Strategy) -> Session {
    let graph = graph();
    let devices = names(world).iter().map(|(name, n)| open(name, *n).expect("a device")).collect();
    let planner = placing(&graph, world, strategy);
    Session::over(graph, devices, planner).expect("it fits")
}

pub(crate) fn step(session: &mut Session, k: u64) -> Result<f64, RunError> {
    let [x, label] = batch(k);
    session.run("train", &[("x", &x), ("label", &label)]).map(|out| out.item("loss"))
}

pub(crate) fn leave(session: Session, threads: Vec<JoinHandle<Result<(), HostError>>>) {
    drop(session);
    for thread in threads {
        thread.join().expect("no panic").expect("it left in peace");
    }
}
