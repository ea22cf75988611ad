//! One task for each node: ask, report, wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::probe::{self, Probe, Session};
use crate::cluster::{Answer, Event, Judge, Observation, Silence, View};
use crate::metrics::Metrics;

/// Takes each new view, with what has changed since the one before.
pub type Publish = Box<dyn Fn(View, &[Event]) + Send + Sync>;

/// One cluster to be watched.
pub struct Watched {
    /// Its name, for the log.
    pub name: String,
    /// Names of its nodes.
    pub nodes: Vec<String>,
    /// The place of the first among the nodes of all clusters, as the metrics count them.
    pub first_node: usize,
    /// How each of them is asked.
    pub probes: Vec<Probe>,
    /// Judges it.
    pub judge: Judge,
    /// How often each node is asked.
    pub interval: Duration,
    /// Gets each new view, with what has changed.
    pub publish: Publish,
}

/// The tasks of one cluster; they end when this is dropped.
pub struct Monitor {
    _tasks: JoinSet<()>,
}

/// Least and most time between two attempts to reach a node that is away. The least is the interval.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

struct Board {
    name: String,
    nodes: Vec<String>,
    first_node: usize,
    judge: Mutex<Judge>,
    publish: Publish,
    metrics: Arc<Metrics>,
}

/// Starts to watch a cluster.
pub fn watch(watched: Watched, metrics: Arc<Metrics>) -> Monitor {
    let Watched {
        name,
        nodes,
        first_node,
        probes,
        judge,
        interval,
        publish,
    } = watched;
    let board = Arc::new(Board {
        name,
        nodes,
        first_node,
        judge: Mutex::new(judge),
        publish,
        metrics,
    });
    let mut tasks = JoinSet::new();
    for (node, probe) in probes.into_iter().enumerate() {
        tasks.spawn(poll(board.clone(), node, probe, interval));
    }
    Monitor { _tasks: tasks }
}

async fn poll(board: Arc<Board>, node: usize, probe: Probe, interval: Duration) {
    let mut session: Option<Session> = None;
    let mut failures = 0u32;
    loop {
        let sent = tokio::time::Instant::now().into_std();
        let result = ask(&probe, &mut session).await;
        failures = if result.is_ok() {
            0
        } else {
            failures.saturating_add(1)
        };
        let received = tokio::time::Instant::now().into_std();
        board.report(Observation {
            node,
            sent,
            received,
            result,
        });
        tokio::time::sleep(pause(interval, failures, sent, received)).await;
    }
}

/// Questions go out at even intervals; a node that is away is asked less and less often, down to once a second.
fn pause(interval: Duration, failures: u32, sent: Instant, received: Instant) -> Duration {
    match failures {
        0 => interval.saturating_sub(received - sent).max(interval / 10),
        n => interval
            .saturating_mul(1 << n.min(10))
            .min(MAX_BACKOFF.max(interval)),
    }
}

async fn ask(probe: &Probe, session: &mut Option<Session>) -> Result<Answer, Silence> {
    let mut open = match session.take() {
        Some(open) => open,
        None => probe
            .connect()
            .await
            .map_err(|error| probe::silence(&error))?,
    };
    let answer = probe
        .ask(&mut open)
        .await
        .map_err(|error| probe::silence(&error))?;
    // Only a connection that has answered is asked again.
    *session = Some(open);
    Ok(answer)
}

impl Board {
    fn report(&self, observation: Observation) {
        let node = observation.node;
        if let Err(silence) = &observation.result
            && let Some(counters) = self.metrics.node(self.first_node + node)
        {
            counters.probe_failures.at(silence_index(silence)).inc();
        }
        let silence = observation.result.as_ref().err().cloned();
        let (view, events) = {
            let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
            let events = judge.observe(observation);
            (judge.view(), events)
        };
        for event in &events {
            self.log(event, silence.as_ref());
        }
        (self.publish)(view, &events);
    }

    fn log(&self, event: &Event, silence: Option<&Silence>) {
        let cluster = &*self.name;
        let name = |node: &usize| &*self.nodes[*node];
        match event {
            Event::Split { nodes } => {
                let nodes: Vec<_> = nodes.iter().map(name).collect();
                tracing::error!(cluster, ?nodes, "{event}");
            }
            Event::PrimaryLost { node } => tracing::warn!(cluster, node = name(node), "{event}"),
            Event::State { node, .. } => {
                let why = silence.map(tracing::field::display);
                tracing::info!(cluster, node = name(node), why, "{event}");
            }
            Event::PrimaryAccepted { node, .. }
            | Event::Excluded { node, .. }
            | Event::Admitted { node } => {
                tracing::info!(cluster, node = name(node), "{event}");
            }
        }
    }
}

/// Metric labels: why a probe was not answered.
pub const FAILURES: [&str; 4] = ["gone", "timeout", "starting", "rejected"];

fn silence_index(silence: &Silence) -> usize {
    match silence {
        Silence::Gone => 0,
        Silence::TimedOut => 1,
        Silence::Starting => 2,
        Silence::Rejected(_) => 3,
    }
}
