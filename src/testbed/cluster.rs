//! A primary and its standbys: how they are made, and what concerns all of them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::node::{Node, STANDBY_SETTINGS, SUPERUSER};
use super::site::Site;
use super::wait::wait_for;
use super::{Error, lsn};

/// What a cluster shall be like. Made by [`Cluster::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    standbys: usize,
    synchronous: bool,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
}

impl Builder {
    /// How many standbys, 0 to 8. None at first.
    #[must_use]
    pub fn standbys(mut self, count: usize) -> Self {
        self.standbys = count;
        self
    }

    /// Whether a commit waits until one standby, whichever, has the WAL (`synchronous_standby_names` is
    /// `ANY 1 (*)`). It is so on every node, and so on a promoted one too, whose commits then wait for a
    /// standby of its own.
    #[must_use]
    pub fn synchronous(mut self, yes: bool) -> Self {
        self.synchronous = yes;
        self
    }

    /// A setting of every server, in place of the default or of the test bed's choice.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A line of `pg_hba.conf`, before those that trust everybody; the first line that fits a connection
    /// decides. Example: `host all app 127.0.0.1/32 scram-sha-256`.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// Makes the cluster and starts it; all standbys are streaming when it returns.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] and [`Error::NoAccount`] when the machine is not fit for it,
    /// [`Error::Program`] and [`Error::Start`] when PostgreSQL refuses, as for a wrong setting.
    pub fn start(self) -> Result<Cluster, Error> {
        if self.standbys > MAX_STANDBYS {
            let text = format!(
                "{} standbys; the test bed makes up to {MAX_STANDBYS}",
                self.standbys
            );
            return Err(Error::BadRequest(text));
        }
        let cluster = Cluster::lay_out(self.standbys)?;
        cluster.make_primary(&self)?;
        cluster.make_standbys()?;
        cluster.wait_streaming(self.standbys)?;
        Ok(cluster)
    }

    /// What follows the defaults in `postgresql.conf`; of two lines for one setting the later one counts.
    fn configuration(&self) -> String {
        let names = if self.synchronous { "ANY 1 (*)" } else { "" };
        let ours = SETTINGS
            .iter()
            .copied()
            .chain([("synchronous_standby_names", names)]);
        let theirs = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let mut text = String::new();
        for (name, value) in ours.chain(theirs) {
            let value = value.replace('\\', r"\\").replace('\'', "''");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} = '{value}'");
        }
        text + &format!("include_if_exists = '{STANDBY_SETTINGS}'\n")
    }

    fn host_based_authentication(&self) -> String {
        let lines = HBA_FIRST
            .iter()
            .copied()
            .chain(self.hba.iter().map(String::as_str));
        lines
            .chain(HBA_LAST.iter().copied())
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

/// A running cluster. Dropping it ends the servers at once and removes all their files.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    site: Arc<Site>,
}

impl Cluster {
    /// The description of a cluster, to be changed and then [started](Builder::start).
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The node promoted last; the first node while none was.
    pub fn primary(&self) -> &Node {
        let latest = self
            .nodes
            .iter()
            .max_by_key(|node| node.promotion.load(Ordering::Relaxed));
        latest.expect("lay_out makes a first node")
    }

    /// All nodes but [`primary`](Self::primary), in the order of their names; a former primary among them.
    pub fn standbys(&self) -> Vec<&Node> {
        let primary = self.primary();
        self.nodes
            .iter()
            .filter(|node| node.name() != primary.name())
            .collect()
    }

    /// All nodes: the one made as primary, then those made as standbys.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The directory of the cluster, of the servers' Unix sockets too.
    pub fn dir(&self) -> &Path {
        &self.site.dir
    }

    /// PostgreSQL's major version, such as 15.
    pub fn major_version(&self) -> u32 {
        self.site.install.major
    }

    /// Waits up to 30 seconds until every running standby has replayed what the primary has written by
    /// now.
    ///
    /// # Errors
    /// [`Error::Timeout`], as when replay is paused; [`Error::Server`] and [`Error::Socket`] when a node
    /// cannot be asked.
    pub fn wait_caught_up(&self) -> Result<(), Error> {
        let insert = self.primary().value("SELECT pg_current_wal_insert_lsn()")?;
        let target = lsn::replay_target(&insert)?;
        for standby in self.standbys() {
            if standby.is_running()? {
                let what = format!("replay of {insert}");
                standby.wait_for(|node| node.has_replayed(target), CATCH_UP_LIMIT, &what)?;
            }
        }
        Ok(())
    }

    /// Waits up to 30 seconds until so many standbys are streaming from the primary.
    ///
    /// # Errors
    /// As for [`wait_caught_up`](Self::wait_caught_up).
    pub fn wait_streaming(&self, count: usize) -> Result<(), Error> {
        let streaming = || Ok(self.primary().value(STREAMING)? == count.to_string());
        wait_for(
            streaming,
            CATCH_UP_LIMIT,
            &format!("{count} standbys to stream"),
        )
    }

    /// Makes the directories and chooses the ports. From here on `Drop` cleans up.
    fn lay_out(standbys: usize) -> Result<Self, Error> {
        let site = Arc::new(Site::open()?);
        let names = (1..=standbys).map(|number| format!("standby{number}"));
        let nodes = std::iter::once("primary".to_owned())
            .chain(names)
            .map(|name| Node::new(&site, &name))
            .collect::<Result<Vec<_>, _>>()?;
        // All are held until all are chosen, so that no two nodes get the same.
        let _held = nodes
            .iter()
            .map(Node::choose_port)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { nodes, site })
    }

    fn make_primary(&self, builder: &Builder) -> Result<(), Error> {
        let node = &self.nodes[0];
        let (data, user) = (node.data_text(), format!("--username={SUPERUSER}"));
        let mut arguments = vec!["-D", &data, &user];
        arguments.extend(INITDB);
        if self.site.install.major >= 18 {
            arguments.push("--no-data-checksums");
        }
        self.site.run("initdb", node.dir(), &arguments)?;
        let file = |name| node.data_dir().join(name);
        let defaults = std::fs::read_to_string(file("postgresql.conf"))
            .map_err(Error::file("read", &file("postgresql.conf")))?;
        self.site.write(
            &file("postgresql.conf"),
            &(defaults + &builder.configuration()),
        )?;
        self.site
            .write(&file("pg_hba.conf"), &builder.host_based_authentication())?;
        node.start()?;
        node.note_promotion();
        Ok(())
    }

    /// All at once: a base backup is mostly waiting.
    fn make_standbys(&self) -> Result<(), Error> {
        let (primary, standbys) = self
            .nodes
            .split_first()
            .expect("lay_out makes a first node");
        thread::scope(|scope| {
            let make = |node| scope.spawn(move || self.make_standby(node, primary));
            let making: Vec<_> = standbys.iter().map(make).collect();
            making
                .into_iter()
                .try_for_each(|one| one.join().expect("make_standby does not panic"))
        })
    }

    fn make_standby(&self, node: &Node, primary: &Node) -> Result<(), Error> {
        let source = format!("--dbname={}", primary.conninfo());
        let data = node.data_text();
        let slot = ["--create-slot", "--slot", node.name()];
        let how = ["--checkpoint=fast", "--wal-method=stream", "--no-sync"];
        let arguments = [&["-D", &data, &source][..], &slot, &how].concat();
        self.site.run("pg_basebackup", node.dir(), &arguments)?;
        node.point_at(primary)?;
        node.start()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        thread::scope(|scope| {
            for node in &self.nodes {
                scope.spawn(|| node.end());
            }
        });
    }
}

const MAX_STANDBYS: usize = 8;
const CATCH_UP_LIMIT: Duration = Duration::from_secs(30);

const STREAMING: &str = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE \
     ANY (ARRAY['standby%', 'primary'])";

const INITDB: [&str; 5] = [
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--no-sync",
    "--no-instructions",
];

/// Chosen for a start and a replication that take no longer than they must, and for servers that are
/// thrown away: nothing is flushed to disk.
const SETTINGS: [(&str, &str); 19] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "16MB"),
    ("fsync", "off"),
    ("wal_level", "replica"),
    ("hot_standby_feedback", "off"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    // For pg_rewind; without checksums it needs the hints in the WAL.
    ("wal_log_hints", "on"),
    ("wal_keep_size", "128MB"),
    ("wal_receiver_status_interval", "1s"),
    // How soon a standby tries again after its upstream was away; five seconds by default.
    ("wal_retrieve_retry_interval", "100ms"),
    // A POSIX segment of a killed server stays until the machine restarts; this one is in its directory.
    ("dynamic_shared_memory_type", "mmap"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %a "),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("datestyle", "ISO, MDY"),
];

/// What the test bed itself needs, whatever a test forbids.
const HBA_FIRST: [&str; 2] = [
    "local all postgres trust",
    "local replication postgres trust",
];
const HBA_LAST: [&str; 4] = [
    "local all all trust",
    "host all all 127.0.0.1/32 trust",
    "local replication all trust",
    "host replication all 127.0.0.1/32 trust",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_caller_come_last_and_are_quoted() {
        let text = Cluster::builder()
            .setting("work_mem", "1MB")
            .setting("a.b", r"it's \n")
            .configuration();
        let end = "work_mem = '1MB'\na.b = 'it''s \\\\n'\ninclude_if_exists = 'standby.conf'\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn lines_of_the_caller_come_before_those_that_trust() {
        let text = Cluster::builder()
            .hba("host all app 127.0.0.1/32 reject")
            .host_based_authentication();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[2], "host all app 127.0.0.1/32 reject");
        assert_eq!((lines.len(), lines[0]), (7, "local all postgres trust"));
    }

    #[test]
    fn more_standbys_than_the_bound_are_refused() {
        let error = Cluster::builder().standbys(9).start().unwrap_err();
        assert_eq!(error.to_string(), "9 standbys; the test bed makes up to 8");
    }
}
