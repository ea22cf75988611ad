//! Cancel requests, also those for sessions of another process behind the same address.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::build::Built;
use crate::config;
use crate::config::PeerId;
use crate::metrics::Metrics;
use crate::net::{Address, TcpOptions};
use crate::relay::key;
use crate::server::{self, ServerError};

/// Cancel requests on their way to one peer; what comes beyond them is dropped. One peer that is away, and keeps each for
/// as long as `timeouts.cancel`, is in nobody's way but its own.
const MAX_FORWARDS: usize = 64;

/// Metric labels: what became of a cancel request.
pub(super) const RESULTS: [&str; 5] = ["sent", "failed", "unknown", "forwarded", "dropped"];

/// This process among those that share its address.
pub(super) struct Peering {
    id: PeerId,
    peers: HashMap<PeerId, Peer>,
}

struct Peer {
    id: PeerId,
    address: Address,
    tcp: TcpOptions,
    /// How long a request may take.
    limit: Duration,
    places: Semaphore,
}

/// Where a request belongs.
enum Owner<'p> {
    /// Here; the process id as the client was told.
    Us(i32),
    Peer(&'p Peer),
    Nobody,
}

impl Peering {
    pub(super) fn new(peering: &config::Peering, tcp: TcpOptions, limit: Duration) -> Peering {
        let peer = |peer: &config::Peer| Peer {
            id: peer.id,
            address: peer.address.clone(),
            tcp,
            limit,
            places: Semaphore::new(MAX_FORWARDS),
        };
        Peering {
            id: peering.id,
            peers: peering.peers.iter().map(|p| (p.id, peer(p))).collect(),
        }
    }

    fn owner(&self, process: i32, key: &[u8]) -> Owner<'_> {
        let (forwarded, process) = key::was_forwarded(process);
        let id = key::issuer(key);
        match self.peers.get(&id) {
            _ if id == self.id => Owner::Us(process),
            // A peer that forwards what is not ours has our number wrong; a second hop could be the first of a circle.
            Some(peer) if !forwarded => Owner::Peer(peer),
            _ => Owner::Nobody,
        }
    }
}

impl Peer {
    /// Passes a request on, and waits until the peer has closed the connection, as clients do. Returns what became of it.
    async fn forward(&self, metrics: &Metrics, process: i32, key: &[u8]) -> &'static str {
        let Ok(_place) = self.places.try_acquire() else {
            return "dropped";
        };
        let process = key::forwarded(process);
        let Err(error) = server::cancel(&self.address, self.tcp, process, key, self.limit).await
        else {
            return "forwarded";
        };
        if matches!(error, ServerError::Timeout) {
            metrics.timeouts.named("cancel").inc();
        }
        tracing::warn!(peer = self.id.0, %error, "cancel request not forwarded");
        "failed"
    }
}

/// A cancel request has come. Whoever sent it is not told what becomes of it.
pub(super) async fn cancel(built: &Built, process: i32, key: &[u8]) {
    let owner = match &built.peering {
        Some(peering) => peering.owner(process, key),
        None => Owner::Us(process),
    };
    let metrics = &built.shared.metrics;
    let result = match owner {
        // What comes of it is counted by the session.
        Owner::Us(process) if built.shared.registry.cancel(process, key) => return,
        Owner::Us(_) | Owner::Nobody => "unknown",
        Owner::Peer(peer) => peer.forward(metrics, process, key).await,
    };
    metrics.cancel_requests.named(result).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_one_hop_at_most() {
        let second = Duration::from_secs(1);
        let config = config::Peering {
            id: PeerId(1),
            peers: vec![config::Peer {
                id: PeerId(2),
                address: Address::Tcp("b".to_owned(), 6432),
            }],
        };
        let tcp = TcpOptions {
            keepalive: second,
            user_timeout: None,
        };
        let peering = Peering::new(&config, tcp, second);
        // The number of the key's process, shifted over the random bits of its second byte.
        let check = |process: i32, id: u8, expected: &str| {
            let owner = match peering.owner(process, &[0, id << 2 | 3, 9, 9]) {
                Owner::Us(process) => format!("us {process}"),
                Owner::Peer(peer) => format!("peer {}", peer.id.0),
                Owner::Nobody => "nobody".to_owned(),
            };
            assert_eq!(owner, expected, "{process} {id}");
        };
        check(77, 1, "us 77");
        check(77, 2, "peer 2");
        check(77, 3, "nobody");
        check(77, 0, "nobody");
        let forwarded = key::forwarded(77);
        check(forwarded, 1, "us 77");
        check(forwarded, 2, "nobody");
        check(forwarded, 3, "nobody");
    }
}
