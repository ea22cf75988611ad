//! The cluster at one moment. A view never changes; a newer one takes its place.

use std::time::{Duration, Instant};

use super::{Lsn, Position, Sample, Timeline};

/// What a node is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It has not answered yet.
    #[default]
    Unknown,
    /// It is starting up or shutting down.
    Starting,
    /// In recovery.
    Standby,
    /// Accepted as the primary.
    Primary,
    /// Not in recovery, and not accepted: it gets nothing.
    Writable,
    /// Not in recovery on an older timeline than the primary's: an old primary that has come back.
    Fenced,
    /// A copy of another cluster.
    Quarantined,
    /// It does not answer.
    Down,
}

impl NodeState {
    /// Every state.
    pub const ALL: [NodeState; 8] = [
        NodeState::Unknown,
        NodeState::Starting,
        NodeState::Standby,
        NodeState::Primary,
        NodeState::Writable,
        NodeState::Fenced,
        NodeState::Quarantined,
        NodeState::Down,
    ];

    /// The word for logs, metrics and SHOW.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Unknown => "unknown",
            NodeState::Starting => "starting",
            NodeState::Standby => "standby",
            NodeState::Primary => "primary",
            NodeState::Writable => "writable",
            NodeState::Fenced => "fenced",
            NodeState::Quarantined => "quarantined",
            NodeState::Down => "down",
        }
    }
}

/// One node in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// What it is taken for.
    pub state: NodeState,
    /// A standby that reads may go to.
    pub eligible: bool,
    /// Where it is: a primary's insert position, a standby's replay position. `None` if its timeline is not known.
    pub position: Option<Position>,
    /// A standby's receive position.
    pub received: Option<Lsn>,
    /// WAL that it has not replayed.
    pub lag_bytes: Option<u64>,
    /// Bound on the age of its data, as of the newest sample of the primary.
    pub lag: Option<Duration>,
    /// The best guess at it.
    pub lag_estimate: Option<Duration>,
    /// Replay is paused.
    pub paused: bool,
    /// When the last answered question was sent.
    pub seen: Option<Instant>,
}

/// The cluster as judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Number of the view.
    pub epoch: u64,
    /// The nodes, in the order of the configuration.
    pub nodes: Box<[NodeView]>,
    /// The primary's place among them.
    pub primary: Option<usize>,
    /// The timeline of the last accepted primary.
    pub timeline: Option<Timeline>,
    /// Changes when another node becomes primary, the timeline changes, or WAL was lost: positions from before say
    /// nothing after.
    pub incarnation: u64,
    /// The newest samples of the primary, oldest first; at most [`View::SAMPLES`].
    pub samples: Box<[Sample]>,
    /// A node that has not answered for so long gets nothing.
    pub silence_after: Duration,
    /// What its standbys have in common; without it each of them is looked at.
    pub readable: Option<Readable>,
}

/// What all standbys that reads may go to have in common: most reads need not look at each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readable {
    /// Their places, a bit each.
    pub places: u64,
    /// All of them have answered lately, as seen up to this moment. Only where there are any.
    pub fresh_until: Option<Instant>,
    /// All of them have replayed so much, on this timeline, if it is one and the same.
    pub position: Option<Position>,
}

impl Readable {
    /// That of these nodes; nothing if one of them has never answered.
    pub fn of(nodes: &[NodeView], silence_after: Duration) -> Option<Readable> {
        let mut all = Readable {
            places: 0,
            fresh_until: None,
            position: None,
        };
        for (place, node) in nodes.iter().enumerate().filter(|(_, node)| node.eligible) {
            let until = node.seen?.checked_add(silence_after)?;
            let is_first = all.places == 0;
            all.places |= 1 << place;
            all.fresh_until = Some(all.fresh_until.map_or(until, |least| least.min(until)));
            all.position = match (all.position, node.position) {
                (_, at) if is_first => at,
                (Some(least), Some(at)) if least.timeline == at.timeline => Some(Position {
                    lsn: least.lsn.min(at.lsn),
                    ..at
                }),
                _ => None,
            };
        }
        Some(all)
    }
}

impl View {
    /// Samples that a view carries: 3 seconds at 20 a second.
    pub const SAMPLES: usize = 64;

    /// Before anything is known.
    pub fn empty(nodes: usize) -> View {
        let node = NodeView {
            state: NodeState::Unknown,
            eligible: false,
            position: None,
            received: None,
            lag_bytes: None,
            lag: None,
            lag_estimate: None,
            paused: false,
            seen: None,
        };
        View {
            epoch: 0,
            nodes: vec![node; nodes].into(),
            primary: None,
            timeline: None,
            incarnation: 0,
            samples: Box::default(),
            silence_after: Duration::MAX,
            readable: None,
        }
    }

    /// Whether a node has answered lately, by the caller's clock. Holds even if the monitor itself is stuck.
    pub fn is_fresh(&self, node: usize, now: Instant) -> bool {
        // Added, not subtracted: each node is asked this for each read, and a difference of times is dearer than a sum.
        self.nodes[node].seen.is_some_and(|seen| {
            seen.checked_add(self.silence_after)
                .is_none_or(|until| now <= until)
        })
    }
}
