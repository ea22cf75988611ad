//! What pgweir counts and measures, for Prometheus.
//!
//! [`SERIES`] is the one table of names: registration, `docs/metrics.md` (by [`reference()`]) and
//! the tests come from it. [`Metrics`] holds every series as a field, registered once in a registry of
//! its own.
//!
//! There are two kinds of series. *Counted* ones are fields that the rooms touch as things happen;
//! their label values are resolved when the process starts, so that the hot path pays one relaxed
//! atomic add. *Sampled* ones exist already as state elsewhere (the view of a cluster, the pools,
//! the caches); they are asked for when Prometheus asks, and cost nothing between scrapes.
//!
//! This room knows no other room, no clock and no socket: labels come in as text, numbers through
//! [`NodeSample`] and its sisters.

mod family;
mod reference;
mod registry;
mod sampled;
mod series;

pub use family::{Family, Grid};
pub use prometheus::{Histogram, IntCounter, IntGauge};
pub use reference::reference;
pub use registry::{Held, Labels, Metrics, NodeCounters};
pub use sampled::{CacheSample, ClusterSample, MAX_POOLS, NodeSample, PoolSample};
pub use series::{Kind, SERIES, Series};
