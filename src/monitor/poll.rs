//! One task for each node: ask, report, wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::probe::{self, Probe, Session};
use super::traffic::{Quiet, Traffic};
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
    /// The same while clients are quiet and nothing is wrong.
    pub rest: Duration,
    /// What clients do.
    pub traffic: Arc<Traffic>,
    /// Gets each new view, with what has changed.
    pub publish: Publish,
}

/// The tasks of one cluster; they end when this is dropped.
pub struct Monitor {
    _tasks: JoinSet<()>,
}

/// Most time between two attempts to reach a node that is away.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

struct Board {
    name: String,
    nodes: Vec<String>,
    first_node: usize,
    judge: Mutex<(Judge, Quiet)>,
    traffic: Arc<Traffic>,
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
        rest,
        traffic,
        publish,
    } = watched;
    let start = Instant::now();
    let board = Arc::new(Board {
        name,
        nodes,
        first_node,
        judge: Mutex::new((judge, Quiet::new(start.into_std()))),
        traffic,
        publish,
        metrics,
    });
    let mut tasks = JoinSet::new();
    let rhythm = Rhythm {
        start,
        interval,
        rest,
    };
    for (node, probe) in probes.into_iter().enumerate() {
        tasks.spawn(poll(board.clone(), node, probe, rhythm));
    }
    Monitor { _tasks: tasks }
}

async fn poll(board: Arc<Board>, node: usize, probe: Probe, rhythm: Rhythm) {
    let mut session: Option<Session> = None;
    let mut failures = 0u32;
    loop {
        let sent = Instant::now();
        let result = ask(&probe, &mut session).await;
        failures = if result.is_ok() {
            0
        } else {
            failures.saturating_add(1)
        };
        let received = Instant::now();
        // Before it is decided to rest: nobody who comes then is missed.
        let came = board.traffic.came();
        let rests = board.report(Observation {
            node,
            sent: sent.into_std(),
            received: received.into_std(),
            result,
        });
        let next = tokio::time::sleep_until(rhythm.next(received, failures, rests));
        if rests {
            tokio::select! {
                () = next => {}
                () = came => {}
            }
        } else {
            next.await;
        }
    }
}

/// When nodes are asked: all of a cluster at the same moments, so that one timer wakes for all of them, and what they say
/// can be compared.
#[derive(Clone, Copy)]
struct Rhythm {
    start: Instant,
    interval: Duration,
    rest: Duration,
}

impl Rhythm {
    /// When a node is asked next. One that is away is asked less and less often, down to once a second.
    fn next(self, now: Instant, failures: u32, rests: bool) -> Instant {
        let start = self.start;
        let interval = if rests { self.rest } else { self.interval };
        if failures > 0 {
            let pause = interval.saturating_mul(1 << failures.min(10));
            return now + pause.min(MAX_BACKOFF.max(interval));
        }
        // A node that takes long is not asked in the very moment in which it has answered.
        let least = interval / 10;
        let interval = interval.as_nanos().max(1);
        let turns = (now + least - start).as_nanos() / interval + 1;
        start + Duration::from_nanos(u64::try_from(turns * interval).unwrap_or(u64::MAX))
    }
}

/// Asks once. A connection that has ended may have been ended alone, by an administrator or a firewall: the node is asked on
/// another one before anything is said of it. One that is down refuses that at once.
async fn ask(probe: &Probe, session: &mut Option<Session>) -> Result<Answer, Silence> {
    let Some(open) = session.take() else {
        return ask_anew(probe, session).await;
    };
    match ask_on(probe, open, session).await {
        Err(Silence::Gone) => {
            let again = tokio::time::timeout(probe.timeout, ask_anew(probe, session)).await;
            again.unwrap_or(Err(Silence::Gone))
        }
        result => result,
    }
}

async fn ask_anew(probe: &Probe, session: &mut Option<Session>) -> Result<Answer, Silence> {
    let open = probe
        .connect()
        .await
        .map_err(|error| probe::silence(&error))?;
    ask_on(probe, open, session).await
}

async fn ask_on(
    probe: &Probe,
    mut open: Session,
    session: &mut Option<Session>,
) -> Result<Answer, Silence> {
    let answer = probe
        .ask(&mut open)
        .await
        .map_err(|error| probe::silence(&error))?;
    // Only a connection that has answered is asked again.
    *session = Some(open);
    Ok(answer)
}

impl Board {
    /// Judges what has been heard, and publishes it. True if there is no hurry to ask again.
    fn report(&self, observation: Observation) -> bool {
        let (node, now) = (observation.node, observation.received);
        if let Err(silence) = &observation.result
            && let Some(counters) = self.metrics.node(self.first_node + node)
        {
            counters.probe_failures.at(silence_index(silence)).inc();
        }
        let silence = observation.result.as_ref().err().cloned();
        let (view, events, rests) = {
            let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
            let (judge, quiet) = &mut *judge;
            let events = judge.observe(observation);
            let rests = quiet.is(&self.traffic, now) && judge.is_settled();
            (judge.view(), events, rests)
        };
        for event in &events {
            self.log(event, silence.as_ref());
        }
        (self.publish)(view, &events);
        rests
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_asked_at_the_same_moments() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let rhythm = Rhythm {
            start,
            interval: ms(50),
            rest: ms(250),
        };
        assert_eq!(rhythm.next(start + ms(53), 0, true), start + ms(250));
        let check = |now: u64, failures: u32, next: u64| {
            let found = rhythm.next(start + ms(now), failures, false) - start;
            assert_eq!(found, ms(next), "at {now} ms, after {failures} failures");
        };
        check(0, 0, 50);
        check(3, 0, 50);
        check(44, 0, 50);
        check(46, 0, 100);
        check(50, 0, 100);
        check(1_234, 0, 1_250);
        check(3, 1, 103);
        check(3, 2, 203);
        check(3, 99, 1_003);
    }
}
