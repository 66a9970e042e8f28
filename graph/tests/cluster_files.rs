//! Clusters as files: what is written is read again, and what makes no sense is refused by name.

#![allow(missing_docs)]

use thalweg_graph::Cluster;
use thalweg_graph::cluster::{ClusterError, Link};
use thalweg_graph::cost::Rates;

#[test]
fn a_cluster_is_written_and_read_again() {
    let mut cluster = Cluster::cpus(2);
    cluster.devices[1].rates = Some(Rates { product_flops: 1.5e11, ..Rates::DEFAULT });
    cluster.devices[0].memory_bytes = Some(8 << 30);
    let (from, to) = ("cpu:0".into(), "cpu:1".into());
    cluster.links.push(Link { from, to, latency_seconds: 2e-6, bytes_per_second: 9e9 });
    cluster.devices.push(Cluster::gpu(1).devices.remove(0));
    let text = cluster.to_toml().expect("it is small");
    assert_eq!(Cluster::from_toml(&text), Ok(cluster), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let device = |name: &str, more: &str| format!("[[devices]]\nname = \"{name}\"\nkind = \"cpu\"\n{more}\n");
    let parsed = Cluster::from_toml(&device("a", "")).expect("the least that a file says");
    assert_eq!((parsed.devices[0].threads, parsed.devices[0].rates), (1, None));
    let error = |text: &str| Cluster::from_toml(text).expect_err("it makes no sense");
    assert!(error(&device("a", "thread = 2")).to_string().contains("thread"));
    assert_eq!(error(&[device("a", ""), device("a", "")].concat()), ClusterError::Twice("a".into()));
    assert!(error(&device("a", "threads = 0")).to_string().contains("a: `threads`"));
    let link = |to: &str, latency: f64| {
        let text =
            format!("[[links]]\nfrom = \"a\"\nto = \"{to}\"\nlatency_seconds = {latency:?}\nbytes_per_second = 1e9");
        [device("a", ""), device("b", ""), text].concat()
    };
    assert!(Cluster::from_toml(&link("b", 1e-6)).is_ok());
    assert!(error(&link("c", 1e-6)).to_string().contains("`c`; there are `a`, `b`"));
    assert!(error(&link("b", -1.0)).to_string().contains("a – b: `latency_seconds`"));
}
