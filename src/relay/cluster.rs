//! A cluster as sessions see it: its nodes, and the picture that the monitor last published.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;

use crate::cluster::View;
use crate::monitor::Traffic;
use crate::pool::NodeCounts;
use crate::server::Endpoint;

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its name in proxy.toml.
    pub name: String,
    /// Its nodes, in the order of proxy.toml, which is the order of [`View::nodes`].
    pub nodes: Box<[Node]>,
    /// The newest picture. Read without a lock at every decision.
    pub view: ArcSwap<View>,
    /// What its clients do: the monitor asks less often while they are quiet.
    pub traffic: Arc<Traffic>,
    rotation: AtomicU32,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name in proxy.toml.
    pub name: String,
    /// Its place among the nodes of all clusters, as the metrics count them.
    pub metric: usize,
    /// How connections to it are made.
    pub endpoint: Endpoint,
    /// Most server connections of its pools together, if there is a bound.
    pub max_connections: Option<usize>,
    /// What all pools of the node share.
    pub counts: NodeCounts,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(name: &str, nodes: Vec<Node>, view: View) -> Cluster {
        Cluster {
            name: name.to_owned(),
            nodes: nodes.into(),
            view: ArcSwap::from_pointee(view),
            traffic: Arc::default(),
            rotation: AtomicU32::new(0),
        }
    }

    /// Clients on a node.
    pub fn outstanding(&self, node: usize) -> u32 {
        self.nodes[node].counts.outstanding.load(Ordering::Relaxed)
    }

    /// A number that breaks ties between nodes evenly. It is written, and all workers share it: only for who needs one.
    pub fn turn(&self) -> u32 {
        self.rotation.fetch_add(1, Ordering::Relaxed)
    }
}
