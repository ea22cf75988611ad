//! The console on the wire, and what the proxy tells it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf, BytesMut};

use super::build::Built;
use super::reload::reload;
use crate::client::Peer;
use crate::config::Admin;
use crate::console::{
    Console, DATABASES, Destination, Facts, NodeFact, PoolFact, RouteFact, Turn, put_welcome,
};
use crate::net::{Stream, scratch};
use crate::relay::{self, Cluster, PoolSet, Seat};
use crate::route::{self, Decision, Floor, Policy, Role};
use crate::sql::catalog::{Catalog, TABLES};
use crate::sql::{Lexing, ShapeReport};
use crate::wire::{Notice, SqlState};

/// How many use the console.
#[derive(Debug, Default)]
pub(super) struct Admins {
    connected: AtomicUsize,
}

/// Whether a user may use the console.
///
/// # Errors
/// The words for whoever may not.
pub(super) fn admit(admin: &Admin, user: &str) -> Result<(), Notice> {
    if admin.users.iter().any(|admin| admin == user) {
        return Ok(());
    }
    let state = SqlState::InvalidAuthorizationSpecification;
    Err(Notice::fatal(state, "not allowed")
        .hint("The console is for the users that admin.users lists."))
}

/// Replies that are collected before they are sent.
const MAX_OUTPUT: usize = 64 * 1024;

/// A client of the console that has logged in.
pub(super) struct ConsoleSession {
    stream: Stream,
    /// What the client has sent and has not been dealt with.
    input: BytesMut,
    slot: Seat,
    user: String,
    peer: Peer,
    built: Arc<Built>,
}

/// ParameterStatus messages for a client of the console.
pub(super) fn welcome() -> Vec<u8> {
    let mut out = Vec::new();
    put_welcome(env!("CARGO_PKG_VERSION"), &mut out);
    out
}

/// One client of the console as long as this lives.
struct Connected<'a>(&'a AtomicUsize);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConsoleSession {
    pub(super) fn new(
        (stream, input): (Stream, BytesMut),
        slot: Seat,
        user: String,
        peer: Peer,
        built: Arc<Built>,
    ) -> ConsoleSession {
        ConsoleSession {
            stream,
            input,
            slot,
            user,
            peer,
            built,
        }
    }

    /// Answers the client until it leaves, or the proxy stops.
    pub(super) async fn run(mut self) {
        let built = self.built.clone();
        built.admins.connected.fetch_add(1, Ordering::Relaxed);
        let _connected = Connected(&built.admins.connected);
        tracing::info!(user = %self.user, peer = %self.peer, "console opened");
        let (mut console, mut out) = (Console::default(), Vec::new());
        loop {
            match console.turn(&self.input, &*built, &mut out) {
                Turn::Done(len) => self.input.advance(len),
                Turn::More => match self.read().await {
                    News::Bytes => {}
                    News::Gone => return,
                    News::Stop => {
                        shutting_down().put(&mut out);
                        // Whether the client still reads is its own affair.
                        let _ = self.stream.write_all(&out).await;
                        return;
                    }
                },
                Turn::End => {
                    let _ = self.stream.write_all(&out).await;
                    return;
                }
            }
            // All that came in together is answered together, unless that is much.
            let waits = is_whole(&self.input) && out.len() < MAX_OUTPUT;
            if !waits && !out.is_empty() {
                if self.stream.write_all(&out).await.is_err() {
                    return;
                }
                out = Vec::new();
            }
        }
    }

    /// Waits for bytes of the client, or the end of the proxy.
    async fn read(&mut self) -> News {
        let (stream, slot, input) = (&mut self.stream, &self.slot, &mut self.input);
        poll_fn(|cx| {
            slot.waker.register(cx.waker());
            if slot.draining() {
                return Poll::Ready(News::Stop);
            }
            // There is never anything to cancel.
            slot.take_cancel();
            scratch(|buffer| match stream.poll_read(cx, buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(n)) if n > 0 => {
                    input.extend_from_slice(&buffer[..n]);
                    Poll::Ready(News::Bytes)
                }
                Poll::Ready(_) => Poll::Ready(News::Gone),
            })
        })
        .await
    }
}

/// What a client of the console waits for.
enum News {
    Bytes,
    Gone,
    Stop,
}

/// Whether there is another message to deal with.
fn is_whole(input: &[u8]) -> bool {
    use crate::wire::frame;
    match frame::header(input, usize::MAX) {
        Ok(Some(header)) => input.len() >= header.total(),
        Ok(None) => false,
        Err(_) => true,
    }
}

fn shutting_down() -> Notice {
    let text = "terminating connection due to administrator command";
    Notice::fatal(SqlState::AdminShutdown, text)
}

impl Facts for Built {
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn nodes(&self) -> Vec<NodeFact> {
        let clusters = self.clusters.iter();
        clusters
            .flat_map(|cluster| self.nodes_of(cluster))
            .collect()
    }

    fn routes(&self) -> Vec<RouteFact> {
        let mut routes = Vec::new();
        for (row, target) in Role::ALL.iter().enumerate() {
            for (column, reason) in relay::reasons().into_iter().enumerate() {
                let statements = self.shared.metrics.routed(row, column).get();
                if statements > 0 {
                    routes.push(RouteFact {
                        target: target.as_str(),
                        reason,
                        statements,
                    });
                }
            }
        }
        routes
    }

    fn pools(&self) -> Vec<PoolFact> {
        let own = PoolFact {
            database: DATABASES[1].to_owned(),
            user: DATABASES[1].to_owned(),
            clients: self.admins.connected.load(Ordering::Relaxed),
            mode: "statement",
            ..PoolFact::default()
        };
        let mut pools: Vec<PoolFact> = self.databases.everywhere().iter().map(pool).collect();
        pools.push(own);
        // Stable: those that new clients get stand before those that a reload has replaced, and tell the mode.
        pools.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
        pools.dedup_by(|old, now| {
            let is_same = (&old.database, &old.user) == (&now.database, &now.user);
            if is_same {
                now.clients += old.clients;
                now.waiting += old.waiting;
                now.idle += old.idle;
                now.active += old.active;
                now.longest_wait = now.longest_wait.max(old.longest_wait);
            }
            is_same
        });
        pools
    }

    fn queries(&self, most: usize) -> Vec<ShapeReport> {
        self.shared.classifier.shapes().top(most)
    }

    fn explain(&self, sql: &[u8]) -> Vec<Destination> {
        let mut all = Vec::new();
        // One row for each database, whichever users have pools of it.
        let mut databases = BTreeMap::new();
        for set in self.databases.all() {
            let key = (set.cluster.name.clone(), set.database.clone());
            databases.entry(key).or_insert(set);
        }
        for cluster in &self.clusters {
            let of_it = databases
                .values()
                .filter(|set| Arc::ptr_eq(&set.cluster, cluster));
            let before = all.len();
            for set in of_it.cloned() {
                let catalog = set.catalog.current();
                all.push(self.destination(sql, cluster, Some(&set), &catalog));
            }
            if all.len() == before {
                all.push(self.destination(sql, cluster, None, &TABLES));
            }
        }
        all
    }

    fn reload(&self) -> Result<Vec<String>, Notice> {
        reload(self).map_err(|error| {
            // As PgBouncer says it, but with the reason.
            let text = format!("RELOAD failed: {error}");
            Notice::error(SqlState::ConfigFileError, text)
                .hint("What held before holds on. `pgweir check` shows every fault of the file.")
        })
    }
}

impl Built {
    fn destination(
        &self,
        sql: &[u8],
        cluster: &Cluster,
        set: Option<&PoolSet>,
        catalog: &Catalog,
    ) -> Destination {
        let classifier = &self.shared.classifier;
        let explanation = classifier.explain(sql, Lexing::default(), catalog);
        let decision = route::decide(
            relay::need(explanation.class),
            set.map_or_else(Policy::default, |set| set.ground.policy)
                .for_statement(explanation.class),
            &mut Floor::default(),
            &cluster.view.load(),
            Instant::now(),
            |node| cluster.outstanding(node),
            route::first,
        );
        let (node, role, reason) = match decision {
            Decision::Node { node, role, reason } => (Some(node), Some(role), reason),
            Decision::Nowhere { reason } => (None, None, reason),
        };
        Destination {
            cluster: cluster.name.clone(),
            database: set.map(|set| set.database.clone()),
            explanation,
            node: node.map(|node| cluster.nodes[node].name.clone()),
            role: role.map(Role::as_str),
            route: reason.as_str(),
        }
    }

    fn nodes_of(&self, cluster: &Cluster) -> Vec<NodeFact> {
        let view = cluster.view.load();
        let now = Instant::now();
        let fact = |(index, node): (usize, &relay::Node)| {
            let seen = &view.nodes[index];
            let counters = self.shared.metrics.node(node.metric);
            let statements = |role: usize| counters.map_or(0, |all| all.statements.at(role).get());
            NodeFact {
                cluster: cluster.name.clone(),
                node: node.name.clone(),
                address: node.endpoint.address.to_string(),
                role: seen.state.as_str(),
                reads: seen.eligible && view.is_fresh(index, now),
                timeline: seen.position.map(|position| position.timeline.0),
                lsn: seen.position.map(|position| position.lsn.to_string()),
                lag_bytes: seen.lag_bytes,
                lag: seen.lag,
                paused: seen.paused,
                seen: seen.seen.map(|seen| now.saturating_duration_since(seen)),
                clients: cluster.outstanding(index),
                statements: [statements(0), statements(1)],
            }
        };
        cluster.nodes.iter().enumerate().map(fact).collect()
    }
}

/// The pools of all nodes, as one.
fn pool(set: &Arc<PoolSet>) -> PoolFact {
    let now = Instant::now();
    let mut fact = PoolFact {
        database: set.name.clone(),
        user: set.user.clone(),
        mode: set.mode.as_str(),
        ..PoolFact::default()
    };
    for pool in &set.pools {
        let status = pool.status();
        fact.waiting += status.waiting;
        fact.idle += status.idle;
        fact.active += status.size.saturating_sub(status.idle);
        let since = pool.waiting_since();
        let wait = since.map(|since| now.saturating_duration_since(since));
        fact.longest_wait = fact.longest_wait.max(wait.unwrap_or_default());
    }
    fact.clients = set.clients().saturating_sub(fact.waiting);
    fact
}
