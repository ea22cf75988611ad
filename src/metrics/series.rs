//! The table of every series, and how a row of it becomes a metric.

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

/// What a series is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows; starts at zero with the process.
    Counter,
    /// A value now, up or down.
    Gauge,
    /// Counts by size, in cumulative buckets, with a sum.
    Histogram,
}

impl Kind {
    /// The word of the text format's `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One row of [`SERIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// Full name. Seconds and bytes are spelled out; `_total` stands on counters and nowhere else.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Names of its labels, in the order in which their values are given.
    pub labels: &'static [&'static str],
    /// The text of the `# HELP` line, without a line break.
    pub help: &'static str,
}

impl Series {
    pub(super) fn counters(&self) -> IntCounterVec {
        IntCounterVec::new(self.opts(), self.labels).expect(VALID)
    }

    pub(super) fn gauges(&self) -> GaugeVec {
        GaugeVec::new(self.opts(), self.labels).expect(VALID)
    }

    pub(super) fn int_gauges(&self) -> IntGaugeVec {
        IntGaugeVec::new(self.opts(), self.labels).expect(VALID)
    }

    pub(super) fn histograms(&self, buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::from(self.opts()).buckets(buckets.to_vec());
        HistogramVec::new(opts, self.labels).expect(VALID)
    }

    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }
}

/// Why a row always becomes a metric.
const VALID: &str = "SERIES holds valid names (test: every_row_keeps_the_conventions)";

/// Declares each row once, as a constant for registration and as an element of [`SERIES`].
macro_rules! series {
    ($($row:ident $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            pub(super) const $row: Series = Series {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// Every series that pgweir exports, in the order of the documentation.
        pub const SERIES: &[Series] = &[$($row),*];
    };
}

series! {
    BUILD_INFO Gauge "pgweir_build_info" ["version"]
        "Always 1; the label holds the version that runs.";

    NODE_UP Gauge "pgweir_node_up" ["cluster" "node"]
        "1 if the node answered its last probe.";
    NODE_ROLE Gauge "pgweir_node_role" ["cluster" "node" "role"]
        "1 for the role that the node is judged to have, 0 for every other role.";
    NODE_ELIGIBLE Gauge "pgweir_node_eligible" ["cluster" "node"]
        "1 if the node may be given reads as a standby: up, on the right timeline, within max_lag.";
    NODE_TIMELINE Gauge "pgweir_node_timeline" ["cluster" "node"]
        "Timeline that the node is on; absent while unknown.";
    NODE_REPLAY_LAG_BYTES Gauge "pgweir_node_replay_lag_bytes" ["cluster" "node"]
        "WAL of the primary that the standby has not yet replayed; absent while unknown.";
    NODE_REPLAY_LAG_SECONDS Gauge "pgweir_node_replay_lag_seconds" ["cluster" "node"]
        "Upper bound of how old the standby's data are, the value that max_lag is held against; \
         absent while unknown.";
    NODE_REPLAY_LAG_ESTIMATE_SECONDS Gauge
        "pgweir_node_replay_lag_estimate_seconds" ["cluster" "node"]
        "Best guess of how old the standby's data are, for display only; absent while unknown.";
    NODE_SAMPLE_AGE_SECONDS Gauge "pgweir_node_sample_age_seconds" ["cluster" "node"]
        "Time since the last answer of the node to a probe; absent before the first one.";
    NODE_OUTSTANDING_REQUESTS Gauge "pgweir_node_outstanding_requests" ["cluster" "node"]
        "Requests that the node has been given and has not yet answered.";
    NODE_STATEMENTS_TOTAL Counter "pgweir_node_statements_total" ["cluster" "node" "role"]
        "Statements given to the node, by the role that it was chosen for.";
    NODE_STATE_CHANGES_TOTAL Counter "pgweir_node_state_changes_total" ["cluster" "node"]
        "Changes of the state that the node is judged to be in.";
    NODE_PROBE_FAILURES_TOTAL Counter
        "pgweir_node_probe_failures_total" ["cluster" "node" "reason"]
        "Probes that the node did not answer, by reason.";

    PRIMARY_KNOWN Gauge "pgweir_primary_known" ["cluster"]
        "1 if the cluster has an accepted primary, so that writes have somewhere to go.";
    PRIMARY_SAMPLE_AGE_SECONDS Gauge "pgweir_primary_sample_age_seconds" ["cluster"]
        "Time since the newest WAL position taken from the primary; replay lag is measured \
         against it. Absent before the first one.";

    ROUTED_STATEMENTS_TOTAL Counter "pgweir_routed_statements_total" ["target" "reason"]
        "Statements given to a node, by the role it was chosen for and why.";
    WOULD_HAVE_MOVED_TOTAL Counter "pgweir_would_have_moved_total" ["target" "reason"]
        "Statements that went to the primary because their route is observe, and would not have if it were split, by \
         where they would have gone and why. What stays has its reasons in pgweir_routed_statements_total.";
    HINTS_TOTAL Counter "pgweir_hints_total" ["result"]
        "Statements with a hint that was the first thing their place depended on, by what became of it: followed; \
         in_vain, because the statement must not go there or its listener decides; forbidden by the \
         configuration; malformed. Inside of a transaction nothing depends on hints.";
    STANDBY_REFUSALS_TOTAL Counter "pgweir_standby_refusals_total" []
        "Statements that a standby refused as writes (SQLSTATE 25006): a view, a policy or a \
         function with a built-in's name writes, or pgweir has misjudged a statement; please report that. Those \
         that then ran on the primary have pgweir_bounces_total, too.";
    TRANSACTIONS_MOVED_TOTAL Counter "pgweir_transactions_moved_total" []
        "READ ONLY transactions that began on a standby and went on on the primary, unseen.";
    TRANSACTIONS_REFUSED_TOTAL Counter "pgweir_transactions_refused_total" []
        "Statements refused inside of READ ONLY transactions on standbys, because they needed the primary and their \
         transaction could not move (SQLSTATE 25006), or because it had failed.";
    CATALOG_LOADS_TOTAL Counter "pgweir_catalog_loads_total" []
        "Times that a database's functions, views, types and operators were read from its primary.";
    CATALOG_LOAD_FAILURES_TOTAL Counter "pgweir_catalog_load_failures_total" []
        "Times that this failed: until it succeeds, what has a user's name is sent to the primary.";
    RELOADS_TOTAL Counter "pgweir_reloads_total" []
        "Times that the configuration was read again and applied.";
    RELOAD_FAILURES_TOTAL Counter "pgweir_reload_failures_total" []
        "Times that it could not be used, and what held before held on.";
    STALE_PLANS_TOTAL Counter "pgweir_stale_plans_total" []
        "Prepared statements whose plan a server refused as stale, and that were planned anew and run unseen.";
    BOUNCES_TOTAL Counter "pgweir_bounces_total" ["reason"]
        "Reads that a standby refused, or lost, before their clients saw anything, and that were run elsewhere unseen, by \
         reason: read_only (25006), unsupported (not during recovery), undefined (not replayed yet, or nowhere), conflict \
         (with recovery), shutdown, lost.";
    LEARNED_STATEMENTS Gauge "pgweir_learned_statements" []
        "Shapes of statements that were taken for reads, and that a standby has refused as writes: they go to the primary.";
    PINS_TOTAL Counter "pgweir_pins_total" ["reason"]
        "Sessions that had to keep their server connection after a transaction, by reason.";
    PINS_ENDED_TOTAL Counter "pgweir_pins_ended_total" ["reason"]
        "Of those, the ones that need it for this reason no more: it is gone, or the session is. The \
         difference is how many are pinned now.";

    POOL_CONNECTIONS Gauge "pgweir_pool_connections" ["cluster" "node" "database" "user" "state"]
        "Server connections of the pool: active ones serve a client, idle ones wait for one.";
    POOL_SIZE Gauge "pgweir_pool_size" ["cluster" "node" "database" "user"]
        "Most server connections that the pool may have.";
    POOL_WAITING Gauge "pgweir_pool_waiting" ["cluster" "node" "database" "user"]
        "Clients that wait for a server connection of the pool.";
    POOL_CHECKOUT_WAIT_SECONDS Histogram "pgweir_pool_checkout_wait_seconds" []
        "Time that a client waited for a server connection, over all pools.";
    POOL_CHECKOUT_TIMEOUTS_TOTAL Counter "pgweir_pool_checkout_timeouts_total" []
        "Checkouts given up because no server connection came before the deadline.";
    POOL_CONNECTS_TOTAL Counter "pgweir_pool_connects_total" ["cluster" "node" "result"]
        "Attempts to open a server connection for a pool, login included, by result (ok, failed).";
    POOL_EVICTIONS_TOTAL Counter "pgweir_pool_evictions_total" ["cluster" "node"]
        "Idle server connections closed to make room for those of another pool, under a bound that both share.";

    CLIENTS Gauge "pgweir_clients" []
        "Client connections now, those that are still logging in included.";
    CLIENT_CONNECTIONS_TOTAL Counter "pgweir_client_connections_total" []
        "Client connections accepted.";
    CLIENTS_REJECTED_TOTAL Counter "pgweir_clients_rejected_total" []
        "Client connections turned away because a limit was reached.";
    CLIENT_LOGINS_FAILED_TOTAL Counter "pgweir_client_logins_failed_total" ["reason"]
        "Client connections that did not get past login, by reason.";
    CLIENT_BYTES_TOTAL Counter "pgweir_client_bytes_total" ["direction"]
        "Bytes exchanged with clients: received from them, sent to them.";
    CANCEL_REQUESTS_TOTAL Counter "pgweir_cancel_requests_total" ["result"]
        "Cancel requests, by what became of them: sent to a node, for a client, a timeout or a client that has left; \
         forwarded to a peer; failed, if either did not take it in time; dropped, because too many were on their way to \
         that peer; unknown, because no session has the key.";
    TIMEOUTS_TOTAL Counter "pgweir_timeouts_total" ["timeout"]
        "Times that a bound of proxy.toml was reached, by its key in [timeouts], or that a session was idle for \
         its own idle_session_timeout: idle_session. The wait for a server connection has pgweir_pool_checkout_timeouts_total.";
    ERRORS_TOTAL Counter "pgweir_errors_total" ["sqlstate"]
        "Errors that pgweir itself sent to clients. Errors of PostgreSQL pass through uncounted.";

    PREPARED_STATEMENTS Gauge "pgweir_prepared_statements" []
        "Distinct prepared statements known, over all clients.";
    CLASSIFIER_CACHE_HITS_TOTAL Counter "pgweir_classifier_cache_hits_total" []
        "Statements whose class was remembered.";
    CLASSIFIER_CACHE_MISSES_TOTAL Counter "pgweir_classifier_cache_misses_total" []
        "Statements that had to be parsed to find their class.";

    PROCESS_CPU_SECONDS_TOTAL Counter "process_cpu_seconds_total" []
        "CPU time of the process, user and system, in whole seconds.";
    PROCESS_OPEN_FDS Gauge "process_open_fds" []
        "File descriptors open now.";
    PROCESS_MAX_FDS Gauge "process_max_fds" []
        "File descriptors that may be open; each client and each server connection needs one.";
    PROCESS_VIRTUAL_MEMORY_BYTES Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the process.";
    PROCESS_RESIDENT_MEMORY_BYTES Gauge "process_resident_memory_bytes" []
        "Resident memory of the process.";
    PROCESS_START_TIME_SECONDS Gauge "process_start_time_seconds" []
        "When the process started, in seconds since 1970-01-01 UTC.";
    PROCESS_THREADS Gauge "process_threads" []
        "Threads of the process.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Prometheus, "Metric and label naming": base units, `_total` on counters, snake case.
    #[test]
    fn every_row_keeps_the_conventions() {
        let mut seen = HashSet::new();
        for row in SERIES {
            check(row);
            assert!(seen.insert(row.name), "{} is listed twice", row.name);
        }
    }

    fn check(row: &Series) {
        let Series {
            name,
            kind,
            labels,
            help,
        } = *row;
        assert!(
            name.starts_with("pgweir_") || name.starts_with("process_"),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            kind == Kind::Counter,
            "{name}: _total means counter"
        );
        for word in name.split('_') {
            let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
            assert!(plain, "{name}: `{word}` is not a plain word");
            let derived = [
                "ms",
                "millis",
                "milliseconds",
                "kb",
                "kilobytes",
                "minutes",
                "percent",
            ];
            assert!(
                !derived.contains(&word),
                "{name}: `{word}` is not a base unit"
            );
        }
        for label in labels {
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase()),
                "{name}: label {label}"
            );
            assert!(
                !["le", "quantile", "job", "instance"].contains(label),
                "{name}: label {label}"
            );
        }
        assert!(
            help.ends_with('.') && !help.contains('\n') && !help.contains("  "),
            "{name}: help"
        );
    }
}
