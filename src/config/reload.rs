//! A new configuration for a proxy that runs: what counts at once, and what from the next start.

use super::model::{Admin, Config, Limits, Timeouts};

/// Keys, and beginnings of keys, that count from the next start only: sockets, threads, the log, and what is known of
/// the clusters' nodes.
const FROM_THE_NEXT_START: &[&str] = &[
    "process.",
    "listener[]",
    "cluster.<name>",
    "admin.http",
    "admin.queries",
    "limits.pipeline_buffer",
    "limits.max_message",
    "timeouts.connect",
    "timeouts.cancel",
    "timeouts.shutdown",
    "timeouts.tcp_keepalive",
    "timeouts.tcp_user",
    "peering.",
    "log.",
];

/// Whether a key of the table counts from the next start only.
pub(super) fn counts_from_the_next_start(path: &str) -> bool {
    FROM_THE_NEXT_START.iter().any(|key| path.starts_with(key))
}

impl Config {
    /// What holds for a proxy that runs with this configuration when it is given a new one, and the keys of which the new
    /// one says something else that counts from the next start only, as in `cluster.main`. A database on a cluster that is
    /// not there yet is as it was before, or not there either.
    pub fn reloaded(&self, new: Config) -> (Config, Vec<String>) {
        let mut pending = Vec::new();
        let mut differs = |same: bool, key: &str| {
            if !same {
                pending.push(key.to_owned());
            }
        };
        let (limits, timeouts) = (&self.limits, &self.timeouts);
        differs(self.workers == new.workers, "process.workers");
        differs(self.listeners == new.listeners, "listener");
        let named = |config: &Config, name: &str| {
            let mut clusters = config.clusters.iter();
            clusters.find(|cluster| cluster.name == name).cloned()
        };
        let gone = self
            .clusters
            .iter()
            .filter(|old| named(&new, &old.name).is_none());
        for cluster in new.clusters.iter().chain(gone) {
            let same = named(self, &cluster.name) == named(&new, &cluster.name);
            differs(same, &format!("cluster.{}", cluster.name));
        }
        differs(self.admin.http == new.admin.http, "admin.http");
        differs(self.admin.queries == new.admin.queries, "admin.queries");
        let buffer = limits.pipeline_buffer == new.limits.pipeline_buffer;
        differs(buffer, "limits.pipeline_buffer");
        let message = limits.max_message == new.limits.max_message;
        differs(message, "limits.max_message");
        differs(timeouts.connect == new.timeouts.connect, "timeouts.connect");
        differs(timeouts.cancel == new.timeouts.cancel, "timeouts.cancel");
        let shutdown = timeouts.shutdown == new.timeouts.shutdown;
        differs(shutdown, "timeouts.shutdown");
        let keepalive = timeouts.tcp_keepalive == new.timeouts.tcp_keepalive;
        differs(keepalive, "timeouts.tcp_keepalive");
        let user = timeouts.tcp_user == new.timeouts.tcp_user;
        differs(user, "timeouts.tcp_user");
        differs(self.peering == new.peering, "peering");
        differs(self.log == new.log, "log");

        let mut databases = Vec::new();
        for database in new.databases {
            if named(self, &database.cluster).is_some() {
                databases.push(database);
                continue;
            }
            pending.push(format!("database.{}", database.name));
            let mut before = self.databases.iter();
            databases.extend(before.find(|old| old.name == database.name).cloned());
        }
        let config = Config {
            workers: self.workers,
            listeners: self.listeners.clone(),
            clusters: self.clusters.clone(),
            databases,
            users: new.users,
            auth: new.auth,
            admin: Admin {
                users: new.admin.users,
                ..self.admin.clone()
            },
            limits: Limits {
                max_clients: new.limits.max_clients,
                ..self.limits
            },
            timeouts: Timeouts {
                connect: self.timeouts.connect,
                cancel: self.timeouts.cancel,
                shutdown: self.timeouts.shutdown,
                tcp_keepalive: self.timeouts.tcp_keepalive,
                tcp_user: self.timeouts.tcp_user,
                ..new.timeouts
            },
            peering: self.peering.clone(),
            log: self.log,
        };
        (config, pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::config::keys::KEYS;

    struct Nothing;

    impl Sources for Nothing {
        fn read(&self, _: &str) -> Result<String, String> {
            Ok("\"alice\" \"secret\"\n".to_owned())
        }

        fn env(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn parse(text: &str) -> Config {
        Config::parse(text, "proxy.toml", &Nothing).unwrap_or_else(|faults| panic!("{faults}"))
    }

    const BEFORE: &str = "
        listener = [{ address = '127.0.0.1:6432' }]
        cluster.main.nodes = [{ address = '10.0.0.1:5432' }]
        database.app = { dbname = 'one' }
        database.old = {}
        auth.method = 'trust'
        ";

    #[test]
    fn a_configuration_that_is_the_same_leaves_nothing_to_wait_for() {
        let (config, pending) = parse(BEFORE).reloaded(parse(BEFORE));
        assert_eq!(pending, [""; 0]);
        assert_eq!(config.databases.len(), 2);
    }

    #[test]
    fn what_needs_sockets_or_nodes_waits_for_the_next_start() {
        let after = "
            listener = [{ address = '127.0.0.1:6433' }]
            cluster.main.nodes = [{ address = '10.0.0.1:5432' }, { address = '10.0.0.2:5432' }]
            cluster.second.nodes = [{ address = '10.0.1.1:5432' }]
            database.app = { cluster = 'second', dbname = 'two' }
            database.new = { cluster = 'main', pool = { size = 7 } }
            database.other = { cluster = 'second' }
            auth = { users_file = 'users' }
            admin = { http = '127.0.0.1:9187', users = ['alice'], queries = 10 }
            process.workers = 2
            log.level = 'debug'
            limits = { max_clients = 5, max_message = '1MiB', pipeline_buffer = '2MiB' }
            [timeouts]
            login = '7s'
            query = '1min'
            connect = '3s'
            cancel = '4s'
            shutdown = '5s'
            tcp_keepalive = '6s'
            tcp_user = '7s'
            [peering]
            id = 3
            ";
        let (before, after) = (parse(BEFORE), parse(after));
        let (config, pending) = before.reloaded(after.clone());
        let keys = [
            "process.workers",
            "listener",
            "cluster.main",
            "cluster.second",
            "admin.http",
            "admin.queries",
            "limits.pipeline_buffer",
            "limits.max_message",
            "timeouts.connect",
            "timeouts.cancel",
            "timeouts.shutdown",
            "timeouts.tcp_keepalive",
            "timeouts.tcp_user",
            "peering",
            "log",
            "database.app",
            "database.other",
        ];
        assert_eq!(pending, keys);
        // What the table of keys says of each is what becomes of it.
        for key in keys.iter().filter(|key| !key.starts_with("database")) {
            let of_table = |path: &str| {
                let path = path.replace("<name>", "main").replace("[]", "");
                path.starts_with(&key.replace("second", "main")) && !path.starts_with("database")
            };
            let mut paths = KEYS
                .iter()
                .map(|key| key.path())
                .filter(|path| of_table(path));
            assert!(paths.all(counts_from_the_next_start), "{key}");
        }
        assert!(!counts_from_the_next_start("timeouts.query"));
        let names: Vec<_> = config.databases.iter().map(|known| &*known.name).collect();
        assert_eq!(names, ["app", "new"]);
        assert_eq!(config.databases[0].dbname.as_deref(), Some("one"));
        assert_eq!(config.databases[1].pool.size, 7);
        assert_eq!(
            (config.limits.max_clients, config.workers),
            (5, before.workers)
        );
        assert_eq!(config.limits.max_message, before.limits.max_message);
        assert_eq!(config.timeouts.login, after.timeouts.login);
        assert_eq!(config.timeouts.query, after.timeouts.query);
        assert_eq!(config.timeouts.connect, before.timeouts.connect);
        assert_eq!(config.admin.users, ["alice"]);
        assert!(config.auth.users.is_some());
        // Asked again, it says the same: nothing of it has been applied.
        assert_eq!(config.reloaded(after).1, keys);
    }

    #[test]
    fn a_cluster_that_is_gone_stays_until_the_next_start() {
        let two = format!("{BEFORE}\ncluster.second.nodes = [{{ address = '10.0.1.1:5432' }}]")
            .replace("database.app = {", "database.app = { cluster = 'main',")
            .replace("database.old = {}", "database.old = { cluster = 'second' }");
        let (config, pending) = parse(&two).reloaded(parse(BEFORE));
        assert_eq!(pending, ["cluster.second"]);
        assert_eq!(config.clusters.len(), 2);
        assert_eq!(config.databases[1].cluster, "main");
    }
}
