//! `docs/metrics.md`, from the table of series.

use std::fmt::Write;

use super::series::{SERIES, Series};

/// The text of `docs/metrics.md`: every series of [`SERIES`] with kind, labels and meaning.
pub fn reference() -> String {
    let mut text = String::from(HEAD);
    for (title, prefixes) in SECTIONS {
        section(&mut text, title, prefixes);
    }
    text.push_str(TAIL);
    text
}

fn section(text: &mut String, title: &str, prefixes: &[&str]) {
    write!(
        text,
        "\n## {title}\n\n| series | kind | labels | meaning |\n|---|---|---|---|\n"
    )
    .expect(INFALLIBLE);
    for row in SERIES.iter().filter(|row| belongs(row, prefixes)) {
        let labels: Vec<String> = row
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let (name, kind, labels) = (row.name, row.kind.as_str(), labels.join(" "));
        writeln!(text, "| `{name}` | {kind} | {labels} | {} |", row.help).expect(INFALLIBLE);
    }
}

fn belongs(row: &Series, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| row.name.starts_with(prefix))
}

const INFALLIBLE: &str = "writing to a String cannot fail";

/// The sections, and how the names of their series begin. Every series belongs to exactly one.
const SECTIONS: &[(&str, &[&str])] = &[
    ("Nodes and clusters", &["pgweir_node_", "pgweir_primary_"]),
    (
        "Routing",
        &[
            "pgweir_routed_",
            "pgweir_would_",
            "pgweir_hints_",
            "pgweir_standby_",
            "pgweir_transactions_",
            "pgweir_bounces_",
            "pgweir_learned_",
            "pgweir_pins_",
        ],
    ),
    ("Pools", &["pgweir_pool_"]),
    (
        "Clients",
        &[
            "pgweir_client",
            "pgweir_cancel_",
            "pgweir_timeouts_",
            "pgweir_errors_",
        ],
    ),
    (
        "Statements",
        &[
            "pgweir_prepared_",
            "pgweir_stale_",
            "pgweir_classifier_",
            "pgweir_catalog_",
        ],
    ),
    ("Process", &["pgweir_build_", "pgweir_reload", "process_"]),
];

const HEAD: &str = "\
# Metrics

<!-- Generated from src/metrics/series.rs. To write it anew: PGWEIR_REGENERATE=1 cargo test --lib reference -->

pgweir serves these series at `/metrics` of the address `admin.http` in proxy.toml, in Prometheus' text format
0.0.4. Names and labels change only with a note in the changelog.

- Times are in seconds, sizes in bytes.
- Counters start at 0 when the process starts; ask for `rate(…)`, not for the value.
- A value that is not known is absent, never 0: a standby that does not answer has no lag. Alert with `absent(…)`
  or on `pgweir_node_up`.
- Every label has a bounded set of values. Values outside it are counted under `other`. At most 1000 pools are shown
  one by one; the rest are added up with `…other` in each label.
- The series of nodes, clusters, pools and statements are read when Prometheus asks.
";

const TAIL: &str = "
## Worth an alert

| expression | says |
|---|---|
| `pgweir_primary_known == 0` | writes have nowhere to go |
| `pgweir_node_up == 0` | a node does not answer |
| `increase(pgweir_bounces_total{reason=\"read_only\"}[1h]) > 0` | a standby has refused a write, which ran on the primary: the log names the function if the server did; see README, Not promised; if it is none of those, please report it |
| `rate(pgweir_bounces_total{reason=\"conflict\"}[5m]) > 1` | recovery conflicts with reads: see `max_standby_streaming_delay` and `hot_standby_feedback` |
| `pgweir_node_role{role=\"standby\"} == 1 unless on(cluster, node) pgweir_node_eligible == 1` | a standby gets no reads |
| `max by (cluster) (pgweir_primary_sample_age_seconds) > 5` | lag is measured against an old position |
| `rate(pgweir_pool_checkout_timeouts_total[5m]) > 0` | clients give up waiting for a server connection |
| `rate(pgweir_timeouts_total{timeout=\"connect\"}[5m]) > 0` | a node is reached too slowly, or not at all |
| `rate(pgweir_cancel_requests_total{result=\"unknown\"}[5m]) > 1` | somebody guesses cancel keys, or `[peering]` lacks a process |
| `increase(pgweir_reload_failures_total[15m]) > 0` | somebody has changed the configuration, and it has faults: the old one holds; see the log, or `pgweir check` |
| `pgweir_pool_waiting > 0` for minutes | a pool is too small, or its statements are too slow |
| `process_open_fds / process_max_fds > 0.8` | connections will soon be refused for want of descriptors |
";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_on_disk_is_the_one_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        if std::env::var_os("PGWEIR_REGENERATE").is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == reference(),
            "docs/metrics.md differs from SERIES; write it anew with \
             `PGWEIR_REGENERATE=1 cargo test --lib reference`"
        );
    }

    #[test]
    fn every_series_has_one_section() {
        for row in SERIES {
            let sections = SECTIONS
                .iter()
                .filter(|(_, prefixes)| belongs(row, prefixes))
                .count();
            assert_eq!(sections, 1, "{}", row.name);
        }
    }

    /// An alert on a series that does not exist never fires.
    #[test]
    fn the_alerts_name_series_that_exist() {
        let words = TAIL.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names = words.filter(|w| w.starts_with("pgweir_") || w.starts_with("process_"));
        for name in names {
            assert!(SERIES.iter().any(|row| row.name == name), "{name}");
        }
    }
}
