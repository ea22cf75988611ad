//! From observations to views: who is primary, which standbys may be read, and what changed.
//!
//! ```text
//!   Unknown ──▶ Starting ──▶ Standby
//!                    │          │ not in recovery any more
//!                    └────▶ Writable ──accepted──▶ Primary
//!                               │
//!                               └─ older timeline ─▶ Fenced        any ── silence ──▶ Down
//!                                                                  any ── foreign ──▶ Quarantined
//! ```
//!
//! `pg_is_in_recovery() = false` is necessary for a primary and never enough: an old primary that comes back says the
//! same. Timelines order the claims, because every promotion begins a new one (routing.md §5.4). Where they do not
//! decide, there is no primary: pgweir does not guess.

use std::fmt;
use std::time::{Duration, Instant};

use super::{
    Answer, Lag, Lsn, NodeState, NodeView, Observation, Position, Readable, Ring, Sample, Silence,
    Timeline, View,
};

/// What the judge is told by the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Standbys whose lag is above this are not read.
    pub max_lag: Duration,
    /// A node that has not answered for so long is down.
    pub silence_after: Duration,
}

/// Something that an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node is another thing than before.
    State {
        /// The node.
        node: usize,
        /// What it was.
        from: NodeState,
        /// What it is.
        to: NodeState,
    },
    /// Writes go to this node now.
    PrimaryAccepted {
        /// The node.
        node: usize,
        /// Its timeline.
        timeline: Timeline,
    },
    /// Writes go nowhere.
    PrimaryLost {
        /// The node that was primary.
        node: usize,
    },
    /// Several nodes claim to be primary and nothing orders them.
    Split {
        /// The nodes.
        nodes: Vec<usize>,
    },
    /// Reads no longer go to this standby.
    Excluded {
        /// The node.
        node: usize,
        /// Its lag, if it is known.
        lag: Option<Duration>,
    },
    /// Reads go to this standby.
    Admitted {
        /// The node.
        node: usize,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::State { from, to, .. } => {
                write!(f, "node was {}, is {}", from.as_str(), to.as_str())
            }
            Event::PrimaryAccepted { timeline, .. } => {
                write!(f, "primary accepted on timeline {}", timeline.0)
            }
            Event::PrimaryLost { .. } => f.write_str("primary lost, no node takes writes"),
            Event::Split { .. } => {
                f.write_str("several nodes claim to be primary, none takes writes")
            }
            Event::Excluded { lag: Some(lag), .. } => {
                write!(f, "standby not read any more, lag {lag:?}")
            }
            Event::Excluded { lag: None, .. } => f.write_str("standby not read any more"),
            Event::Admitted { .. } => f.write_str("standby is read"),
        }
    }
}

/// What is remembered of one node.
#[derive(Clone, Debug, Default)]
struct Node {
    state: NodeState,
    answer: Option<Answer>,
    silence: Option<Silence>,
    seen: Option<Instant>,
    asked: bool,
    /// Answers in a row in which it was writable on the same timeline.
    claims: u32,
    /// Answers in a row with a lag above the bound, and well below it.
    over: u32,
    under: u32,
    eligible: bool,
    /// It has been eligible, or has been judged not to be, since it became a standby.
    judged: bool,
}

impl Node {
    /// Only what was asked of a node itself speaks against it: after a standstill of this process the last answers of
    /// all nodes are old, and the first that answers again must not cost the others their place.
    fn is_answering(&self, now: Instant, policy: Policy) -> bool {
        match self.silence {
            None => self.seen.is_some(),
            Some(Silence::TimedOut) => self
                .seen
                .is_some_and(|seen| now.saturating_duration_since(seen) <= policy.silence_after),
            Some(Silence::Gone | Silence::Starting | Silence::Rejected(_)) => false,
        }
    }

    /// The timeline that it claims to write.
    fn claim(&self) -> Option<Timeline> {
        self.answer
            .as_ref()
            .filter(|answer| !answer.in_recovery)
            .and_then(|answer| answer.timeline)
    }
}

/// Answers in a row that a promoted node must give before it is accepted (routing.md §5.4, rule 2c).
const CLAIMS: u32 = 2;
/// Answers in a row with too much lag before a standby is no longer read; one is enough at twice the bound.
const OVER: u32 = 2;
/// Answers in a row below [`READMIT`] of the bound before it is read again.
const UNDER: u32 = 3;
const READMIT: f64 = 0.7;

/// Judges one cluster.
#[derive(Debug)]
pub struct Judge {
    nodes: Vec<Node>,
    policy: Policy,
    started: Option<Instant>,
    system_id: Option<u64>,
    /// The last accepted primary and its timeline; they outlive its loss.
    accepted: Option<(usize, Timeline)>,
    /// The primary now.
    primary: Option<usize>,
    /// More than one timeline has been accepted.
    failed_over: bool,
    split: bool,
    ring: Ring,
    incarnation: u64,
    epoch: u64,
    /// The nodes as the next view shows them.
    shown: Box<[NodeView]>,
}

impl Judge {
    /// A judge of `nodes` nodes that knows nothing yet.
    pub fn new(nodes: usize, policy: Policy) -> Judge {
        Judge {
            nodes: vec![Node::default(); nodes],
            policy,
            started: None,
            system_id: None,
            accepted: None,
            primary: None,
            failed_over: false,
            split: false,
            ring: Ring::default(),
            incarnation: 0,
            epoch: 0,
            shown: View::empty(nodes).nodes,
        }
    }

    /// Takes one observation in, and says what it changed.
    pub fn observe(&mut self, observation: Observation) -> Vec<Event> {
        let Observation {
            node: index,
            sent,
            received: now,
            result,
        } = observation;
        self.started.get_or_insert(sent);
        self.epoch += 1;
        let node = &mut self.nodes[index];
        node.asked = true;
        match result {
            Ok(answer) => {
                let repeated = node.claim().is_some() && node.claim() == answer_claim(&answer);
                node.claims = if answer.in_recovery {
                    0
                } else if repeated {
                    node.claims + 1
                } else {
                    1
                };
                node.silence = None;
                node.seen = Some(sent);
                node.answer = Some(answer);
            }
            Err(silence) => {
                node.claims = 0;
                node.silence = Some(silence);
            }
        }
        let mut events = Vec::new();
        self.identify(now);
        self.elect(now, &mut events);
        self.sample(index, sent);
        self.name_states(now, &mut events);
        self.admit(index, &mut events);
        // The primary's position is what the lag of all is held against; whatever else changes for others is an event.
        if self.primary == Some(index) || !events.is_empty() {
            self.shown = self.node_views();
        } else {
            self.shown[index] = self.node_view(index);
        }
        events
    }

    /// Whether there is a primary, all other nodes are its standbys, and all of them answer.
    pub fn is_settled(&self) -> bool {
        let is_well = |node: &Node| {
            node.silence.is_none() && matches!(node.state, NodeState::Primary | NodeState::Standby)
        };
        self.primary.is_some() && self.nodes.iter().all(is_well)
    }

    /// The first answers fix which cluster this is: what most nodes say, and of equals the first in the configuration. A
    /// node of another cluster behind one of the addresses never becomes anything.
    fn identify(&mut self, now: Instant) {
        if self.system_id.is_some() || !self.everybody_was_asked(now) {
            return;
        }
        let ids = || {
            self.nodes
                .iter()
                .filter_map(|node| node.answer.as_ref())
                .map(|answer| answer.system_id)
        };
        let votes = |id: u64| ids().filter(|other| *other == id).count();
        // max_by_key takes the last of equals.
        self.system_id = ids()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .max_by_key(|id| votes(*id));
    }

    fn is_foreign(&self, node: usize) -> bool {
        let id = self.nodes[node]
            .answer
            .as_ref()
            .map(|answer| answer.system_id);
        self.system_id.is_some() && id.is_some() && id != self.system_id
    }

    // ── the primary ──────────────────────────────────────────────────────────────────────────────────────────────

    fn elect(&mut self, now: Instant, events: &mut Vec<Event>) {
        let claimants: Vec<(usize, Timeline)> = (0..self.nodes.len())
            .filter(|node| {
                !self.is_foreign(*node) && self.nodes[*node].is_answering(now, self.policy)
            })
            .filter_map(|node| Some((node, self.nodes[node].claim()?)))
            .collect();
        let elected = match self.accepted {
            Some((primary, timeline)) => self.successor(primary, timeline, &claimants),
            None if self.everybody_was_asked(now) => strictly_highest(&claimants),
            None => Elected::Nobody,
        };
        self.settle(elected, &claimants, events);
    }

    /// routing.md §5.4, rules 1 to 5. The first claim of a newer timeline stops writes to the old primary, which would be
    /// lost; the second makes the claimant primary.
    fn successor(
        &self,
        primary: usize,
        timeline: Timeline,
        claimants: &[(usize, Timeline)],
    ) -> Elected {
        let newer: Vec<_> = claimants
            .iter()
            .copied()
            .filter(|(_, claim)| *claim > timeline)
            .collect();
        if !newer.is_empty() {
            return match strictly_highest(&newer) {
                Elected::Node(node, _) if self.nodes[node].claims < CLAIMS => Elected::Nobody,
                elected => elected,
            };
        }
        if claimants
            .iter()
            .any(|(node, claim)| *claim == timeline && *node != primary)
        {
            return Elected::Split;
        }
        self.incumbent(primary, timeline, claimants)
    }

    fn incumbent(
        &self,
        primary: usize,
        timeline: Timeline,
        claimants: &[(usize, Timeline)],
    ) -> Elected {
        if claimants.contains(&(primary, timeline)) {
            Elected::Node(primary, timeline)
        } else {
            Elected::Nobody
        }
    }

    /// Before the first primary is accepted every node gets the chance to contradict.
    fn everybody_was_asked(&self, now: Instant) -> bool {
        let waited = self
            .started
            .is_some_and(|at| now.saturating_duration_since(at) > self.policy.silence_after);
        waited || self.nodes.iter().all(|node| node.asked)
    }

    fn settle(
        &mut self,
        elected: Elected,
        claimants: &[(usize, Timeline)],
        events: &mut Vec<Event>,
    ) {
        let split = matches!(elected, Elected::Split);
        if split && !self.split {
            events.push(Event::Split {
                nodes: claimants.iter().map(|(node, _)| *node).collect(),
            });
        }
        self.split = split;
        match elected {
            Elected::Node(node, timeline) => {
                if self.accepted != Some((node, timeline)) {
                    self.failed_over |= self.accepted.is_some_and(|(_, before)| before != timeline);
                    self.accepted = Some((node, timeline));
                    self.incarnation += 1;
                    self.ring.clear();
                }
                if self.primary.replace(node) != Some(node) {
                    events.push(Event::PrimaryAccepted { node, timeline });
                }
            }
            Elected::Nobody | Elected::Split => {
                if let Some(node) = self.primary.take() {
                    events.push(Event::PrimaryLost { node });
                }
            }
        }
    }

    /// Notes the primary's position. A position that goes back is WAL that a crash has lost.
    fn sample(&mut self, index: usize, sent: Instant) {
        if self.primary != Some(index) || self.nodes[index].seen != Some(sent) {
            return;
        }
        let Some(insert) = self.nodes[index]
            .answer
            .as_ref()
            .and_then(|answer| answer.insert)
        else {
            return;
        };
        if self
            .ring
            .newest()
            .is_some_and(|(_, newest)| insert < newest)
        {
            self.incarnation += 1;
            self.ring.clear();
        }
        self.ring.push(sent, insert);
    }

    // ── the nodes ────────────────────────────────────────────────────────────────────────────────────────────────

    fn name_states(&mut self, now: Instant, events: &mut Vec<Event>) {
        for index in 0..self.nodes.len() {
            let to = self.state(index, now);
            let node = &mut self.nodes[index];
            let from = std::mem::replace(&mut node.state, to);
            if from != to {
                node.over = 0;
                node.under = 0;
                node.judged = false;
                events.push(Event::State {
                    node: index,
                    from,
                    to,
                });
            }
            if to != NodeState::Standby && std::mem::take(&mut node.eligible) {
                events.push(Event::Excluded {
                    node: index,
                    lag: None,
                });
            }
        }
    }

    fn state(&self, index: usize, now: Instant) -> NodeState {
        let node = &self.nodes[index];
        if node.silence == Some(Silence::Starting) {
            return NodeState::Starting;
        }
        if !node.is_answering(now, self.policy) {
            return if node.asked {
                NodeState::Down
            } else {
                NodeState::Unknown
            };
        }
        if self.is_foreign(index) {
            return NodeState::Quarantined;
        }
        match (node.claim(), self.accepted) {
            (None, _) => NodeState::Standby,
            (Some(_), _) if self.primary == Some(index) => NodeState::Primary,
            (Some(claim), Some((_, timeline))) if claim < timeline => NodeState::Fenced,
            (Some(_), _) => NodeState::Writable,
        }
    }

    /// The timeline of a standby as far as it can be known.
    fn standby_timeline(&self, answer: &Answer) -> Option<Timeline> {
        let (_, accepted) = self.accepted?;
        // A monitor user without rights sees none; as long as there has been one timeline only, it is that one.
        answer
            .timeline
            .or_else(|| (!self.failed_over).then_some(accepted))
    }

    /// A standby that has just answered: may it be read? With hysteresis, so that it does not flap at the bound.
    fn admit(&mut self, index: usize, events: &mut Vec<Event>) {
        if self.nodes[index].state != NodeState::Standby || self.nodes[index].silence.is_some() {
            return;
        }
        let lag = self.lag(index).map(|lag| lag.bound);
        let max = self.policy.max_lag;
        let node = &mut self.nodes[index];
        let was = node.eligible;
        match lag {
            None => {
                node.eligible = false;
                node.under = 0;
            }
            Some(lag) if lag > max => {
                node.over += 1;
                node.under = 0;
                node.judged = true;
                if node.over >= OVER || lag > max.saturating_mul(2) {
                    node.eligible = false;
                }
            }
            Some(lag) => {
                node.over = 0;
                node.under = if lag.as_secs_f64() <= max.as_secs_f64() * READMIT {
                    node.under + 1
                } else {
                    0
                };
                node.eligible |= !node.judged || node.under >= UNDER;
                node.judged = true;
            }
        }
        match (was, node.eligible) {
            (true, false) => events.push(Event::Excluded { node: index, lag }),
            (false, true) => events.push(Event::Admitted { node: index }),
            _ => {}
        }
    }

    /// A standby's lag, if it follows the accepted timeline and has replayed a sample of it.
    fn lag(&self, index: usize) -> Option<Lag> {
        let answer = self.nodes[index].answer.as_ref()?;
        let (_, accepted) = self.accepted?;
        if self.standby_timeline(answer) != Some(accepted) {
            return None;
        }
        self.ring.lag(answer.replay?)
    }

    // ── the view ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// The picture as of now.
    pub fn view(&self) -> View {
        let samples = self.accepted.map_or_else(Vec::new, |(_, timeline)| {
            self.ring
                .last(View::SAMPLES)
                .map(|(sent, lsn)| Sample {
                    sent,
                    position: Position { timeline, lsn },
                })
                .collect()
        });
        debug_assert_eq!(self.shown, self.node_views());
        let nodes = self.shown.clone();
        View {
            epoch: self.epoch,
            readable: Readable::of(&nodes, self.policy.silence_after),
            nodes,
            primary: self.primary,
            timeline: self.accepted.map(|(_, timeline)| timeline),
            incarnation: self.incarnation,
            samples: samples.into(),
            silence_after: self.policy.silence_after,
        }
    }

    fn node_views(&self) -> Box<[NodeView]> {
        (0..self.nodes.len())
            .map(|index| self.node_view(index))
            .collect()
    }

    fn node_view(&self, index: usize) -> NodeView {
        let node = &self.nodes[index];
        let answer = node.answer.as_ref();
        let standby = node.state == NodeState::Standby;
        let lsn = answer.and_then(|answer| {
            if answer.in_recovery {
                answer.replay
            } else {
                answer.insert
            }
        });
        let timeline = answer.and_then(|answer| match answer.in_recovery {
            true => self.standby_timeline(answer),
            false => answer.timeline,
        });
        let lag = if standby { self.lag(index) } else { None };
        let newest = self.ring.newest().map(|(_, lsn)| lsn);
        NodeView {
            state: node.state,
            eligible: node.eligible,
            position: lsn
                .zip(timeline)
                .map(|(lsn, timeline)| Position { timeline, lsn }),
            received: answer.and_then(|answer| answer.receive),
            lag_bytes: newest
                .zip(lsn)
                .filter(|_| standby)
                .map(|(newest, lsn)| Lsn::bytes_since(newest, lsn)),
            lag: lag.map(|lag| lag.bound),
            lag_estimate: lag.map(|lag| lag.estimate),
            paused: answer.is_some_and(|answer| answer.paused),
            seen: node.seen,
        }
    }
}

enum Elected {
    Nobody,
    Node(usize, Timeline),
    Split,
}

fn answer_claim(answer: &Answer) -> Option<Timeline> {
    if answer.in_recovery {
        None
    } else {
        answer.timeline
    }
}

/// The claimant on the highest timeline, if it is alone there.
fn strictly_highest(claimants: &[(usize, Timeline)]) -> Elected {
    let Some(highest) = claimants.iter().map(|(_, claim)| *claim).max() else {
        return Elected::Nobody;
    };
    let mut best = claimants.iter().filter(|(_, claim)| *claim == highest);
    match (best.next(), best.next()) {
        (Some((node, timeline)), None) => Elected::Node(*node, *timeline),
        _ => Elected::Split,
    }
}
